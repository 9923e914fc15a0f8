#include "spec.hpp"

#include <charconv>
#include <cmath>

#include "error.hpp"
#include "json.hpp"

namespace salstream {
namespace {

constexpr const char *schema_version = "1";

[[noreturn]] void unreadable(const std::string &name, const std::string &value) {
    throw Error(SAL_MODEL_DAMAGED, "its metadata entry salstream." + name +
                                       " cannot be read: " + quoted(value));
}

class Entries {
  public:
    explicit Entries(const std::map<std::string, std::string> &metadata) : metadata_(metadata) {}

    const std::string *find(const std::string &name) const {
        const auto entry = metadata_.find("salstream." + name);
        return entry == metadata_.end() ? nullptr : &entry->second;
    }

    const std::string &required(const std::string &name) const {
        if (const std::string *value = find(name)) return *value;
        throw Error(SAL_MODEL_DAMAGED, "its metadata are incomplete: salstream." + name +
                                           " is missing; export it again");
    }

    int integer(const std::string &name, const std::string &text, int low, int high) const {
        int value = 0;
        const char *end = text.data() + text.size();
        const auto [stop, problem] = std::from_chars(text.data(), end, value);
        if (text.empty() || problem != std::errc() || stop != end) unreadable(name, text);
        if (value < low || value > high) {
            throw Error(SAL_MODEL_DAMAGED,
                        "its metadata entry salstream." + name + " must lie in " +
                            std::to_string(low) + " to " + std::to_string(high) + ", got " +
                            std::to_string(value));
        }
        return value;
    }

    int integer_or(const std::string &name, int otherwise, int low, int high) const {
        const std::string *text = find(name);
        return text ? integer(name, *text, low, high) : otherwise;
    }

    std::optional<double> number(const std::string &name) const {
        const std::string *text = find(name);
        if (!text) return std::nullopt;
        const std::optional<double> value = json::number(*text);
        if (!value) unreadable(name, *text);
        return value;
    }

    std::optional<double> rate(const std::string &name) const {
        const auto fps = number(name);
        if (fps && !(*fps > 0 && std::isfinite(*fps))) {
            throw Error(SAL_MODEL_DAMAGED, name + " must be above 0, got " + quoted(*find(name)));
        }
        return fps;
    }

    std::string text_or(const std::string &name, const std::string &otherwise) const {
        const std::string *text = find(name);
        return text ? *text : otherwise;
    }

    void one_of(const std::string &name, std::initializer_list<const char *> known) const {
        const std::string *value = find(name);
        if (!value) return;
        std::string list;
        for (const char *each : known) {
            if (*value == each) return;
            list += (list.empty() ? "" : ", ") + std::string(each);
        }
        throw Error(SAL_MODEL_DAMAGED,
                    name + " must be one of " + list + ", got " + quoted(*value));
    }

  private:
    const std::map<std::string, std::string> &metadata_;
};

// A rate of the source over one of the graph's, as a whole number.
int steps(double ratio, int most, const std::string &what) {
    const double wanted = std::nearbyint(ratio);
    if (!(wanted <= most)) {
        throw Error(SAL_INVALID_ARGUMENT, "fps asks for more than " + std::to_string(most) + " " +
                                              what + "; give their number");
    }
    return wanted < 1 ? 1 : static_cast<int>(wanted);
}

}  // namespace

int GraphSpec::phases_at(double fps) const {
    return fps == 0 || !state_fps ? phases : steps(fps / *state_fps, max_phases, "phases");
}

int GraphSpec::stride_at(double fps) const {
    const bool free = fps == 0 || !window_fps || window == 1;
    return free ? 1 : steps(fps / *window_fps, max_stride, "interleaved windows");
}

GraphSpec GraphSpec::from_metadata(const std::map<std::string, std::string> &metadata) {
    const Entries entries(metadata);
    const std::string *schema = entries.find("schema");
    if (!schema) {
        throw Error(SAL_MODEL_DAMAGED,
                    "it has no salstream metadata; make one with `salstream export`");
    }
    if (*schema != schema_version) {
        throw Error(SAL_SCHEMA_UNKNOWN, "its metadata have schema version " + quoted(*schema) +
                                            ", this salstream reads " + schema_version +
                                            "; export it again with this version");
    }
    GraphSpec spec;
    spec.model = entries.required("model");
    spec.domain = entries.required("domain");
    spec.height = entries.integer("height", entries.required("height"), 1, max_side);
    spec.width = entries.integer("width", entries.required("width"), 1, max_side);
    spec.window = entries.integer_or("window", 1, 1, max_window);
    spec.map_frame = entries.integer_or("map_frame", 0, 0, spec.window - 1);
    spec.phases = entries.integer_or("phases", 1, 1, max_phases);
    spec.state_fps = entries.rate("state_fps");
    spec.window_fps = entries.rate("window_fps");
    if (6LL * spec.window * spec.height * spec.width > max_window_bytes) {
        throw Error(SAL_MODEL_DAMAGED, "its metadata ask for a window of more than 2 GiB");
    }
    entries.one_of("resize", {"pyramid"});
    entries.one_of("fit", {"stretch", "letterbox"});
    spec.letterbox = entries.text_or("fit", "stretch") == "letterbox";
    (void)entries.number("smoothing_sigma");
    spec.precision = entries.text_or("precision", spec.precision);
    spec.license = entries.text_or("license", spec.license);
    spec.attribution = entries.text_or("attribution", spec.attribution);
    for (const char *name : {"verification", "calibration"}) {
        const std::string *figures = entries.find(name);
        if (figures && !json::valid(*figures)) unreadable(name, *figures);
    }
    return spec;
}

}  // namespace salstream

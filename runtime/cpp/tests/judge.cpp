// Says of files what the library says, for the cases that drive Python and C++ alike
// (tests/cpp/test_same_rules.py):
//
//     judge FILE...
//
// NAME.sidecar is an engine's sidecar, any other file a graph's metadata as a JSON object. One
// line for each: "no", or "yes" and the facts in it.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "error.hpp"
#include "json.hpp"
#include "sidecar.hpp"
#include "spec.hpp"

namespace {

void sidecar(const std::string &text) {
    const auto facts = salstream::Sidecar::from_json(text);
    std::printf("yes %d", facts.smallest_batch);
    for (const auto &[major, minor] : {std::pair{7, 5}, {8, 0}, {8, 6}, {12, 0}}) {
        std::printf(" %d", facts.fits(major, minor));
    }
    for (const auto &[name, tensor] : facts.tensors) {
        std::printf(" %s %d %s", name.c_str(), tensor.is_input, tensor.dtype.c_str());
        for (std::size_t i = 1; i < tensor.shape.size(); ++i) {
            std::printf(" %lld", static_cast<long long>(tensor.shape[i]));
        }
    }
    std::printf("\n");
}

void metadata(const std::string &text) {
    std::map<std::string, std::string> entries;
    const auto whole = salstream::json::parse(text);
    if (!whole) throw salstream::Error(SAL_INTERNAL, "no JSON");
    for (const auto &[name, value] : whole->members) entries[name] = value.text;
    const auto spec = salstream::GraphSpec::from_metadata(entries);
    std::printf("yes %d %d %d %d %d %d %d %d\n", spec.height, spec.width, spec.window, spec.map_frame,
                spec.phases, spec.phases_at(30), spec.stride_at(30), spec.letterbox);
}

}  // namespace

int main(int argc, char **argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string path = argv[i];
        std::ifstream file(path, std::ios::binary);
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        try {
            (path.find(".sidecar") == std::string::npos ? metadata : sidecar)(text);
        } catch (const salstream::Error &error) {
            if (error.status == SAL_INTERNAL || !*error.what()) return 1;
            std::printf("no %s\n", error.what());
        }
    }
    return 0;
}

#include "json.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>

namespace salstream::json {
namespace {

constexpr int max_depth = 32;

// Read one character of UTF-8; false if the bytes are none.
bool character(const char *&at, const char *end, unsigned &code) {
    const unsigned lead = static_cast<unsigned char>(*at++);
    const int more = lead < 0x80 ? 0 : lead < 0xC2 ? -1 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2
                     : lead < 0xF5 ? 3 : -1;
    if (more < 0 || end - at < more) return false;
    code = more ? lead & (0x3Fu >> more) : lead;
    for (int k = 0; k < more; ++k) {
        const unsigned next = static_cast<unsigned char>(*at++);
        if (next >> 6 != 2) return false;
        code = code << 6 | (next & 0x3Fu);
    }
    static constexpr unsigned first[] = {0, 0x80, 0x800, 0x10000};  // shorter ones are no UTF-8
    return code >= first[more] && code < 0x110000 && (code < 0xD800 || code >= 0xE000);
}

// A text in quotes, in ASCII.
std::string escaped(const std::string &text) {
    static constexpr char names[] = "\"\\bfnrt", meant[] = "\"\\\b\f\n\r\t";
    std::string out = "\"";
    const auto unit = [&](unsigned code) {
        out += "\\u";
        for (int shift = 12; shift >= 0; shift -= 4) out += "0123456789abcdef"[code >> shift & 15];
    };
    const char *at = text.data(), *const end = at + text.size();
    for (unsigned code = 0; at != end && character(at, end, code);) {
        const char *known =
            code && code < 0x80 ? std::strchr(meant, static_cast<int>(code)) : nullptr;
        if (known) {
            out += '\\';
            out += names[known - meant];
        } else if (code >= 0x20 && code < 0x7f) {
            out += static_cast<char>(code);
        } else if (code < 0x10000) {
            unit(code);
        } else {
            unit(0xD800 + (code - 0x10000) / 0x400);
            unit(0xDC00 + (code - 0x10000) % 0x400);
        }
    }
    return out + "\"";
}

class Reader {
  public:
    explicit Reader(const std::string &text)
        : at_(text.data()), end_(text.data() + text.size()) {}

    std::optional<Value> document() {
        Value value;
        if (!read(value, 0)) return std::nullopt;
        space();
        if (at_ != end_) return std::nullopt;
        return value;
    }

    bool number(std::string &text) {
        const char *begin = at_;
        if (literal("NaN") || literal("Infinity") || literal("-Infinity")) {
            text.assign(begin, at_);
            return true;
        }
        take('-');
        if (!take('0') && !digits()) return false;
        if (take('.') && !digits()) return false;
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            if (!digits()) return false;
        }
        text.assign(begin, at_);
        return true;
    }

    bool finished() const { return at_ == end_; }

  private:
    bool read(Value &value, int depth) {
        if (depth > max_depth) return false;
        space();
        if (at_ == end_) return false;
        switch (*at_) {
            case '{':
                value.kind = Value::Kind::object;
                return members(value, depth, '}');
            case '[':
                value.kind = Value::Kind::array;
                return members(value, depth, ']');
            case '"':
                value.kind = Value::Kind::string;
                return string(value.text);
            default:
                break;
        }
        if (literal("null")) return true;
        const bool yes = literal("true");
        if (yes || literal("false")) {
            value.kind = Value::Kind::boolean;
            value.text = yes ? "true" : "false";
            return true;
        }
        value.kind = Value::Kind::number;
        return number(value.text);
    }

    bool members(Value &value, int depth, char close) {
        ++at_;
        space();
        if (take(close)) return true;
        do {
            std::string name;
            if (close == '}') {
                space();
                if (at_ == end_ || *at_ != '"' || !string(name)) return false;
                space();
                if (!take(':')) return false;
            }
            value.members.emplace_back(std::move(name), Value());
            if (!read(value.members.back().second, depth + 1)) return false;
            space();
        } while (take(','));
        return take(close);
    }

    bool string(std::string &text) {
        ++at_;
        while (at_ != end_ && *at_ != '"') {
            if (static_cast<unsigned char>(*at_) < 0x20) return false;
            if (*at_ != '\\') {
                const char *begin = at_;
                unsigned code = 0;
                if (!character(at_, end_, code)) return false;
                text.append(begin, at_);
                continue;
            }
            if (++at_ == end_) return false;
            const char escape = *at_++;
            static constexpr char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
            const char *known = escape ? std::strchr(names, escape) : nullptr;
            if (known) {
                text += meant[known - names];
            } else if (escape != 'u' || !unicode(text)) {
                return false;
            }
        }
        return take('"');
    }

    bool unicode(std::string &text) {
        unsigned code = 0;
        if (!hex(code)) return false;
        if (code >= 0xDC00 && code < 0xE000) return false;
        if (code >= 0xD800 && code < 0xDC00) {
            unsigned low = 0;
            if (!take('\\') || !take('u') || !hex(low) || low < 0xDC00 || low >= 0xE000) {
                return false;
            }
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        const auto tail = [&](int shift) {
            text += static_cast<char>(0x80 | (code >> shift & 0x3F));
        };
        if (code < 0x80) {
            text += static_cast<char>(code);
        } else if (code < 0x800) {
            text += static_cast<char>(0xC0 | code >> 6);
            tail(0);
        } else if (code < 0x10000) {
            text += static_cast<char>(0xE0 | code >> 12);
            tail(6), tail(0);
        } else {
            text += static_cast<char>(0xF0 | code >> 18);
            tail(12), tail(6), tail(0);
        }
        return true;
    }

    bool hex(unsigned &code) {
        if (end_ - at_ < 4) return false;
        const auto [stop, problem] = std::from_chars(at_, at_ + 4, code, 16);
        if (problem != std::errc() || stop != at_ + 4) return false;
        at_ += 4;
        return true;
    }

    bool digits() {
        const char *begin = at_;
        while (at_ != end_ && *at_ >= '0' && *at_ <= '9') ++at_;
        return at_ != begin;
    }

    bool literal(const char *word) {
        const std::size_t length = std::strlen(word);
        if (static_cast<std::size_t>(end_ - at_) < length || std::memcmp(at_, word, length) != 0) {
            return false;
        }
        at_ += length;
        return true;
    }

    bool take(char wanted) {
        if (at_ == end_ || *at_ != wanted) return false;
        ++at_;
        return true;
    }

    void space() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
    }

    const char *at_, *end_;
};

}  // namespace

const Value *Value::find(const std::string &name) const {
    const Value *found = nullptr;
    for (const auto &[key, value] : members) {
        if (kind == Kind::object && key == name) found = &value;
    }
    return found;
}

std::string canonical(const Value &value) {
    std::string out;
    switch (value.kind) {
        case Value::Kind::null:
            return "null";
        case Value::Kind::boolean:
        case Value::Kind::number:
            return value.text;
        case Value::Kind::string:
            return escaped(value.text);
        case Value::Kind::array:
            for (const auto &[_, member] : value.members) {
                out += (out.empty() ? "" : ", ") + canonical(member);
            }
            return "[" + out + "]";
        case Value::Kind::object:
            break;
    }
    std::map<std::string, const Value *> sorted;
    for (const auto &[name, member] : value.members) sorted[name] = &member;  // the last counts
    for (const auto &[name, member] : sorted) {
        out += (out.empty() ? "" : ", ") + escaped(name) + ": " + canonical(*member);
    }
    return "{" + out + "}";
}

namespace {

// A number as Python writes it: the shortest digits that mean it, and a float looks like one.
std::string python_number(const std::string &text) {
    if (text.find_first_of(".eE") == std::string::npos) {  // an integer, NaN or Infinity
        return text == "-0" ? "0" : text.substr(0, 4300);   // Python reads no longer ones
    }
    double value = 0;
    const auto [stop, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc()) return "Infinity";  // or 0.0: not what stood there
    char digits[400];
    const auto write = [&](std::chars_format format) {
        return std::string(digits, std::to_chars(digits, std::end(digits), value, format).ptr);
    };
    const std::string scientific = write(std::chars_format::scientific);
    const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
    if (exponent < -4 || exponent >= 16) return scientific;
    const std::string fixed = write(std::chars_format::fixed);
    return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

void write(const Value &value, std::size_t depth, std::string &out) {
    const bool object = value.kind == Value::Kind::object;
    if (!object && value.kind != Value::Kind::array) {
        out += value.kind == Value::Kind::number ? python_number(value.text) : canonical(value);
        return;
    }
    out += object ? '{' : '[';
    for (std::size_t i = 0; i < value.members.size(); ++i) {
        const auto &[name, member] = value.members[i];
        out += (i ? ",\n" : "\n") + std::string(depth + 1, ' ');
        if (object) out += escaped(name) + ": ";
        write(member, depth + 1, out);
    }
    if (!value.members.empty()) out += "\n" + std::string(depth, ' ');
    out += object ? '}' : ']';
}

}  // namespace

std::string written(const Value &value) {
    std::string out;
    write(value, 0, out);
    return out;
}

std::optional<Value> parse(const std::string &text) { return Reader(text).document(); }

std::optional<double> number(const std::string &text) {
    Reader reader(text);
    std::string whole;
    double value = 0;
    if (!reader.number(whole) || !reader.finished()) return std::nullopt;
    const auto [stop, problem] = std::from_chars(whole.data(), whole.data() + whole.size(), value);
    if (problem != std::errc() || stop != whole.data() + whole.size()) return std::nullopt;
    return value;
}

}  // namespace salstream::json

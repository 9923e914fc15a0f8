// A reader of JSON, for an engine's sidecar. Strict, and bounded in depth.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace salstream::json {

struct Value {
    enum class Kind { null, boolean, number, string, array, object };
    Kind kind = Kind::null;
    std::string text;                                   // of a string, number or boolean
    std::vector<std::pair<std::string, Value>> members;  // of an object, or of an array (no keys)

    // The last member of that name, or null.
    const Value *find(const std::string &name) const;
};

// The whole text as one value, or nothing if it is not JSON. NaN and Infinity are numbers, as
// Python writes them.
std::optional<Value> parse(const std::string &text);

// The value as Python's json.dumps(value, sort_keys=True) writes it, but for numbers, which stay
// as they are.
std::string canonical(const Value &value);

// The value as Python's json.dumps(value, indent=1) writes it, numbers included.
std::string written(const Value &value);

inline bool valid(const std::string &text) { return parse(text).has_value(); }

// The whole text as one number, as JSON or Python writes it.
std::optional<double> number(const std::string &text);

}  // namespace salstream::json

// What an engine says about itself: NAME.engine.json beside NAME.engine.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace salstream {

// An input or output of an engine.
struct TensorFacts {
    bool is_input;
    std::string dtype;                // name of the numpy type
    std::vector<std::int64_t> shape;  // for a batch of one

    bool operator==(const TensorFacts &other) const {
        return is_input == other.is_input && dtype == other.dtype && shape == other.shape;
    }
};

// The counterpart of Python's Sidecar, as far as running the engine needs it.
struct Sidecar {
    std::string engine_sha256;  // of the engine's file
    std::string flavour;        // "tensorrt" or "tensorrt-rtx"
    std::string version;        // of the library that built it, and the only one that runs it
    std::vector<std::string> compute_capabilities;  // such as "8.6"; empty: the library's choice
    int smallest_batch = 1;
    std::map<std::string, std::string> metadata;  // the graph's
    std::map<std::string, TensorFacts> tensors;

    // By Python's rules: every entry, no other, in its order, as Python writes them. Throws
    // SAL_SCHEMA_UNKNOWN or SAL_MODEL_DAMAGED.
    static Sidecar from_json(const std::string &text);

    // Whether the engine was built for a GPU of this compute capability.
    bool fits(int major, int minor) const;
};

// An engine's bytes and its sidecar, which belong together.
struct Engine {
    std::string bytes;
    Sidecar sidecar;
};
Engine read_engine(const std::string &path);

// SHA-256 (FIPS 180-4) as 64 hexadecimal digits.
std::string sha256(const std::string &bytes);

}  // namespace salstream

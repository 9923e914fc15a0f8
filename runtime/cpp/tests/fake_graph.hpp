// The "graphs" of the stand-ins for inference libraries.
//
// One is a text: lines `meta KEY VALUE`, `input NAME TYPE SIDE…`, `output NAME TYPE SIDE…` with
// the types u8 and f32. Every value of a map is the mean of the first bytes of its window's
// frames, each weighted by its place, plus half the state's first value; it is the state after.
#pragma once

#include <algorithm>
#include <cstdint>
#include <istream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace fake {

struct Tensor {
    std::string name;
    bool bytes;  // or floats
    std::vector<std::int64_t> shape;

    std::size_t values() const {  // of one item of the batch
        std::size_t count = 1;
        for (std::size_t i = 1; i < shape.size(); ++i) count *= static_cast<std::size_t>(shape[i]);
        return count;
    }
};

struct Graph {
    std::map<std::string, std::string> metadata;
    std::vector<Tensor> inputs, outputs;

    bool read(std::istream &file) {
        for (std::string line; std::getline(file, line);) {
            std::istringstream words(line);
            std::string kind, name, type;
            words >> kind >> name;
            if (kind.empty()) continue;
            if (kind == "meta") {
                std::string value;
                std::getline(words >> std::ws, value);
                metadata[name] = value;
            } else if (kind == "input" || kind == "output") {
                words >> type;
                Tensor tensor{name, type == "u8", {}};
                for (std::int64_t side; words >> side;) tensor.shape.push_back(side);
                (kind == "input" ? inputs : outputs).push_back(tensor);
            } else {
                return false;
            }
        }
        return true;
    }

    float value(const void *frames, const float *state) const {
        const auto *bytes = static_cast<const unsigned char *>(frames);
        std::size_t window = 1, frame = 1;
        for (const Tensor &tensor : inputs) {
            if (tensor.name != "frames") continue;
            window = static_cast<std::size_t>(tensor.shape[1]);
            frame = tensor.values() / window;
        }
        float sum = 0;
        for (std::size_t i = 0; i < window; ++i) {
            sum += static_cast<float>(bytes[i * frame]) * static_cast<float>(i + 1) / 255.0f;
        }
        return sum / static_cast<float>(window * (window + 1)) * 2 + (state ? *state / 2 : 0);
    }
};

}  // namespace fake

// Inference libraries: each runs a graph, and nothing else.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "salstream/salstream.h"
#include "spec.hpp"

namespace salstream {

constexpr std::size_t max_values = std::size_t{1} << 30;  // of one tensor; a stream has less

// Values of one item of a batch, the shape's first side being the batch's; `max_values` + 1 for a
// tensor that no graph of ours has: with more values, or with sides that are not fixed.
std::size_t item_values(const std::vector<std::int64_t> &shape);

// Whether an inference library's own text says that memory ran out.
bool says_no_memory(const char *text);

// The memory of one stream of windows in a backend: a ring of frames, a state per phase. For one
// thread at a time. The stream's rules are not its business.
class Lane {
  public:
    virtual ~Lane() = default;
    // Add a frame, uint8 RGB of the model's size; the oldest one falls out.
    virtual void push(const std::uint8_t *frame) = 0;
    // Add the newest frame again.
    virtual void repeat() = 0;
    // Forget frames and states.
    virtual void clear() = 0;
    // Run the graph on the whole window with the state of a phase, which goes on.
    virtual void run(int phase, float *saliency, float *conspicuity) = 0;
    // Run it without a state on frames by their age (0: the newest), one for each of the window.
    virtual void run(const int *ages, float *saliency, float *conspicuity) = 0;
};

// A graph that is ready to run. Immutable; shared by threads.
class Backend {
  public:
    virtual ~Backend() = default;
    virtual std::unique_ptr<Lane> lane(int phases) const = 0;

    GraphSpec spec;
    std::string name;  // library and device
    bool recurrent = false;
    int map_height = 0, map_width = 0;
    int conspicuity_levels = 0;  // 0: none
    std::size_t state_values = 0;  // floats of one state

    std::size_t map_values() const {
        return static_cast<std::size_t>(map_height) * static_cast<std::size_t>(map_width);
    }
};

std::unique_ptr<Backend> open_onnxruntime(const std::string &path, const sal_model_options &);
// Throws SAL_LIBRARY_MISSING in a library that was built without TensorRT.
std::unique_ptr<Backend> open_tensorrt(const std::string &path, const sal_model_options &);

// Open a file by its suffix: .onnx or .engine.
std::unique_ptr<Backend> open_backend(const std::string &path, const sal_model_options &);

}  // namespace salstream

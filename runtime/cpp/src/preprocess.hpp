// From a camera's frame to what a graph takes: the model's size, RGB. Python's `prepare`.
#pragma once

#include <cstdint>
#include <vector>

#include "resize.hpp"
#include "salstream/salstream.h"

namespace salstream {

// Where a letterboxed frame lies, in pixels.
struct Placement {
    int top, left, height, width;
};
Placement placement(int frame_height, int frame_width, int height, int width);

// Refuse a frame that cannot be read: null pointers, sizes, pitches.
void check(const sal_frame &frame);

// Keeps its buffers from frame to frame; one per stream.
class Preprocessor {
  public:
    // Size of the network's input; `letterbox`: the frame keeps its proportions, on black.
    Preprocessor(int height, int width, bool letterbox)
        : height_(height), width_(width), letterbox_(letterbox) {}

    // uint8 RGB, height x width x 3; it stays until the next call.
    const std::uint8_t *operator()(const sal_frame &frame);

  private:
    const std::uint8_t *resized(const sal_frame &frame, int height, int width);

    int height_, width_;
    bool letterbox_;
    Halver halve_;
    Cubic cubic_;
    std::vector<std::uint8_t> halves_[2], bgr_, rgb_, canvas_;
};

}  // namespace salstream

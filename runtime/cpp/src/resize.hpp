// Resampling of pictures and maps, with the same arithmetic as OpenCV's `resize`.
//
// Frames come out bit for bit as from OpenCV without Intel's IPP; that needs float products and
// sums that are rounded one by one (-ffp-contract=off in CMakeLists.txt).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace salstream {

// Rows of interleaved 8-bit channels; what it points to is not its own.
struct Image {
    const std::uint8_t *data;
    int height, width, channels;
    std::size_t pitch;  // bytes from row to row

    const std::uint8_t *row(int y) const { return data + pitch * static_cast<std::size_t>(y); }
};

// Halves a picture, rounding its sides down: INTER_AREA. Each pixel is the mean of those it
// covers.
class Halver {
  public:
    // `to` has room for (height / 2) x (width / 2) pixels without gaps.
    void operator()(const Image &from, std::uint8_t *to);

  private:
    // A source pixel's share in a target pixel.
    struct Share {
        int from, to;
        float weight;
    };
    static void shares(int from, int to, std::vector<Share> &out);
    void by_areas(const Image &from, std::uint8_t *to);

    std::vector<Share> columns_, rows_;
    std::vector<float> row_, total_;
};

// Bicubic interpolation (A = -0.75, weights of 11 bits) of 3 interleaved channels: INTER_CUBIC.
class Cubic {
  public:
    // `to` has room for height x width pixels without gaps.
    void operator()(const Image &from, std::uint8_t *to, int height, int width);

  private:
    struct Tap {
        int first;  // of the four source positions; may lie outside, where the edge is repeated
        std::int16_t weights[4];
    };
    static void taps(int from, int to, std::vector<Tap> &out);
    void filter_row(const std::uint8_t *from, int from_width, std::int32_t *to) const;

    int from_height_ = 0, from_width_ = 0, height_ = 0, width_ = 0;
    std::vector<Tap> columns_, rows_;
    std::vector<std::int32_t> filtered_;  // four source rows, filtered along the row
    int filtered_row_[4] = {};            // which ones
};

// Linear interpolation of float maps: INTER_LINEAR.
class Linear {
  public:
    // `from` has `pitch` values from row to row; `to` has no gaps.
    void operator()(const float *from, std::size_t pitch, int from_height, int from_width,
                    float *to, int height, int width);

  private:
    struct Tap {
        int first, second;
        float weight;  // of the second
    };
    static void taps(int from, int to, std::vector<Tap> &out);

    int from_height_ = 0, from_width_ = 0, height_ = 0, width_ = 0;
    std::vector<Tap> columns_, rows_;
    std::vector<float> filtered_;
};

}  // namespace salstream

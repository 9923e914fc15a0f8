#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "error.hpp"

namespace salstream {
namespace {

constexpr int max_frame_side = 32768;

int channels_of(int format) {
    switch (format) {
        case SAL_BGR:
        case SAL_RGB:
            return 3;
        case SAL_BGRA:
            return 4;
        case SAL_NV12:
        case SAL_GRAY:
            return 1;
        default:
            return 0;
    }
}

std::size_t row_bytes(const sal_frame &frame) {
    return static_cast<std::size_t>(frame.width) *
           static_cast<std::size_t>(channels_of(frame.format));
}

std::size_t pitch_of(const sal_frame &frame) {
    return frame.pitch ? frame.pitch : row_bytes(frame);
}

// BT.601 in limited range, with OpenCV's constants of 20 bits (COLOR_YUV2BGR_NV12).
void nv12_to_bgr(const sal_frame &frame, std::uint8_t *to) {
    const std::size_t pitch = pitch_of(frame);
    const std::size_t chroma_pitch = frame.chroma_pitch ? frame.chroma_pitch : pitch;
    const std::uint8_t *chroma =
        frame.chroma ? frame.chroma : frame.data + pitch * static_cast<std::size_t>(frame.height);
    const auto byte = [](int value) {
        return static_cast<std::uint8_t>(std::clamp(value >> 20, 0, 255));
    };
    for (int y = 0; y < frame.height; ++y) {
        const std::uint8_t *luma = frame.data + pitch * static_cast<std::size_t>(y);
        const std::uint8_t *uv = chroma + chroma_pitch * static_cast<std::size_t>(y / 2);
        for (int x = 0; x < frame.width; x += 2) {
            const int u = uv[x] - 128, v = uv[x + 1] - 128;
            const int half = 1 << 19;
            const int red = half + 1673527 * v;
            const int green = half - 852492 * v - 409993 * u;
            const int blue = half + 2116026 * u;
            for (int i = 0; i < 2; ++i, to += 3) {
                const int grey = std::max(0, luma[x + i] - 16) * 1220542;
                to[0] = byte(grey + blue), to[1] = byte(grey + green), to[2] = byte(grey + red);
            }
        }
    }
}

// Rows of any other format as BGR without gaps.
void to_bgr(const Image &from, int format, std::uint8_t *to) {
    const int channels = from.channels;
    const int blue = format == SAL_RGB ? 2 : 0, green = format == SAL_GRAY ? 0 : 1;
    const int red = format == SAL_RGB || format == SAL_GRAY ? 0 : 2;
    for (int y = 0; y < from.height; ++y) {
        const std::uint8_t *row = from.row(y);
        for (int x = 0; x < from.width; ++x, row += channels, to += 3) {
            to[0] = row[blue], to[1] = row[green], to[2] = row[red];
        }
    }
}

// Buffers only grow, so that a stream of frames of one size allocates nothing.
void make_room(std::vector<std::uint8_t> &buffer, int height, int width, int channels) {
    const std::size_t bytes = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) *
                              static_cast<std::size_t>(channels);
    if (buffer.size() < bytes) buffer.resize(bytes);
}

}  // namespace

Placement placement(int frame_height, int frame_width, int height, int width) {
    const double scale = std::min(static_cast<double>(height) / frame_height,
                                  static_cast<double>(width) / frame_width);
    const auto fitted = [scale](int length, int whole) {
        return std::min(whole, std::max(1, static_cast<int>(std::nearbyint(length * scale))));
    };
    const int h = fitted(frame_height, height), w = fitted(frame_width, width);
    return {(height - h) / 2, (width - w) / 2, h, w};
}

void check(const sal_frame &frame) {
    const auto refuse = [](const std::string &text) { throw Error(SAL_INVALID_ARGUMENT, text); };
    if (!frame.data) refuse("the frame's data is a null pointer");
    if (frame.format < SAL_BGR || frame.format > SAL_GRAY) {
        refuse("unknown frame format " + std::to_string(frame.format));
    }
    const std::string size = std::to_string(frame.height) + "x" + std::to_string(frame.width);
    if (std::min(frame.height, frame.width) < 1 ||
        std::max(frame.height, frame.width) > max_frame_side) {
        refuse("a frame's height and width must be 1 to " + std::to_string(max_frame_side) +
               ", got " + size);
    }
    const bool nv12 = frame.format == SAL_NV12;
    if (nv12 && (frame.height % 2 || frame.width % 2)) {
        refuse("height and width of an NV12 frame must be even, got " + size);
    }
    const std::size_t row = row_bytes(frame);
    if ((frame.pitch && frame.pitch < row) ||
        (nv12 && frame.chroma_pitch && frame.chroma_pitch < row)) {
        refuse("the frame's pitch is smaller than a row of " + std::to_string(row) + " bytes");
    }
    if (std::max(frame.pitch, frame.chroma_pitch) > (std::size_t{1} << 31)) {
        refuse("the frame's pitch is larger than 2 GiB");
    }
    if (frame.has_time && !std::isfinite(frame.time_s)) refuse("the frame's time is not finite");
    if (frame.has_index && (frame.index < 0 || frame.index > INT64_MAX / 2)) {
        refuse("the frame's index must be 0 or more, got " + std::to_string(frame.index));
    }
}

const std::uint8_t *Preprocessor::operator()(const sal_frame &frame) {
    if (!letterbox_) return resized(frame, height_, width_);
    const Placement at = placement(frame.height, frame.width, height_, width_);
    const std::uint8_t *picture = resized(frame, at.height, at.width);
    canvas_.assign(static_cast<std::size_t>(height_) * width_ * 3, 0);
    for (int y = 0; y < at.height; ++y) {
        std::copy_n(picture + static_cast<std::size_t>(y) * at.width * 3, at.width * 3,
                    canvas_.data() +
                        (static_cast<std::size_t>(at.top + y) * width_ + at.left) * 3);
    }
    return canvas_.data();
}

const std::uint8_t *Preprocessor::resized(const sal_frame &frame, int height, int width) {
    Image image{frame.data, frame.height, frame.width, channels_of(frame.format),
                pitch_of(frame)};
    int format = frame.format;
    if (format == SAL_NV12) {
        make_room(bgr_, image.height, image.width, 3);
        nv12_to_bgr(frame, bgr_.data());
        image = {bgr_.data(), image.height, image.width, 3,
                 static_cast<std::size_t>(image.width) * 3};
        format = SAL_BGR;
    }
    for (int turn = 0; image.height >= 2 * height && image.width >= 2 * width; turn ^= 1) {
        make_room(halves_[turn], image.height / 2, image.width / 2, image.channels);
        halve_(image, halves_[turn].data());
        image = {halves_[turn].data(), image.height / 2, image.width / 2, image.channels,
                 static_cast<std::size_t>(image.width / 2) *
                     static_cast<std::size_t>(image.channels)};
    }
    // Channels change places after the means, which are the same for each; the bicubic step
    // wants OpenCV's order, because it rounds the ends of rows differently.
    if (format != SAL_BGR) {
        make_room(bgr_, image.height, image.width, 3);
        to_bgr(image, format, bgr_.data());
        image = {bgr_.data(), image.height, image.width, 3,
                 static_cast<std::size_t>(image.width) * 3};
    }
    make_room(rgb_, height, width, 3);
    if (image.height == height && image.width == width) {
        to_bgr(image, SAL_RGB, rgb_.data());
        return rgb_.data();
    }
    cubic_(image, rgb_.data(), height, width);
    const std::size_t bytes = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3;
    for (std::size_t i = 0; i < bytes; i += 3) std::swap(rgb_[i], rgb_[i + 2]);
    return rgb_.data();
}

}  // namespace salstream

// salstream.hpp: the C interface for C++17, with owners, exceptions and views. Header only.
//
//     auto model = sal::Model::open("unisal-dhf1k.onnx");
//     auto stream = model.stream();
//     stream.push(sal::Frame(pixels, height, width));
//     while (auto result = stream.next()) show(result->index, result->floats());
//     stream.flush();  // and once more: while (auto result = stream.next()) …
//
// Define SALSTREAM_OPENCV before including it for frames from and maps as cv::Mat.
// Threads and ownership are those of salstream.h.
#ifndef SALSTREAM_HPP
#define SALSTREAM_HPP

#if __cplusplus < 201703L
#error "salstream.hpp takes C++17: compile with -std=c++17 or later"
#endif

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "salstream.h"

#ifdef SALSTREAM_OPENCV
#include <opencv2/core.hpp>
#endif

namespace sal {

// A call that failed; what() is a sentence.
class Exception : public std::runtime_error {
  public:
    Exception(sal_status status, const char *text) : std::runtime_error(text), status_(status) {}
    sal_status status() const noexcept { return status_; }

  private:
    sal_status status_;
};

// SAL_NONE is no failure; false for it.
inline bool check(sal_status status) {
    if (status == SAL_OK) return true;
    if (status == SAL_NONE) return false;
    const char *text = sal_last_error();
    throw Exception(status, *text ? text : sal_status_text(status));
}

// Values in a row that belong to someone else; a std::span for C++17.
template <typename T>
class View {
  public:
    View() = default;
    View(const T *data, std::size_t size) : data_(data), size_(size) {}
    const T *data() const { return data_; }
    std::size_t size() const { return size_; }
    bool empty() const { return size_ == 0; }
    const T *begin() const { return data_; }
    const T *end() const { return data_ + size_; }
    const T &operator[](std::size_t i) const { return data_[i]; }

  private:
    const T *data_ = nullptr;
    std::size_t size_ = 0;
};

// A picture that is only looked at; set the other fields of sal_frame as needed.
struct Frame : sal_frame {
    Frame(const std::uint8_t *pixels, int frame_height, int frame_width,
          sal_format pixel_format = SAL_BGR, std::size_t row_pitch = 0)
        : sal_frame{} {
        struct_size = sizeof(sal_frame);
        format = pixel_format;
        height = frame_height;
        width = frame_width;
        data = pixels;
        pitch = row_pitch;
    }

#ifdef SALSTREAM_OPENCV
    // 8 bits, 1 channel (grey), 3 (BGR) or 4 (BGRA).
    explicit Frame(const cv::Mat &image)
        : Frame(image.data, image.rows, image.cols, format_of(image), image.step[0]) {}

  private:
    static sal_format format_of(const cv::Mat &image) {
        if (image.dims != 2 || image.depth() != CV_8U ||
            (image.channels() != 1 && image.channels() != 3 && image.channels() != 4)) {
            throw Exception(SAL_INVALID_ARGUMENT,
                            "a frame must be a cv::Mat of 8 bits and 1, 3 or 4 channels");
        }
        return image.channels() == 1 ? SAL_GRAY : image.channels() == 3 ? SAL_BGR : SAL_BGRA;
    }
#endif
};

// The saliency of one frame. Its map belongs to the stream and stays until the next call on it.
struct Result : sal_result {
    int levels = 0;  // of conspicuity
    int map_height = 0, map_width = 0;

    // The map, height x width; empty if it has the other type.
    View<float> floats() const { return values<float>(SAL_FLOAT32); }
    View<std::uint8_t> bytes() const { return values<std::uint8_t>(SAL_UINT8); }

    // levels x map_height x map_width; empty if the graph gives none.
    View<float> conspicuity_maps() const {
        if (!conspicuity) return {};
        return {conspicuity, static_cast<std::size_t>(levels) *
                                 static_cast<std::size_t>(map_height) *
                                 static_cast<std::size_t>(map_width)};
    }

    std::optional<double> time() const {
        return has_time ? std::optional<double>(time_s) : std::nullopt;
    }

#ifdef SALSTREAM_OPENCV
    // The map as a picture of CV_32F or CV_8U: a view, clone() it to keep it.
    cv::Mat mat() const {
        return cv::Mat(height, width, type == SAL_UINT8 ? CV_8U : CV_32F, const_cast<void *>(map));
    }
#endif

  private:
    template <typename T>
    View<T> values(std::int32_t wanted) const {
        if (type != wanted) return {};
        return {static_cast<const T *>(map),
                static_cast<std::size_t>(height) * static_cast<std::size_t>(width)};
    }
};

// Options with their sizes set; assign the fields that matter.
struct ModelOptions : sal_model_options {
    ModelOptions() : sal_model_options{} { struct_size = sizeof(sal_model_options); }
};
struct StreamOptions : sal_stream_options {
    StreamOptions() : sal_stream_options{} { struct_size = sizeof(sal_stream_options); }
};

// One camera or file. Moves, does not copy.
class Stream {
  public:
    Stream(const sal_model *model, const StreamOptions &options) {
        info_.struct_size = sizeof info_;
        check(sal_model_info_get(model, &info_));
        sal_stream *raw = nullptr;
        check(sal_stream_new(model, &options, &raw));
        handle_.reset(raw);
    }

    void push(const sal_frame &frame) { check(sal_stream_push(handle_.get(), &frame)); }

    // The next result, or nothing if none is ready.
    std::optional<Result> next() {
        Result result;
        result.struct_size = sizeof(sal_result);
        if (!check(sal_stream_next(handle_.get(), &result))) return std::nullopt;
        result.levels = info_.conspicuity_levels;
        result.map_height = info_.map_height;
        result.map_width = info_.map_width;
        return result;
    }

    void flush() { check(sal_stream_flush(handle_.get())); }
    void reset() { check(sal_stream_reset(handle_.get())); }

    sal_stream_info info() const {
        sal_stream_info filled{};
        filled.struct_size = sizeof filled;
        check(sal_stream_info_get(handle_.get(), &filled));
        return filled;
    }

    sal_stream *get() const { return handle_.get(); }

  private:
    struct Free {
        void operator()(sal_stream *stream) const { sal_stream_free(stream); }
    };
    std::unique_ptr<sal_stream, Free> handle_;
    sal_model_info info_{};
};

// A graph that is ready to run, shared by any number of streams and threads.
class Model {
  public:
    static Model open(const std::string &path, const ModelOptions &options = {}) {
        sal_model *raw = nullptr;
        check(sal_model_open(path.c_str(), &options, &raw));
        return Model(raw);
    }

    sal_model_info info() const {
        sal_model_info filled{};
        filled.struct_size = sizeof filled;
        check(sal_model_info_get(handle_.get(), &filled));
        return filled;
    }

    Stream stream(const StreamOptions &options = {}) const {
        return Stream(handle_.get(), options);
    }

    sal_model *get() const { return handle_.get(); }

  private:
    explicit Model(sal_model *raw) : handle_(raw) {}
    struct Close {
        void operator()(sal_model *model) const { sal_model_close(model); }
    };
    std::unique_ptr<sal_model, Close> handle_;
};

}  // namespace sal

#endif

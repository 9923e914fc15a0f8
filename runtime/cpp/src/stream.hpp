// The state machine between frames and maps: windows, phases, start, end and cuts.
//
// The counterpart of Python's Predictor (docs/streaming.md): N frames in give N results out, in
// order, except for those that the skip policy leaves out. No threads, no library's types.
#pragma once

#include <memory>
#include <vector>

#include "backend.hpp"
#include "preprocess.hpp"
#include "resize.hpp"

namespace salstream {

class Stream {
  public:
    Stream(std::shared_ptr<const Backend> backend, const sal_stream_options &options);

    void push(const sal_frame &frame);
    void flush();
    void reset();
    // False if none is ready. What `result` points to stays until the next call.
    bool next(sal_result &result);
    void info(sal_stream_info &info) const;

  private:
    // Results that may be ready and not taken.
    static constexpr int max_ready = 64;

    // What one run of the graph gives: the map, then the conspicuity maps.
    using Output = std::unique_ptr<float[]>;

    // A frame from its push until its result is taken.
    struct Pending {
        std::int64_t index;
        bool has_time;
        double time_s;
        int height, width;
        enum { waiting, skipped, ready } state;
        Output output;
    };

    // The frames `stride` apart: one ring, one state per phase.
    struct LaneState {
        std::unique_ptr<Lane> lane;
        long long count = 0;  // frames, repeated and mirrored ones at the end included
        int held = 0;         // frames in the ring
        long long runs = 0;
    };

    void push_to(int lane, const std::uint8_t *frame);
    void append(LaneState &state, const std::uint8_t *frame);  // nullptr: the newest again
    void flush_lane(int lane);
    void flush_reversed(int lane);
    void forward(int lane);
    void backward(int lane, long long number, const int *ages);
    void deliver(int lane, long long number, bool skip, Output output);
    void drain();
    void forget();
    Output take_output();
    const void *render(const Pending &pending, sal_result &result);

    std::shared_ptr<const Backend> backend_;
    int start_, phases_ = 1, stride_ = 1, map_type_, map_size_;
    bool remembers_;
    Preprocessor prepare_;

    std::vector<LaneState> lanes_;
    std::vector<int> ages_;
    long long pushed_ = 0;         // since the last cut
    std::vector<Pending> pending_;  // frames whose results are still to come, oldest first
    std::vector<Pending> ready_;
    std::vector<Output> spare_;
    Pending taken_{};
    int height_ = 0, width_ = 0;
    std::int64_t next_index_ = 0, skipped_ = 0;
    bool flushed_ = false, failed_ = false;

    Linear to_input_, to_frame_;
    std::vector<float> input_map_, frame_map_;
    std::vector<std::uint8_t> bytes_;
};

}  // namespace salstream

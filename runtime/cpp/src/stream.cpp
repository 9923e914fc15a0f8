#include "stream.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "error.hpp"

namespace salstream {

Stream::Stream(std::shared_ptr<const Backend> backend, const sal_stream_options &options)
    : backend_(std::move(backend)),
      start_(options.start),
      map_type_(options.map_type),
      map_size_(options.map_size),
      remembers_(backend_->spec.window > 1 || backend_->recurrent),
      prepare_(backend_->spec.height, backend_->spec.width, backend_->spec.letterbox) {
    const GraphSpec &spec = backend_->spec;
    const auto refuse = [](const std::string &text) { throw Error(SAL_INVALID_ARGUMENT, text); };
    const bool can_reverse = !backend_->recurrent && spec.map_frame == spec.window - 1;
    if (start_ < SAL_START_DEFAULT || start_ > SAL_START_SKIP) {
        refuse("unknown start policy " + std::to_string(start_));
    }
    if (start_ == SAL_START_DEFAULT) start_ = can_reverse ? SAL_START_REVERSE : SAL_START_REPEAT;
    if (start_ == SAL_START_REVERSE && spec.window > 1 && !can_reverse) {
        refuse(spec.model +
               " cannot start in reverse, because it has a state or looks ahead; use repeat or "
               "skip");
    }
    if (options.fps < 0 || !std::isfinite(options.fps)) {
        refuse("fps must be above 0, or 0 if it is not known");
    }
    if (options.phases < 0 || options.phases > max_phases) {
        refuse("phases must be 1 to " + std::to_string(max_phases) + ", got " +
               std::to_string(options.phases));
    }
    if (options.stride < 0 || options.stride > max_stride) {
        refuse("stride must be 1 to " + std::to_string(max_stride) + ", got " +
               std::to_string(options.stride));
    }
    if (map_type_ < SAL_FLOAT32 || map_type_ > SAL_UINT8) refuse("unknown map type");
    if (map_size_ < SAL_FRAME_SIZE || map_size_ > SAL_MODEL_SIZE) refuse("unknown map size");
    phases_ = options.phases ? options.phases : spec.phases_at(options.fps);
    stride_ = options.stride ? options.stride : spec.stride_at(options.fps);
    const double lane = 9.0 * spec.window * spec.height * spec.width +
                        8.0 * phases_ * static_cast<double>(backend_->state_values);
    // Ready, or waiting for earlier ones; one more in each lane, and the one last taken.
    const double outputs = max_ready + (spec.window + 1.0) * stride_ + 1;
    const double output = 4.0 * (1 + backend_->conspicuity_levels) *
                          static_cast<double>(backend_->map_values());
    if (stride_ * lane + outputs * output > max_stream_bytes) {
        refuse("the stream could take more than 4 GiB; use fewer phases or a smaller stride");
    }
    lanes_.resize(static_cast<std::size_t>(stride_));
    for (LaneState &state : lanes_) state.lane = backend_->lane(phases_);
    ages_.resize(static_cast<std::size_t>(spec.window));
    reset();
}

void Stream::push(const sal_frame &frame) {
    check(frame);
    if (flushed_) {
        throw Error(SAL_INVALID_STATE, "the stream was flushed; reset it before the next frame");
    }
    if (failed_) {
        throw Error(SAL_INVALID_STATE, "the stream failed; reset it before the next frame");
    }
    if (static_cast<int>(ready_.size()) >= max_ready) {
        throw Error(SAL_INVALID_STATE, "results are waiting; take them before the next frame");
    }
    const std::uint8_t *prepared = prepare_(frame);
    failed_ = true;  // until all went well
    if (remembers_ && height_ && (height_ != frame.height || width_ != frame.width)) drain();
    height_ = frame.height, width_ = frame.width;
    const std::int64_t index = frame.has_index ? frame.index : next_index_;
    next_index_ = index + 1;
    const int lane = static_cast<int>(pushed_ % stride_);
    pending_.push_back({index, frame.has_time != 0, frame.has_time ? frame.time_s : 0.0,
                        frame.height, frame.width, Pending::waiting, nullptr});
    ++pushed_;
    push_to(lane, prepared);
    failed_ = false;
}

void Stream::flush() {
    if (failed_) throw Error(SAL_INVALID_STATE, "the stream failed; reset it");
    failed_ = true;
    drain();
    failed_ = false;
    flushed_ = true;
}

void Stream::reset() {
    for (Pending &pending : ready_) spare_.push_back(std::move(pending.output));
    ready_.clear();
    forget();
    next_index_ = 0;
    flushed_ = failed_ = false;
}

void Stream::forget() {
    for (LaneState &state : lanes_) {
        state.lane->clear();
        state.count = state.runs = 0;
        state.held = 0;
    }
    for (Pending &pending : pending_) {
        if (pending.output) spare_.push_back(std::move(pending.output));
    }
    pending_.clear();
    pushed_ = 0;
    height_ = width_ = 0;
}

void Stream::drain() {
    for (int lane = 0; lane < stride_; ++lane) flush_lane(lane);
    forget();
}

void Stream::append(LaneState &state, const std::uint8_t *frame) {
    if (frame) {
        state.lane->push(frame);
    } else {
        state.lane->repeat();
    }
    state.held = std::min(state.held + 1, backend_->spec.window);
}

void Stream::push_to(int lane, const std::uint8_t *frame) {
    const GraphSpec &spec = backend_->spec;
    LaneState &state = lanes_[static_cast<std::size_t>(lane)];
    if (state.count == 0 && start_ == SAL_START_REPEAT) {
        for (int i = 0; i < spec.map_frame; ++i) append(state, i == 0 ? frame : nullptr);
    }
    if (start_ == SAL_START_SKIP && state.count < spec.map_frame) {
        deliver(lane, state.count, true, nullptr);
    }
    append(state, frame);
    ++state.count;
    if (state.held < spec.window) return;
    forward(lane);
    if (start_ == SAL_START_REVERSE && state.count < 2LL * spec.window - 1) {
        for (int i = 0; i < spec.window; ++i) ages_[static_cast<std::size_t>(i)] = i;
        backward(lane, state.count - spec.window, ages_.data());
    }
}

void Stream::flush_lane(int lane) {
    const GraphSpec &spec = backend_->spec;
    LaneState &state = lanes_[static_cast<std::size_t>(lane)];
    if (state.count == 0) return;
    const int ahead = spec.window - 1 - spec.map_frame;
    if (start_ == SAL_START_REPEAT) {
        for (int i = 0; i < ahead; ++i) {
            append(state, nullptr);
            ++state.count;
            if (state.held == spec.window) forward(lane);
        }
    } else if (start_ == SAL_START_SKIP) {
        const long long first = std::max<long long>(spec.map_frame, state.count - ahead);
        for (long long number = first; number < state.count; ++number) {
            deliver(lane, number, true, nullptr);
        }
    } else {
        flush_reversed(lane);
    }
}

// Extend a short video by going back and forth through its frames. Those that the extension
// repeats all still lie in the ring, so nothing is added to it.
void Stream::flush_reversed(int lane) {
    const int window = backend_->spec.window;
    const LaneState &state = lanes_[static_cast<std::size_t>(lane)];
    const long long total = state.count, period = std::max(1LL, 2 * total - 2);
    const long long early = std::min<long long>(total, window - 1);
    for (long long end = std::max<long long>(total + 1, window); end < early + window; ++end) {
        for (int i = 0; i < window; ++i) {
            long long number = (end - 1 - i) % period;
            if (number >= total) number = period - number;
            ages_[static_cast<std::size_t>(i)] = static_cast<int>(total - 1 - number);
        }
        backward(lane, end - window, ages_.data());
    }
}

void Stream::forward(int lane) {
    LaneState &state = lanes_[static_cast<std::size_t>(lane)];
    Output output = take_output();
    state.lane->run(static_cast<int>(state.runs++ % phases_), output.get(),
                    output.get() + backend_->map_values());
    const int ahead = backend_->spec.window - 1 - backend_->spec.map_frame;
    deliver(lane, state.count - 1 - ahead, false, std::move(output));
}

void Stream::backward(int lane, long long number, const int *ages) {
    Output output = take_output();
    lanes_[static_cast<std::size_t>(lane)].lane->run(ages, output.get(),
                                                     output.get() + backend_->map_values());
    deliver(lane, number, false, std::move(output));
}

// Put a lane's output in line, and make those ready whose turn has come.
void Stream::deliver(int lane, long long number, bool skip, Output output) {
    const float *map = output.get();
    if (map && !std::all_of(map, map + backend_->map_values(),
                            [](float value) { return std::isfinite(value); })) {
        throw Error(SAL_INFERENCE_FAILED,
                    "the graph gave a map that is not finite: its weights are damaged");
    }
    const long long first = pushed_ - static_cast<long long>(pending_.size());
    Pending &its = pending_[static_cast<std::size_t>(number * stride_ + lane - first)];
    its.state = skip ? Pending::skipped : Pending::ready;
    its.output = std::move(output);
    auto head = pending_.begin();
    for (; head != pending_.end() && head->state != Pending::waiting; ++head) {
        if (head->state == Pending::skipped) {
            ++skipped_;
        } else {
            ready_.push_back(std::move(*head));
        }
    }
    pending_.erase(pending_.begin(), head);
}

Stream::Output Stream::take_output() {
    if (spare_.empty()) {
        const std::size_t levels = static_cast<std::size_t>(backend_->conspicuity_levels);
        return Output(new float[(1 + levels) * backend_->map_values()]());
    }
    Output output = std::move(spare_.back());
    spare_.pop_back();
    return output;
}

bool Stream::next(sal_result &result) {
    if (taken_.output) spare_.push_back(std::move(taken_.output));
    if (ready_.empty()) return false;
    // Whatever fails from here on, such as memory for the map, the result stays in line.
    const void *map = render(ready_.front(), result);
    taken_ = std::move(ready_.front());
    ready_.erase(ready_.begin());
    result.index = taken_.index;
    result.has_time = taken_.has_time;
    result.time_s = taken_.time_s;
    result.type = map_type_;
    result.map = map;
    result.conspicuity =
        backend_->conspicuity_levels ? taken_.output.get() + backend_->map_values() : nullptr;
    return true;
}

// The map at the wanted size and type.
const void *Stream::render(const Pending &pending, sal_result &result) {
    const GraphSpec &spec = backend_->spec;
    const float *map = pending.output.get();
    int height = backend_->map_height, width = backend_->map_width;
    if (map_size_ == SAL_FRAME_SIZE) {
        std::size_t pitch = static_cast<std::size_t>(width);
        if (spec.letterbox) {
            input_map_.resize(static_cast<std::size_t>(spec.height) * spec.width);
            to_input_(map, pitch, height, width, input_map_.data(), spec.height, spec.width);
            const Placement at =
                placement(pending.height, pending.width, spec.height, spec.width);
            pitch = static_cast<std::size_t>(spec.width);
            map = input_map_.data() + pitch * static_cast<std::size_t>(at.top) + at.left;
            height = at.height, width = at.width;
        }
        frame_map_.resize(static_cast<std::size_t>(pending.height) * pending.width);
        to_frame_(map, pitch, height, width, frame_map_.data(), pending.height, pending.width);
        map = frame_map_.data();
        height = pending.height, width = pending.width;
    }
    result.height = height, result.width = width;
    if (map_type_ == SAL_FLOAT32) return map;
    bytes_.resize(static_cast<std::size_t>(height) * static_cast<std::size_t>(width));
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
        const float level = std::min(std::abs(map[i] * 255.0f), 255.0f);
        bytes_[i] = static_cast<std::uint8_t>(std::lrintf(level));
    }
    return bytes_.data();
}

void Stream::info(sal_stream_info &info) const {
    info.start = start_;
    info.phases = phases_;
    info.stride = stride_;
    info.ready = static_cast<std::int32_t>(ready_.size());
    info.waiting = static_cast<std::int32_t>(pending_.size());
    info.skipped = skipped_;
}

}  // namespace salstream

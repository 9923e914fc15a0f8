// Counts every call of malloc, calloc, realloc, aligned allocation and operator new (which
// calls malloc) in the process while frames are pushed and results taken. The stand-in for ONNX
// Runtime allocates nothing in a run, so what is counted is the library's own.
#include <atomic>
#include <vector>

#include "support.hpp"

// They take the place of the process's own, so they must be seen.
#pragma GCC visibility push(default)
extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *__libc_realloc(void *, std::size_t);
void *__libc_memalign(std::size_t, std::size_t);

static std::atomic<long> counted{0}, fail_at{-1};

void *malloc(std::size_t size) {
    if (counted++ == fail_at) return nullptr;
    return __libc_malloc(size);
}
void *calloc(std::size_t number, std::size_t size) {
    ++counted;
    return __libc_calloc(number, size);
}
void *realloc(void *p, std::size_t size) {
    ++counted;
    return __libc_realloc(p, size);
}
void *memalign(std::size_t alignment, std::size_t size) {
    ++counted;
    return __libc_memalign(alignment, size);
}
void *aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
}
#pragma GCC visibility pop

namespace {

// Allocations per frame after `warm` frames, for a window, a format and a map's kind.
long steady(int window, bool state, bool letterbox, sal_format format, sal_map_type type,
            int stride) {
    const std::string path =
        fake_model("allocations.onnx", window, state,
                   std::string("output conspicuity f32 -1 2 4 6\nmeta salstream.fit ") +
                       (letterbox ? "letterbox\n" : "stretch\n"));
    const sal_model_options options = fake_options();
    sal_model *model = nullptr;
    sal_stream *stream = nullptr;
    sal_stream_options wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.map_type = type;
    wanted.stride = stride;
    CHECK(sal_model_open(path.c_str(), &options, &model) == SAL_OK);
    CHECK(sal_stream_new(model, &wanted, &stream) == SAL_OK);
    std::vector<unsigned char> pixels(46 * 62 * 4, 7);
    sal_frame frame = frame_of(pixels.data(), 46, 62);
    frame.format = format;
    sal_result result{};
    result.struct_size = sizeof result;
    long before = 0;
    const long opened = counted;
    CHECK(opened > 0);  // it does count
    // In reverse the first windows give two maps each; then every frame gives one.
    const int first = (2 * window + 1) * stride;
    for (int i = 0; i < first + 200; ++i) {
        if (i == first) before = counted;
        CHECK(sal_stream_push(stream, &frame) == SAL_OK);
        while (sal_stream_next(stream, &result) == SAL_OK) {
        }
    }
    const long after = counted - before;
    sal_stream_free(stream);
    sal_model_close(model);
    return after;
}

// Memory runs out while a result is taken, at each allocation in turn: the result is not lost.
void what_fails_loses_nothing() {
    const std::string path = fake_model("allocations.onnx", 1, false,
                                        "meta salstream.fit letterbox\n");
    const sal_model_options options = fake_options();
    sal_model *model = nullptr;
    CHECK(sal_model_open(path.c_str(), &options, &model) == SAL_OK);
    long failures = 0;
    for (long n = 0, before = -1; before != failures; ++n) {
        before = failures;
        sal_stream *stream = nullptr;
        sal_stream_options wanted{};
        wanted.struct_size = sizeof wanted;
        wanted.map_type = SAL_UINT8;
        CHECK(sal_stream_new(model, &wanted, &stream) == SAL_OK);
        std::vector<unsigned char> pixels(46 * 62 * 3, 7);
        const sal_frame frame = frame_of(pixels.data(), 46, 62);
        CHECK(sal_stream_push(stream, &frame) == SAL_OK);
        sal_result result{};
        result.struct_size = sizeof result;
        fail_at = counted + n;
        const sal_status status = sal_stream_next(stream, &result);
        fail_at = -1;
        if (status != SAL_OK) {
            CHECK(status == SAL_NO_MEMORY);
            CHECK(sal_stream_next(stream, &result) == SAL_OK);
            ++failures;
        }
        CHECK(result.index == 0 && result.height == 46 && result.map);
        CHECK(sal_stream_next(stream, &result) == SAL_NONE);
        sal_stream_free(stream);
    }
    CHECK(failures >= 3);  // the map at the input's size, at the frame's, and as bytes
    sal_model_close(model);
}

}  // namespace

int main() {
    what_fails_loses_nothing();
    long cases = 0;
    for (const int window : {1, 4, 16}) {
        for (const bool state : {false, true}) {
            for (const bool letterbox : {false, true}) {
                for (const sal_format format : {SAL_BGR, SAL_RGB, SAL_BGRA, SAL_NV12, SAL_GRAY}) {
                    for (const sal_map_type type : {SAL_FLOAT32, SAL_UINT8}) {
                        for (const int stride : {1, 3}) {
                            const long after =
                                steady(window, state, letterbox, format, type, stride);
                            if (after) std::fprintf(stderr, "window %d: %ld\n", window, after);
                            CHECK(after == 0);
                            ++cases;
                        }
                    }
                }
            }
        }
    }
    std::printf("%ld cases, 200 frames each: no allocation\n", cases);
    return 0;
}

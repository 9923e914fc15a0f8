// The C interface and its C++ wrapper on the stand-in: bad input, faults, ownership.
#include <atomic>
#include <cmath>
#include <cstring>
#include <salstream/salstream.hpp>
#include <thread>
#include <vector>

#include "support.hpp"

namespace {

const unsigned char grey[4 * 6 * 3] = {51};

sal_status open_text(const std::string &text, const char *name = "text.onnx") {
    std::ofstream(name) << text;
    const sal_model_options options = fake_options();
    sal_model *model = nullptr;
    const sal_status status = sal_model_open(name, &options, &model);
    CHECK((status == SAL_OK) == (model != nullptr));
    CHECK(status == SAL_OK || *sal_last_error());
    sal_model_close(model);
    return status;
}

sal::Model open(int window, bool state, const std::string &more = "") {
    sal::ModelOptions options;
    options.library = fake_library.c_str();
    return sal::Model::open(fake_model("model.onnx", window, state, more), options);
}

template <typename Call>
sal_status status_of(Call call) {
    try {
        call();
    } catch (const sal::Exception &error) {
        CHECK(*error.what());
        return error.status();
    }
    return SAL_OK;
}

void damaged_models() {
    CHECK(open_text("") == SAL_MODEL_DAMAGED);
    CHECK(open_text("this is no model") == SAL_MODEL_DAMAGED);
    CHECK(std::strchr(sal_last_error(), '\n') == nullptr);
    const auto with = [](const std::string &line) {
        fake_model("changed.onnx", 4, true, line + "\n");
        std::ifstream file("changed.onnx");
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        return open_text(text);
    };
    CHECK(with("") == SAL_OK);
    for (const char *schema : {"0", "2", "one", ""}) {
        CHECK(with(std::string("meta salstream.schema ") + schema) == SAL_SCHEMA_UNKNOWN);
        CHECK(std::strstr(sal_last_error(), "export it again"));
    }
    for (const char *line :
         {"meta salstream.height", "meta salstream.height x", "meta salstream.height 0",
          "meta salstream.height -4", "meta salstream.height 4.0", "meta salstream.height +4",
          "meta salstream.height 4 ", "meta salstream.height 0x4", "meta salstream.height 5",
          "meta salstream.height 99999999999999999999", "meta salstream.width 8193",
          "meta salstream.window 0", "meta salstream.window 257", "meta salstream.window 5",
          "meta salstream.map_frame 4", "meta salstream.map_frame -1", "meta salstream.phases 0",
          "meta salstream.phases 4097", "meta salstream.state_fps 0",
          "meta salstream.state_fps -6", "meta salstream.state_fps nan",
          "meta salstream.state_fps Infinity", "meta salstream.state_fps 1e999",
          "meta salstream.state_fps six", "meta salstream.window_fps 0",
          "meta salstream.window_fps nan", "meta salstream.resize lanczos",
          "meta salstream.fit crop", "meta salstream.smoothing_sigma wide",
          "meta salstream.verification {", "meta salstream.verification {\"a\":1}}",
          "input state_y f32 -1 2", "input other f32 -1 2", "input state_y",
          "output conspicuity f32 -1 4 5 5", "output conspicuity f32 -1 -1 4 6"}) {
        if (with(line) != SAL_MODEL_DAMAGED) {
            std::fprintf(stderr, "accepted: %s\n", line);
            CHECK(false);
        }
    }
    CHECK(with("meta salstream.verification {\"max_abs\": 1e-5, \"x\": [NaN, \"\\u00e9\"]}") ==
          SAL_OK);
    CHECK(with("meta salstream.state_fps 6.0\nmeta salstream.unheard_of 1") == SAL_OK);
    // Names used twice. (Found by fuzzing.)
    CHECK(with("input frames u8 -1 4 4 6 3") == SAL_MODEL_DAMAGED);
    CHECK(with("output saliency f32 -1 4 5") == SAL_MODEL_DAMAGED);
    CHECK(with("meta salstream.width 6\noutput conspicuity u8 -1 3 4 6") == SAL_MODEL_DAMAGED);
    std::string tensors = "input frames u8 -1 1 4 6 3\noutput saliency f32 -1 4 6\n";
    CHECK(open_text(tensors) == SAL_MODEL_DAMAGED);  // no metadata at all
    CHECK(std::strstr(sal_last_error(), "salstream export"));
}

void bad_frames() {
    const sal::Model model = open(4, false);
    sal::Stream stream = model.stream();
    const auto refused = [&](const sal_frame &frame) {
        return sal_stream_push(stream.get(), &frame) == SAL_INVALID_ARGUMENT && *sal_last_error();
    };
    const sal_frame good = frame_of(grey, 4, 6);
    sal_frame bad = good;
    CHECK(sal_stream_push(stream.get(), nullptr) == SAL_INVALID_ARGUMENT);
    bad.data = nullptr, CHECK(refused(bad)), bad = good;
    bad.struct_size = 0, CHECK(refused(bad)), bad = good;
    bad.struct_size = 3, CHECK(refused(bad)), bad = good;
    bad.height = 0, CHECK(refused(bad)), bad = good;
    bad.width = -6, CHECK(refused(bad)), bad = good;
    bad.width = 1 << 30, CHECK(refused(bad)), bad = good;
    bad.pitch = 17, CHECK(refused(bad)), bad = good;
    CHECK(std::strstr(sal_last_error(), "18 bytes"));
    bad.pitch = SIZE_MAX, CHECK(refused(bad)), bad = good;
    bad.format = 9, CHECK(refused(bad)), bad = good;
    bad.format = SAL_NV12, bad.height = 3, CHECK(refused(bad)), bad = good;
    bad.format = SAL_NV12, bad.chroma_pitch = 5, CHECK(refused(bad)), bad = good;
    bad.format = SAL_BGRA, bad.pitch = 18, CHECK(refused(bad)), bad = good;
    bad.has_time = 1, bad.time_s = NAN, CHECK(refused(bad)), bad = good;
    bad.has_index = 1, bad.index = -1, CHECK(refused(bad)), bad = good;
    CHECK(stream.info().waiting == 0);  // nothing was taken
    stream.push(good);
    CHECK(stream.info().waiting == 1);
}

void bad_options() {
    const sal::Model model = open(4, true);
    const auto refused = [&](auto change) {
        sal::StreamOptions options;
        change(options);
        return status_of([&] { model.stream(options); }) == SAL_INVALID_ARGUMENT;
    };
    CHECK(refused([](auto &o) { o.start = 4; }));
    CHECK(refused([](auto &o) { o.start = SAL_START_REVERSE; }));  // it has a state
    CHECK(refused([](auto &o) { o.phases = -1; }));
    CHECK(refused([](auto &o) { o.phases = 4097; }));
    CHECK(refused([](auto &o) { o.stride = -1; }));
    CHECK(refused([](auto &o) { o.stride = 257; }));
    CHECK(refused([](auto &o) { o.fps = -1; }));
    CHECK(refused([](auto &o) { o.fps = NAN; }));
    CHECK(refused([](auto &o) { o.fps = INFINITY; }));
    CHECK(refused([](auto &o) { o.map_type = 2; }));
    CHECK(refused([](auto &o) { o.map_size = -1; }));
    CHECK(refused([](auto &o) { o.struct_size = 1; }));
    const sal::Model large = open(1, true, "input state_z f32 -1 6000 10000\n"
                                           "output state_z_next f32 -1 6000 10000\n");
    sal::StreamOptions many;
    many.phases = 4096;
    CHECK(status_of([&] { large.stream(many); }) == SAL_INVALID_ARGUMENT);
    CHECK(std::strstr(sal_last_error(), "4 GiB"));
    const auto of_map = [](const std::string &sides, int window, int stride) {
        const std::string text = "meta salstream.schema 1\nmeta salstream.model fake\n"
                                 "meta salstream.domain test\nmeta salstream.height 4\n"
                                 "meta salstream.width 6\nmeta salstream.window " +
                                 std::to_string(window) + "\nmeta salstream.map_frame " +
                                 std::to_string(window - 1) + "\ninput frames u8 -1 " +
                                 std::to_string(window) + " 4 6 3\noutput saliency f32 -1 " +
                                 sides + "\n";
        std::ofstream("map.onnx") << text;
        sal::ModelOptions options;
        options.library = fake_library.c_str();
        sal::StreamOptions wanted;
        wanted.stride = stride;
        const sal::Model with_map = sal::Model::open("map.onnx", options);
        return status_of([&] { with_map.stream(wanted); });
    };
    // Results that wait are counted: 64 of them, and those of each window.
    CHECK(of_map("4000 4000", 1, 1) == SAL_OK);
    CHECK(of_map("4000 4100", 1, 1) == SAL_INVALID_ARGUMENT);
    CHECK(std::strstr(sal_last_error(), "4 GiB"));
    CHECK(of_map("400 410", 16, 256) == SAL_OK);
    CHECK(of_map("500 510", 16, 256) == SAL_INVALID_ARGUMENT);
    const sal::Model slow_states = open(1, true, "meta salstream.state_fps 1e-300\n");
    const sal::Model slow_windows = open(2, false, "meta salstream.window_fps 1e-300\n");
    sal::StreamOptions options;
    options.fps = 30;
    CHECK(status_of([&] { slow_states.stream(options); }) == SAL_INVALID_ARGUMENT);
    CHECK(status_of([&] { slow_windows.stream(options); }) == SAL_INVALID_ARGUMENT);
    CHECK(std::strstr(sal_last_error(), "256 interleaved windows"));
    sal_stream *stream = nullptr;
    CHECK(sal_stream_new(model.get(), nullptr, nullptr) == SAL_INVALID_ARGUMENT);
    CHECK(sal_stream_new(model.get(), nullptr, &stream) == SAL_OK);
    sal_result result{};  // without its size
    CHECK(sal_stream_next(stream, &result) == SAL_INVALID_ARGUMENT);
    sal_stream_free(stream);
}

void providers() {
    for (const sal_provider provider : {SAL_CUDA, SAL_TENSORRT}) {
        sal_model_options options = fake_options();
        options.provider = provider;
        sal_model *model = nullptr;
        const std::string path = fake_model("model.onnx", 1, false);
        CHECK(sal_model_open(path.c_str(), &options, &model) == SAL_LIBRARY_MISSING);
    }
    sal_model_options options = fake_options();
    options.library = "/nowhere/libonnxruntime.so";
    sal_model *model = nullptr;
    CHECK(sal_model_open("model.onnx", &options, &model) == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "SALSTREAM_ONNXRUNTIME"));
    options.library = "libc.so.6";
    CHECK(sal_model_open("model.onnx", &options, &model) == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "OrtGetApiBase"));
    setenv("SALSTREAM_ONNXRUNTIME", fake_library.c_str(), 1);
    CHECK(sal_model_open("model.onnx", nullptr, &model) == SAL_OK);
    sal_model_close(model);
    unsetenv("SALSTREAM_ONNXRUNTIME");
    // Where the build has them: TensorRT, and CUDA for what it does not take.
    fake_providers(true);
    const auto with = [&](sal_provider provider, long fails, const char *says) {
        sal_model_options chosen = fake_options();
        chosen.provider = provider;
        chosen.device = 1;
        fake_says(says);
        fake_fail_at(fails);
        const sal_status status = sal_model_open("model.onnx", &chosen, &model);
        fake_says(nullptr);
        fake_fail_at(-1);
        CHECK((status == SAL_OK) == (model != nullptr));
        sal_model_close(model);
        return status;
    };
    CHECK(with(SAL_CUDA, -1, nullptr) == SAL_OK);
    CHECK(std::string(fake_appended()) == "cuda device_id=1;");
    CHECK(with(SAL_TENSORRT, -1, nullptr) == SAL_OK);
    CHECK(std::string(fake_appended()) == "tensorrt device_id=1;cuda device_id=1;");
    // What the session says, which is the seventh call with CUDA.
    CHECK(with(SAL_CUDA, 6, "CUDA failure 100: no CUDA-capable device") == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "no CUDA-capable device"));
    CHECK(with(SAL_CUDA, 6, "CUDA failure 2: out of memory ; GPU=0") == SAL_NO_MEMORY);
    CHECK(with(SAL_CUDA, 6, "Protobuf parsing failed.") == SAL_MODEL_DAMAGED);
    CHECK(with(SAL_CPU, 3, "bad_alloc") == SAL_NO_MEMORY);
    fake_providers(false);
    (void)fake_appended();
    std::ofstream("some.engine") << "engine";
    CHECK(sal_model_open("some.engine", nullptr, &model) != SAL_OK);
    CHECK(*sal_last_error());
}

// The stream's life: flush, reset, a closed model, results left lying.
void states() {
    auto model = std::make_unique<sal::Model>(open(4, false));
    sal::Stream stream = model->stream();
    const sal_frame frame = frame_of(grey, 4, 6);
    for (int i = 0; i < 3; ++i) stream.push(frame);
    CHECK(!stream.next());
    stream.flush();
    CHECK(status_of([&] { stream.push(frame); }) == SAL_INVALID_STATE);
    CHECK(std::strstr(sal_last_error(), "reset"));
    for (int i = 0; i < 3; ++i) CHECK(stream.next()->index == i);
    CHECK(!stream.next());
    stream.flush();  // nothing is left, and that is no failure
    stream.reset();
    int taken = 0;
    while (taken < 100 && status_of([&] { stream.push(frame); }) == SAL_OK) ++taken;
    CHECK(taken > 60);
    CHECK(taken < 100);
    CHECK(std::strstr(sal_last_error(), "take them"));
    int results = 0;
    while (stream.next()) ++results;
    CHECK(results == taken);
    stream.push(frame);
    model.reset();
    CHECK(status_of([&] { stream.push(frame); }) == SAL_MODEL_CLOSED);
    CHECK(status_of([&] { stream.next(); }) == SAL_MODEL_CLOSED);
    CHECK(status_of([&] { stream.flush(); }) == SAL_MODEL_CLOSED);
    CHECK(status_of([&] { stream.reset(); }) == SAL_MODEL_CLOSED);
    CHECK(status_of([&] { stream.info(); }) == SAL_MODEL_CLOSED);
}

// A graph that fails: the stream refuses frames until a reset, and earlier results stay.
void failures() {
    const sal::Model model = open(1, true);
    sal::Stream stream = model.stream();
    const sal_frame frame = frame_of(grey, 4, 6);
    stream.push(frame);
    fake_fail_at(0);
    CHECK(status_of([&] { stream.push(frame); }) == SAL_INFERENCE_FAILED);
    fake_fail_at(-1);
    CHECK(status_of([&] { stream.push(frame); }) == SAL_INVALID_STATE);
    CHECK(status_of([&] { stream.flush(); }) == SAL_INVALID_STATE);
    CHECK(stream.next()->index == 0);
    CHECK(!stream.next());
    stream.reset();
    fake_says("CUDA failure 2: out of memory");
    fake_fail_at(0);
    CHECK(status_of([&] { stream.push(frame); }) == SAL_NO_MEMORY);
    fake_fail_at(-1);
    fake_says(nullptr);
    stream.reset();
    fake_gives_nan(true);
    CHECK(status_of([&] { stream.push(frame); }) == SAL_INFERENCE_FAILED);
    CHECK(std::strstr(sal_last_error(), "not finite"));
    fake_gives_nan(false);
    stream.reset();
    stream.push(frame);
    CHECK(stream.next()->index == 0);
}

// Every call of the inference library fails once, in turn: a status, a text, nothing left over.
void faults() {
    const std::string path =
        fake_model("model.onnx", 2, true, "output conspicuity f32 -1 3 4 6\n");
    const sal_model_options options = fake_options();
    const sal_frame frame = frame_of(grey, 4, 6);
    bool whole = false;
    int rounds = 0;
    for (long n = 0; !whole; ++n, ++rounds) {
        fake_fail_at(n);
        sal_model *model = nullptr;
        sal_stream *stream = nullptr;
        whole = sal_model_open(path.c_str(), &options, &model) == SAL_OK &&
                sal_stream_new(model, nullptr, &stream) == SAL_OK &&
                sal_stream_push(stream, &frame) == SAL_OK &&
                sal_stream_push(stream, &frame) == SAL_OK;
        CHECK(whole || *sal_last_error());
        sal_model_close(model);
        sal_stream_free(stream);
        CHECK(fake_live() == 0);
    }
    fake_fail_at(-1);
    CHECK(rounds > 60);
}

void two_threads_in_one_stream() {
    const sal::Model model = open(1, true);
    sal::Stream stream = model.stream();
    std::vector<unsigned char> large(720 * 1280 * 3);
    const sal_frame frame = frame_of(large.data(), 720, 1280);
    std::atomic<int> refused{0}, others{0};
    const auto work = [&] {
        for (int i = 0; i < 50; ++i) {
            const sal_status status = sal_stream_push(stream.get(), &frame);
            if (status == SAL_IN_USE && *sal_last_error()) ++refused;
            if (status != SAL_IN_USE && status != SAL_OK) ++others;
            sal_result result{};
            result.struct_size = sizeof result;
            sal_stream_next(stream.get(), &result);
        }
    };
    for (int attempt = 0; attempt < 20 && !refused; ++attempt) {
        std::thread first(work), second(work);
        first.join(), second.join();
    }
    CHECK(refused > 0);
    CHECK(others == 0);
}

void four_streams_on_one_model() {
    const sal::Model model = open(4, false);
    std::vector<std::thread> threads;
    std::atomic<int> results{0};
    for (int number = 0; number < 4; ++number) {
        threads.emplace_back([&, number] {
            sal::Stream stream = model.stream();
            std::vector<unsigned char> pixels(40 * 60 * 3);
            for (int i = 0; i < 100; ++i) {
                pixels.assign(pixels.size(), static_cast<unsigned char>(number + i));
                stream.push(sal::Frame(pixels.data(), 40, 60));
                while (const auto result = stream.next()) {
                    CHECK(result->floats().size() == 40u * 60u);
                    ++results;
                }
            }
            stream.flush();
            while (stream.next()) ++results;
        });
    }
    for (std::thread &thread : threads) thread.join();
    CHECK(results == 400);
}

// The model is closed while others push to their streams.
void closing_while_others_push() {
    for (int round = 0; round < 20; ++round) {
        const std::string path = fake_model("model.onnx", 4, true);
        const sal_model_options options = fake_options();
        sal_model *model = nullptr;
        CHECK(sal_model_open(path.c_str(), &options, &model) == SAL_OK);
        std::vector<std::thread> threads;
        std::atomic<int> running{0}, closed{0};
        for (int number = 0; number < 4; ++number) {
            sal_stream *stream = nullptr;
            CHECK(sal_stream_new(model, nullptr, &stream) == SAL_OK);
            threads.emplace_back([&, stream] {
                const sal_frame frame = frame_of(grey, 4, 6);
                sal_result result{};
                result.struct_size = sizeof result;
                ++running;
                sal_status status = SAL_OK;
                while (status == SAL_OK) {
                    status = sal_stream_push(stream, &frame);
                    (void)sal_stream_next(stream, &result);
                }
                if (status == SAL_MODEL_CLOSED && *sal_last_error()) ++closed;
                sal_stream_free(stream);
            });
        }
        while (running < 4) std::this_thread::yield();
        sal_model_close(model);
        for (std::thread &thread : threads) thread.join();
        CHECK(closed == 4);
    }
}

void wrapper() {
    const sal::Model model = open(1, false, "output conspicuity f32 -1 3 4 6\n");
    CHECK(std::string(model.info().model) == "fake");
    CHECK(std::string(model.info().backend) == "onnxruntime-cpu");
    CHECK(model.info().conspicuity_levels == 3);
    struct {
        sal_model_info known;
        unsigned char newer[16];
    } later;  // of a newer header
    std::memset(&later, 0xAA, sizeof later);
    later.known.struct_size = sizeof later;
    CHECK(sal_model_info_get(model.get(), &later.known) == SAL_OK);
    CHECK(later.known.conspicuity_levels == 3 && later.known.struct_size == sizeof later);
    CHECK(later.newer[0] == 0xAA && later.newer[15] == 0xAA);
    sal::StreamOptions options;
    options.map_type = SAL_UINT8;
    sal::Stream stream = model.stream(options);
    sal::Frame frame(grey, 4, 6);
    frame.has_time = 1, frame.time_s = 0.5;
    frame.has_index = 1, frame.index = 7;
    stream.push(frame);
    const auto result = stream.next();
    CHECK(result && result->index == 7 && result->time() == 0.5);
    CHECK(result->bytes().size() == 24 && result->floats().empty());
    CHECK(result->conspicuity_maps().size() == 72);
    stream.push(sal::Frame(grey, 4, 6));
    CHECK(stream.next()->index == 8);
    sal::Stream moved = std::move(stream);
    CHECK(moved.info().start == SAL_START_REVERSE);
}

}  // namespace

int main() {
    damaged_models();
    bad_frames();
    bad_options();
    providers();
    states();
    failures();
    faults();
    two_threads_in_one_stream();
    wrapper();
    CHECK(fake_live() == 0);
    four_streams_on_one_model();
    closing_while_others_push();
    CHECK(fake_live() == 0);
    return 0;
}

// The TensorRT backend on a stand-in for TensorRT and CUDA: the same maps as the ONNX Runtime
// backend gives for the same graph, and a sentence for whatever does not fit.
#include <atomic>
#include <cstring>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "json.hpp"
#include "sidecar.hpp"
#include "signed.hpp"
#include "support.hpp"

extern "C" {
long fake_gpu_live(void);
long fake_gpu_launches(void);
void fake_gpu_memory(long n);
void fake_gpu_enqueues(long n);
void fake_gpu_recordings(long n);
void fake_gpu_capturable(bool yes);
bool fake_gpu_eager(void);
void fake_gpu_missing(bool yes);
int cudaGetDevice(int *device);
int cudaSetDevice(int device);
}

namespace {

#ifdef TRT_MAJOR_RTX
const std::string flavour = "tensorrt-rtx";
#else
const std::string flavour = "tensorrt";
#endif

std::string read(const std::string &path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// The sidecar of an engine made of the same text as a model, as Python writes it.
std::string sidecar(const std::string &engine, const std::string &changed = "",
                    const std::string &value = "") {
    std::istringstream lines(engine);
    std::string metadata, tensors;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string kind, name, text;
        words >> kind >> name >> text;
        if (kind == "meta") {
            metadata += (metadata.empty() ? "\"" : ", \"") + name + "\": \"" + text + "\"";
        } else if (kind == "input" || kind == "output") {
            std::string side, shape;
            words >> side;  // the batch's
            while (words >> side) shape += (shape.empty() ? "" : ", ") + side;
            tensors += (tensors.empty() ? "{\"name\": \"" : ", {\"name\": \"") + name +
                       "\", \"is_input\": " + (kind == "input" ? "true" : "false") +
                       ", \"dtype\": \"" + (text == "u8" ? "uint8" : "float32") +
                       "\", \"shape\": [" + shape + "]}";
        }
    }
    std::string text = "{\"schema\": 1";
    for (const auto &[key, usual] : std::vector<std::pair<std::string, std::string>>{
             {"engine_sha256", "\"" + salstream::sha256(engine) + "\""},
             {"graph_sha256", "\"00\""},
             {"graph", "\"fake.onnx\""},
             {"flavour", "\"" + flavour + "\""},
             {"version", "\"10.9.0.34\""},
             {"gpu", "null"},
             {"compute_capabilities", "[\"8.6\"]"},
             {"precision", "\"fp32\""},
             {"batch", "[1, 1, 4]"},
             {"options", "{\"workspace\": null}"},
             {"metadata", "{" + metadata + "}"},
             {"tensors", "[" + tensors + "]"}}) {
        text += ", \"" + key + "\": " + (key == changed ? value : usual);
    }
    return signed_sidecar(*salstream::json::parse(text + "}"));
}

void write_pair(int window, bool state, const std::string &more, int height = 4, int width = 6) {
    fake_model("pair.onnx", window, state, more, height, width);
    const std::string text = read("pair.onnx");
    std::ofstream("pair.engine") << text;
    std::ofstream("pair.engine.json") << sidecar(text);
}

int current_device() {
    int device = -1;
    CHECK(cudaGetDevice(&device) == 0);
    return device;
}

struct Maps {
    std::vector<std::int64_t> indices;
    std::vector<float> values;
};

sal_model *open(const char *path) {
    sal_model_options chosen = fake_options();
    if (std::strstr(path, ".engine")) chosen.library = nullptr;  // from the environment
    sal_model *model = nullptr;
    CHECK(sal_model_open(path, &chosen, &model) == SAL_OK);
    return model;
}

// What a stream of made-up frames gives, twice with a reset between them.
Maps stream(const sal_model *model, const sal_stream_options &options, int count,
            unsigned seed = 7) {
    sal_stream *stream = nullptr;
    CHECK(sal_stream_new(model, &options, &stream) == SAL_OK);
    sal_model_info info{};
    info.struct_size = sizeof info;
    CHECK(sal_model_info_get(model, &info) == SAL_OK);
    Maps maps;
    const auto take = [&] {
        sal_result result{};
        result.struct_size = sizeof result;
        while (sal_stream_next(stream, &result) == SAL_OK) {
            maps.indices.push_back(result.index);
            const float *map = static_cast<const float *>(result.map);
            maps.values.insert(maps.values.end(), map, map + result.height * result.width);
            if (result.conspicuity) {
                maps.values.insert(maps.values.end(), result.conspicuity,
                                   result.conspicuity + info.conspicuity_levels *
                                                            info.map_height * info.map_width);
            }
        }
    };
    std::mt19937 random(seed);
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < count; ++i) {
            unsigned char pixels[4 * 6 * 3];
            for (unsigned char &pixel : pixels) pixel = static_cast<unsigned char>(random());
            const sal_frame frame = frame_of(pixels, 4, 6);
            CHECK(sal_stream_push(stream, &frame) == SAL_OK);
            take();
        }
        CHECK(sal_stream_flush(stream) == SAL_OK);
        take();
        CHECK(sal_stream_reset(stream) == SAL_OK);
    }
    sal_stream_free(stream);
    return maps;
}

Maps stream(const char *path, const sal_stream_options &options, int count) {
    sal_model *model = open(path);
    const Maps maps = stream(model, options, count);
    sal_model_close(model);
    return maps;
}

// Frames of 768 bytes, whose windows are read where they lie, and of 72, whose are not.
void same_maps() {
    int cases = 0;
    for (const int side : {16, 0}) {
        for (const int window : {1, 2, 5, 16}) {
            for (const bool state : {false, true}) {
                write_pair(window, state, "output conspicuity f32 -1 3 4 6\n", side ? side : 4,
                           side ? side : 6);
                for (const int start : {SAL_START_REVERSE, SAL_START_REPEAT, SAL_START_SKIP}) {
                    if (state && window > 1 && start == SAL_START_REVERSE) continue;
                    for (const int phases : {1, 3}) {
                        sal_stream_options options{};
                        options.struct_size = sizeof options;
                        options.start = start;
                        options.phases = phases;
                        options.stride = phases - start % 2;  // 0 (which is 1) to 3
                        for (const int count : {1, 15, 16, 31, 70}) {
                            const Maps one = stream("pair.onnx", options, count);
                            const Maps other = stream("pair.engine", options, count);
                            CHECK(one.indices == other.indices);
                            CHECK(one.values == other.values);
                            // Most runs are recordings, where the same places meet often.
                            const long launches = fake_gpu_launches();
                            CHECK(count < 70 || window > 2 || launches > 70);
                            CHECK(fake_gpu_live() == 0);
                            ++cases;
                        }
                    }
                }
            }
        }
    }
    CHECK(cases == 420);
    std::printf("%d cases\n", cases);
}

// Runs that cannot be recorded, or not all of them, give the same maps.
void without_recordings() {
    write_pair(5, false, "", 16, 16);
    sal_stream_options options{};
    options.struct_size = sizeof options;
    const Maps expected = stream("pair.onnx", options, 40);
    const auto launches = [&](auto prepare) {
        prepare();
        CHECK(stream("pair.engine", options, 40).values == expected.values);
        fake_gpu_capturable(true);
        fake_gpu_recordings(-1);
        CHECK(fake_gpu_live() == 0);
        return fake_gpu_launches();
    };
    const long all = launches([] {});
    CHECK(all > 60);
    CHECK(launches([] { fake_gpu_capturable(false); }) == 0);
    const long some = launches([] { fake_gpu_recordings(2); });
    CHECK(some > 0 && some < all);
#ifdef TRT_MAJOR_RTX
    CHECK(fake_gpu_eager());
#endif
}

// Each stream says what it says alone, and the caller's device is the caller's.
void four_streams_on_one_model() {
    for (const bool state : {false, true}) {
        write_pair(state ? 1 : 4, state, "", 16, 16);
        sal_stream_options options{};
        options.struct_size = sizeof options;
        options.phases = 2;
        sal_model *model = open("pair.engine");
        std::vector<Maps> alone, together(4);
        for (unsigned seed = 0; seed < 4; ++seed) {
            alone.push_back(stream(model, options, 60, seed));
        }
        std::vector<std::thread> threads;
        for (unsigned seed = 0; seed < 4; ++seed) {
            threads.emplace_back([&, seed] {
                CHECK(cudaSetDevice(1) == 0);
                together[seed] = stream(model, options, 60, seed);
                CHECK(current_device() == 1);
            });
        }
        for (std::thread &thread : threads) thread.join();
        for (std::size_t seed = 0; seed < 4; ++seed) {
            CHECK(together[seed].values == alone[seed].values);
        }
        sal_model_close(model);
        CHECK(fake_gpu_live() == 0);
    }
}

// A model on the second GPU, and one that is closed while others push.
void devices_and_closing() {
    write_pair(4, true, "", 16, 16);
    sal_model_options chosen{};
    chosen.struct_size = sizeof chosen;
    chosen.device = 1;
    sal_model *model = nullptr;
    CHECK(sal_model_open("pair.engine", &chosen, &model) == SAL_OK);
    CHECK(current_device() == 0);
    sal_stream_options options{};
    options.struct_size = sizeof options;
    CHECK(stream(model, options, 20).values.size() == 20 * 2 * 24);
    CHECK(current_device() == 0);
    std::vector<std::thread> threads;
    std::atomic<int> running{0}, closed{0};
    for (int number = 0; number < 4; ++number) {
        sal_stream *stream = nullptr;
        CHECK(sal_stream_new(model, nullptr, &stream) == SAL_OK);
        threads.emplace_back([&, stream] {
            const unsigned char pixels[4 * 6 * 3] = {};
            const sal_frame frame = frame_of(pixels, 4, 6);
            sal_result result{};
            result.struct_size = sizeof result;
            ++running;
            sal_status status = SAL_OK;
            while (status == SAL_OK) {
                status = sal_stream_push(stream, &frame);
                (void)sal_stream_next(stream, &result);
            }
            if (status == SAL_MODEL_CLOSED) ++closed;
            sal_stream_free(stream);
            CHECK(current_device() == 0);
        });
    }
    while (running < 4) std::this_thread::yield();
    sal_model_close(model);
    for (std::thread &thread : threads) thread.join();
    CHECK(closed == 4);
    CHECK(fake_gpu_live() == 0);
}

void what_does_not_fit() {
    write_pair(4, false, "");
    const std::string engine = read("pair.engine");
    const auto status = [](int device = 0) {
        sal_model_options options{};
        options.struct_size = sizeof options;
        options.device = device;
        sal_model *model = nullptr;
        const sal_status status = sal_model_open("pair.engine", &options, &model);
        CHECK(status == SAL_OK || *sal_last_error());
        sal_model_close(model);
        CHECK(fake_gpu_live() == 0);
        return status;
    };
    const auto with = [&](const char *key, const char *value) {
        std::ofstream("pair.engine.json") << sidecar(engine, key, value);
        return status();
    };
    CHECK(status() == SAL_OK);
    CHECK(status(1) == SAL_OK);
    CHECK(status(2) == SAL_LIBRARY_MISSING);  // there are two
    fake_gpu_missing(true);
    CHECK(status() == SAL_LIBRARY_MISSING);
    fake_gpu_missing(false);
    CHECK(current_device() == 0);
    CHECK(with("version", "\"10.9.0.33\"") == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "salstream build"));
    const bool rtx = flavour == "tensorrt-rtx";
    CHECK(with("flavour", rtx ? "\"tensorrt\"" : "\"tensorrt-rtx\"") == SAL_LIBRARY_MISSING);
    CHECK(with("compute_capabilities", "[\"9.0\", \"8.9\"]") == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "8.6"));
    CHECK(with("compute_capabilities", "[]") == (rtx ? SAL_OK : SAL_LIBRARY_MISSING));
    CHECK(with("batch", "[2, 2, 4]") == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "--batch 1"));
    CHECK(with("tensors", "[]") == SAL_MODEL_DAMAGED);
    CHECK(with("engine_sha256", "\"00\"") == SAL_MODEL_DAMAGED);
    CHECK(with("version", "10") == SAL_MODEL_DAMAGED);
    std::ofstream("pair.engine.json") << "{";
    CHECK(status() == SAL_SCHEMA_UNKNOWN || status() == SAL_MODEL_DAMAGED);
    std::remove("pair.engine.json");
    CHECK(status() == SAL_FILE_UNREADABLE);
    CHECK(std::strstr(sal_last_error(), "copy both files"));

    // Engines that are not what their sidecars say.
    for (const auto &[from, to] : std::vector<std::pair<std::string, std::string>>{
             {"input frames u8 -1 4 4 6 3", "input frames u8 -1 3 4 6 3"},
             {"input frames u8", "input frames f32"},
             {"output saliency f32 -1 4 6", "output saliency f32 -1 -1 6"},
             {"output saliency f32 -1 4 6", "output saliency f32 -1 40000 40000"},
             {"output saliency f32 -1 4 6", "output saliency f32 -1 4294967297 4294967297"},
             {"output saliency", "output map"},
             {"output saliency f32", "input state_x f32 -1 2\noutput saliency f32"},
             {"meta", "what"}}) {
        std::string changed = engine;
        changed.replace(changed.find(from), from.size(), to);
        // With a sidecar that says so, and with one that says something else.
        for (const std::string &beside :
             {sidecar(changed),
              sidecar(engine, "engine_sha256", "\"" + salstream::sha256(changed) + "\"")}) {
            std::ofstream("pair.engine") << changed;
            std::ofstream("pair.engine.json") << beside;
            CHECK(status() == SAL_MODEL_DAMAGED);
            CHECK(!std::strchr(sal_last_error(), '\n'));
        }
    }
#ifdef TRT_MAJOR_RTX
    std::ofstream("pair.engine") << "elsewhere";
    std::ofstream("pair.engine.json")
        << sidecar(engine, "engine_sha256", "\"" + salstream::sha256("elsewhere") + "\"");
    CHECK(status() == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "update the driver"));
#endif

    // Out of memory on the GPU, at every allocation in turn.
    write_pair(4, true, "");
    bool whole = false;
    for (long n = 0; !whole; ++n) {
        fake_gpu_memory(n);
        sal_model *model = nullptr;
        sal_stream *stream = nullptr;
        sal_status status = sal_model_open("pair.engine", nullptr, &model);
        if (status == SAL_OK) status = sal_stream_new(model, nullptr, &stream);
        whole = status == SAL_OK;
        CHECK(whole || status == SAL_NO_MEMORY);
        CHECK(!whole || n >= 5);
        sal_stream_free(stream);
        sal_model_close(model);
        CHECK(fake_gpu_live() == 0);
    }
    fake_gpu_memory(-1);

    // Out of memory in a run, in TensorRT's own words.
    sal_model *model = open("pair.engine");
    sal_stream *stream = nullptr;
    CHECK(sal_stream_new(model, nullptr, &stream) == SAL_OK);
    const unsigned char pixels[4 * 6 * 3] = {};
    const sal_frame frame = frame_of(pixels, 4, 6);
    fake_gpu_enqueues(0);
    CHECK(sal_stream_push(stream, &frame) == SAL_NO_MEMORY);
    fake_gpu_enqueues(1);  // the second is the one that is recorded
    CHECK(sal_stream_reset(stream) == SAL_OK);
    CHECK(sal_stream_push(stream, &frame) == SAL_OK);
    fake_gpu_enqueues(-1);
    CHECK(sal_stream_push(stream, &frame) == SAL_OK);
    sal_stream_free(stream);
    sal_model_close(model);
    CHECK(fake_gpu_live() == 0);
}

}  // namespace

int main() {
    setenv("SALSTREAM_TENSORRT", FAKE_TENSORRT, 1);
    setenv("SALSTREAM_CUDART", FAKE_TENSORRT, 1);
    what_does_not_fit();
    same_maps();
    without_recordings();
    four_streams_on_one_model();
    devices_and_closing();
    return 0;
}

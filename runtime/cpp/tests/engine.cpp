// The TensorRT backend on a stand-in for TensorRT and CUDA: the same maps as the ONNX Runtime
// backend gives for the same graph, and a sentence for whatever does not fit.
#include <cstring>
#include <random>
#include <sstream>
#include <vector>

#include "json.hpp"
#include "sidecar.hpp"
#include "support.hpp"

extern "C" {
long fake_gpu_live(void);
long fake_gpu_launches(void);
void fake_gpu_memory(long n);
}

namespace {

std::string read(const std::string &path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

// The sidecar of an engine made of the same text as a model.
std::string sidecar(const std::string &engine, const std::string &changed = "",
                    const std::string &value = "") {
    std::istringstream lines(engine);
    std::string metadata;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string kind, name, text;
        words >> kind >> name >> text;
        if (kind == "meta") {
            metadata += (metadata.empty() ? "\"" : ", \"") + name + "\": \"" + text + "\"";
        }
    }
    std::string text = "{\"schema\": 1, \"metadata\": {" + metadata + "}";
    for (const auto &[key, usual] : std::vector<std::pair<std::string, std::string>>{
             {"engine_sha256", "\"" + salstream::sha256(engine) + "\""},
             {"flavour", "\"tensorrt\""},
             {"version", "\"10.9.0.34\""},
             {"compute_capabilities", "[\"8.6\"]"}}) {
        text += ", \"" + key + "\": " + (key == changed ? value : usual);
    }
    const auto whole = salstream::json::parse(text + "}");
    return text + ", \"checksum\": \"" + salstream::sha256(salstream::json::canonical(*whole)) + "\"}";
}

void write_pair(int window, bool state, const std::string &more) {
    fake_model("pair.onnx", window, state, more);
    const std::string text = read("pair.onnx");
    std::ofstream("pair.engine") << text;
    std::ofstream("pair.engine.json") << sidecar(text);
}

struct Maps {
    std::vector<std::int64_t> indices;
    std::vector<float> values;
};

Maps stream(const char *path, const sal_stream_options &options, int count) {
    sal_model_options chosen = fake_options();
    if (std::strstr(path, ".engine")) chosen.library = nullptr;  // from the environment
    sal_model *model = nullptr;
    sal_stream *stream = nullptr;
    CHECK(sal_model_open(path, &chosen, &model) == SAL_OK);
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
    std::mt19937 random(7);
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
    sal_model_close(model);
    sal_stream_free(stream);
    return maps;
}

void same_maps() {
    int cases = 0;
    for (const int window : {1, 2, 5, 16}) {
        for (const bool state : {false, true}) {
            write_pair(window, state, "output conspicuity f32 -1 3 4 6\n");
            for (const int start : {SAL_START_REVERSE, SAL_START_REPEAT, SAL_START_SKIP}) {
                if (state && window > 1 && start == SAL_START_REVERSE) continue;
                for (const int phases : {1, 3}) {
                    for (const int stride : {1, 2}) {
                        sal_stream_options options{};
                        options.struct_size = sizeof options;
                        options.start = start;
                        options.phases = phases;
                        options.stride = stride;
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
    std::printf("%d cases\n", cases);
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
    CHECK(status(1) != SAL_OK);
    CHECK(with("version", "\"10.9.0.33\"") == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "salstream build"));
    CHECK(with("flavour", "\"tensorrt-rtx\"") == SAL_LIBRARY_MISSING);
    CHECK(with("compute_capabilities", "[\"9.0\", \"8.9\"]") == SAL_LIBRARY_MISSING);
    CHECK(std::strstr(sal_last_error(), "8.6"));
    CHECK(with("compute_capabilities", "[]") == SAL_OK);
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
             {"output saliency", "output map"},
             {"output saliency f32", "input state_x f32 -1 2\noutput saliency f32"},
             {"meta", "what"}}) {
        std::string changed = engine;
        changed.replace(changed.find(from), from.size(), to);
        std::ofstream("pair.engine") << changed;
        std::ofstream("pair.engine.json")
            << sidecar(engine, "engine_sha256", "\"" + salstream::sha256(changed) + "\"");
        CHECK(status() == SAL_MODEL_DAMAGED);
        CHECK(!std::strchr(sal_last_error(), '\n'));
    }

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
}

}  // namespace

int main() {
    setenv("SALSTREAM_TENSORRT", FAKE_TENSORRT, 1);
    setenv("SALSTREAM_CUDART", FAKE_TENSORRT, 1);
    what_does_not_fit();
    same_maps();
    return 0;
}

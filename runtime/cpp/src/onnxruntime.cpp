// ONNX Runtime: the CPU, or CUDA and TensorRT where the installed build has them.
//
// Every tensor of a stream lies in memory of its lane and is described to the library once, so
// that a run copies the map and nothing else.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "backend.hpp"
#include "error.hpp"
#include "library.hpp"
#include "ring.hpp"

namespace salstream {
namespace {

// The oldest version of the table of functions that holds all used here: ONNX Runtime 1.12.
constexpr std::uint32_t api_version = 12;
static_assert(ORT_API_VERSION >= api_version, "the header of ONNX Runtime 1.12 or later");

std::string first_line(const char *text) {
    const std::string line(text, std::strcspn(text, "\n"));
    return line.substr(0, 200);
}

struct Release {
    const OrtApi *api;
    void operator()(OrtSession *p) const { api->ReleaseSession(p); }
    void operator()(OrtSessionOptions *p) const { api->ReleaseSessionOptions(p); }
    void operator()(OrtValue *p) const { api->ReleaseValue(p); }
    void operator()(OrtTypeInfo *p) const { api->ReleaseTypeInfo(p); }
    void operator()(OrtModelMetadata *p) const { api->ReleaseModelMetadata(p); }
    void operator()(OrtMemoryInfo *p) const { api->ReleaseMemoryInfo(p); }
    void operator()(OrtCUDAProviderOptionsV2 *p) const { api->ReleaseCUDAProviderOptions(p); }
    void operator()(OrtTensorRTProviderOptionsV2 *p) const {
        api->ReleaseTensorRTProviderOptions(p);
    }
};
template <typename T>
using Owned = std::unique_ptr<T, Release>;

// The loaded library. There is one environment per library, which lives as long as the process.
struct Library {
    const OrtApi *api;
    OrtEnv *env;

    // No std::string: on the way of every frame, this must not allocate.
    void check(OrtStatus *status, sal_status meaning, const char *context) const {
        if (!status) return;
        const char *message = api->GetErrorMessage(status);
        const std::string text = first_line(message);
        const bool no_memory = says_no_memory(message);
        api->ReleaseStatus(status);
        if (no_memory) throw Error(SAL_NO_MEMORY, "out of memory: " + text);
        throw Error(meaning, std::string(context) + " (" + text + ")");
    }

    template <typename T>
    Owned<T> own(T *pointer) const {
        return Owned<T>(pointer, Release{api});
    }
};

Library load(const std::string &chosen) {
    static std::mutex mutex;
    static std::vector<Library> loaded;
    const std::lock_guard<std::mutex> lock(mutex);
    using Entry = const OrtApiBase *(ORT_API_CALL *)();
    const auto entry = reinterpret_cast<Entry>(load_symbol(
        chosen, "SALSTREAM_ONNXRUNTIME",
        {"libonnxruntime.so.1", "libonnxruntime.so"}, "OrtGetApiBase",
        "ONNX Runtime cannot be loaded; install it, or name its libonnxruntime.so in the "
        "environment variable SALSTREAM_ONNXRUNTIME"));
    const OrtApi *api = entry()->GetApi(api_version);
    if (!api) {
        throw Error(SAL_LIBRARY_MISSING, std::string("ONNX Runtime ") +
                                             entry()->GetVersionString() +
                                             " is too old; install 1.12 or later");
    }
    for (const Library &library : loaded) {
        if (library.api == api) return library;
    }
    Library library{api, nullptr};
    library.check(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "salstream", &library.env),
                  SAL_LIBRARY_MISSING, "ONNX Runtime cannot be started");
    loaded.push_back(library);
    return library;
}

// Name, type and shape of an input or output; a dimension is -1 where it is free.
struct Tensor {
    std::string name;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    std::vector<std::int64_t> shape;

    // Whether it is of this type, for batches of one, with this rank and fixed other sides.
    bool fits(ONNXTensorElementDataType wanted, std::size_t rank) const {
        return type == wanted && rank && shape.size() == rank &&
               (shape[0] == 1 || shape[0] == -1) && values() <= max_values;
    }

    std::size_t values() const { return item_values(shape); }
};

class OnnxRuntime : public Backend {
  public:
    OnnxRuntime(const std::string &path, const sal_model_options &options)
        : library_(load(options.library ? options.library : "")),
          session_(library_.own<OrtSession>(nullptr)),
          memory_(library_.own<OrtMemoryInfo>(nullptr)) {
        const OrtApi &api = *library_.api;
        name = open(path, options);
        try {
            spec = GraphSpec::from_metadata(metadata());
        } catch (const Error &error) {
            throw Error(error.status, path + " is not a graph for salstream: " + error.what());
        }
        read_tensors(path);
        OrtMemoryInfo *memory = nullptr;
        library_.check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory),
                       SAL_INTERNAL, "ONNX Runtime has no memory");
        memory_.reset(memory);
    }

    std::unique_ptr<Lane> lane(int phases) const override;

  private:
    friend class OnnxRuntimeLane;

    std::string open(const std::string &path, const sal_model_options &options) {
        const OrtApi &api = *library_.api;
        OrtSessionOptions *raw = nullptr;
        library_.check(api.CreateSessionOptions(&raw), SAL_INTERNAL, "ONNX Runtime failed");
        const auto settings = library_.own(raw);
        const auto set = [&](OrtStatus *status) {
            library_.check(status, SAL_INVALID_ARGUMENT, "ONNX Runtime refuses an option");
        };
        set(api.SetSessionLogSeverityLevel(raw, 4));
        if (options.threads) set(api.SetIntraOpNumThreads(raw, options.threads));
        // Small shares of work: a thread that lost its core for a moment keeps the others
        // waiting for less.
        set(api.AddSessionConfigEntry(raw, "session.dynamic_block_base", "4"));
        std::string name = "onnxruntime-cpu";
        const std::string device = std::to_string(options.device);
        const char *keys[] = {"device_id"}, *values[] = {device.c_str()};
        const auto use = [&](OrtStatus *status) {
            const std::string context = "this ONNX Runtime cannot use " + name + " here";
            library_.check(status, SAL_LIBRARY_MISSING, context.c_str());
        };
        if (options.provider == SAL_TENSORRT) {
            name = "onnxruntime-tensorrt";
            OrtTensorRTProviderOptionsV2 *tensorrt = nullptr;
            use(api.CreateTensorRTProviderOptions(&tensorrt));
            const auto owned = library_.own(tensorrt);
            use(api.UpdateTensorRTProviderOptions(tensorrt, keys, values, 1));
            use(api.SessionOptionsAppendExecutionProvider_TensorRT_V2(raw, tensorrt));
        }
        if (options.provider != SAL_CPU) {  // CUDA, too, for what TensorRT does not take
            if (options.provider == SAL_CUDA) name = "onnxruntime-cuda";
            OrtCUDAProviderOptionsV2 *cuda = nullptr;
            use(api.CreateCUDAProviderOptions(&cuda));
            const auto owned = library_.own(cuda);
            use(api.UpdateCUDAProviderOptions(cuda, keys, values, 1));
            use(api.SessionOptionsAppendExecutionProvider_CUDA_V2(raw, cuda));
        }
        OrtSession *session = nullptr;
        OrtStatus *status = api.CreateSession(library_.env, path.c_str(), raw, &session);
        // A missing GPU or driver shows only here, in CUDA's own words.
        if (status && options.provider != SAL_CPU &&
            (std::strstr(api.GetErrorMessage(status), "CUDA") ||
             std::strstr(api.GetErrorMessage(status), "TensorRT"))) {
            use(status);
        }
        const std::string context = path + " cannot be loaded: it is damaged or no ONNX graph";
        library_.check(status, SAL_MODEL_DAMAGED, context.c_str());
        session_.reset(session);
        return name;
    }

    std::map<std::string, std::string> metadata() const {
        const OrtApi &api = *library_.api;
        OrtAllocator *allocator = nullptr;
        const auto check = [&](OrtStatus *status) {
            library_.check(status, SAL_MODEL_DAMAGED, "its metadata cannot be read");
        };
        check(api.GetAllocatorWithDefaultOptions(&allocator));
        OrtModelMetadata *raw = nullptr;
        check(api.SessionGetModelMetadata(session_.get(), &raw));
        const auto owned = library_.own(raw);
        std::map<std::string, std::string> found;
        for (const char *field : GraphSpec::fields) {
            const std::string key = std::string("salstream.") + field;
            char *value = nullptr;
            check(api.ModelMetadataLookupCustomMetadataMap(raw, allocator, key.c_str(), &value));
            if (!value) continue;
            try {
                found[key] = value;
            } catch (...) {
                allocator->Free(allocator, value);
                throw;
            }
            allocator->Free(allocator, value);
        }
        return found;
    }

    std::vector<Tensor> tensors(bool inputs) const {
        const OrtApi &api = *library_.api;
        const auto check = [&](OrtStatus *status) {
            library_.check(status, SAL_MODEL_DAMAGED, "its tensors cannot be read");
        };
        const OrtSession *session = session_.get();
        OrtAllocator *allocator = nullptr;
        check(api.GetAllocatorWithDefaultOptions(&allocator));
        std::size_t count = 0;
        check(inputs ? api.SessionGetInputCount(session, &count)
                     : api.SessionGetOutputCount(session, &count));
        std::vector<Tensor> found(count);
        for (std::size_t i = 0; i < count; ++i) {
            Tensor &tensor = found[i];
            char *name = nullptr;
            check(inputs ? api.SessionGetInputName(session, i, allocator, &name)
                         : api.SessionGetOutputName(session, i, allocator, &name));
            try {
                tensor.name = name;
            } catch (...) {
                allocator->Free(allocator, name);
                throw;
            }
            allocator->Free(allocator, name);
            OrtTypeInfo *type = nullptr;
            check(inputs ? api.SessionGetInputTypeInfo(session, i, &type)
                         : api.SessionGetOutputTypeInfo(session, i, &type));
            const auto owned = library_.own(type);
            const OrtTensorTypeAndShapeInfo *info = nullptr;  // belongs to `type`
            check(api.CastTypeInfoToTensorInfo(type, &info));
            if (!info) continue;  // no tensor: it has no type then, and fits nothing
            check(api.GetTensorElementType(info, &tensor.type));
            std::size_t rank = 0;
            check(api.GetDimensionsCount(info, &rank));
            tensor.shape.resize(rank);
            check(api.GetDimensions(info, tensor.shape.data(), rank));
        }
        return found;
    }

    // Find the tensors of the contract (docs/graph.md); refuse a graph that has others.
    void read_tensors(const std::string &path) {
        const auto refuse = [&] {
            throw Error(SAL_MODEL_DAMAGED,
                        path + " is not a graph for salstream: its tensors are not those of its "
                               "metadata; export it again");
        };
        const std::vector<Tensor> inputs = tensors(true), outputs = tensors(false);
        const auto find = [&](const std::vector<Tensor> &in, const std::string &name) {
            const auto found = std::find_if(in.begin(), in.end(),
                                            [&](const Tensor &t) { return t.name == name; });
            return found == in.end() ? nullptr : &*found;
        };
        for (const auto *named : {&inputs, &outputs}) {
            for (const Tensor &tensor : *named) {
                if (find(*named, tensor.name) != &tensor) refuse();  // a name used twice
            }
        }
        constexpr auto bytes = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        constexpr auto floats = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        const Tensor *frames = find(inputs, "frames"), *saliency = find(outputs, "saliency");
        if (!frames || !frames->fits(bytes, 5) || frames->shape[1] != spec.window ||
            frames->shape[2] != spec.height || frames->shape[3] != spec.width ||
            frames->shape[4] != 3 || !saliency || !saliency->fits(floats, 3)) {
            refuse();
        }
        map_height = static_cast<int>(saliency->shape[1]);
        map_width = static_cast<int>(saliency->shape[2]);
        if (const Tensor *levels = find(outputs, "conspicuity")) {
            if (!levels->fits(floats, 4) || levels->shape[2] != map_height ||
                levels->shape[3] != map_width) {
                refuse();
            }
            conspicuity_levels = static_cast<int>(levels->shape[1]);
        }
        for (const Tensor &input : inputs) {
            if (input.name == "frames") continue;
            if (input.name.rfind("state_", 0) != 0) refuse();
            const Tensor *next = find(outputs, input.name + "_next");
            if (!input.fits(floats, input.shape.size()) || !next ||
                !next->fits(floats, input.shape.size()) ||
                !std::equal(input.shape.begin() + 1, input.shape.end(),
                            next->shape.begin() + 1)) {
                refuse();
            }
            states_.push_back(input);
            state_values += input.values();
            next_names_.push_back(next->name);
        }
        recurrent = !states_.empty();
        input_names_ = {"frames"};
        output_names_ = {"saliency"};
        if (conspicuity_levels) output_names_.push_back("conspicuity");
        for (std::size_t i = 0; i < states_.size(); ++i) {
            input_names_.push_back(states_[i].name.c_str());
            output_names_.push_back(next_names_[i].c_str());
        }
    }

    template <typename T>
    Owned<OrtValue> tensor(T *data, std::vector<std::int64_t> shape) const {
        shape[0] = 1;
        std::size_t count = 1;
        for (const std::int64_t side : shape) count *= static_cast<std::size_t>(side);
        OrtValue *value = nullptr;
        library_.check(library_.api->CreateTensorWithDataAsOrtValue(
                           memory_.get(), data, count * sizeof(T), shape.data(), shape.size(),
                           sizeof(T) == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                          : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                           &value),
                       SAL_NO_MEMORY, "a stream cannot be made");
        return library_.own(value);
    }

    Library library_;
    Owned<OrtSession> session_;
    Owned<OrtMemoryInfo> memory_;
    std::vector<Tensor> states_;
    std::vector<std::string> next_names_;
    std::vector<const char *> input_names_, output_names_;
};

class OnnxRuntimeLane : public Lane {
  public:
    OnnxRuntimeLane(const OnnxRuntime &backend, int phases)
        : backend_(backend),
          window_(backend.spec.window),
          frame_bytes_(static_cast<std::size_t>(backend.spec.height) * backend.spec.width * 3),
          ring_(window_),
          frames_(2 * static_cast<std::size_t>(window_) * frame_bytes_),
          maps_(backend.map_values() * static_cast<std::size_t>(1 + backend.conspicuity_levels)),
          phases_(static_cast<std::size_t>(phases)) {
        const GraphSpec &spec = backend.spec;
        const std::vector<std::int64_t> shape{1, window_, spec.height, spec.width, 3};
        for (int slot = 1; slot <= window_; ++slot) {
            windows_.push_back(backend.tensor(at(slot), shape));
        }
        outputs_.push_back(
            backend.tensor(maps_.data(), {1, backend.map_height, backend.map_width}));
        if (backend.conspicuity_levels) {
            outputs_.push_back(backend.tensor(
                maps_.data() + backend.map_values(),
                {1, backend.conspicuity_levels, backend.map_height, backend.map_width}));
        }
        for (Phase &phase : phases_) {
            for (State &side : phase.sides) {
                for (const Tensor &tensor : backend.states_) {
                    side.data.emplace_back(tensor.values());
                    side.values.push_back(backend.tensor(side.data.back().data(), tensor.shape));
                }
            }
        }
    }

    void push(const std::uint8_t *frame) override {
        ring_.advance();
        std::memcpy(at(ring_.slot(0)), frame, frame_bytes_);
        std::memcpy(at(ring_.slot(0) - window_), frame, frame_bytes_);
    }

    void repeat() override {
        const std::uint8_t *newest = at(ring_.slot(0));
        ring_.advance();
        if (window_ == 1) return;  // it lies there already
        std::memcpy(at(ring_.slot(0)), newest, frame_bytes_);
        std::memcpy(at(ring_.slot(0) - window_), newest, frame_bytes_);
    }

    void clear() override {
        ring_.clear();
        for (Phase &phase : phases_) {
            for (auto &state : phase.sides[phase.current].data) {
                std::fill(state.begin(), state.end(), 0.0f);
            }
        }
    }

    void run(int phase, float *saliency, float *conspicuity) override {
        Phase &its = phases_[static_cast<std::size_t>(phase)];
        infer(windows_[static_cast<std::size_t>(ring_.window() - 1)].get(), &its, saliency,
              conspicuity);
        its.current ^= 1;
    }

    void run(const int *ages, float *saliency, float *conspicuity) override {
        if (gathered_.empty()) {
            gathered_.resize(static_cast<std::size_t>(window_) * frame_bytes_);
            gathered_value_ = backend_.tensor(
                gathered_.data(), {1, window_, backend_.spec.height, backend_.spec.width, 3});
        }
        for (int i = 0; i < window_; ++i) {
            std::memcpy(gathered_.data() + static_cast<std::size_t>(i) * frame_bytes_,
                        at(ring_.slot(ages[i])), frame_bytes_);
        }
        infer(gathered_value_.get(), nullptr, saliency, conspicuity);
    }

  private:
    // The state before a run and the one after it lie in two places, which change roles.
    struct State {
        std::vector<std::vector<float>> data;
        std::vector<Owned<OrtValue>> values;
    };
    struct Phase {
        State sides[2];
        int current = 0;
    };

    std::uint8_t *at(int slot) {
        return frames_.data() + static_cast<std::size_t>(slot) * frame_bytes_;
    }

    void infer(const OrtValue *window, Phase *phase, float *saliency, float *conspicuity) {
        inputs_.assign(1, window);
        results_.clear();
        for (const auto &value : outputs_) results_.push_back(value.get());
        if (phase) {
            for (const auto &value : phase->sides[phase->current].values) {
                inputs_.push_back(value.get());
            }
            for (const auto &value : phase->sides[phase->current ^ 1].values) {
                results_.push_back(value.get());
            }
        }
        const Library &library = backend_.library_;
        library.check(
            library.api->Run(backend_.session_.get(), nullptr, backend_.input_names_.data(),
                             inputs_.data(), inputs_.size(), backend_.output_names_.data(),
                             results_.size(), results_.data()),
            SAL_INFERENCE_FAILED, "the graph failed");
        const auto levels = maps_.begin() + static_cast<std::ptrdiff_t>(backend_.map_values());
        std::copy(maps_.begin(), levels, saliency);
        std::copy(levels, maps_.end(), conspicuity);
    }

    const OnnxRuntime &backend_;  // outlives its lanes: the stream holds it
    int window_;
    std::size_t frame_bytes_;
    FrameRing ring_;
    std::vector<std::uint8_t> frames_, gathered_;
    std::vector<float> maps_;
    std::vector<Phase> phases_;
    std::vector<Owned<OrtValue>> windows_, outputs_;
    Owned<OrtValue> gathered_value_{nullptr, Release{nullptr}};
    std::vector<const OrtValue *> inputs_;
    std::vector<OrtValue *> results_;
};

std::unique_ptr<Lane> OnnxRuntime::lane(int phases) const {
    return std::make_unique<OnnxRuntimeLane>(*this, phases);
}

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(const std::string &path,
                                          const sal_model_options &options) {
    return std::make_unique<OnnxRuntime>(path, options);
}

}  // namespace salstream

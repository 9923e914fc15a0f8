// TensorRT and TensorRT-RTX: engines made by `salstream build`, on an NVIDIA GPU.
//
// What a stream carries from frame to frame stays on the GPU: a new frame is one small copy into
// its ring, the engine reads the window where it lies, and reads the recurrent state where the
// run before wrote it. Only maps come back, into pinned memory. The work for every set of
// addresses is recorded once as a CUDA graph. CUDA's runtime and TensorRT are loaded at run time.
//
// TensorRT takes tensors at multiples of 256 bytes. Where a frame's size is one, so is every
// window's place in the ring; else each window is first copied, on the GPU, to a place that is.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "error.hpp"
#include "library.hpp"
#include "ring.hpp"
#include "sidecar.hpp"

namespace salstream {
namespace {

static_assert(CUDART_VERSION >= 12000, "the headers of CUDA 12 or later");

// TensorRT's classes are those of the headers, so the library must be of their product and major
// version.
#ifdef TRT_MAJOR_RTX
constexpr const char *flavour = "tensorrt-rtx", *product = "TensorRT-RTX";
const std::string library_name = "libtensorrt_rtx.so." + std::to_string(TRT_MAJOR_RTX);
#else
constexpr const char *flavour = "tensorrt", *product = "TensorRT";
const std::string library_name = "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR);
#endif

// More are made only where a window and a state meet in more ways; those runs are not recorded.
constexpr std::size_t max_recordings = 64;

constexpr std::size_t alignment = 256;  // that TensorRT asks of tensors; CUDA's memory has it
constexpr std::size_t aligned(std::size_t size) {
    return (size + alignment - 1) / alignment * alignment;
}

// The functions of CUDA's runtime that are used here.
struct Cuda {
#define SAL_CUDA(name) decltype(&::cuda##name) name = load<decltype(&::cuda##name)>("cuda" #name)
    SAL_CUDA(DeviceGetAttribute);
    SAL_CUDA(Free);
    SAL_CUDA(FreeHost);
    SAL_CUDA(GetDevice);
    SAL_CUDA(GetErrorString);
    SAL_CUDA(GetLastError);
    SAL_CUDA(GraphDestroy);
    SAL_CUDA(GraphExecDestroy);
    SAL_CUDA(GraphInstantiate);
    SAL_CUDA(GraphLaunch);
    SAL_CUDA(Malloc);
    SAL_CUDA(MallocHost);
    SAL_CUDA(MemcpyAsync);
    SAL_CUDA(MemsetAsync);
    SAL_CUDA(SetDevice);
    SAL_CUDA(StreamBeginCapture);
    SAL_CUDA(StreamCreateWithFlags);
    SAL_CUDA(StreamDestroy);
    SAL_CUDA(StreamEndCapture);
    SAL_CUDA(StreamSynchronize);
#undef SAL_CUDA

    void check(cudaError_t status, const char *context,
               sal_status meaning = SAL_INFERENCE_FAILED) const {
        if (status == cudaSuccess) return;
        (void)GetLastError();
        throw Error(status == cudaErrorMemoryAllocation ? SAL_NO_MEMORY : meaning,
                    std::string(context) + ": " + GetErrorString(status));
    }

  private:
    template <typename Function>
    static Function load(const char *name) {
        return reinterpret_cast<Function>(load_symbol(
            "", "SALSTREAM_CUDART",
            {"libcudart.so." + std::to_string(CUDART_VERSION / 1000), "libcudart.so"}, name,
            "CUDA's runtime cannot be loaded; install it, or name its libcudart.so in the "
            "environment variable SALSTREAM_CUDART"));
    }
};

const Cuda &cuda() {
    static const Cuda loaded;
    return loaded;
}

// While it lives, this thread works on one GPU; then on its caller's again.
class OnDevice {
  public:
    explicit OnDevice(int device) : status_(cuda().GetDevice(&before_)) {
        if (status_ != cudaSuccess || before_ == device) return;
        status_ = cuda().SetDevice(device);
        changed_ = status_ == cudaSuccess;
    }
    OnDevice(const OnDevice &) = delete;
    OnDevice &operator=(const OnDevice &) = delete;
    ~OnDevice() {
        if (changed_) (void)cuda().SetDevice(before_);
    }
    void check() const { cuda().check(status_, "the GPU cannot be used", SAL_LIBRARY_MISSING); }

  private:
    int before_ = 0;
    bool changed_ = false;
    cudaError_t status_;
};

// Bytes on the GPU, or pinned ones on the host.
class Memory {
  public:
    Memory() = default;
    Memory(std::size_t size, bool pinned) : pinned_(pinned) {
        cuda().check(pinned ? cuda().MallocHost(&address_, size) : cuda().Malloc(&address_, size),
                     pinned ? "no pinned memory" : "no memory on the GPU");
    }
    Memory(Memory &&other) noexcept : pinned_(other.pinned_), address_(other.address_) {
        other.address_ = nullptr;
    }
    Memory &operator=(Memory &&other) noexcept {
        std::swap(pinned_, other.pinned_);
        std::swap(address_, other.address_);
        return *this;
    }
    ~Memory() {
        if (address_) (void)(pinned_ ? cuda().FreeHost(address_) : cuda().Free(address_));
    }
    char *at(std::size_t offset = 0) const { return static_cast<char *>(address_) + offset; }

  private:
    bool pinned_ = false;
    void *address_ = nullptr;
};

// A queue of work on the GPU. Not the default one, which cannot be recorded.
class Queue {
  public:
    Queue() {
        cuda().check(cuda().StreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                     "the GPU cannot be used");
    }
    Queue(const Queue &) = delete;
    Queue &operator=(const Queue &) = delete;
    ~Queue() { (void)cuda().StreamDestroy(stream_); }
    operator cudaStream_t() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

// Work that was recorded: a CUDA graph, ready to launch.
class Recording {
  public:
    explicit Recording(cudaGraphExec_t executable) : executable_(executable) {}
    Recording(const Recording &) = delete;
    Recording &operator=(const Recording &) = delete;
    ~Recording() { (void)cuda().GraphExecDestroy(executable_); }
    cudaGraphExec_t get() const { return executable_; }

  private:
    cudaGraphExec_t executable_;
};

// Whether an execution's work can be recorded. TensorRT-RTX can be asked.
template <typename Context>
auto capturable(Context &context, cudaStream_t stream, int)
    -> decltype(context.isStreamCapturable(stream)) {
    return context.isStreamCapturable(stream);
}
template <typename Context>
bool capturable(Context &, cudaStream_t, long) {
    return true;
}

// Keeps TensorRT's last error and shows nothing.
class Log : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char *text) noexcept override {
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> lock(mutex_);
        const std::size_t length = std::min(std::strcspn(text, "\n"), sizeof last_ - 1);
        std::memcpy(last_, text, length);
        last_[length] = '\0';
    }

    std::string last() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return *last_ ? last_ : "it does not say why";
    }

  private:
    std::mutex mutex_;
    char last_[300] = "";
};

// What TensorRT and CUDA hold for a model. In the order in which TensorRT wants it made; it goes
// the other way round.
struct Loaded {
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;
    Queue stream;
    Memory host_maps, device_maps;
};

class TensorRt : public Backend {
  public:
    TensorRt(const std::string &path, const sal_model_options &options)
        : TensorRt(options.device) {
        Engine file = read_engine(path);
        const Sidecar &sidecar = file.sidecar;
        try {
            spec = GraphSpec::from_metadata(sidecar.metadata);
        } catch (const Error &error) {
            throw Error(error.status, path + " is not an engine for salstream: " + error.what());
        }
        const Symbols symbol = symbols(options);
        check_version(path, sidecar, symbol);
        const OnDevice here(device_);
        here.check();
        check_gpu(path, sidecar);
        loaded_ = std::make_unique<Loaded>();
        load(path, file.bytes, symbol);
        read_tensors(path, sidecar);
        levels_at_ = aligned(map_values() * sizeof(float));
        maps_bytes_ = levels_at_ + static_cast<std::size_t>(conspicuity_levels) * map_values() *
                                       sizeof(float);
        loaded_->host_maps = Memory(maps_bytes_, true);
        loaded_->device_maps = Memory(maps_bytes_, false);
        name = std::string(flavour) + "-cuda";
    }

    ~TensorRt() override {
        if (!loaded_) return;
        const OnDevice here(device_);
        loaded_.reset();
    }

    std::unique_ptr<Lane> lane(int phases) const override;

  private:
    friend class TensorRtLane;

    // What the other constructor calls first: what it throws, the destructor cleans up after.
    explicit TensorRt(int device) : device_(device) {}

    // What finds a function of TensorRT's by its name.
    using Symbols = std::function<void *(const char *)>;
    static Symbols symbols(const sal_model_options &options) {
        return [chosen = std::string(options.library ? options.library : "")](const char *name) {
            return load_symbol(chosen, "SALSTREAM_TENSORRT", {library_name}, name,
                               "TensorRT cannot be loaded; install it, or name its library in the "
                               "environment variable SALSTREAM_TENSORRT");
        };
    }

    static void check_version(const std::string &path, const Sidecar &sidecar,
                              const Symbols &symbol) {
        if (sidecar.flavour != flavour) {
            throw Error(SAL_LIBRARY_MISSING, path + " was built for " + quoted(sidecar.flavour) +
                                                 ", this libsalstream for " + flavour);
        }
        const auto number = [&](const char *name) {
            return std::to_string(reinterpret_cast<std::int32_t (*)()>(symbol(name))());
        };
        const std::string version =
            number("getInferLibMajorVersion") + "." + number("getInferLibMinorVersion") + "." +
            number("getInferLibPatchVersion") + "." + number("getInferLibBuildVersion");
        if (version != sidecar.version) {
            throw Error(SAL_LIBRARY_MISSING,
                        path + " was built by " + product + " " + quoted(sidecar.version) +
                            " and runs with no other version; here is " + version + build_again);
        }
    }

    void check_gpu(const std::string &path, const Sidecar &sidecar) const {
        int major = 0, minor = 0;
        for (const auto &[value, attribute] :
             {std::pair{&major, cudaDevAttrComputeCapabilityMajor},
              std::pair{&minor, cudaDevAttrComputeCapabilityMinor}}) {
            cuda().check(cuda().DeviceGetAttribute(value, attribute, device_),
                         "the GPU cannot be used", SAL_LIBRARY_MISSING);
        }
        if (!sidecar.fits(major, minor)) {
            throw Error(SAL_LIBRARY_MISSING, path + " was built for other GPUs; this one has "
                                                    "compute capability " + std::to_string(major) +
                                                    "." + std::to_string(minor) + build_again);
        }
        if (sidecar.smallest_batch > 1) {
            throw Error(SAL_LIBRARY_MISSING,
                        path + " takes batches of " + std::to_string(sidecar.smallest_batch) +
                            " and more, and a stream runs alone; build it again with --batch 1");
        }
    }

    void load(const std::string &path, const std::string &bytes, const Symbols &symbol) {
        using Create = void *(*)(void *, std::int32_t);
        const auto create = reinterpret_cast<Create>(symbol("createInferRuntime_INTERNAL"));
        auto &[runtime, engine, context, stream, host, device] = *loaded_;
        runtime.reset(static_cast<nvinfer1::IRuntime *>(create(&log_, NV_TENSORRT_VERSION)));
        if (!runtime) refuse(path + " cannot be loaded");
#ifdef TRT_MAJOR_RTX
        std::uint64_t reasons = 0;
        if (runtime->getEngineValidity(bytes.data(), static_cast<std::int64_t>(bytes.size()),
                                       &reasons) == nvinfer1::EngineValidity::kINVALID) {
            throw Error(SAL_LIBRARY_MISSING,
                        path + " does not run here, " + product + " says (" +
                            std::to_string(reasons) + "); update the driver, or" +
                            (build_again + 1));
        }
#endif
        engine.reset(runtime->deserializeCudaEngine(bytes.data(), bytes.size()));
        if (!engine) refuse(path + " cannot be loaded");
#ifdef TRT_MAJOR_RTX
        // Kernels are made here. Those for a shape shall be there when it first comes, not some
        // time later: they are what is recorded.
        const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine->createRuntimeConfig());
        if (!config) refuse(path + " cannot be run");
        config->setDynamicShapesKernelSpecializationStrategy(
            nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
        context.reset(engine->createExecutionContext(config.get()));
#else
        context.reset(engine->createExecutionContext());
#endif
        if (!context) refuse(path + " cannot be run");
    }

    [[noreturn]] void refuse(const std::string &what) const {
        const std::string text = what + ": " + product + " says: " + log_.last();
        if (says_no_memory(text.c_str())) throw Error(SAL_NO_MEMORY, "out of GPU memory: " + text);
        throw Error(SAL_MODEL_DAMAGED, text + build_again);
    }

    [[noreturn]] void fail() const {
        const std::string text = log_.last();
        throw Error(says_no_memory(text.c_str()) ? SAL_NO_MEMORY : SAL_INFERENCE_FAILED,
                    "the engine failed: " + text);
    }

    // Find the tensors of the contract (docs/graph.md); refuse an engine that has others, or that
    // are not those of its sidecar.
    void read_tensors(const std::string &path, const Sidecar &sidecar) {
        using nvinfer1::DataType;
        const nvinfer1::ICudaEngine &engine = *loaded_->engine;
        std::map<std::string, TensorFacts> found;
        for (int i = 0; i < engine.getNbIOTensors(); ++i) {
            const char *its = engine.getIOTensorName(i);
            const nvinfer1::Dims dims = engine.getTensorShape(its);
            const DataType type = engine.getTensorDataType(its);
            found[its] = {engine.getTensorIOMode(its) == nvinfer1::TensorIOMode::kINPUT,
                          type == DataType::kUINT8   ? "uint8"
                          : type == DataType::kFLOAT ? "float32"
                                                     : "another",
                          {dims.d, dims.d + std::max(0, static_cast<int>(dims.nbDims))}};
        }
        const auto wrong = [&] {
            throw Error(SAL_MODEL_DAMAGED, path + " is not the engine that its sidecar describes: "
                                                  "its tensors are others" + build_again);
        };
        for (auto &[_, tensor] : found) {
            if (tensor.shape.empty()) wrong();
            tensor.shape[0] = 1;  // a stream runs alone
            if (item_values(tensor.shape) > max_values) wrong();
        }
        if (found != sidecar.tensors) wrong();
        const auto fits = [&](const std::string &its, bool input, const char *type,
                              const std::vector<std::int64_t> &shape) {
            const auto entry = found.find(its);
            return entry != found.end() && entry->second == TensorFacts{input, type, shape};
        };
        const auto saliency = found.find("saliency"), levels = found.find("conspicuity");
        if (!fits("frames", true, "uint8", {1, spec.window, spec.height, spec.width, 3}) ||
            saliency == found.end() || saliency->second.shape.size() != 3) {
            wrong();
        }
        map_height = static_cast<int>(saliency->second.shape[1]);
        map_width = static_cast<int>(saliency->second.shape[2]);
        if (!fits("saliency", false, "float32", {1, map_height, map_width})) wrong();
        if (levels != found.end()) {
            if (levels->second.shape.size() != 4) wrong();
            conspicuity_levels = static_cast<int>(levels->second.shape[1]);
            if (!fits("conspicuity", false, "float32",
                      {1, conspicuity_levels, map_height, map_width})) {
                wrong();
            }
        }
        for (const auto &[its, tensor] : found) {
            if (!tensor.is_input || its == "frames") continue;
            if (its.rfind("state_", 0) != 0 || !fits(its, true, "float32", tensor.shape) ||
                !fits(its + "_next", false, "float32", tensor.shape)) {
                wrong();
            }
            states_.push_back({its, its + "_next", state_values * sizeof(float)});
            // Counted with what the next one's place takes.
            state_values += aligned(item_values(tensor.shape) * sizeof(float)) / sizeof(float);
        }
        recurrent = !states_.empty();
        for (const auto &[its, tensor] : found) {
            if (!tensor.is_input) continue;
            nvinfer1::Dims dims{};
            dims.nbDims = static_cast<std::int32_t>(tensor.shape.size());
            std::copy(tensor.shape.begin(), tensor.shape.end(), dims.d);
            if (!loaded_->context->setInputShape(its.c_str(), dims)) {
                refuse(path + " refuses one stream");
            }
        }
        records_ = capturable(*loaded_->context, loaded_->stream, 0);
    }

    static constexpr const char *build_again = "; build it again with `salstream build`";

    struct State {
        std::string name, next;  // of the input, and of the output that is the input after
        std::size_t offset;      // bytes from the start of all of them
    };

    int device_;
    mutable Log log_;
    std::unique_ptr<Loaded> loaded_;
    std::vector<State> states_;
    std::size_t levels_at_ = 0, maps_bytes_ = 0;  // of the conspicuity maps, behind the map
    bool records_ = true;
    // Held by the lane that uses what is loaded; there is one GPU to wait for anyway.
    mutable std::mutex mutex_;
};

class TensorRtLane : public Lane {
  public:
    TensorRtLane(const TensorRt &backend, int phases)
        : backend_(backend),
          window_(backend.spec.window),
          frame_bytes_(static_cast<std::size_t>(backend.spec.height) * backend.spec.width * 3),
          state_bytes_(backend.state_values * sizeof(float)),
          together_(aligned(2 * static_cast<std::size_t>(window_) * frame_bytes_)),
          ring_(window_),
          staging_(frame_bytes_, true),
          frames_(together_ + static_cast<std::size_t>(window_) * frame_bytes_, false),
          states_(std::max<std::size_t>(1, 2 * static_cast<std::size_t>(phases) * state_bytes_),
                  false),
          sides_(static_cast<std::size_t>(phases)),
          records_(backend.records_) {}

    ~TensorRtLane() override {
        const OnDevice here(backend_.device_);
        const std::lock_guard<std::mutex> lock(backend_.mutex_);
        (void)cuda().StreamSynchronize(backend_.loaded_->stream);
        recordings_.clear();
        staging_ = Memory();
        frames_ = Memory();
        states_ = Memory();
    }

    void push(const std::uint8_t *frame) override {
        const Use use(backend_);
        use.synchronize();  // the copy before may still read the pinned memory
        std::memcpy(staging_.at(), frame, frame_bytes_);
        ring_.advance();
        use.copy(slot(ring_.slot(0)), staging_.at(), frame_bytes_, cudaMemcpyHostToDevice);
        use.copy(slot(ring_.slot(0) - window_), staging_.at(), frame_bytes_,
                 cudaMemcpyHostToDevice);
    }

    void repeat() override {
        const Use use(backend_);
        const char *newest = slot(ring_.slot(0));
        ring_.advance();
        if (window_ == 1) return;  // it lies there already
        use.copy(slot(ring_.slot(0)), newest, frame_bytes_, cudaMemcpyDeviceToDevice);
        use.copy(slot(ring_.slot(0) - window_), newest, frame_bytes_, cudaMemcpyDeviceToDevice);
    }

    void clear() override {
        const Use use(backend_);
        ring_.clear();
        if (!backend_.recurrent) return;
        cuda().check(cuda().MemsetAsync(states_.at(), 0, 2 * sides_.size() * state_bytes_,
                                        backend_.loaded_->stream),
                     "the GPU failed");
    }

    void run(int phase, float *saliency, float *conspicuity) override {
        const Use use(backend_);
        std::size_t window = static_cast<std::size_t>(ring_.window()) * frame_bytes_;
        if (window % alignment) {
            use.copy(frames_.at(together_), frames_.at(window),
                     static_cast<std::size_t>(window_) * frame_bytes_, cudaMemcpyDeviceToDevice);
            window = together_;
        }
        unsigned char &side = sides_[static_cast<std::size_t>(phase)];
        infer(use, window, phase, side, saliency, conspicuity);
        side ^= 1;
    }

    // Only for engines without a state.
    void run(const int *ages, float *saliency, float *conspicuity) override {
        const Use use(backend_);
        for (int i = 0; i < window_; ++i) {
            use.copy(frames_.at(together_ + static_cast<std::size_t>(i) * frame_bytes_),
                     slot(ring_.slot(ages[i])), frame_bytes_, cudaMemcpyDeviceToDevice);
        }
        infer(use, together_, 0, 0, saliency, conspicuity);
    }

  private:
    // The model's context and stream, for one thread.
    class Use {
      public:
        explicit Use(const TensorRt &backend)
            : stream_(backend.loaded_->stream), here_(backend.device_), lock_(backend.mutex_) {
            here_.check();
        }
        void copy(char *to, const char *from, std::size_t size, cudaMemcpyKind kind) const {
            cuda().check(cuda().MemcpyAsync(to, from, size, kind, stream_), "the GPU failed");
        }
        void synchronize() const {
            cuda().check(cuda().StreamSynchronize(stream_), "the GPU failed");
        }

      private:
        cudaStream_t stream_;
        const OnDevice here_;
        const std::lock_guard<std::mutex> lock_;
    };

    char *slot(int number) const {
        return frames_.at(static_cast<std::size_t>(number) * frame_bytes_);
    }

    // Run on the window that lies at an offset, and bring the maps to the host.
    void infer(const Use &use, std::size_t window, int phase, int side, float *saliency,
               float *conspicuity) {
        const Loaded &loaded = *backend_.loaded_;
        const Key key{window, phase, side};
        const auto queue = [&] {
            if (!loaded.context->enqueueV3(loaded.stream)) backend_.fail();
            use.copy(loaded.host_maps.at(), loaded.device_maps.at(), backend_.maps_bytes_,
                     cudaMemcpyDeviceToHost);
        };
        const auto recording = recordings_.find(key);
        if (recording != recordings_.end()) {
            cuda().check(cuda().GraphLaunch(recording->second.get(), loaded.stream),
                         "the GPU failed");
        } else {
            bind(window, phase, side);
            // The first run with new addresses may prepare what cannot be recorded; so the
            // recording comes after it, for the next time.
            queue();
            if (records_ && recordings_.size() < max_recordings) record(key, queue);
        }
        use.synchronize();
        const char *host = loaded.host_maps.at();
        std::memcpy(saliency, host, backend_.map_values() * sizeof(float));
        std::memcpy(conspicuity, host + backend_.levels_at_,
                    backend_.maps_bytes_ - backend_.levels_at_);
    }

    void bind(std::size_t window, int phase, int side) const {
        const Loaded &loaded = *backend_.loaded_;
        const auto set = [&](const std::string &name, char *address) {
            if (!loaded.context->setTensorAddress(name.c_str(), address)) backend_.fail();
        };
        set("frames", frames_.at(window));
        set("saliency", loaded.device_maps.at());
        if (backend_.conspicuity_levels) {
            set("conspicuity", loaded.device_maps.at(backend_.levels_at_));
        }
        const std::size_t base = 2 * static_cast<std::size_t>(phase) * state_bytes_;
        const std::size_t now = base + static_cast<std::size_t>(side) * state_bytes_;
        const std::size_t after = base + static_cast<std::size_t>(side ^ 1) * state_bytes_;
        for (const TensorRt::State &state : backend_.states_) {
            set(state.name, states_.at(now + state.offset));
            set(state.next, states_.at(after + state.offset));
        }
    }

    using Key = std::tuple<std::size_t, int, int>;  // where the window lies, phase, side

    // Record what `queue` queues; nothing of it runs now. An engine that cannot be recorded runs
    // without.
    template <typename Work>
    void record(const Key &key, const Work &queue) {
        const cudaStream_t stream = backend_.loaded_->stream;
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t executable = nullptr;
        records_ = cuda().StreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) ==
                   cudaSuccess;
        if (records_) {
            try {
                queue();
            } catch (...) {  // whatever it is: a stream that goes on recording runs nothing more
                records_ = false;
            }
            records_ = cuda().StreamEndCapture(stream, &graph) == cudaSuccess && records_;
        }
        records_ = records_ && cuda().GraphInstantiate(&executable, graph, 0) == cudaSuccess;
        if (graph) (void)cuda().GraphDestroy(graph);
        if (!records_) {
            (void)cuda().GetLastError();  // or the next call would report it again
            return;
        }
        try {
            recordings_.try_emplace(key, executable);
        } catch (...) {
            (void)cuda().GraphExecDestroy(executable);
            throw;
        }
    }

    const TensorRt &backend_;  // outlives its lanes: the stream holds it
    int window_;
    std::size_t frame_bytes_, state_bytes_;
    std::size_t together_;  // where a window is put together, behind the ring's slots
    FrameRing ring_;
    Memory staging_;
    Memory frames_;  // the ring's 2 x window slots, and a window put together
    Memory states_;  // of each phase: the one before a run and the one after, changing roles
    std::vector<unsigned char> sides_;
    std::map<Key, Recording> recordings_;
    bool records_;
};

std::unique_ptr<Lane> TensorRt::lane(int phases) const {
    const OnDevice here(device_);
    here.check();
    return std::make_unique<TensorRtLane>(*this, phases);
}

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const std::string &path, const sal_model_options &options) {
    return std::make_unique<TensorRt>(path, options);
}

}  // namespace salstream

// TensorRT and TensorRT-RTX: engines made by `salstream build`, on an NVIDIA GPU.
//
// What a stream carries from frame to frame stays on the GPU: a new frame is one small copy into
// its ring, the engine reads the window where it lies, and reads the recurrent state where the
// run before wrote it. Only maps come back, into pinned memory. The work for every set of
// addresses is recorded once as a CUDA graph. CUDA's runtime and TensorRT are loaded at run time.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
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

// The functions of CUDA's runtime that are used here.
struct Cuda {
#define SAL_CUDA(name) decltype(&::cuda##name) name = load<decltype(&::cuda##name)>("cuda" #name)
    SAL_CUDA(DeviceGetAttribute);
    SAL_CUDA(Free);
    SAL_CUDA(FreeHost);
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

    void check(cudaError_t status, const char *context) const {
        if (status == cudaSuccess) return;
        (void)GetLastError();
        throw Error(status == cudaErrorMemoryAllocation ? SAL_NO_MEMORY : SAL_INFERENCE_FAILED,
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
    Queue() = default;
    Queue(const Queue &) = delete;
    Queue &operator=(const Queue &) = delete;
    ~Queue() {
        if (stream_) (void)cuda().StreamDestroy(stream_);
    }
    void open() {
        cuda().check(cuda().StreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                     "the GPU cannot be used");
    }
    operator cudaStream_t() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

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

struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;  // the first is the batch's
    nvinfer1::DataType type;
    bool input;

    std::size_t values() const {  // of one item of the batch
        std::size_t count = 1;
        for (std::size_t i = 1; i < shape.size(); ++i) count *= static_cast<std::size_t>(shape[i]);
        return count;
    }
};

class TensorRt : public Backend {
  public:
    TensorRt(const std::string &path, const sal_model_options &options) : device_(options.device) {
        Engine file = read_engine(path);
        const Sidecar &sidecar = file.sidecar;
        try {
            spec = GraphSpec::from_metadata(sidecar.metadata);
        } catch (const Error &error) {
            throw Error(error.status, path + " is not an engine for salstream: " + error.what());
        }
        const std::string again = "; build it again with `salstream build`";
        if (sidecar.flavour != flavour) {
            throw Error(SAL_LIBRARY_MISSING, path + " was built for " + quoted(sidecar.flavour) +
                                                 ", this libsalstream for " + flavour);
        }
        const std::string chosen = options.library ? options.library : "";
        const auto symbol = [&](const char *name) {
            return load_symbol(chosen, "SALSTREAM_TENSORRT", {library_name}, name,
                               "TensorRT cannot be loaded; install it, or name its library in the "
                               "environment variable SALSTREAM_TENSORRT");
        };
        const auto number = [&](const char *name) {
            return std::to_string(reinterpret_cast<std::int32_t (*)()>(symbol(name))());
        };
        const std::string version =
            number("getInferLibMajorVersion") + "." + number("getInferLibMinorVersion") + "." +
            number("getInferLibPatchVersion") + "." + number("getInferLibBuildVersion");
        if (version != sidecar.version) {
            throw Error(SAL_LIBRARY_MISSING,
                        path + " was built by " + product + " " + quoted(sidecar.version) +
                            " and runs with no other version; here is " + version + again);
        }
        use_device();
        int major = 0, minor = 0;
        cuda().check(cuda().DeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_),
                     "the GPU cannot be used");
        cuda().check(cuda().DeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_),
                     "the GPU cannot be used");
        const std::string here = std::to_string(major) + "." + std::to_string(minor);
        const auto &fits = sidecar.compute_capabilities;
        if (!fits.empty() && std::find(fits.begin(), fits.end(), here) == fits.end()) {
            throw Error(SAL_LIBRARY_MISSING, path + " was built for other GPUs; this one has "
                                                    "compute capability " + here + again);
        }
        using Create = void *(*)(void *, std::int32_t);
        const auto create = reinterpret_cast<Create>(symbol("createInferRuntime_INTERNAL"));
        runtime_.reset(static_cast<nvinfer1::IRuntime *>(create(&log_, NV_TENSORRT_VERSION)));
        if (!runtime_) refuse(path + " cannot be loaded");
        engine_.reset(runtime_->deserializeCudaEngine(file.bytes.data(), file.bytes.size()));
        if (!engine_) refuse(path + " cannot be loaded");
        context_.reset(engine_->createExecutionContext());
        if (!context_) refuse(path + " cannot be run");
        read_tensors(path);
        stream_.open();
        const std::size_t maps = map_values() * static_cast<std::size_t>(1 + conspicuity_levels);
        host_maps_ = Memory(maps * sizeof(float), true);
        device_maps_ = Memory(maps * sizeof(float), false);
        name = std::string(flavour) + "-cuda";
    }

    std::unique_ptr<Lane> lane(int phases) const override;

  private:
    friend class TensorRtLane;

    [[noreturn]] void refuse(const std::string &what) const {
        throw Error(SAL_MODEL_DAMAGED, what + ": " + product + " says: " + log_.last());
    }

    void use_device() const { cuda().check(cuda().SetDevice(device_), "the GPU cannot be used"); }

    void read_tensors(const std::string &path) {
        using nvinfer1::DataType;
        std::map<std::string, Tensor> found;
        for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char *name = engine_->getIOTensorName(i);
            const nvinfer1::Dims dims = engine_->getTensorShape(name);
            Tensor tensor{name,
                          {dims.d, dims.d + std::max(0, static_cast<int>(dims.nbDims))},
                          engine_->getTensorDataType(name),
                          engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT};
            found.emplace(name, tensor);
        }
        const auto fits = [&](const std::string &name, bool input, DataType type,
                              std::vector<std::int64_t> shape) {
            const auto entry = found.find(name);
            return entry != found.end() && entry->second.input == input &&
                   entry->second.type == type && entry->second.shape.size() == shape.size() + 1 &&
                   std::equal(shape.begin(), shape.end(), entry->second.shape.begin() + 1);
        };
        const auto wrong = [&] {
            throw Error(SAL_MODEL_DAMAGED, path + " is not the engine that its sidecar describes: "
                                                  "its tensors are others; build it again with "
                                                  "`salstream build`");
        };
        for (const auto &[name, tensor] : found) {
            if (tensor.shape.empty() ||
                std::any_of(tensor.shape.begin() + 1, tensor.shape.end(),
                            [](std::int64_t side) { return side < 1 || side > 1 << 24; })) {
                wrong();
            }
        }
        const auto saliency = found.find("saliency"), levels = found.find("conspicuity");
        if (!fits("frames", true, DataType::kUINT8, {spec.window, spec.height, spec.width, 3}) ||
            saliency == found.end() || saliency->second.shape.size() != 3) {
            wrong();
        }
        map_height = static_cast<int>(saliency->second.shape[1]);
        map_width = static_cast<int>(saliency->second.shape[2]);
        if (!fits("saliency", false, DataType::kFLOAT, {map_height, map_width})) wrong();
        if (levels != found.end()) {
            conspicuity_levels = static_cast<int>(levels->second.shape[1]);
            if (!fits("conspicuity", false, DataType::kFLOAT,
                      {conspicuity_levels, map_height, map_width})) {
                wrong();
            }
        }
        for (const auto &[name, tensor] : found) {
            if (!tensor.input || name == "frames") continue;
            std::vector<std::int64_t> shape(tensor.shape.begin() + 1, tensor.shape.end());
            if (name.rfind("state_", 0) != 0 || !fits(name, true, DataType::kFLOAT, shape) ||
                !fits(name + "_next", false, DataType::kFLOAT, shape)) {
                wrong();
            }
            states_.push_back(tensor);
            state_values += tensor.values();
        }
        recurrent = !states_.empty();
        for (const auto &[name, tensor] : found) {
            if (!tensor.input) continue;
            nvinfer1::Dims dims{};
            dims.nbDims = static_cast<std::int32_t>(tensor.shape.size());
            std::copy(tensor.shape.begin(), tensor.shape.end(), dims.d);
            dims.d[0] = 1;
            if (!context_->setInputShape(name.c_str(), dims)) refuse(path + " refuses one stream");
        }
    }

    int device_;
    mutable Log log_;
    // In the order in which TensorRT wants them made; they go the other way round.
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::vector<Tensor> states_;
    Memory host_maps_, device_maps_;
    Queue stream_;
    // Held by the lane that uses context, stream and maps; there is one GPU to wait for anyway.
    mutable std::mutex mutex_;
};

class TensorRtLane : public Lane {
  public:
    TensorRtLane(const TensorRt &backend, int phases)
        : backend_(backend),
          window_(backend.spec.window),
          frame_bytes_(static_cast<std::size_t>(backend.spec.height) * backend.spec.width * 3),
          state_bytes_(backend.state_values * sizeof(float)),
          ring_(window_),
          staging_(frame_bytes_, true),
          frames_(3 * static_cast<std::size_t>(window_) * frame_bytes_, false),
          states_(std::max<std::size_t>(1, 2 * static_cast<std::size_t>(phases) * state_bytes_),
                  false),
          sides_(static_cast<std::size_t>(phases)) {}

    ~TensorRtLane() override {
        const std::lock_guard<std::mutex> lock(backend_.mutex_);
        (void)cuda().StreamSynchronize(backend_.stream_);
        for (const auto &[_, recording] : recordings_) (void)cuda().GraphExecDestroy(recording);
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
                                        backend_.stream_),
                     "the GPU failed");
    }

    void run(int phase, float *saliency, float *conspicuity) override {
        const Use use(backend_);
        unsigned char &side = sides_[static_cast<std::size_t>(phase)];
        infer(use, ring_.window(), phase, side, saliency, conspicuity);
        side ^= 1;
    }

    // Only for engines without a state: the window is put together behind the ring.
    void run(const int *ages, float *saliency, float *conspicuity) override {
        const Use use(backend_);
        for (int i = 0; i < window_; ++i) {
            use.copy(slot(2 * window_ + i), slot(ring_.slot(ages[i])), frame_bytes_,
                     cudaMemcpyDeviceToDevice);
        }
        infer(use, 2 * window_, 0, 0, saliency, conspicuity);
    }

  private:
    // The model's context and stream, for one thread.
    class Use {
      public:
        explicit Use(const TensorRt &backend) : backend_(backend), lock_(backend.mutex_) {
            backend.use_device();
        }
        void copy(char *to, const char *from, std::size_t size, cudaMemcpyKind kind) const {
            cuda().check(cuda().MemcpyAsync(to, from, size, kind, backend_.stream_),
                         "the GPU failed");
        }
        void synchronize() const {
            cuda().check(cuda().StreamSynchronize(backend_.stream_), "the GPU failed");
        }

      private:
        const TensorRt &backend_;
        const std::lock_guard<std::mutex> lock_;
    };

    char *slot(int number) const {
        return frames_.at(static_cast<std::size_t>(number) * frame_bytes_);
    }

    // Run on the window that starts at a slot, and bring the maps to the host.
    void infer(const Use &use, int first_slot, int phase, int side, float *saliency,
               float *conspicuity) {
        const std::size_t maps =
            backend_.map_values() * static_cast<std::size_t>(1 + backend_.conspicuity_levels);
        const long long key =
            (static_cast<long long>(first_slot) * static_cast<long long>(sides_.size()) + phase) *
                2 + side;
        const auto queue = [&] {
            if (!backend_.context_->enqueueV3(backend_.stream_)) {
                throw Error(SAL_INFERENCE_FAILED, "the engine failed: " + backend_.log_.last());
            }
            use.copy(backend_.host_maps_.at(), backend_.device_maps_.at(), maps * sizeof(float),
                     cudaMemcpyDeviceToHost);
        };
        const auto recording = recordings_.find(key);
        if (recording != recordings_.end()) {
            cuda().check(cuda().GraphLaunch(recording->second, backend_.stream_),
                         "the GPU failed");
        } else {
            bind(first_slot, phase, side);
            // The first run with new addresses may prepare what cannot be recorded; so the
            // recording comes after it, for the next time.
            queue();
            if (records_ && recordings_.size() < max_recordings) record(key, queue);
        }
        use.synchronize();
        const float *host = reinterpret_cast<const float *>(backend_.host_maps_.at());
        std::copy(host, host + backend_.map_values(), saliency);
        std::copy(host + backend_.map_values(), host + maps, conspicuity);
    }

    void bind(int first_slot, int phase, int side) const {
        const auto set = [&](const std::string &name, char *address) {
            if (!backend_.context_->setTensorAddress(name.c_str(), address)) {
                throw Error(SAL_INFERENCE_FAILED, "the engine failed: " + backend_.log_.last());
            }
        };
        set("frames", slot(first_slot));
        set("saliency", backend_.device_maps_.at());
        if (backend_.conspicuity_levels) {
            set("conspicuity", backend_.device_maps_.at(backend_.map_values() * sizeof(float)));
        }
        const std::size_t base = 2 * static_cast<std::size_t>(phase) * state_bytes_;
        std::size_t now = base + static_cast<std::size_t>(side) * state_bytes_;
        std::size_t after = base + static_cast<std::size_t>(side ^ 1) * state_bytes_;
        for (const Tensor &state : backend_.states_) {
            set(state.name, states_.at(now));
            set(state.name + "_next", states_.at(after));
            now += state.values() * sizeof(float);
            after += state.values() * sizeof(float);
        }
    }

    // Record what `queue` queues; nothing of it runs now. An engine that cannot be recorded runs
    // without.
    template <typename Queue>
    void record(long long key, const Queue &queue) {
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t executable = nullptr;
        if (cuda().StreamBeginCapture(backend_.stream_, cudaStreamCaptureModeThreadLocal) !=
            cudaSuccess) {
            records_ = false;
            (void)cuda().GetLastError();
            return;
        }
        bool whole = true;
        try {
            queue();
        } catch (const Error &) {
            whole = false;
        }
        whole = cuda().StreamEndCapture(backend_.stream_, &graph) == cudaSuccess && whole;
        whole = whole && cuda().GraphInstantiate(&executable, graph, 0) == cudaSuccess;
        if (graph) (void)cuda().GraphDestroy(graph);
        if (whole) {
            recordings_.emplace(key, executable);
        } else {
            records_ = false;
            (void)cuda().GetLastError();  // or the next call would report it again
        }
    }

    const TensorRt &backend_;  // outlives its lanes: the stream holds it
    int window_;
    std::size_t frame_bytes_, state_bytes_;
    FrameRing ring_;
    Memory staging_;
    Memory frames_;  // the ring's 2 x window slots, and a window put together
    Memory states_;  // of each phase: the one before a run and the one after, changing roles
    std::vector<unsigned char> sides_;
    std::map<long long, cudaGraphExec_t> recordings_;
    bool records_ = true;
};

std::unique_ptr<Lane> TensorRt::lane(int phases) const {
    use_device();
    return std::make_unique<TensorRtLane>(*this, phases);
}

}  // namespace

std::unique_ptr<Backend> open_tensorrt(const std::string &path, const sal_model_options &options) {
    return std::make_unique<TensorRt>(path, options);
}

}  // namespace salstream

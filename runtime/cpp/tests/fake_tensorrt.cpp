// A stand-in for TensorRT and CUDA's runtime, loaded in their place: "engines" are the texts of
// fake_graph.hpp, the "GPU" is memory of the host.
//
// Work that is queued in a stream is done when someone waits for the stream, not before: memory
// that is read or written too early shows. Nothing here is locked, as nothing in CUDA protects the
// order of work in one stream or an execution context from two threads: ThreadSanitizer sees
// them. There are two GPUs, and each thread is on one of them.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#include "fake_graph.hpp"

namespace {

using Work = std::vector<std::function<void()>>;

struct Stream {
    int device;
    Work queued;
    Work *recording = nullptr;

    cudaError_t queue(const std::function<void()> &work) {
        (recording ? *recording : queued).push_back(work);
        return cudaSuccess;
    }
};

Stream *of(cudaStream_t stream) { return reinterpret_cast<Stream *>(stream); }

// Counts without an order: one would hide from ThreadSanitizer what has none.
class Count {
  public:
    explicit Count(long first) : value_(first) {}
    void operator++() { value_.fetch_add(1, std::memory_order_relaxed); }
    void operator--() { value_.fetch_sub(1, std::memory_order_relaxed); }
    bool falls_to_zero() {
        return value_.load(std::memory_order_relaxed) >= 0 &&
               value_.fetch_sub(1, std::memory_order_relaxed) == 0;
    }
    long set(long value) { return value_.exchange(value, std::memory_order_relaxed); }
    long get() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<long> value_;
};

constexpr int devices = 2;
thread_local int device = 0;
Count live{0}, launches{0}, memory_left{-1}, enqueues_left{-1}, recordings_left{-1};
bool capturable = true, eager = false;
cudaError_t without_gpu = cudaSuccess;

// As TensorRT asks it of what it reads and writes, and CUDA gives it.
constexpr std::size_t alignment = 256;

cudaError_t allocate(void **address, std::size_t size) {
    if (memory_left.falls_to_zero()) return cudaErrorMemoryAllocation;
    ++live;
    *address = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    std::memset(*address, 0xCD, size);
    return cudaSuccess;
}

cudaError_t release(void *address) {
    if (address) --live;
    std::free(address);
    return cudaSuccess;
}

struct Context : nvinfer1::IExecutionContext {
    Context(const fake::Graph &its, nvinfer1::ILogger *its_logger)
        : graph(its), logger(its_logger) {
        ++live;
    }
    ~Context() noexcept override { --live; }

#ifdef TRT_MAJOR_RTX
    bool isStreamCapturable(cudaStream_t) const noexcept override { return capturable; }
#endif

    bool setInputShape(const char *, const nvinfer1::Dims &dims) noexcept override {
        return dims.d[0] == 1;
    }

    bool setTensorAddress(const char *name, void *address) noexcept override {
        if (reinterpret_cast<std::uintptr_t>(address) % alignment) return false;
        addresses[name] = address;
        return true;
    }

    bool enqueueV3(cudaStream_t stream) noexcept override {
        if (of(stream)->device != device) return false;
        if (of(stream)->recording && !capturable) return false;
        if (enqueues_left.falls_to_zero()) {
            logger->log(nvinfer1::ILogger::Severity::kERROR, "Error Code 2: OutOfMemory");
            return false;
        }
        const auto at = addresses;
        const fake::Graph *its = &graph;
        of(stream)->queue([at, its] {
            const float *state = nullptr;
            for (const auto &input : its->inputs) {
                if (input.name != "frames") state = static_cast<const float *>(at.at(input.name));
            }
            const float value = its->value(at.at("frames"), state);
            for (const auto &output : its->outputs) {
                std::fill_n(static_cast<float *>(at.at(output.name)), output.values(), value);
            }
        });
        return true;
    }

    const fake::Graph &graph;
    nvinfer1::ILogger *logger;
    std::map<std::string, void *> addresses;
};

#ifdef TRT_MAJOR_RTX
struct Config : nvinfer1::IRuntimeConfig {
    Config() { ++live; }
    ~Config() noexcept override { --live; }
    void setDynamicShapesKernelSpecializationStrategy(
        nvinfer1::DynamicShapesKernelSpecializationStrategy strategy) noexcept override {
        eager = strategy == nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER;
    }
};
#endif

struct Engine : nvinfer1::ICudaEngine {
    explicit Engine(nvinfer1::ILogger *its) : logger(its) { ++live; }
    ~Engine() noexcept override { --live; }

    std::int32_t getNbIOTensors() const noexcept override {
        return static_cast<std::int32_t>(graph.inputs.size() + graph.outputs.size());
    }

    const char *getIOTensorName(std::int32_t index) const noexcept override {
        const auto i = static_cast<std::size_t>(index), inputs = graph.inputs.size();
        return (i < inputs ? graph.inputs[i] : graph.outputs[i - inputs]).name.c_str();
    }

    nvinfer1::Dims getTensorShape(const char *name) const noexcept override {
        const auto &shape = tensor(name).shape;
        nvinfer1::Dims dims{static_cast<std::int32_t>(shape.size()), {}};
        std::copy(shape.begin(), shape.end(), dims.d);
        return dims;
    }

    nvinfer1::DataType getTensorDataType(const char *name) const noexcept override {
        return tensor(name).bytes ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT;
    }

    nvinfer1::TensorIOMode getTensorIOMode(const char *name) const noexcept override {
        for (const auto &input : graph.inputs) {
            if (input.name == name) return nvinfer1::TensorIOMode::kINPUT;
        }
        return nvinfer1::TensorIOMode::kOUTPUT;
    }

#ifdef TRT_MAJOR_RTX
    nvinfer1::IRuntimeConfig *createRuntimeConfig() noexcept override { return new Config; }
    nvinfer1::IExecutionContext *createExecutionContext(
        nvinfer1::IRuntimeConfig *) noexcept override {
        return new Context(graph, logger);
    }
#else
    nvinfer1::IExecutionContext *createExecutionContext() noexcept override {
        return new Context(graph, logger);
    }
#endif

    const fake::Tensor &tensor(const std::string &name) const {
        for (const auto *tensors : {&graph.inputs, &graph.outputs}) {
            for (const fake::Tensor &each : *tensors) {
                if (each.name == name) return each;
            }
        }
        std::abort();
    }

    fake::Graph graph;
    nvinfer1::ILogger *logger;
};

struct Runtime : nvinfer1::IRuntime {
    explicit Runtime(nvinfer1::ILogger *its) : logger(its) { ++live; }
    ~Runtime() noexcept override { --live; }

#ifdef TRT_MAJOR_RTX
    nvinfer1::EngineValidity getEngineValidity(const void *bytes, std::int64_t size,
                                               std::uint64_t *reasons) const noexcept override {
        const std::string text(static_cast<const char *>(bytes), static_cast<std::size_t>(size));
        *reasons = text.rfind("elsewhere", 0) == 0 ? 8 : 0;
        return *reasons ? nvinfer1::EngineValidity::kINVALID : nvinfer1::EngineValidity::kVALID;
    }
#endif

    nvinfer1::ICudaEngine *deserializeCudaEngine(const void *bytes,
                                                 std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char *>(bytes), size));
        auto engine = std::make_unique<Engine>(logger);
        if (engine->graph.read(text)) return engine.release();
        using Severity = nvinfer1::ILogger::Severity;
        logger->log(Severity::kVERBOSE, "not this one");
        logger->log(Severity::kERROR, "Serialization assertion failed\nin two lines");
        return nullptr;
    }

    nvinfer1::ILogger *logger;
};

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void *createInferRuntime_INTERNAL(void *its_logger, std::int32_t version) {
    auto *logger = static_cast<nvinfer1::ILogger *>(its_logger);
    return version == NV_TENSORRT_VERSION ? new Runtime(logger) : nullptr;
}
EXPORTED std::int32_t getInferLibMajorVersion() { return 10; }
EXPORTED std::int32_t getInferLibMinorVersion() { return 9; }
EXPORTED std::int32_t getInferLibPatchVersion() { return 0; }
EXPORTED std::int32_t getInferLibBuildVersion() { return 34; }

EXPORTED cudaError_t cudaMalloc(void **address, size_t size) { return allocate(address, size); }
EXPORTED cudaError_t cudaMallocHost(void **address, size_t size) { return allocate(address, size); }
EXPORTED cudaError_t cudaFree(void *address) { return release(address); }
EXPORTED cudaError_t cudaFreeHost(void *address) { return release(address); }
EXPORTED const char *cudaGetErrorString(cudaError_t) { return "out of memory"; }
EXPORTED cudaError_t cudaGetLastError(void) { return cudaSuccess; }
EXPORTED cudaError_t cudaGetDevice(int *number) {
    *number = device;
    return without_gpu;
}
EXPORTED cudaError_t cudaSetDevice(int number) {
    if (number < 0 || number >= devices) return cudaErrorInvalidDevice;
    device = number;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 6;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    ++live;
    *stream = reinterpret_cast<cudaStream_t>(new Stream{device, {}});
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    --live;
    delete of(stream);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (of(stream)->recording) return cudaErrorStreamCaptureUnsupported;
    for (const auto &work : of(stream)->queued) work();
    of(stream)->queued.clear();
    return cudaSuccess;
}
EXPORTED cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind,
                                     cudaStream_t stream) {
    return of(stream)->queue([=] { std::memcpy(to, from, size); });
}
EXPORTED cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    return of(stream)->queue([=] { std::memset(to, value, size); });
}
EXPORTED cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode) {
    ++live;
    of(stream)->recording = new Work;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = reinterpret_cast<cudaGraph_t>(of(stream)->recording);
    of(stream)->recording = nullptr;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                          unsigned long long) {
    if (recordings_left.falls_to_zero()) return cudaErrorMemoryAllocation;
    ++live;
    *executable = reinterpret_cast<cudaGraphExec_t>(new Work(*reinterpret_cast<Work *>(graph)));
    return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    --live;
    delete reinterpret_cast<Work *>(graph);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    --live;
    delete reinterpret_cast<Work *>(executable);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    if (of(stream)->device != device) return cudaErrorInvalidResourceHandle;
    ++launches;
    for (const auto &work : *reinterpret_cast<Work *>(executable)) of(stream)->queue(work);
    return cudaSuccess;
}

// Objects lent and not yet given back; recordings launched since the last time.
EXPORTED long fake_gpu_live(void) { return live.get(); }
EXPORTED long fake_gpu_launches(void) { return launches.set(0); }
// Let the allocation, run or recording after `n` more fail, none if negative.
EXPORTED void fake_gpu_memory(long n) { (void)memory_left.set(n); }
EXPORTED void fake_gpu_enqueues(long n) { (void)enqueues_left.set(n); }
EXPORTED void fake_gpu_recordings(long n) { (void)recordings_left.set(n); }
// Whether runs can be recorded; whether kernels are made eagerly (TensorRT-RTX).
EXPORTED void fake_gpu_capturable(bool yes) { capturable = yes; }
EXPORTED bool fake_gpu_eager(void) { return eager; }
// Let there be no GPU.
EXPORTED void fake_gpu_missing(bool yes) { without_gpu = yes ? cudaErrorNoDevice : cudaSuccess; }

// A stand-in for TensorRT and CUDA's runtime, loaded in their place: "engines" are the texts of
// fake_graph.hpp, the "GPU" is memory of the host.
//
// Work that is queued in a stream is done when someone waits for the stream, not before: memory
// that is read or written too early shows.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#include "fake_graph.hpp"

namespace {

using Work = std::vector<std::function<void()>>;

std::atomic<long> live{0}, launches{0}, memory_left{-1};
Work queued;          // in the one stream of a model; tests use one model at a time
Work *recording = nullptr;

cudaError_t queue(const std::function<void()> &work) {
    (recording ? *recording : queued).push_back(work);
    return cudaSuccess;
}

cudaError_t allocate(void **address, std::size_t size) {
    if (memory_left >= 0 && memory_left-- == 0) return cudaErrorMemoryAllocation;
    ++live;
    *address = std::malloc(size);
    std::memset(*address, 0xCD, size);
    return cudaSuccess;
}

cudaError_t release(void *address) {
    if (address) --live;
    std::free(address);
    return cudaSuccess;
}

struct Context : nvinfer1::IExecutionContext {
    explicit Context(const fake::Graph &its) : graph(its) { ++live; }
    ~Context() noexcept override { --live; }

    bool setInputShape(const char *, const nvinfer1::Dims &dims) noexcept override {
        return dims.d[0] == 1;
    }

    bool setTensorAddress(const char *name, void *address) noexcept override {
        addresses[name] = address;
        return true;
    }

    bool enqueueV3(cudaStream_t) noexcept override {
        const auto at = addresses;
        const fake::Graph *its = &graph;
        queue([at, its] {
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
    std::map<std::string, void *> addresses;
};

struct Engine : nvinfer1::ICudaEngine {
    Engine() { ++live; }
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

    nvinfer1::IExecutionContext *createExecutionContext() noexcept override {
        return new Context(graph);
    }

    const fake::Tensor &tensor(const std::string &name) const {
        for (const auto *tensors : {&graph.inputs, &graph.outputs}) {
            for (const fake::Tensor &each : *tensors) {
                if (each.name == name) return each;
            }
        }
        std::abort();
    }

    fake::Graph graph;
};

struct Runtime : nvinfer1::IRuntime {
    explicit Runtime(nvinfer1::ILogger *its) : logger(its) { ++live; }
    ~Runtime() noexcept override { --live; }

    nvinfer1::ICudaEngine *deserializeCudaEngine(const void *bytes,
                                                 std::size_t size) noexcept override {
        std::istringstream text(std::string(static_cast<const char *>(bytes), size));
        auto engine = std::make_unique<Engine>();
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
EXPORTED cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
EXPORTED cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 6;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    ++live;
    *stream = reinterpret_cast<cudaStream_t>(&queued);
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamDestroy(cudaStream_t) {
    --live;
    queued.clear();
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamSynchronize(cudaStream_t) {
    for (const auto &work : queued) work();
    queued.clear();
    return cudaSuccess;
}
EXPORTED cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind,
                                     cudaStream_t) {
    return queue([=] { std::memcpy(to, from, size); });
}
EXPORTED cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t) {
    return queue([=] { std::memset(to, value, size); });
}
EXPORTED cudaError_t cudaStreamBeginCapture(cudaStream_t, enum cudaStreamCaptureMode) {
    ++live;
    recording = new Work;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph) {
    *graph = reinterpret_cast<cudaGraph_t>(recording);
    recording = nullptr;
    return cudaSuccess;
}
EXPORTED cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                          unsigned long long) {
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
EXPORTED cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
    ++launches;
    for (const auto &work : *reinterpret_cast<Work *>(executable)) queue(work);
    return cudaSuccess;
}

// Objects lent and not yet given back; recordings launched since the last time.
EXPORTED long fake_gpu_live(void) { return live; }
EXPORTED long fake_gpu_launches(void) { return launches.exchange(0); }
// Let the allocation after `n` more fail, none if negative.
EXPORTED void fake_gpu_memory(long n) { memory_left = n; }

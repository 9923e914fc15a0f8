// The part of TensorRT 10's interface that src/tensorrt.cpp uses, as declarations: for compiling
// it, and running it on a stand-in, where TensorRT's own headers are not. (There the functions
// are no virtual ones; nothing compiled with this runs with TensorRT itself.)
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_VERSION 100900
// With TRT_MAJOR_RTX defined, as TensorRT-RTX's own headers define it, these are of that.

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };

struct Dims64 {
    std::int32_t nbDims;
    std::int64_t d[8];
};
using Dims = Dims64;

class ILogger {
  public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, const char *text) noexcept = 0;
    virtual ~ILogger() = default;
};

#ifdef TRT_MAJOR_RTX
enum class DynamicShapesKernelSpecializationStrategy : std::int32_t { kLAZY, kEAGER, kNONE };
enum class EngineValidity : std::int32_t { kVALID, kSUBOPTIMAL, kINVALID };

class IRuntimeConfig {
  public:
    virtual ~IRuntimeConfig() noexcept = default;
    virtual void setDynamicShapesKernelSpecializationStrategy(
        DynamicShapesKernelSpecializationStrategy strategy) noexcept = 0;
};
#endif

class IExecutionContext {
  public:
    virtual ~IExecutionContext() noexcept = default;
#ifdef TRT_MAJOR_RTX
    virtual bool isStreamCapturable(cudaStream_t stream) const noexcept = 0;
#endif
    virtual bool setInputShape(const char *name, const Dims &dims) noexcept = 0;
    virtual bool setTensorAddress(const char *name, void *address) noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
  public:
    virtual ~ICudaEngine() noexcept = default;
    virtual std::int32_t getNbIOTensors() const noexcept = 0;
    virtual const char *getIOTensorName(std::int32_t index) const noexcept = 0;
    virtual Dims getTensorShape(const char *name) const noexcept = 0;
    virtual DataType getTensorDataType(const char *name) const noexcept = 0;
    virtual TensorIOMode getTensorIOMode(const char *name) const noexcept = 0;
#ifdef TRT_MAJOR_RTX
    virtual IRuntimeConfig *createRuntimeConfig() noexcept = 0;
    virtual IExecutionContext *createExecutionContext(IRuntimeConfig *config) noexcept = 0;
#else
    virtual IExecutionContext *createExecutionContext() noexcept = 0;
#endif
};

class IRuntime {
  public:
    virtual ~IRuntime() noexcept = default;
#ifdef TRT_MAJOR_RTX
    virtual EngineValidity getEngineValidity(const void *bytes, std::int64_t size,
                                             std::uint64_t *reasons) const noexcept = 0;
#endif
    virtual ICudaEngine *deserializeCudaEngine(const void *bytes, std::size_t size) noexcept = 0;
};

}  // namespace nvinfer1

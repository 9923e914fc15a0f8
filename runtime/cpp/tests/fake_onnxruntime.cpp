// A stand-in for ONNX Runtime, loaded in its place: it counts what it lends, and fails when told.
#include <onnxruntime_c_api.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "fake_graph.hpp"

namespace {

ONNXTensorElementDataType type_of(const fake::Tensor &tensor) {
    return tensor.bytes ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                        : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

std::atomic<long> live{0}, calls{0}, fail_at{-1};
std::atomic<bool> gives_nan{false};
std::atomic<const char *> says{nullptr};  // the failure that it was told of, in its words

// What was appended to a session's options; a session has the last one's.
std::string appended;
bool has_providers = false;

}  // namespace

// The library's opaque types, as this stand-in has them.
struct OrtStatus {
    std::string text;
};
struct OrtEnv {};
struct OrtSessionOptions {};
struct OrtMemoryInfo {};
struct OrtModelMetadata {
    const OrtSession *session;
};
struct OrtTensorTypeAndShapeInfo {
    fake::Tensor tensor;
};
struct OrtTypeInfo {
    OrtTensorTypeAndShapeInfo info;
};
struct OrtValue {
    void *data;
    std::size_t bytes;
};
struct OrtSession : fake::Graph {};
struct OrtCUDAProviderOptionsV2 {
    std::string text;
};
struct OrtTensorRTProviderOptionsV2 {
    std::string text;
};

namespace {

OrtStatus *failure(const char *text) {
    ++live;
    return new OrtStatus{text};
}

// Every call that can fail passes here, and the chosen one does.
bool fails() { return calls++ == fail_at; }
#define FAIL_IF_TOLD \
    if (fails()) return failure(says ? says.load() : "told to fail\nin two lines")

template <typename T>
T *lend(T *object) {
    ++live;
    return object;
}

template <typename T>
void ORT_API_CALL release(T *object) {
    if (object) --live;
    delete object;
}

const char *ORT_API_CALL message(const OrtStatus *status) noexcept { return status->text.c_str(); }

OrtStatus *ORT_API_CALL create_env(OrtLoggingLevel, const char *, OrtEnv **env) noexcept {
    static OrtEnv only;
    *env = &only;
    return nullptr;
}

OrtStatus *ORT_API_CALL create_options(OrtSessionOptions **options) noexcept {
    FAIL_IF_TOLD;
    *options = lend(new OrtSessionOptions);
    return nullptr;
}

OrtStatus *ORT_API_CALL set_number(OrtSessionOptions *, int) noexcept {
    FAIL_IF_TOLD;
    return nullptr;
}

OrtStatus *ORT_API_CALL set_entry(OrtSessionOptions *, const char *, const char *) noexcept {
    FAIL_IF_TOLD;
    return nullptr;
}

OrtStatus *ORT_API_CALL create_session(const OrtEnv *, const ORTCHAR_T *path,
                                       const OrtSessionOptions *, OrtSession **session) noexcept {
    FAIL_IF_TOLD;
    std::ifstream file(path);
    OrtSession made;
    if (!made.read(file)) return failure("Load model failed: Protobuf parsing failed.");
    *session = lend(new OrtSession(made));
    return nullptr;
}

OrtStatus *ORT_API_CALL input_count(const OrtSession *session, std::size_t *count) noexcept {
    FAIL_IF_TOLD;
    *count = session->inputs.size();
    return nullptr;
}

OrtStatus *ORT_API_CALL output_count(const OrtSession *session, std::size_t *count) noexcept {
    FAIL_IF_TOLD;
    *count = session->outputs.size();
    return nullptr;
}

void *ORT_API_CALL allocate(OrtAllocator *, std::size_t size) {
    ++live;
    return std::malloc(size);
}

void ORT_API_CALL deallocate(OrtAllocator *, void *p) {
    if (p) --live;
    std::free(p);
}

OrtAllocator allocator{};

char *copy(const std::string &text) {
    char *copied = static_cast<char *>(allocate(&allocator, text.size() + 1));
    std::memcpy(copied, text.c_str(), text.size() + 1);
    return copied;
}

OrtStatus *ORT_API_CALL input_name(const OrtSession *session, std::size_t i, OrtAllocator *,
                                   char **name) noexcept {
    FAIL_IF_TOLD;
    *name = copy(session->inputs[i].name);
    return nullptr;
}

OrtStatus *ORT_API_CALL output_name(const OrtSession *session, std::size_t i, OrtAllocator *,
                                    char **name) noexcept {
    FAIL_IF_TOLD;
    *name = copy(session->outputs[i].name);
    return nullptr;
}

OrtStatus *ORT_API_CALL input_type(const OrtSession *session, std::size_t i,
                                   OrtTypeInfo **type) noexcept {
    FAIL_IF_TOLD;
    *type = lend(new OrtTypeInfo{{session->inputs[i]}});
    return nullptr;
}

OrtStatus *ORT_API_CALL output_type(const OrtSession *session, std::size_t i,
                                    OrtTypeInfo **type) noexcept {
    FAIL_IF_TOLD;
    *type = lend(new OrtTypeInfo{{session->outputs[i]}});
    return nullptr;
}

OrtStatus *ORT_API_CALL tensor_info(const OrtTypeInfo *type,
                                    const OrtTensorTypeAndShapeInfo **info) noexcept {
    FAIL_IF_TOLD;
    *info = &type->info;
    return nullptr;
}

OrtStatus *ORT_API_CALL element_type(const OrtTensorTypeAndShapeInfo *info,
                                     ONNXTensorElementDataType *type) noexcept {
    FAIL_IF_TOLD;
    *type = type_of(info->tensor);
    return nullptr;
}

OrtStatus *ORT_API_CALL dimension_count(const OrtTensorTypeAndShapeInfo *info,
                                        std::size_t *count) noexcept {
    FAIL_IF_TOLD;
    *count = info->tensor.shape.size();
    return nullptr;
}

OrtStatus *ORT_API_CALL dimensions(const OrtTensorTypeAndShapeInfo *info, std::int64_t *sides,
                                   std::size_t count) noexcept {
    FAIL_IF_TOLD;
    std::copy_n(info->tensor.shape.begin(), count, sides);
    return nullptr;
}

OrtStatus *ORT_API_CALL default_allocator(OrtAllocator **out) noexcept {
    FAIL_IF_TOLD;
    *out = &allocator;
    return nullptr;
}

OrtStatus *ORT_API_CALL model_metadata(const OrtSession *session,
                                       OrtModelMetadata **metadata) noexcept {
    FAIL_IF_TOLD;
    *metadata = lend(new OrtModelMetadata{session});
    return nullptr;
}

OrtStatus *ORT_API_CALL look_up(const OrtModelMetadata *metadata, OrtAllocator *, const char *key,
                                char **value) noexcept {
    FAIL_IF_TOLD;
    const auto found = metadata->session->metadata.find(key);
    *value = found == metadata->session->metadata.end() ? nullptr : copy(found->second);
    return nullptr;
}

OrtStatus *ORT_API_CALL memory_info(OrtAllocatorType, OrtMemType, OrtMemoryInfo **info) noexcept {
    FAIL_IF_TOLD;
    *info = lend(new OrtMemoryInfo);
    return nullptr;
}

OrtStatus *ORT_API_CALL create_tensor(const OrtMemoryInfo *, void *data, std::size_t bytes,
                                      const std::int64_t *, std::size_t,
                                      ONNXTensorElementDataType, OrtValue **value) noexcept {
    FAIL_IF_TOLD;
    *value = lend(new OrtValue{data, bytes});
    return nullptr;
}

OrtStatus *ORT_API_CALL run(OrtSession *session, const OrtRunOptions *, const char *const *,
                            const OrtValue *const *inputs, std::size_t input_number,
                            const char *const *names, std::size_t output_number,
                            OrtValue **outputs) noexcept {
    FAIL_IF_TOLD;
    const float value = session->value(
        inputs[0]->data, input_number > 1 ? static_cast<const float *>(inputs[1]->data) : nullptr);
    for (std::size_t i = 0; i < output_number; ++i) {
        float *to = static_cast<float *>(outputs[i]->data);
        const bool map = std::strcmp(names[i], "saliency") == 0;
        std::fill_n(to, outputs[i]->bytes / sizeof(float),
                    map && gives_nan ? std::numeric_limits<float>::quiet_NaN() : value);
    }
    return nullptr;
}

template <typename Options>
OrtStatus *ORT_API_CALL provider(Options **options) noexcept {
    FAIL_IF_TOLD;
    if (!has_providers) return failure("this execution provider is not enabled in this build.");
    *options = lend(new Options);
    return nullptr;
}

template <typename Options>
OrtStatus *ORT_API_CALL update(Options *options, const char *const *keys,
                               const char *const *values, std::size_t count) noexcept {
    FAIL_IF_TOLD;
    for (std::size_t i = 0; i < count; ++i) {
        options->text += std::string(" ") + keys[i] + "=" + values[i];
    }
    return nullptr;
}

OrtStatus *ORT_API_CALL append_cuda(OrtSessionOptions *,
                                    const OrtCUDAProviderOptionsV2 *options) noexcept {
    FAIL_IF_TOLD;
    appended += "cuda" + options->text + ";";
    return nullptr;
}

OrtStatus *ORT_API_CALL append_tensorrt(OrtSessionOptions *,
                                        const OrtTensorRTProviderOptionsV2 *options) noexcept {
    FAIL_IF_TOLD;
    appended += "tensorrt" + options->text + ";";
    return nullptr;
}

const OrtApi *ORT_API_CALL get_api(std::uint32_t version) noexcept {
    static OrtApi api{};
    if (version > ORT_API_VERSION) return nullptr;
    allocator.version = ORT_API_VERSION;
    allocator.Alloc = allocate;
    allocator.Free = deallocate;
    api.GetErrorMessage = message;
    api.ReleaseStatus = release<OrtStatus>;
    api.CreateEnv = create_env;
    api.CreateSessionOptions = create_options;
    api.ReleaseSessionOptions = release<OrtSessionOptions>;
    api.SetSessionLogSeverityLevel = set_number;
    api.SetIntraOpNumThreads = set_number;
    api.AddSessionConfigEntry = set_entry;
    api.CreateSession = create_session;
    api.ReleaseSession = release<OrtSession>;
    api.SessionGetInputCount = input_count;
    api.SessionGetOutputCount = output_count;
    api.SessionGetInputName = input_name;
    api.SessionGetOutputName = output_name;
    api.SessionGetInputTypeInfo = input_type;
    api.SessionGetOutputTypeInfo = output_type;
    api.ReleaseTypeInfo = release<OrtTypeInfo>;
    api.CastTypeInfoToTensorInfo = tensor_info;
    api.GetTensorElementType = element_type;
    api.GetDimensionsCount = dimension_count;
    api.GetDimensions = dimensions;
    api.GetAllocatorWithDefaultOptions = default_allocator;
    api.SessionGetModelMetadata = model_metadata;
    api.ModelMetadataLookupCustomMetadataMap = look_up;
    api.ReleaseModelMetadata = release<OrtModelMetadata>;
    api.CreateCpuMemoryInfo = memory_info;
    api.ReleaseMemoryInfo = release<OrtMemoryInfo>;
    api.CreateTensorWithDataAsOrtValue = create_tensor;
    api.ReleaseValue = release<OrtValue>;
    api.Run = run;
    api.CreateCUDAProviderOptions = provider<OrtCUDAProviderOptionsV2>;
    api.UpdateCUDAProviderOptions = update<OrtCUDAProviderOptionsV2>;
    api.SessionOptionsAppendExecutionProvider_CUDA_V2 = append_cuda;
    api.ReleaseCUDAProviderOptions = release<OrtCUDAProviderOptionsV2>;
    api.CreateTensorRTProviderOptions = provider<OrtTensorRTProviderOptionsV2>;
    api.UpdateTensorRTProviderOptions = update<OrtTensorRTProviderOptionsV2>;
    api.SessionOptionsAppendExecutionProvider_TensorRT_V2 = append_tensorrt;
    api.ReleaseTensorRTProviderOptions = release<OrtTensorRTProviderOptionsV2>;
    return &api;
}

const char *ORT_API_CALL version_text() noexcept { return "fake"; }

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED const OrtApiBase *ORT_API_CALL OrtGetApiBase(void) noexcept {
    static const OrtApiBase base{get_api, version_text};
    return &base;
}

// Objects lent and not yet given back.
EXPORTED long fake_live(void) { return live; }
// Let the call after `n` more fail, none if negative; return the calls since the last time.
EXPORTED long fake_fail_at(long n) {
    fail_at = n;
    return calls.exchange(0);
}
EXPORTED void fake_gives_nan(bool yes) { gives_nan = yes; }
// In which words, null for the usual ones.
EXPORTED void fake_says(const char *text) { says = text; }
// Whether it has CUDA and TensorRT, and what was asked of them since the last time.
EXPORTED void fake_providers(bool yes) { has_providers = yes; }
EXPORTED const char *fake_appended(void) {
    static std::string last;
    last.swap(appended);
    appended.clear();
    return last.c_str();
}

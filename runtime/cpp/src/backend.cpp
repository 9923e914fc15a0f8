#include "backend.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "error.hpp"

namespace salstream {
namespace {

bool ends_with(std::string text, const char *suffix) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const std::size_t length = std::strlen(suffix);
    return text.size() >= length && text.compare(text.size() - length, length, suffix) == 0;
}

// Says more clearly than an inference library what is wrong.
void check_readable(const std::string &path) {
    std::FILE *file = std::fopen(path.c_str(), "rb");
    const bool readable = file && (std::fgetc(file) != EOF || !std::ferror(file));
    const int problem = errno;
    if (file) std::fclose(file);
    if (!readable) {
        throw Error(SAL_FILE_UNREADABLE, path + " cannot be read: " + std::strerror(problem));
    }
}

}  // namespace

std::size_t item_values(const std::vector<std::int64_t> &shape) {
    constexpr auto most = static_cast<std::int64_t>(max_values);
    std::int64_t count = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) {
        if (shape[i] < 1 || shape[i] > most / count) return max_values + 1;
        count *= shape[i];
    }
    return static_cast<std::size_t>(count);
}

bool says_no_memory(const char *text) {
    for (const char *sign : {"out of memory", "OutOfMemory", "Out of memory", "BFCArena",
                             "Failed to allocate memory", "bad_alloc", "bad allocation"}) {
        if (std::strstr(text, sign)) return true;
    }
    return false;
}

std::unique_ptr<Backend> open_backend(const std::string &path, const sal_model_options &options) {
    const bool engine = ends_with(path, ".engine");
    if (!engine && !ends_with(path, ".onnx")) {
        throw Error(SAL_INVALID_ARGUMENT,
                    "cannot run " + path + ": expected an .onnx file made by `salstream export`, "
                    "or an .engine made from it");
    }
    check_readable(path);
    return engine ? open_tensorrt(path, options) : open_onnxruntime(path, options);
}

#ifndef SALSTREAM_WITH_TENSORRT
std::unique_ptr<Backend> open_tensorrt(const std::string &path, const sal_model_options &) {
    throw Error(SAL_LIBRARY_MISSING,
                "cannot run " + path + ": this libsalstream was built without TensorRT; build it "
                "where NvInfer.h and the CUDA toolkit are, or run the .onnx file");
}
#endif

}  // namespace salstream

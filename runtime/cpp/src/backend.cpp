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

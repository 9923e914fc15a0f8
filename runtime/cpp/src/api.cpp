// The C interface: checks what it is given, and makes a status of whatever goes wrong.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "backend.hpp"
#include "error.hpp"
#include "salstream/salstream.h"
#include "stream.hpp"
#include "version.hpp"

namespace {

// What a model's streams share with it. They keep it, so that closing the model under a stream
// is an error of theirs and no crash.
struct Shared {
    std::unique_ptr<salstream::Backend> backend;
    std::atomic<bool> closed{false};
};

// The text of the last failure. Short of memory, a fixed one stands in.
thread_local std::string last_error;
thread_local const char *last_error_text = "";

sal_status fail(sal_status status, const char *text) noexcept {
    try {
        last_error = text;
        last_error_text = last_error.c_str();
    } catch (...) {
        last_error_text = "out of memory";
    }
    return status;
}

template <typename Work>
sal_status guarded(Work work) noexcept {
    try {
        return work();
    } catch (const salstream::Error &error) {
        return fail(error.status, error.what());
    } catch (const std::bad_alloc &) {
        return fail(SAL_NO_MEMORY, "out of memory");
    } catch (const std::length_error &) {
        return fail(SAL_NO_MEMORY, "out of memory");
    } catch (const std::exception &error) {
        return fail(SAL_INTERNAL, error.what());
    } catch (...) {
        return fail(SAL_INTERNAL, "unknown failure");
    }
}

void require(const void *pointer, const char *name) {
    if (!pointer) {
        throw salstream::Error(SAL_INVALID_ARGUMENT, std::string(name) + " is a null pointer");
    }
}

// Read a struct that starts with its size: what an older caller does not have is zero, what a
// newer one sets and this library does not know is refused. A null pointer gives the defaults.
template <typename T>
T read(const T *given, const char *name) {
    T known;
    std::memset(&known, 0, sizeof known);
    if (!given) return known;
    std::size_t size = 0;
    std::memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > 4096) {
        throw salstream::Error(SAL_INVALID_ARGUMENT,
                         std::string("struct_size of ") + name + " is " + std::to_string(size) +
                             "; set it to sizeof(" + name + ")");
    }
    const auto *bytes = reinterpret_cast<const unsigned char *>(given);
    for (std::size_t i = sizeof(T); i < size; ++i) {
        if (bytes[i]) {
            throw salstream::Error(SAL_INVALID_ARGUMENT, std::string(name) +
                                                       " sets what this version of salstream "
                                                       "does not know");
        }
    }
    std::memcpy(&known, given, std::min(size, sizeof(T)));
    return known;
}

// Fill a caller's struct as far as it goes.
template <typename T>
void write(T filled, T *wanted, const char *name) {
    std::size_t size = 0;
    std::memcpy(&size, wanted, sizeof size);
    if (size < sizeof size) {
        throw salstream::Error(SAL_INVALID_ARGUMENT, std::string("struct_size of ") + name + " is " +
                                                   std::to_string(size) + "; set it to sizeof(" +
                                                   name + ")");
    }
    filled.struct_size = size;
    std::memcpy(wanted, &filled, std::min(size, sizeof(T)));
}

}  // namespace

struct sal_model {
    std::shared_ptr<Shared> shared;
};

struct sal_stream {
    sal_stream(std::shared_ptr<Shared> model, const sal_stream_options &options)
        : shared(std::move(model)),
          stream(std::shared_ptr<const salstream::Backend>(shared, shared->backend.get()), options) {}

    std::shared_ptr<Shared> shared;
    salstream::Stream stream;
    std::atomic<bool> busy{false};
};

namespace {

// Work on a stream while no other thread does, and only as long as its model is open.
template <typename Work>
sal_status with(sal_stream *stream, Work work) noexcept {
    return guarded([&] {
        require(stream, "stream");
        if (stream->busy.exchange(true, std::memory_order_acquire)) {
            throw salstream::Error(SAL_IN_USE, "another thread is using this stream");
        }
        struct Leave {
            std::atomic<bool> &busy;
            ~Leave() { busy.store(false, std::memory_order_release); }
        } const leave{stream->busy};
        if (stream->shared->closed) {
            throw salstream::Error(SAL_MODEL_CLOSED, "the stream's model was closed");
        }
        return work(stream->stream);
    });
}

}  // namespace

extern "C" {

const char *sal_version(void) { return SALSTREAM_VERSION; }

const char *sal_revision(void) { return SALSTREAM_REVISION; }

const char *sal_status_text(sal_status status) {
    switch (status) {
        case SAL_OK:
            return "ok";
        case SAL_NONE:
            return "no result is ready";
        case SAL_INVALID_ARGUMENT:
            return "invalid argument";
        case SAL_INVALID_STATE:
            return "invalid state";
        case SAL_IN_USE:
            return "in use by another thread";
        case SAL_MODEL_CLOSED:
            return "model closed";
        case SAL_FILE_UNREADABLE:
            return "file cannot be read";
        case SAL_MODEL_DAMAGED:
            return "model damaged";
        case SAL_SCHEMA_UNKNOWN:
            return "unknown schema version";
        case SAL_LIBRARY_MISSING:
            return "inference library missing";
        case SAL_INFERENCE_FAILED:
            return "inference failed";
        case SAL_NO_MEMORY:
            return "out of memory";
        case SAL_INTERNAL:
            return "internal error";
    }
    return "unknown status";
}

const char *sal_last_error(void) { return last_error_text; }

sal_status sal_model_open(const char *path, const sal_model_options *options, sal_model **model) {
    return guarded([&] {
        require(model, "model");
        *model = nullptr;
        require(path, "path");
        const sal_model_options known = read(options, "sal_model_options");
        if (known.provider < SAL_CPU || known.provider > SAL_TENSORRT) {
            throw salstream::Error(SAL_INVALID_ARGUMENT, "unknown provider " +
                                                       std::to_string(known.provider));
        }
        if (known.threads < 0 || known.threads > 1024) {
            throw salstream::Error(SAL_INVALID_ARGUMENT,
                             "threads must be 1 to 1024, or 0 for the library's choice");
        }
        if (known.device < 0) {
            throw salstream::Error(SAL_INVALID_ARGUMENT, "device must be 0 or more");
        }
        auto opened = std::make_unique<sal_model>();
        opened->shared = std::make_shared<Shared>();
        opened->shared->backend = salstream::open_backend(path, known);
        *model = opened.release();
        return SAL_OK;
    });
}

sal_status sal_model_info_get(const sal_model *model, sal_model_info *info) {
    return guarded([&] {
        require(model, "model");
        require(info, "info");
        const salstream::Backend &backend = *model->shared->backend;
        const salstream::GraphSpec &spec = backend.spec;
        sal_model_info filled{};
        filled.model = spec.model.c_str();
        filled.domain = spec.domain.c_str();
        filled.precision = spec.precision.c_str();
        filled.license = spec.license.c_str();
        filled.attribution = spec.attribution.c_str();
        filled.backend = backend.name.c_str();
        filled.height = spec.height, filled.width = spec.width;
        filled.map_height = backend.map_height, filled.map_width = backend.map_width;
        filled.window = spec.window;
        filled.map_frame = spec.map_frame;
        filled.phases = spec.phases;
        filled.state_fps = spec.state_fps.value_or(0.0);
        filled.recurrent = backend.recurrent;
        filled.conspicuity_levels = backend.conspicuity_levels;
        filled.window_fps = spec.window_fps.value_or(0.0);
        write(filled, info, "sal_model_info");
        return SAL_OK;
    });
}

void sal_model_close(sal_model *model) {
    if (!model) return;
    model->shared->closed = true;
    delete model;
}

sal_status sal_stream_new(const sal_model *model, const sal_stream_options *options,
                          sal_stream **stream) {
    return guarded([&] {
        require(stream, "stream");
        *stream = nullptr;
        require(model, "model");
        *stream = new sal_stream(model->shared, read(options, "sal_stream_options"));
        return SAL_OK;
    });
}

sal_status sal_stream_push(sal_stream *stream, const sal_frame *frame) {
    return with(stream, [&](salstream::Stream &inside) {
        require(frame, "frame");
        inside.push(read(frame, "sal_frame"));
        return SAL_OK;
    });
}

sal_status sal_stream_next(sal_stream *stream, sal_result *result) {
    return with(stream, [&](salstream::Stream &inside) {
        require(result, "result");
        sal_result filled{};
        write(filled, result, "sal_result");  // a wrong size loses no result
        if (!inside.next(filled)) return SAL_NONE;
        write(filled, result, "sal_result");
        return SAL_OK;
    });
}

sal_status sal_stream_flush(sal_stream *stream) {
    return with(stream, [](salstream::Stream &inside) {
        inside.flush();
        return SAL_OK;
    });
}

sal_status sal_stream_reset(sal_stream *stream) {
    return with(stream, [](salstream::Stream &inside) {
        inside.reset();
        return SAL_OK;
    });
}

sal_status sal_stream_info_get(sal_stream *stream, sal_stream_info *info) {
    return with(stream, [&](salstream::Stream &inside) {
        require(info, "info");
        sal_stream_info filled{};
        inside.info(filled);
        write(filled, info, "sal_stream_info");
        return SAL_OK;
    });
}

void sal_stream_free(sal_stream *stream) { delete stream; }

}  // extern "C"

/* salstream.h: video saliency, frames in, maps out. The C interface of libsalstream.
 *
 * A model is opened once and shared; each camera or file has a stream of its own:
 *
 *     sal_model *model;   sal_model_open("unisal-dhf1k.onnx", NULL, &model);
 *     sal_stream *stream; sal_stream_new(model, NULL, &stream);
 *     for each frame: sal_stream_push(stream, &frame), then sal_stream_next until SAL_NONE;
 *     sal_stream_flush(stream), then sal_stream_next until SAL_NONE;
 *     sal_stream_free(stream); sal_model_close(model);
 *
 * N frames in give N maps out, in order, except for those that the start policy `skip`
 * leaves out. What a model needs (window, recurrent state, phases) is in its file.
 *
 * Errors   Every function that can fail returns a sal_status; a sentence about the last
 *          failure in the calling thread is in sal_last_error(). A call that fails changes
 *          nothing, with one exception: after SAL_INFERENCE_FAILED or SAL_NO_MEMORY from a
 *          push or flush the stream refuses frames until sal_stream_reset.
 * Memory   What sal_model_open and sal_stream_new give belongs to the caller, who hands it
 *          back with sal_model_close and sal_stream_free. A frame's pixels are read during
 *          the call and never kept. What a sal_result points to belongs to the stream and
 *          stays until the next call on that stream. Strings belong to the library.
 * Threads  A model may be used by any number of threads at once. A stream is for one thread
 *          at a time: a call while another thread is inside returns SAL_IN_USE. Different
 *          streams, also of one model, are independent.
 * Structs  start with struct_size = sizeof(the struct); set the rest to zero for defaults.
 *          So a program built with this header runs with later libraries. With earlier ones,
 *          whose structs are shorter, it runs as long as it leaves the rest of what it gives
 *          at zero (else SAL_INVALID_ARGUMENT); in structs that they fill, the rest stays as
 *          it was. Fields of an enumeration are int32_t, for the size of an enum is the
 *          compiler's choice.
 *
 * The library prints nothing, never ends the process, and throws nothing.
 */
#ifndef SALSTREAM_H
#define SALSTREAM_H

#include <stddef.h>
#include <stdint.h>

#define SAL_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sal_status {
    SAL_OK = 0,
    SAL_NONE = 1,              /* no result is ready; not a failure */
    SAL_INVALID_ARGUMENT = 2,  /* a null pointer, a size, a pitch, an option */
    SAL_INVALID_STATE = 3,     /* a frame after flush; results not taken; a failed stream */
    SAL_IN_USE = 4,            /* another thread is inside this stream */
    SAL_MODEL_CLOSED = 5,      /* the stream's model was closed */
    SAL_FILE_UNREADABLE = 6,   /* a file is missing or cannot be read */
    SAL_MODEL_DAMAGED = 7,     /* a file is damaged, or none that salstream exported */
    SAL_SCHEMA_UNKNOWN = 8,    /* written by an older or newer salstream */
    SAL_LIBRARY_MISSING = 9,   /* the inference library, or its GPU, cannot be used */
    SAL_INFERENCE_FAILED = 10, /* the graph failed, or gave a map that is not finite */
    SAL_NO_MEMORY = 11,        /* on the host or on the GPU */
    SAL_INTERNAL = 12          /* a defect of salstream */
} sal_status;

typedef enum sal_format {
    SAL_BGR = 0,
    SAL_RGB = 1,
    SAL_BGRA = 2, /* the last channel is ignored */
    SAL_NV12 = 3, /* BT.601, limited range; width and height even */
    SAL_GRAY = 4
} sal_format;

/* What to do where a window of frames is not whole (docs/streaming.md). */
typedef enum sal_start {
    SAL_START_DEFAULT = 0, /* reverse where the graph allows it, else repeat */
    SAL_START_REVERSE = 1, /* early maps come from the frames that follow, read backwards */
    SAL_START_REPEAT = 2,  /* the first frame is repeated before itself */
    SAL_START_SKIP = 3     /* no map; the frames are counted as skipped */
} sal_start;

typedef enum sal_map_type { SAL_FLOAT32 = 0, SAL_UINT8 = 1 } sal_map_type;
typedef enum sal_map_size { SAL_FRAME_SIZE = 0, SAL_MODEL_SIZE = 1 } sal_map_size;

typedef enum sal_provider { SAL_CPU = 0, SAL_CUDA = 1, SAL_TENSORRT = 2 } sal_provider;

typedef struct sal_model sal_model;
typedef struct sal_stream sal_stream;

typedef struct sal_model_options {
    size_t struct_size;
    const char *library; /* path of the inference library; NULL: the environment variable
                            SALSTREAM_ONNXRUNTIME (SALSTREAM_TENSORRT for an .engine), then
                            the usual names */
    int32_t provider; /* sal_provider of ONNX Runtime; ignored for an .engine */
    int32_t device;   /* number of the GPU */
    int32_t threads;  /* for one inference on the CPU; 0: the library's choice */
} sal_model_options;

typedef struct sal_model_info {
    size_t struct_size;
    const char *model;       /* network, such as "unisal" */
    const char *domain;      /* such as "dhf1k"; may be empty */
    const char *precision;   /* "fp32", "fp16", "int8" */
    const char *license;     /* SPDX identifier of the weights' licence */
    const char *attribution; /* whose weights these are */
    const char *backend;     /* library and device, such as "onnxruntime-cpu" */
    int32_t height, width;   /* of the network's input, in pixels */
    int32_t map_height, map_width;
    int32_t window;             /* frames that one map is made from */
    int32_t map_frame;          /* which of them the map is for, 0 for the oldest */
    int32_t phases;             /* interleaved passes where the frame rate is not known */
    double state_fps;           /* frames per second that one state sees; 0: always `phases` */
    int32_t recurrent;          /* 1 if it has a state */
    int32_t conspicuity_levels; /* 0 if it gives no conspicuity maps */
    double window_fps;          /* frames per second that a window was trained on; 0: any */
} sal_model_info;

typedef struct sal_stream_options {
    size_t struct_size;
    int32_t start;    /* sal_start */
    int32_t phases;   /* 0: what the graph wants at `fps` */
    int32_t stride;   /* distance of a window's frames; 0: what the graph wants at `fps` */
    double fps;       /* frame rate of the source; 0: not known */
    int32_t map_type; /* sal_map_type */
    int32_t map_size; /* sal_map_size: the map at its frame's size, or as the graph gives it */
} sal_stream_options;

typedef struct sal_frame {
    size_t struct_size;
    int32_t format; /* sal_format */
    int32_t height, width;
    const uint8_t *data;   /* the first row (NV12: of the luma plane) */
    size_t pitch;          /* bytes from row to row; 0: rows follow without a gap */
    const uint8_t *chroma; /* NV12: the interleaved U and V; NULL: right after the luma rows */
    size_t chroma_pitch;   /* 0: as `pitch` */
    int32_t has_index;     /* 0: numbered by the stream, one after the other */
    int32_t has_time;
    int64_t index; /* number of the frame in its source */
    double time_s; /* seconds since the source's first frame */
} sal_frame;

typedef struct sal_result {
    size_t struct_size;
    int64_t index;    /* of the frame */
    int32_t has_time; /* 0 where the frame came without a time */
    int32_t type;     /* sal_map_type: float32 in [0, 1], or uint8 with 255 for 1 */
    double time_s;    /* of the frame */
    int32_t height, width;
    const void *map;          /* height rows of width values, no gaps */
    const float *conspicuity; /* levels x map_height x map_width, shallow to deep; or NULL */
} sal_result;

typedef struct sal_stream_info {
    size_t struct_size;
    int32_t start;   /* the sal_start in use, never SAL_START_DEFAULT */
    int32_t phases;  /* in use */
    int32_t stride;  /* in use */
    int32_t ready;   /* results that sal_stream_next would give now */
    int32_t waiting; /* frames whose result is still to come */
    int64_t skipped; /* frames without a map so far, under SAL_START_SKIP */
} sal_stream_info;

/* Version of the library such as "0.1.0", and the git revision that it was built from
 * ("unknown" outside a repository). */
SAL_API const char *sal_version(void);
SAL_API const char *sal_revision(void);

/* A status in words ("invalid argument"). */
SAL_API const char *sal_status_text(sal_status status);

/* A sentence about the last failure in this thread; empty if there was none. It stays until
 * the thread's next failure. */
SAL_API const char *sal_last_error(void);

/* Open a graph (.onnx) or an engine (.engine with its sidecar .engine.json). */
SAL_API sal_status sal_model_open(const char *path, const sal_model_options *options,
                                  sal_model **model);
/* Its strings stay until the model is closed. */
SAL_API sal_status sal_model_info_get(const sal_model *model, sal_model_info *info);
/* Close a model; NULL is allowed, and no other thread may be inside a call with the model
 * itself. Its streams stay valid handles: every call on them but sal_stream_free returns
 * SAL_MODEL_CLOSED. The weights go with the last of its streams. */
SAL_API void sal_model_close(sal_model *model);

SAL_API sal_status sal_stream_new(const sal_model *model, const sal_stream_options *options,
                                  sal_stream **stream);
/* Take the next frame. A frame of another size than the one before is a cut: the results
 * still due come first, then the stream starts anew with it. While 64 results are ready and
 * not taken it returns SAL_INVALID_STATE. */
SAL_API sal_status sal_stream_push(sal_stream *stream, const sal_frame *frame);
/* Take the next result, or SAL_NONE. What it points to stays until the next call. */
SAL_API sal_status sal_stream_next(sal_stream *stream, sal_result *result);
/* End the stream: the results still due become ready. Frames are refused until a reset. */
SAL_API sal_status sal_stream_flush(sal_stream *stream);
/* Forget every frame, result and state, as after a cut; the next frame has number 0. */
SAL_API sal_status sal_stream_reset(sal_stream *stream);
SAL_API sal_status sal_stream_info_get(sal_stream *stream, sal_stream_info *info);
/* NULL is allowed. No other thread may be inside. */
SAL_API void sal_stream_free(sal_stream *stream);

#ifdef __cplusplus
}
#endif
#endif

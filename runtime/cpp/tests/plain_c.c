/* The header as plain C, and every call with null pointers and wrong sizes. */
#include <salstream/salstream.h>
#include <stdio.h>
#include <string.h>

static int problems = 0;

static void expect(int line, sal_status actual, sal_status wanted) {
    if (actual != wanted || (wanted != SAL_OK && !*sal_last_error())) {
        fprintf(stderr, "line %d: got %s, expected %s (%s)\n", line, sal_status_text(actual),
                sal_status_text(wanted), sal_last_error());
        problems = 1;
    }
}
#define EXPECT(call, wanted) expect(__LINE__, (call), (wanted))

int main(void) {
    sal_model *model = NULL;
    sal_stream *stream = NULL;
    sal_model_info info = {.struct_size = sizeof info};
    sal_model_options options = {0};
    struct {
        sal_model_options known;
        char newer[16];
    } later;
    int status;

    if (strlen(sal_version()) < 5 || !*sal_revision() || *sal_last_error()) problems = 1;
    for (status = 0; status <= SAL_INTERNAL + 1; ++status) {
        if (!*sal_status_text((sal_status)status)) problems = 1;
    }
    EXPECT(sal_model_open("x.onnx", NULL, NULL), SAL_INVALID_ARGUMENT);
    EXPECT(sal_model_open(NULL, NULL, &model), SAL_INVALID_ARGUMENT);
    EXPECT(sal_model_open("x.onnx", &options, &model), SAL_INVALID_ARGUMENT);
    if (!strstr(sal_last_error(), "struct_size")) problems = 1;
    options.struct_size = sizeof options;
    options.provider = 7;
    EXPECT(sal_model_open("x.onnx", &options, &model), SAL_INVALID_ARGUMENT);
    options.provider = SAL_CPU;
    options.threads = -1;
    EXPECT(sal_model_open("x.onnx", &options, &model), SAL_INVALID_ARGUMENT);
    options.threads = 0;
    options.device = -1;
    EXPECT(sal_model_open("x.onnx", &options, &model), SAL_INVALID_ARGUMENT);
    options.device = 0;
    EXPECT(sal_model_open("nowhere.onnx", &options, &model), SAL_FILE_UNREADABLE);
    EXPECT(sal_model_open("nowhere.txt", &options, &model), SAL_INVALID_ARGUMENT);
    EXPECT(sal_model_open(".", &options, &model), SAL_INVALID_ARGUMENT);
    memset(&later, 0, sizeof later);
    later.known.struct_size = sizeof later;
    EXPECT(sal_model_open("nowhere.onnx", &later.known, &model), SAL_FILE_UNREADABLE);
    later.newer[3] = 1;
    EXPECT(sal_model_open("nowhere.onnx", &later.known, &model), SAL_INVALID_ARGUMENT);
    if (model) problems = 1;
    later.newer[3] = 0;
    later.known.struct_size = sizeof(size_t); /* one that has nothing but its size */
    later.known.provider = 7;
    EXPECT(sal_model_open("nowhere.onnx", &later.known, &model), SAL_FILE_UNREADABLE);

    EXPECT(sal_model_info_get(NULL, &info), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_new(NULL, NULL, &stream), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_new(NULL, NULL, NULL), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_push(NULL, NULL), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_next(NULL, NULL), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_flush(NULL), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_reset(NULL), SAL_INVALID_ARGUMENT);
    EXPECT(sal_stream_info_get(NULL, NULL), SAL_INVALID_ARGUMENT);
    sal_stream_free(NULL);
    sal_model_close(NULL);
    return problems;
}

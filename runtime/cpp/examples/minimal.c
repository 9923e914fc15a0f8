/* Saliency of raw BGR frames: minimal MODEL.onnx HEIGHT WIDTH < frames.bgr > maps.gray
 *
 * Frames come on standard input, one after the other without gaps; each map goes to standard
 * output, 8 bits per pixel, at the frame's size:
 *
 *     ffmpeg -i in.mp4 -f rawvideo -pix_fmt bgr24 - | ./minimal unisal-dhf1k.onnx 272 640 |
 *         ffmpeg -f rawvideo -pix_fmt gray -s 640x272 -r 25 -i - out.mp4
 */
#include <salstream/salstream.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, sal_last_error());
    return 1;
}

/* Write every result that is ready. */
static int write_maps(sal_stream *stream) {
    sal_result result = {.struct_size = sizeof result};
    sal_status status;
    while ((status = sal_stream_next(stream, &result)) == SAL_OK) {
        const size_t bytes = (size_t)result.height * (size_t)result.width;
        if (fwrite(result.map, 1, bytes, stdout) != bytes) {
            perror("standard output");
            return 1;
        }
    }
    return status == SAL_NONE ? 0 : failed("next");
}

int main(int argc, char **argv) {
    sal_frame frame = {.struct_size = sizeof frame, .format = SAL_BGR};
    sal_stream_options options = {.struct_size = sizeof options, .map_type = SAL_UINT8};
    sal_model *model = NULL;
    sal_stream *stream = NULL;
    unsigned char *pixels = NULL;
    size_t bytes;
    int problem = 1;

    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL.onnx HEIGHT WIDTH < frames.bgr > maps.gray\n", argv[0]);
        return 2;
    }
    frame.height = atoi(argv[2]);
    frame.width = atoi(argv[3]);
    if (frame.height < 1 || frame.width < 1 || frame.height > 32768 || frame.width > 32768) {
        fprintf(stderr, "height and width must be 1 to 32768\n");
        return 2;
    }
    bytes = (size_t)frame.height * (size_t)frame.width * 3;
    pixels = malloc(bytes);
    frame.data = pixels;
    if (!pixels) {
        fprintf(stderr, "out of memory\n");
    } else if (sal_model_open(argv[1], NULL, &model) != SAL_OK) {
        failed(argv[1]);
    } else if (sal_stream_new(model, &options, &stream) != SAL_OK) {
        failed("stream");
    } else {
        problem = 0;
        while (!problem && fread(pixels, 1, bytes, stdin) == bytes) {
            problem = sal_stream_push(stream, &frame) != SAL_OK ? failed("push")
                                                               : write_maps(stream);
        }
        if (!problem) problem = sal_stream_flush(stream) != SAL_OK ? failed("flush")
                                                                  : write_maps(stream);
    }
    sal_stream_free(stream);
    sal_model_close(model);
    free(pixels);
    return problem;
}

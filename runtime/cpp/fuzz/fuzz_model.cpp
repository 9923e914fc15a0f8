// A model's file, opened and streamed through the C interface. The first 8 bytes choose options
// and the frame, the rest is the file.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "salstream/salstream.h"

namespace {

void must(bool condition) {
    if (!condition) std::abort();
}

void stream(sal_model *model, const unsigned char *choice) {
    sal_model_info info{};
    info.struct_size = sizeof info;
    must(sal_model_info_get(model, &info) == SAL_OK);
    // Sizes that are allowed, and too slow or large for fuzzing.
    if (1LL * info.height * info.width * info.window > 1 << 20 ||
        1LL * info.map_height * info.map_width * (1 + info.conspicuity_levels) > 1 << 20) {
        return;
    }
    sal_stream_options options{};
    options.struct_size = sizeof options;
    options.start = choice[0] % 5;
    options.phases = choice[1] % 8;
    options.stride = choice[2] % 4;
    options.map_type = choice[3] % 2;
    options.map_size = choice[3] / 2 % 2;
    sal_stream *stream = nullptr;
    if (sal_stream_new(model, &options, &stream) != SAL_OK) {
        must(*sal_last_error());
        return;
    }
    sal_frame frame{};
    frame.struct_size = sizeof frame;
    frame.format = choice[4] % 5;
    frame.height = choice[5] + 1, frame.width = choice[6] + 1;
    const std::vector<unsigned char> pixels(
        static_cast<std::size_t>(frame.height) * static_cast<std::size_t>(frame.width) * 4, 77);
    frame.data = pixels.data();
    sal_result result{};
    result.struct_size = sizeof result;
    long long taken = 0, pushed = 0;
    for (int i = 0; i < choice[7] % 40; ++i) {
        if (sal_stream_push(stream, &frame) != SAL_OK) break;
        ++pushed;
        if (i % 3 == 0) frame.has_index = 0;
        while (sal_stream_next(stream, &result) == SAL_OK) ++taken;
    }
    if (sal_stream_flush(stream) == SAL_OK) {
        while (sal_stream_next(stream, &result) == SAL_OK) ++taken;
        sal_stream_info after{};
        after.struct_size = sizeof after;
        must(sal_stream_info_get(stream, &after) == SAL_OK);
        must(taken + after.skipped == pushed && after.waiting == 0);
    }
    sal_stream_free(stream);
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    setenv("SALSTREAM_ONNXRUNTIME", FAKE_ONNXRUNTIME, 0);
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char *data, std::size_t size) {
    if (size < 8) return 0;
    static const std::string path = "fuzzed-" + std::to_string(std::rand()) + ".onnx";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char *>(data) + 8, static_cast<std::streamsize>(size - 8));
    sal_model_options options{};
    options.struct_size = sizeof options;
    options.threads = 1;
    sal_model *model = nullptr;
    if (sal_model_open(path.c_str(), &options, &model) == SAL_OK) {
        stream(model, data);
    } else {
        must(!model && *sal_last_error());
    }
    sal_model_close(model);
    return 0;
}

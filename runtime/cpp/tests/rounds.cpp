// Opens a model, streams frames through it and closes it, again and again:
//
//     rounds N KIB [MODEL LIBRARY]
//
// It fails if the process's memory grows by more than KIB after the first 20 rounds. Under
// valgrind it shows leaks.
#include <unistd.h>

#include <vector>

#include "support.hpp"

namespace {

long resident_kib() {
    std::ifstream file("/proc/self/statm");
    long whole = 0, resident = 0;
    file >> whole >> resident;
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

void round(const std::string &path, const sal_model_options &options) {
    std::vector<unsigned char> pixels(50 * 70 * 3, 99);
    sal_model *model = nullptr;
    sal_stream *stream = nullptr;
    CHECK(sal_model_open(path.c_str(), &options, &model) == SAL_OK);
    CHECK(sal_stream_new(model, nullptr, &stream) == SAL_OK);
    const sal_frame frame = frame_of(pixels.data(), 50, 70);
    for (int i = 0; i < 6; ++i) CHECK(sal_stream_push(stream, &frame) == SAL_OK);
    sal_result result{};
    result.struct_size = sizeof result;
    CHECK(sal_stream_next(stream, &result) == SAL_OK);
    CHECK(sal_stream_flush(stream) == SAL_OK);
    sal_model *none = nullptr;
    CHECK(sal_model_open("nowhere.onnx", &options, &none) == SAL_FILE_UNREADABLE);
    sal_model_close(model);
    sal_stream_free(stream);
}

}  // namespace

int main(int argc, char **argv) {
    CHECK(argc == 3 || argc == 5);
    const int rounds = std::atoi(argv[1]);
    sal_model_options options = fake_options();
    std::string path;
    if (argc == 5) {
        path = argv[3];
        options.library = argv[4];
        options.threads = 1;
    } else {
        path = fake_model("rounds.onnx", 4, false);
    }
    for (int i = 0; i < 20; ++i) round(path, options);
    const long before = resident_kib();
    for (int i = 20; i < rounds; ++i) round(path, options);
    const long grown = resident_kib() - before;
    std::printf("%d rounds, %ld KiB more\n", rounds, grown);
    CHECK(fake_live() == 0);
    return grown <= std::atol(argv[2]) ? 0 : 1;
}

// What the tests share: checks, the stand-in for ONNX Runtime, and its models.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "salstream/salstream.h"

extern "C" {
long fake_live(void);
long fake_fail_at(long n);
void fake_gives_nan(bool yes);
void fake_says(const char *text);
void fake_providers(bool yes);
const char *fake_appended(void);
}

[[noreturn]] inline void failed(const char *file, int line, const char *condition) {
    std::fprintf(stderr, "%s:%d: %s (%s)\n", file, line, condition, sal_last_error());
    std::exit(1);
}
#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))

inline const std::string fake_library = FAKE_ONNXRUNTIME;

// A model of the stand-in; `more` are further lines, `state` makes it recurrent.
inline std::string fake_model(const std::string &path, int window, bool state,
                              const std::string &more = "", int height = 4, int width = 6) {
    std::ofstream file(path);
    file << "meta salstream.schema 1\nmeta salstream.model fake\n"
         << "meta salstream.domain test\nmeta salstream.height " << height
         << "\nmeta salstream.width " << width << "\nmeta salstream.window " << window
         << "\nmeta salstream.map_frame " << window - 1 << "\ninput frames u8 -1 " << window << " "
         << height << " " << width << " 3\noutput saliency f32 -1 4 6\n";
    if (state) file << "input state_x f32 -1 2\noutput state_x_next f32 -1 2\n";
    file << more;
    return path;
}

inline sal_model_options fake_options() {
    sal_model_options options{};
    options.struct_size = sizeof options;
    options.library = fake_library.c_str();
    return options;
}

inline sal_frame frame_of(const unsigned char *data, int height, int width) {
    sal_frame frame{};
    frame.struct_size = sizeof frame;
    frame.height = height;
    frame.width = width;
    frame.data = data;
    return frame;
}

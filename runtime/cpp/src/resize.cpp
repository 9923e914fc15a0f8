#include "resize.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace salstream {
namespace {

std::uint8_t to_byte(float value) {
    return static_cast<std::uint8_t>(std::lrintf(std::clamp(value, 0.0f, 255.0f)));
}

// Source pixels per target pixel. OpenCV divides twice, and the last bit counts.
double scale_of(int from, int to) { return 1.0 / (static_cast<double>(to) / from); }

#ifdef __SSE2__
// Four bytes from anywhere, as the lowest of a vector.
__m128i four_bytes(const std::uint8_t *from) {
    std::int32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm_cvtsi32_si128(bytes);
}

// Pixels of 3 channels from rows of `pairs` pairs of them; returns how many were done. Eight
// bytes are read where six are used, so the last two stay to be done.
int pairs_of_pixels(const std::uint8_t *upper, const std::uint8_t *lower, int pairs,
                    std::uint8_t *to) {
    const __m128i zero = _mm_setzero_si128(), two = _mm_set1_epi16(2);
    int done = 0;
    for (; done < pairs - 2; ++done, upper += 6, lower += 6, to += 3) {
        const __m128i above = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(upper));
        const __m128i below = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(lower));
        const __m128i sums =
            _mm_add_epi16(_mm_unpacklo_epi8(above, zero), _mm_unpacklo_epi8(below, zero));
        const __m128i all = _mm_add_epi16(_mm_add_epi16(sums, _mm_srli_si128(sums, 6)), two);
        const std::int32_t pixel = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_srli_epi16(all, 2), zero));
        std::memcpy(to, &pixel, sizeof pixel);  // the fourth byte is the next pixel's
    }
    return done;
}
#else
int pairs_of_pixels(const std::uint8_t *, const std::uint8_t *, int, std::uint8_t *) { return 0; }
#endif

// The mean of blocks of 2x2 pixels, halves upwards.
void by_blocks(const Image &from, std::uint8_t *to) {
    const int channels = from.channels, height = from.height / 2;
    const int target = from.width / 2 * channels;
    for (int y = 0; y < height; ++y, to += target) {
        const std::uint8_t *const upper = from.row(2 * y), *const lower = from.row(2 * y + 1);
        const int done = channels == 3 ? 3 * pairs_of_pixels(upper, lower, from.width / 2, to) : 0;
        for (int i = done; i < target; ++i) {
            const int j = 2 * i - i % channels, k = j + channels;
            to[i] = static_cast<std::uint8_t>((upper[j] + upper[k] + lower[j] + lower[k] + 2) >> 2);
        }
    }
}

bool is_whole(double value) { return std::abs(value - std::nearbyint(value)) < DBL_EPSILON; }

}  // namespace

void Halver::operator()(const Image &from, std::uint8_t *to) {
    if (from.height % 2 == 0 && from.width % 2 == 0) {
        by_blocks(from, to);
    } else {
        by_areas(from, to);
    }
}

void Halver::shares(int from, int to, std::vector<Share> &out) {
    out.clear();
    const double scale = scale_of(from, to);
    for (int target = 0; target < to; ++target) {
        const double begin = target * scale, end = begin + scale;
        const double covered = std::min(scale, from - begin);
        const int last = std::min(static_cast<int>(std::floor(end)), from - 1);
        const int first = std::min(static_cast<int>(std::ceil(begin)), last);
        if (first - begin > 1e-3) {
            out.push_back({first - 1, target, static_cast<float>((first - begin) / covered)});
        }
        for (int source = first; source < last; ++source) {
            out.push_back({source, target, static_cast<float>(1.0 / covered)});
        }
        if (end - last > 1e-3) {
            const double part = std::min(std::min(end - last, 1.0), covered);
            out.push_back({last, target, static_cast<float>(part / covered)});
        }
    }
}

void Halver::by_areas(const Image &from, std::uint8_t *to) {
    const int height = from.height / 2, width = from.width / 2, channels = from.channels;
    const double scale_y = scale_of(from.height, height), scale_x = scale_of(from.width, width);
    if (is_whole(scale_y) && is_whole(scale_x)) {  // three pixels in one, in either direction
        const int rows = static_cast<int>(std::nearbyint(scale_y));
        const int columns = static_cast<int>(std::nearbyint(scale_x));
        const float share = 1.0f / static_cast<float>(rows * columns);
        for (int y = 0; y < height; ++y) {
            for (int i = 0; i < width * channels; ++i) {
                const int begin = i / channels * columns * channels + i % channels;
                int sum = 0;
                for (int dy = 0; dy < rows; ++dy) {
                    for (int dx = 0; dx < columns; ++dx) {
                        sum += from.row(y * rows + dy)[begin + dx * channels];
                    }
                }
                *to++ = to_byte(static_cast<float>(sum) * share);
            }
        }
        return;
    }
    shares(from.width, width, columns_);
    shares(from.height, height, rows_);
    const std::size_t values = static_cast<std::size_t>(width) * channels;
    row_.resize(values);
    total_.assign(values, 0.0f);
    int done = 0;
    const auto write = [&] {
        std::uint8_t *target = to + values * static_cast<std::size_t>(done);
        for (std::size_t i = 0; i < values; ++i) target[i] = to_byte(total_[i]);
    };
    for (const Share &share : rows_) {
        const std::uint8_t *source = from.row(share.from);
        std::fill(row_.begin(), row_.end(), 0.0f);
        for (const Share &column : columns_) {
            for (int c = 0; c < channels; ++c) {
                row_[static_cast<std::size_t>(column.to * channels + c)] +=
                    static_cast<float>(source[column.from * channels + c]) * column.weight;
            }
        }
        if (share.to != done) {
            write();
            done = share.to;
            for (std::size_t i = 0; i < values; ++i) total_[i] = share.weight * row_[i];
        } else {
            for (std::size_t i = 0; i < values; ++i) total_[i] += share.weight * row_[i];
        }
    }
    write();
}

void Cubic::taps(int from, int to, std::vector<Tap> &out) {
    constexpr float a = -0.75f, one = 2048.0f;
    const double scale = scale_of(from, to);
    out.resize(static_cast<std::size_t>(to));
    for (int target = 0; target < to; ++target) {
        const float at = static_cast<float>((target + 0.5) * scale - 0.5);
        const int floor = static_cast<int>(std::floor(at));
        const float x = at - static_cast<float>(floor), rest = 1.0f - x;
        float w[4];
        w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
        w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
        w[2] = ((a + 2) * rest - (a + 3)) * rest * rest + 1;
        w[3] = 1.0f - w[0] - w[1] - w[2];
        Tap &tap = out[static_cast<std::size_t>(target)];
        tap.first = floor - 1;
        for (int k = 0; k < 4; ++k) {
            tap.weights[k] = static_cast<std::int16_t>(std::lrintf(w[k] * one));
        }
    }
}

void Cubic::filter_row(const std::uint8_t *from, int from_width, std::int32_t *to) const {
    for (const Tap &tap : columns_) {
        const std::uint8_t *p[4];
        for (int k = 0; k < 4; ++k) {
            p[k] = from + 3 * std::clamp(tap.first + k, 0, from_width - 1);
        }
#ifdef __SSE2__
        // A fourth byte is read, and a fourth value written that the next pixel writes over.
        if (tap.first + 4 < from_width) {
            const __m128i zero = _mm_setzero_si128();
            const __m128i weights =
                _mm_loadl_epi64(reinterpret_cast<const __m128i *>(tap.weights));
            const auto products = [&](const std::uint8_t *one, const std::uint8_t *other,
                                      __m128i pair) {
                const __m128i mixed = _mm_unpacklo_epi8(four_bytes(one), four_bytes(other));
                return _mm_madd_epi16(_mm_unpacklo_epi8(mixed, zero), pair);
            };
            const __m128i sum =
                _mm_add_epi32(products(p[0], p[1], _mm_shuffle_epi32(weights, 0x00)),
                              products(p[2], p[3], _mm_shuffle_epi32(weights, 0x55)));
            _mm_storeu_si128(reinterpret_cast<__m128i *>(to), sum);
            to += 3;
            continue;
        }
#endif
        for (int c = 0; c < 3; ++c) {
            to[c] = p[0][c] * tap.weights[0] + p[1][c] * tap.weights[1] +
                    p[2][c] * tap.weights[2] + p[3][c] * tap.weights[3];
        }
        to += 3;
    }
}

void Cubic::operator()(const Image &from, std::uint8_t *to, int height, int width) {
    if (from.height != from_height_ || from.width != from_width_ || height != height_ ||
        width != width_) {
        taps(from.height, height, rows_);
        taps(from.width, width, columns_);
        filtered_.resize((static_cast<std::size_t>(width) * 3 + 1) * 4);
        from_height_ = from.height, from_width_ = from.width, height_ = height, width_ = width;
    }
    const int values = 3 * width;
    std::fill(filtered_row_, filtered_row_ + 4, -1);
    constexpr float unit = 1.0f / (2048.0f * 2048.0f);
    // OpenCV's vectors of 8 values reckon in float; the rest of a row in whole numbers.
    const int in_float = values / 8 * 8;
    for (int y = 0; y < height; ++y, to += values) {
        const Tap &tap = rows_[static_cast<std::size_t>(y)];
        const std::int32_t *rows[4];
        for (int k = 0; k < 4; ++k) {
            const int source = std::clamp(tap.first + k, 0, from.height - 1);
            std::int32_t *row = filtered_.data() + static_cast<std::size_t>(source % 4) *
                                                       static_cast<std::size_t>(values + 1);
            if (filtered_row_[source % 4] != source) {
                filter_row(from.row(source), from.width, row);
                filtered_row_[source % 4] = source;
            }
            rows[k] = row;
        }
        const std::int32_t *const r0 = rows[0], *const r1 = rows[1], *const r2 = rows[2],
                           *const r3 = rows[3];
        const std::int16_t *w = tap.weights;
        const float f0 = w[0] * unit, f1 = w[1] * unit, f2 = w[2] * unit, f3 = w[3] * unit;
#ifdef __SSE2__
        const auto four = [&](int i) {
            const auto scaled = [i](const std::int32_t *row, float factor) {
                const auto *at = reinterpret_cast<const __m128i *>(row + i);
                return _mm_mul_ps(_mm_cvtepi32_ps(_mm_loadu_si128(at)), _mm_set1_ps(factor));
            };
            return _mm_cvtps_epi32(_mm_add_ps(
                scaled(r0, f0), _mm_add_ps(scaled(r1, f1),
                                           _mm_add_ps(scaled(r2, f2), scaled(r3, f3)))));
        };
        for (int i = 0; i < in_float; i += 8) {
            const __m128i words = _mm_packs_epi32(four(i), four(i + 4));
            _mm_storel_epi64(reinterpret_cast<__m128i *>(to + i), _mm_packus_epi16(words, words));
        }
#else
        for (int i = 0; i < in_float; ++i) {
            const float sum =
                static_cast<float>(r0[i]) * f0 +
                (static_cast<float>(r1[i]) * f1 +
                 (static_cast<float>(r2[i]) * f2 + static_cast<float>(r3[i]) * f3));
            to[i] = to_byte(sum);
        }
#endif
        for (int i = in_float; i < values; ++i) {
            const std::int32_t sum = r0[i] * w[0] + r1[i] * w[1] + r2[i] * w[2] + r3[i] * w[3];
            to[i] = static_cast<std::uint8_t>(std::clamp((sum + (1 << 21)) >> 22, 0, 255));
        }
    }
}

void Linear::taps(int from, int to, std::vector<Tap> &out) {
    const double scale = scale_of(from, to);
    out.resize(static_cast<std::size_t>(to));
    for (int target = 0; target < to; ++target) {
        const double at = std::clamp((target + 0.5) * scale - 0.5, 0.0, from - 1.0);
        const int first = static_cast<int>(at);
        out[static_cast<std::size_t>(target)] = {first, std::min(first + 1, from - 1),
                                                 static_cast<float>(at - first)};
    }
}

void Linear::operator()(const float *from, std::size_t pitch, int from_height, int from_width,
                        float *to, int height, int width) {
    if (from_height == height && from_width == width) {
        for (int y = 0; y < height; ++y, from += pitch, to += width) {
            std::copy(from, from + width, to);
        }
        return;
    }
    if (from_height != from_height_ || from_width != from_width_ || height != height_ ||
        width != width_) {
        taps(from_height, height, rows_);
        taps(from_width, width, columns_);
        filtered_.resize(static_cast<std::size_t>(width) * 2);
        from_height_ = from_height, from_width_ = from_width, height_ = height, width_ = width;
    }
    const std::size_t values = static_cast<std::size_t>(width);
    int held[2] = {-1, -1};
    const auto filtered = [&](int source) {
        float *row = filtered_.data() + values * static_cast<std::size_t>(source % 2);
        if (held[source % 2] != source) {
            held[source % 2] = source;
            const float *line = from + pitch * static_cast<std::size_t>(source);
            for (std::size_t x = 0; x < values; ++x) {
                const Tap &tap = columns_[x];
                row[x] = line[tap.first] * (1.0f - tap.weight) + line[tap.second] * tap.weight;
            }
        }
        return row;
    };
    for (const Tap &tap : rows_) {
        const float *upper = filtered(tap.first), *lower = filtered(tap.second);
        const float second = tap.weight, first = 1.0f - second;
        for (std::size_t x = 0; x < values; ++x) to[x] = upper[x] * first + lower[x] * second;
        to += values;
    }
}

}  // namespace salstream

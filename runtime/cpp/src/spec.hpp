// What a graph says about itself: the entries `salstream.*` of its metadata.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace salstream {

// The facts that a graph carries; docs/graph.md explains each. The counterpart of Python's
// GraphSpec, with bounds in addition: a file from a stranger cannot ask for all memory.
struct GraphSpec {
    std::string model, domain, precision = "fp32", license = "unknown", attribution;
    int height = 0, width = 0, window = 1, map_frame = 0, phases = 1;
    std::optional<double> state_fps, window_fps;
    bool letterbox = false;

    // Names of the entries that are read, without the prefix.
    static constexpr const char *fields[] = {
        "schema", "model", "domain", "height", "width", "window", "map_frame", "phases",
        "state_fps", "window_fps", "resize", "fit", "smoothing_sigma", "precision", "license",
        "attribution", "verification", "calibration"};

    // Phases for a source of `fps` frames per second (0: rate unknown).
    int phases_at(double fps) const;

    // Distance of a window's frames for the same.
    int stride_at(double fps) const;

    // Read the entries. `salstream.` is part of each key; others are ignored.
    static GraphSpec from_metadata(const std::map<std::string, std::string> &metadata);
};

constexpr int max_side = 8192;      // pixels of the network's input
constexpr int max_window = 256;     // frames
constexpr int max_phases = 4096;    // states of one stream
constexpr int max_stride = 256;     // interleaved windows
constexpr long long max_window_bytes = 1LL << 31;
constexpr double max_stream_bytes = 4.0 * (1LL << 30);

}  // namespace salstream

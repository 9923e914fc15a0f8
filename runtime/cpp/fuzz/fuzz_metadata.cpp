// Metadata: lines `name=value`, read as a graph's entries.
#include <cstdlib>
#include <sstream>

#include "error.hpp"
#include "spec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char *data, std::size_t size) {
    std::istringstream lines(std::string(reinterpret_cast<const char *>(data), size));
    std::map<std::string, std::string> metadata;
    for (std::string line; std::getline(lines, line);) {
        const std::size_t equals = line.find('=');
        if (equals != std::string::npos) {
            metadata["salstream." + line.substr(0, equals)] = line.substr(equals + 1);
        }
    }
    try {
        const auto spec = salstream::GraphSpec::from_metadata(metadata);
        // What is accepted can be relied on.
        if (spec.height < 1 || spec.width < 1 || spec.window < 1 || spec.phases < 1 ||
            spec.map_frame < 0 || spec.map_frame >= spec.window || spec.phases_at(30) < 1 ||
            spec.stride_at(30) < 1) {
            std::abort();
        }
    } catch (const salstream::Error &error) {
        if (!*error.what()) std::abort();
    }
    return 0;
}

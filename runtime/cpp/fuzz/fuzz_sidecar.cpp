// An engine's sidecar: JSON, and the metadata in it.
#include <cstdlib>

#include "error.hpp"
#include "json.hpp"
#include "sidecar.hpp"
#include "spec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char *data, std::size_t size) {
    const std::string text(reinterpret_cast<const char *>(data), size);
    (void)salstream::json::number(text);
    if (const auto value = salstream::json::parse(text)) {
        const std::string written = salstream::json::canonical(*value);
        const auto again = salstream::json::parse(written);
        if (!again || salstream::json::canonical(*again) != written) std::abort();
    }
    try {
        const auto sidecar = salstream::Sidecar::from_json(text);
        if (!salstream::json::valid(text)) std::abort();
        (void)salstream::GraphSpec::from_metadata(sidecar.metadata);
    } catch (const salstream::Error &error) {
        if (!*error.what()) std::abort();
    }
    return 0;
}

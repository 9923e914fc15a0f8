// An engine's sidecar: JSON, and the metadata in it.
#include <cstdlib>

#include "error.hpp"
#include "json.hpp"
#include "sidecar.hpp"
#include "signed.hpp"
#include "spec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char *data, std::size_t size) {
    const std::string text(reinterpret_cast<const char *>(data), size);
    (void)salstream::json::number(text);
    if (const auto value = salstream::json::parse(text)) {
        const std::string written = salstream::json::canonical(*value);
        const auto again = salstream::json::parse(written);
        if (!again || salstream::json::canonical(*again) != written) std::abort();
    }
    const auto read = [](const std::string &its) {
        try {
            const auto sidecar = salstream::Sidecar::from_json(its);
            if (!salstream::json::valid(its) || sidecar.smallest_batch < 1) std::abort();
            for (const auto &[_, tensor] : sidecar.tensors) {
                for (const auto side : tensor.shape) {
                    if (side < 1) std::abort();
                }
            }
            (void)sidecar.fits(8, 6);
            (void)salstream::GraphSpec::from_metadata(sidecar.metadata);
        } catch (const salstream::Error &error) {
            if (!*error.what()) std::abort();
        }
    };
    read(text);
    // What lies behind the checksum, too.
    const auto value = salstream::json::parse(text);
    if (value && value->kind == salstream::json::Value::Kind::object) read(signed_sidecar(*value));
    return 0;
}

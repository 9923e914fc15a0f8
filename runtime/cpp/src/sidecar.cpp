#include "sidecar.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "error.hpp"
#include "json.hpp"

namespace salstream {
namespace {

constexpr std::size_t max_sidecar_bytes = 1 << 20;
constexpr const char *rtx = "tensorrt-rtx";

[[noreturn]] void damaged(const std::string &text) { throw Error(SAL_MODEL_DAMAGED, text); }

using json::Value;

// The entry of a name, which is of a kind.
const Value &entry_of(const Value &object, const char *name, Value::Kind kind) {
    const Value *value = object.find(name);
    if (!value || value->kind != kind) {
        damaged(std::string("its entry \"") + name + "\" is missing or of another kind");
    }
    return *value;
}

const std::string &text_of(const Value &object, const char *name) {
    return entry_of(object, name, Value::Kind::string).text;
}

// A whole number from 1 on.
int count_of(const Value &value) {
    int number = 0;
    const char *end = value.text.data() + value.text.size();
    const auto [stop, problem] = std::from_chars(value.text.data(), end, number);
    if (value.kind != Value::Kind::number || problem != std::errc() || stop != end || number < 1) {
        damaged("it holds " + quoted(value.text) + " where a number from 1 on should be");
    }
    return number;
}

// Names in this order and no others; or each at most once, where none are given.
void check_names(const Value &object, const std::vector<std::string> &wanted = {}) {
    std::vector<std::string> names;
    for (const auto &[name, _] : object.members) names.push_back(name);
    if (!wanted.empty() && names != wanted) damaged("its entries are others");
    std::sort(names.begin(), names.end());
    if (std::adjacent_find(names.begin(), names.end()) != names.end()) {
        damaged("it names an entry twice");
    }
}

void check_unique(const Value &value) {
    if (value.kind == Value::Kind::object) check_names(value);
    for (const auto &[_, member] : value.members) check_unique(member);
}

std::string read_file(const std::string &path, std::size_t limit) {
    errno = 0;
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file ? static_cast<std::streamoff>(file.tellg()) : -1;
    if (size < 0) {
        throw Error(SAL_FILE_UNREADABLE, path + " cannot be read: " +
                                             std::strerror(errno ? errno : EIO));
    }
    if (static_cast<unsigned long long>(size) > limit) damaged(path + " is too large");
    std::string bytes(static_cast<std::size_t>(size), '\0');
    file.seekg(0);
    if (!file.read(&bytes[0], size) && size) {
        throw Error(SAL_FILE_UNREADABLE, path + " cannot be read to its end");
    }
    return bytes;
}

std::uint32_t turned(std::uint32_t word, int by) { return word >> by | word << (32 - by); }

void mix(std::array<std::uint32_t, 8> &hash, const unsigned char *block) {
    static constexpr std::uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    std::uint32_t w[64];
    for (int i = 0; i < 16; ++i) {
        const unsigned char *b = block + 4 * i;
        w[i] = std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 |
               b[3];
    }
    for (int i = 16; i < 64; ++i) {
        const std::uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[i - 7] +
               (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    std::array<std::uint32_t, 8> v = hash;
    for (int i = 0; i < 64; ++i) {
        const std::uint32_t one = v[7] + (turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25)) +
                                  ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        const std::uint32_t two = (turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22)) +
                                  ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        v = {one + two, v[0], v[1], v[2], v[3] + one, v[4], v[5], v[6]};
    }
    for (std::size_t i = 0; i < 8; ++i) hash[i] += v[i];
}

}  // namespace

Sidecar Sidecar::from_json(const std::string &text) {
    if (text.size() > max_sidecar_bytes) damaged("it is too large");
    const std::optional<Value> whole = json::parse(text);
    if (!whole || whole->kind != Value::Kind::object) damaged("it holds no JSON object");
    const Value *schema = whole->find("schema");
    if (!schema || schema->kind != Value::Kind::number || schema->text != "1") {
        throw Error(SAL_SCHEMA_UNKNOWN,
                    "it has schema version " +
                        (schema ? quoted(schema->text) : std::string("none")) + ", not 1");
    }
    Value content = *whole;
    content.members.erase(
        std::remove_if(content.members.begin(), content.members.end(),
                       [](const auto &member) { return member.first == "checksum"; }),
        content.members.end());
    if (sha256(json::canonical(content)) != text_of(*whole, "checksum")) {
        damaged("its checksum does not fit");
    }
    using Kind = Value::Kind;
    check_names(*whole, {"schema", "engine_sha256", "graph_sha256", "graph", "flavour", "version",
                         "gpu", "compute_capabilities", "precision", "batch", "options",
                         "metadata", "tensors", "checksum"});
    check_unique(*whole);
    if (json::written(*whole) + "\n" != text) damaged("it is not as salstream wrote it");
    Sidecar sidecar;
    sidecar.engine_sha256 = text_of(*whole, "engine_sha256");
    sidecar.flavour = text_of(*whole, "flavour");
    sidecar.version = text_of(*whole, "version");
    for (const char *name : {"graph_sha256", "graph", "precision"}) (void)text_of(*whole, name);
    if (sidecar.flavour != "tensorrt" && sidecar.flavour != rtx) {
        damaged("its flavour is " + quoted(sidecar.flavour));
    }
    if (whole->find("gpu")->kind != Kind::null) (void)text_of(*whole, "gpu");
    (void)entry_of(*whole, "options", Kind::object);
    for (const auto &[_, value] :
         entry_of(*whole, "compute_capabilities", Kind::array).members) {
        if (value.kind != Kind::string) damaged("its compute capabilities are no texts");
        sidecar.compute_capabilities.push_back(value.text);
    }
    const auto &batch = entry_of(*whole, "batch", Kind::array).members;
    if (batch.size() != 3) damaged("its batch is not three numbers");
    for (std::size_t i = 1; i < 3; ++i) {
        if (count_of(batch[i - 1].second) > count_of(batch[i].second)) {
            damaged("its batches do not ascend");
        }
    }
    sidecar.smallest_batch = count_of(batch[0].second);
    for (const auto &[name, value] : entry_of(*whole, "metadata", Kind::object).members) {
        if (value.kind != Kind::string) damaged("its metadata are no texts");
        sidecar.metadata[name] = value.text;
    }
    for (const auto &[_, value] : entry_of(*whole, "tensors", Kind::array).members) {
        check_names(value, {"name", "is_input", "dtype", "shape"});
        TensorFacts facts{entry_of(value, "is_input", Kind::boolean).text == "true",
                          text_of(value, "dtype"),
                          {1}};
        for (const auto &[__, side] : entry_of(value, "shape", Kind::array).members) {
            facts.shape.push_back(count_of(side));
        }
        if (!sidecar.tensors.emplace(text_of(value, "name"), std::move(facts)).second) {
            damaged("it names a tensor twice");
        }
    }
    return sidecar;
}

bool Sidecar::fits(int major, int minor) const {
    // By itself, TensorRT-RTX builds for Ampere and later.
    if (flavour == rtx && compute_capabilities.empty()) return major >= 8;
    const std::string here = std::to_string(major) + "." + std::to_string(minor);
    return std::find(compute_capabilities.begin(), compute_capabilities.end(), here) !=
           compute_capabilities.end();
}

Engine read_engine(const std::string &path) {
    const std::string beside = path + ".json", again = "; build it again with `salstream build`";
    Engine engine;
    engine.bytes = read_file(path, SIZE_MAX / 2);
    std::string text;
    try {
        text = read_file(beside, max_sidecar_bytes);
    } catch (const Error &error) {
        throw Error(error.status, std::string(error.what()) +
                                      ": it says how to run the engine; copy both files");
    }
    try {
        engine.sidecar = Sidecar::from_json(text);
    } catch (const Error &error) {
        throw Error(error.status, beside + " is damaged (" + error.what() + ")" + again);
    }
    if (sha256(engine.bytes) != engine.sidecar.engine_sha256) {
        damaged(path + " is not the engine that its sidecar describes: one of them was changed or "
                       "copied without the other" + again);
    }
    return engine;
}

std::string sha256(const std::string &bytes) {
    std::array<std::uint32_t, 8> hash = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const auto *data = reinterpret_cast<const unsigned char *>(bytes.data());
    std::size_t done = 0;
    for (; done + 64 <= bytes.size(); done += 64) mix(hash, data + done);
    // The rest, a one bit, zeros, and the length in bits: one block or two.
    unsigned char last[128] = {};
    const std::size_t rest = bytes.size() - done, length = rest < 56 ? 64 : 128;
    if (rest) std::memcpy(last, data + done, rest);
    last[rest] = 0x80;
    for (std::size_t i = 0; i < 8; ++i) {
        last[length - 1 - i] =
            static_cast<unsigned char>(std::uint64_t{bytes.size()} * 8 >> 8 * i & 0xFF);
    }
    for (std::size_t i = 0; i < length; i += 64) mix(hash, last + i);
    std::string text;
    for (const std::uint32_t word : hash) {
        for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    }
    return text;
}

}  // namespace salstream

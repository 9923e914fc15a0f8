// Parts that the C interface does not show: JSON, the ring's arithmetic, placement.
#include <cstdio>
#include <deque>

#include "error.hpp"
#include "json.hpp"
#include "preprocess.hpp"
#include "ring.hpp"
#include "sidecar.hpp"
#include "signed.hpp"
#include "support.hpp"

namespace {

void json_is_strict() {
    using salstream::json::canonical;
    using salstream::json::parse;
    for (const char *text :
         {"{}", "[]", " {\"a\": [1, -2.5e+3, true, false, null, \"x\"]} ", "\"\\u00e9\\n\\\\\"",
          "\"\\ud83d\\ude00\"", "0", "-0.5", "NaN", "-Infinity"}) {
        CHECK(parse(text));
    }
    for (const char *text :
         {"", "{", "}", "[1,]", "{\"a\"}", "{\"a\":}", "{a: 1}", "01", "1.", ".5", "+1", "1e",
          "--1", "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud83d\"", "\"\\ude00\"", "\"a\nb\"", "tru",
          "{} {}", "[1 2]", "{\"a\":1 \"b\":2}"}) {
        if (parse(text)) std::fprintf(stderr, "accepted: %s\n", text);
        CHECK(!parse(text));
    }
    CHECK(parse("\"\\u00e9\\ud83d\\ude00\\u20ac\"")->text == "é😀€");
    // No UTF-8: a tail alone, too short, longer than needed, a surrogate, too large. (Found by
    // fuzzing.)
    for (const char *text : {"\"\x9e\"", "\"\xc3\"", "\"\xe2\x82\"", "\"\xc0\xb8\"", "\"\xe0\x80\xb8\"",
                             "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xff\""}) {
        CHECK(!parse(text));
    }
    using salstream::json::written;
    for (const char *text :
         {"0", "-7", "1.5", "-0.0", "100000.0", "1e+16", "1234567890123456.0", "0.0001", "1e-05",
          "1.5e-07", "1.7976931348623157e+308", "5e-324", "NaN", "-Infinity", "[]", "{}"}) {
        CHECK(written(*parse(text)) == text);
    }
    for (const char *text : {"-0", "1.50", "1e5", "1E+16", "1e16", "0.00001", "1e999", "1e-999",
                             "0.1000000000000000055", "[ ]", "[1]"}) {
        CHECK(written(*parse(text)) != text);
    }
    CHECK(written(*parse("{\"a\": [1, {}], \"b\": null}")) ==
          "{\n \"a\": [\n  1,\n  {}\n ],\n \"b\": null\n}");
    CHECK(canonical(*parse(R"("\u00e9\ud83d\ude00\u007F")")) == R"("\u00e9\ud83d\ude00\u007f")");
    CHECK(!parse(std::string(100000, '[')));
    CHECK(parse("{\"a\": \"1\", \"a\": \"2\"}")->find("a")->text == "2");
    CHECK(!parse("[\"a\"]")->find(""));
    CHECK(*salstream::json::number("6.0") == 6.0);
    CHECK(!salstream::json::number("6.0 "));
    CHECK(!salstream::json::number("1e999"));
}

// Against a queue: the window lies in order, and ages count back from the newest.
void ring_keeps_order() {
    for (const int capacity : {1, 2, 5, 16}) {
        salstream::FrameRing ring(capacity);
        int slots[32] = {};
        std::deque<int> queue;
        for (int round = 0; round < 2; ++round, ring.clear(), queue.clear()) {
            for (int number = 1; number < 50; ++number) {
                ring.advance();
                slots[ring.slot(0)] = slots[ring.slot(0) - capacity] = number;
                queue.push_back(number);
                if (static_cast<int>(queue.size()) > capacity) queue.pop_front();
                const int held = static_cast<int>(queue.size());
                for (int age = 0; age < held; ++age) {
                    CHECK(slots[ring.slot(age)] == queue[static_cast<std::size_t>(held - 1 - age)]);
                }
                for (int i = 0; held == capacity && i < capacity; ++i) {
                    CHECK(slots[ring.window() + i] == queue[static_cast<std::size_t>(i)]);
                }
            }
        }
    }
}

void letterboxed_frames_lie_in_the_middle() {
    const salstream::Placement wide = salstream::placement(90, 320, 64, 80);
    CHECK(wide.top == 21 && wide.left == 0 && wide.height == 22 && wide.width == 80);
    const salstream::Placement thin = salstream::placement(10000, 1, 8, 8);
    CHECK(thin.height == 8 && thin.width == 1 && thin.left == 3);
}

// The examples of FIPS 180-4, and lengths around a block's end.
void sha256_is_sha256() {
    using salstream::sha256;
    CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256(std::string(1000000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

sal_status sidecar_status(const std::string &text) {
    try {
        salstream::Sidecar::from_json(text);
    } catch (const salstream::Error &error) {
        return error.status;
    }
    return SAL_OK;
}

void sidecars() {
    // As Python writes it, checksum and all.
    const std::string whole = R"json({
 "schema": 1,
 "engine_sha256": "ab",
 "graph_sha256": "cd",
 "graph": "g.onnx",
 "flavour": "tensorrt",
 "version": "10.9",
 "gpu": null,
 "compute_capabilities": [
  "8.6"
 ],
 "precision": "fp32",
 "batch": [
  1,
  1,
  4
 ],
 "options": {
  "workspace": 2147483648,
  "\u00e9\n": [
   1.5,
   1e-05,
   true
  ]
 },
 "metadata": {
  "salstream.model": "m",
  "salstream.attribution": "S\u00f8ren \ud83d\ude00 \"x\" \\ \u007f\u0001"
 },
 "tensors": [
  {
   "name": "frames",
   "is_input": true,
   "dtype": "uint8",
   "shape": [
    1,
    2
   ]
  }
 ],
 "checksum": "1bfcc031d52cac69e04c6530aca1a82ae1da274513bce880b7d29208bce7d30c"
}
)json";
    const auto sidecar = salstream::Sidecar::from_json(whole);
    CHECK(sidecar.metadata.at("salstream.attribution") == "Søren 😀 \"x\" \\ \x7f\x01");
    CHECK(sidecar.compute_capabilities.size() == 1);
    const auto changed = [&](const std::string &from, const std::string &to) {
        std::string text = whole;
        CHECK(text.find(from) != std::string::npos);
        return sidecar_status(text.replace(text.find(from), from.size(), to));
    };
    CHECK(changed("\"schema\": 1", "\"schema\": 1 ") == SAL_MODEL_DAMAGED);
    for (const char *part : {"\"cd\"", "\"m\"", "1.5", "true", "null", "2147483648", "g.onnx"}) {
        CHECK(changed(part, "0") == SAL_MODEL_DAMAGED);
    }
    CHECK(changed("\"metadata\"", "\"other\"") == SAL_MODEL_DAMAGED);
    CHECK(changed("\"checksum\"", "\"check\"") == SAL_MODEL_DAMAGED);
    CHECK(sidecar_status("") == SAL_MODEL_DAMAGED);
    CHECK(sidecar_status("[]") == SAL_MODEL_DAMAGED);
    CHECK(sidecar_status(whole.substr(0, whole.size() / 2)) == SAL_MODEL_DAMAGED);
    CHECK(sidecar_status("{\"schema\": 2}") == SAL_SCHEMA_UNKNOWN);
    CHECK(sidecar_status("{\"schema\": \"1\"}") == SAL_SCHEMA_UNKNOWN);
    CHECK(sidecar_status("{}") == SAL_SCHEMA_UNKNOWN);
    CHECK(sidecar_status(R"({"schema": 1, "metadata": {}})") == SAL_MODEL_DAMAGED);
    CHECK(sidecar_status(std::string(2 << 20, ' ')) == SAL_MODEL_DAMAGED);

    // An engine and its sidecar belong together.
    const auto status = [] {
        try {
            salstream::read_engine("unit.engine");
        } catch (const salstream::Error &error) {
            return error.status;
        }
        return SAL_OK;
    };
    std::remove("unit.engine.json");
    std::ofstream("unit.engine") << "abc";
    CHECK(status() == SAL_FILE_UNREADABLE);
    std::string fitting = whole;
    fitting.replace(fitting.find("\"ab\""), 4, "\"" + salstream::sha256("abc") + "\"");
    std::ofstream("unit.engine.json") << signed_sidecar(*salstream::json::parse(fitting));
    CHECK(status() == SAL_OK);
    std::ofstream("unit.engine") << "abd";
    CHECK(status() == SAL_MODEL_DAMAGED);
}

}  // namespace

int main() {
    sha256_is_sha256();
    sidecars();
    json_is_strict();
    ring_keeps_order();
    letterboxed_frames_lie_in_the_middle();
    return 0;
}

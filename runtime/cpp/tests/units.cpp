// Parts that the C interface does not show: JSON, the ring's arithmetic, placement.
#include <deque>

#include "json.hpp"
#include "preprocess.hpp"
#include "ring.hpp"
#include "support.hpp"

namespace {

void json_is_strict() {
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

}  // namespace

int main() {
    json_is_strict();
    ring_keeps_order();
    letterboxed_frames_lie_in_the_middle();
    return 0;
}

// What goes wrong inside the library, until the C interface makes a status of it.
//
// The library's own namespace is `salstream`; `sal` is the C++ wrapper's, and a program that
// links the static library has both.
#pragma once

#include <stdexcept>
#include <string>

#include "salstream/salstream.h"

namespace salstream {

class Error : public std::runtime_error {
  public:
    Error(sal_status status, const std::string &text) : std::runtime_error(text), status(status) {}
    sal_status status;
};

// A text as it can stand in a one-line message: printable, and not longer than a line.
inline std::string quoted(const std::string &text) {
    std::string out;
    for (const char c : text.substr(0, 80)) {
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
    return "'" + out + (text.size() > 80 ? "…'" : "'");
}

}  // namespace salstream

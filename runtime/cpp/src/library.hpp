// An inference library, loaded at run time, so that an application's own copy does not clash.
#pragma once

#include <string>
#include <vector>

namespace salstream {

// Load a shared library and return its symbol `entry`. The library stays for the process's life:
// inference libraries do not survive being unloaded.
//
// `chosen` is a path, or empty; then the environment variable `variable`, then the `names` in
// turn. Throws SAL_LIBRARY_MISSING with what to do.
void *load_symbol(const std::string &chosen, const char *variable,
                  const std::vector<std::string> &names, const char *entry, const char *advice);

}  // namespace salstream

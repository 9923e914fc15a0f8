#include "library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "error.hpp"

namespace salstream {

void *load_symbol(const std::string &chosen, const char *variable,
                  const std::vector<std::string> &names, const char *entry, const char *advice) {
    std::vector<std::string> candidates = names;
    const char *from_environment = std::getenv(variable);
    if (!chosen.empty()) {
        candidates = {chosen};
    } else if (from_environment && *from_environment) {
        candidates = {from_environment};
    }
    std::string problem;
    for (const std::string &name : candidates) {
        if (void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
            if (void *symbol = dlsym(library, entry)) return symbol;
            dlclose(library);
            problem = name + " has no " + entry;
        } else if (const char *text = dlerror(); problem.empty() && text) {
            problem = text;
        }
    }
    throw Error(SAL_LIBRARY_MISSING, std::string(advice) + " (" + problem.substr(0, 300) + ")");
}

}  // namespace salstream

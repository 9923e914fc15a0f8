# Writes version.hpp with the git revision of the moment; one that says the same is not touched.
# Run at every build: cmake -DSOURCE=… -DTARGET=… -DPROJECT_VERSION=… -P revision.cmake
find_package(Git QUIET)
set(SALSTREAM_REVISION unknown)
if(GIT_FOUND)
    execute_process(COMMAND ${GIT_EXECUTABLE} rev-parse --short=12 HEAD
                    WORKING_DIRECTORY ${SOURCE}
                    OUTPUT_VARIABLE revision RESULT_VARIABLE failed
                    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(NOT failed)
        set(SALSTREAM_REVISION ${revision})
    endif()
endif()
configure_file(${SOURCE}/src/version.hpp.in ${TARGET} @ONLY)

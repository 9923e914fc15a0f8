"""It builds everywhere without a warning, its own tests pass, and it installs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from clips import clip
from cpp import tiny
from cpp.native import SAME_LIBRARY
from cpp.toolchain import SOURCE, Builds, cuda_headers, onnxruntime_library, run, tool
from salstream.runtime import SaliencyModel
from salstream.runtime.overlay import to_8_bits
from salstream.runtime.sources import open_source

INCLUDE = SOURCE / "include"
FUZZED = ("metadata", "sidecar", "model")
# TensorRT's and TensorRT-RTX's, which differ in a few lines: one under each sanitizer.
ENGINE_TESTS = {"address,undefined": "engine", "thread": "engine_rtx"}


def sanitized(builds: Builds, sanitizers: str) -> Path:
    """Return a build of library and tests, all of it watched."""
    tool("clang")
    probe = subprocess.run(
        ["clang", f"-fsanitize={sanitizers}", "-x", "c", "-", "-o", os.devnull],
        input="int main(void) { return 0; }",
        text=True,
        capture_output=True,
        check=False,
    )
    if probe.returncode:
        pytest.skip(f"clang has no {sanitizers} sanitizer here (Debian: libclang-rt-dev)")
    headers = cuda_headers()
    engines = [
        "-DSALSTREAM_TENSORRT=ON",
        f"-DTENSORRT_INCLUDE_DIR={SOURCE / 'tests' / 'tensorrt_api'}",
        f"-DCUDA_INCLUDE_DIR={headers}",
    ]
    return builds(
        sanitizers.replace(",", "-"),
        "clang",
        (
            f"-DSALSTREAM_SANITIZE={sanitizers}",
            "-DCMAKE_BUILD_TYPE=None",
            "-DCMAKE_CXX_FLAGS=-O1 -Werror",
            "-DSALSTREAM_SHARED=OFF",
            "-DSALSTREAM_TESTS=ON",
            *(engines if headers else []),
            *(["-DSALSTREAM_FUZZ=ON"] if sanitizers.startswith("address") else []),
        ),
        [
            *("plain_c", "interface", "rounds", "units"),
            *([ENGINE_TESTS[sanitizers]] if headers else []),
            *([f"fuzz_{one}" for one in FUZZED] if sanitizers != "thread" else []),
        ],
    )


def ctest(build: Path, *arguments: str) -> None:
    done = run("ctest", "--output-on-failure", "-j2", *arguments, cwd=build)
    assert re.search(r"100% tests passed, 0 tests failed out of [1-9]", done.stdout), done.stdout


def test_gcc(builds: Builds) -> None:
    ctest(builds.release())


def test_clang(builds: Builds) -> None:
    """The shared library; the sanitizers' builds compile every test with clang, too."""
    options = ("-DSALSTREAM_TESTS=ON", "-DSALSTREAM_STATIC=OFF")
    ctest(builds("clang", "clang", options, ("plain_c",)), "-R", "plain_c")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizers: str, builds: Builds) -> None:
    """Four streams on one model, every fault of the inference library, 1,000 rounds."""
    ctest(sanitized(builds, sanitizers), "-E", "engine")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_the_tensorrt_backend_runs_on_a_stand_in(sanitizers: str, builds: Builds) -> None:
    """Compiled against CUDA's headers and the declarations of TensorRT that it uses.

    TensorRT's own headers are in no package that could be fetched here.
    """
    build = sanitized(builds, sanitizers)
    if cuda_headers() is None:
        pytest.skip("CUDA's headers could not be downloaded")
    ctest(build, "-R", f"^{ENGINE_TESTS[sanitizers]}$")


@pytest.mark.slow
def test_valgrind_finds_no_leak(builds: Builds, tmp_path: Path) -> None:
    """In 1,000 rounds of open, push and close.

    On the stand-in for ONNX Runtime, which shows our leaks and no other's.
    """
    tests = builds.release() / "tests"
    done = run(
        tool("valgrind"), "--leak-check=full", "--show-leak-kinds=all", "--error-exitcode=9",
        "--errors-for-leak-kinds=all", tests / "rounds", "1000", "1000000", cwd=tmp_path,
    )  # fmt: skip
    assert "1000 rounds" in done.stdout
    assert "ERROR SUMMARY: 0 errors" in done.stderr, done.stderr


@pytest.mark.slow
def test_memory_does_not_grow(builds: Builds, tmp_path: Path) -> None:
    """With ONNX Runtime itself."""
    model = tiny.save(tmp_path / "tiny.onnx", window=4)
    tests = builds.release() / "tests"
    run(tests / "rounds", "220", "2048", model, onnxruntime_library(), cwd=tmp_path)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_headers_stand_alone(compiler: str, tmp_path: Path) -> None:
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wconversion", "-fsyntax-only"]
    plain = tmp_path / "plain.c"
    plain.write_text("#include <salstream/salstream.h>\nint main(void) { return SAL_OK; }\n")
    run(tool(compiler), "-std=c11", "-pedantic-errors", *strict, "-I", INCLUDE, plain)
    wrapper = tmp_path / "wrapper.cpp"
    wrapper.write_text("#include <salstream/salstream.hpp>\n")
    for standard in ("c++17", "c++20"):
        cxx = tool({"gcc": "g++", "clang": "clang++"}[compiler])
        run(cxx, f"-std={standard}", *strict, "-I", INCLUDE, wrapper)


def test_the_library_is_small_and_shows_its_interface_alone(builds: Builds, tmp_path: Path) -> None:
    library = builds.release() / "libsalstream.so"
    stripped = tmp_path / "stripped.so"
    run(tool("strip"), "-o", stripped, library)
    assert stripped.stat().st_size < 1_000_000
    symbols = run(tool("nm"), "-D", "--defined-only", library).stdout.split("\n")
    names = {line.split()[-1].split("@")[0] for line in symbols if " T " in line}
    header = (INCLUDE / "salstream/salstream.h").read_text()
    assert names == set(re.findall(r"SAL_API [^(]*?(sal_\w+)\(", header))
    assert not [line for line in symbols if line and not re.search(r" T sal_| A SALSTREAM", line)]
    needed = run(tool("readelf"), "-d", library).stdout
    assert "onnxruntime" not in needed
    assert "opencv" not in needed


def test_a_project_of_its_own_finds_the_installed_package(builds: Builds, tmp_path: Path) -> None:
    """The examples as such a project: raw frames in, the maps of the Python runtime out."""
    prefix = builds.installed()
    build = tmp_path / "build"
    run("cmake", "-S", SOURCE / "examples", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build, "--target", "minimal")
    assert_maps_of_minimal(build / "minimal")


def test_a_project_in_c_alone_links_the_static_library(builds: Builds, tmp_path: Path) -> None:
    prefix = builds.installed()
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(application LANGUAGES C)\n"
        "find_package(salstream 0.1 REQUIRED)\n"
        f"add_executable(minimal {SOURCE}/examples/minimal.c)\n"
        "target_link_libraries(minimal PRIVATE salstream::static)\n"
    )
    build = tmp_path / "build"
    run("cmake", "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build)
    assert "salstream" not in run("ldd", build / "minimal").stdout
    assert_maps_of_minimal(build / "minimal")


@pytest.mark.parametrize("static", [False, True])
def test_pkg_config_finds_it_too(static: bool, builds: Builds, tmp_path: Path) -> None:
    """Wherever `cmake --install` was told to put it."""
    prefix = builds.installed()
    (found,) = prefix.rglob("salstream.pc")
    flags = run(
        tool("pkg-config"), "--cflags", "--libs", *(["--static"] if static else []), "salstream",
        env={"PKG_CONFIG_PATH": str(found.parent)},
    ).stdout.split()  # fmt: skip
    program = tmp_path / "minimal"
    (library,) = prefix.rglob("libsalstream.so")
    if static:  # not the shared one, which lies beside it
        flags[flags.index("-lsalstream")] = "-l:libsalstream.a"
    source = SOURCE / "examples" / "minimal.c"
    run(tool("gcc"), source, "-o", program, *flags, f"-Wl,-rpath,{library.parent}")
    assert ("salstream" in run("ldd", program).stdout) != static
    assert_maps_of_minimal(program)


def test_versions_that_may_differ_have_names_that_differ(builds: Builds) -> None:
    """The shared library's name follows the same rule as `find_package`."""
    library = builds.release() / "libsalstream.so"
    version = run(tool("readelf"), "-d", library).stdout
    assert re.search(r"SONAME.*\[libsalstream\.so\.0\.1\]", version), version
    package = (builds.release() / "salstreamConfigVersion.cmake").read_text()
    assert "PACKAGE_FIND_VERSION_MINOR" in package


def test_the_revision_is_the_builds(builds: Builds, tmp_path: Path) -> None:
    """A commit after the configuration, or between two builds, is in the next build."""
    git = [tool("git"), "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    sources = tmp_path / "runtime" / "cpp"
    shutil.copytree(SOURCE, sources, ignore=shutil.ignore_patterns("corpus"))
    shutil.copy(SOURCE.parents[1] / "pyproject.toml", tmp_path)
    run(*git, "init", "-q")
    build = tmp_path / "build"
    configured = builds.release() / "CMakeCache.txt"
    headers = re.search(r"^ONNXRUNTIME_INCLUDE_DIR:\w+=(.*)", configured.read_text(), re.MULTILINE)
    assert headers is not None
    run("cmake", "-S", sources, "-B", build, f"-DONNXRUNTIME_INCLUDE_DIR={headers[1]}")
    for number in range(2):
        run(*git, "commit", "-q", "--allow-empty", "-m", f"{number}")
        run("cmake", "--build", build, "--target", "salstream_revision")
        revision = run(*git, "rev-parse", "--short=12", "HEAD").stdout.strip()
        text = (build / "generated" / "version.hpp").read_text()
        assert f'SALSTREAM_REVISION "{revision}"' in text


def assert_maps_of_minimal(program: Path) -> None:
    model = SaliencyModel.open("unisal-dhf1k", backend=SAME_LIBRARY)
    with open_source(clip("bikes.mp4")) as source:
        frames = [frame.image for frame, _ in zip(source, range(3), strict=False)]
    done = subprocess.run(
        [program, model.path, "272", "640"],
        input=b"".join(frame.tobytes() for frame in frames),
        capture_output=True,
        check=False,
        env={**os.environ, "SALSTREAM_ONNXRUNTIME": str(onnxruntime_library())},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    maps = np.frombuffer(done.stdout, np.uint8).reshape(3, 272, 640)
    expected = [to_8_bits(result.saliency) for result in model.stream(frames)]
    assert np.abs(maps.astype(int) - np.stack(expected)).max() <= 1


def test_the_examples_say_what_is_wrong(builds: Builds, tmp_path: Path) -> None:
    minimal = builds.release() / "examples" / "minimal"
    for arguments, code, text in (
        ([], 2, "usage"),
        (["x.onnx", "0", "5"], 2, "1 to 32768"),
        (["x.onnx", "4", "5"], 1, "x.onnx cannot be read: No such file"),
    ):
        done = subprocess.run(
            [minimal, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (code, "")
        assert text in done.stderr


def test_the_camera_example_writes_an_overlay(builds: Builds, tmp_path: Path) -> None:
    camera = builds.release() / "examples" / "camera"
    if not camera.exists():  # CMake found no OpenCVConfig.cmake, which is in another package
        headers = Path("/usr/include/opencv4")
        for part in ("videoio", "highgui", "imgproc"):
            if not (headers / "opencv2" / f"{part}.hpp").exists():
                pytest.skip(f"OpenCV for C++ is not installed (Debian: libopencv-{part}-dev)")
        camera = tmp_path / "camera"
        run(
            tool("g++"), "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-isystem",
            headers, "-I", INCLUDE, SOURCE / "examples" / "camera.cpp", "-o", camera, "-pthread",
            builds.release() / "libsalstream.so", f"-Wl,-rpath,{builds.release()}",
            *(f"-lopencv_{part}" for part in ("core", "highgui", "imgproc", "videoio")),
        )  # fmt: skip
    short = tmp_path / "short.avi"
    writer = cv2.VideoWriter(str(short), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 96))
    for number in range(8):
        writer.write(np.full((96, 160, 3), 30 * number, np.uint8))
    writer.release()
    model = tiny.save(tmp_path / "tiny.onnx", window=4)
    overlay = tmp_path / "overlay.mp4"
    environment = {"SALSTREAM_ONNXRUNTIME": str(onnxruntime_library())}
    run(camera, model, short, overlay, env=environment)
    with av.open(str(overlay)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8


@pytest.mark.slow
def test_fuzzing_for_a_moment_finds_nothing(builds: Builds, tmp_path: Path) -> None:
    """The kept corpus, and what grows from it in a short while."""
    build = sanitized(builds, "address,undefined")
    for target in FUZZED:
        corpus = SOURCE / "fuzz" / "corpus" / target
        assert any(corpus.iterdir())
        run(
            build / "fuzz" / f"fuzz_{target}", "-max_total_time=2", "-rss_limit_mb=2048", "-seed=1",
            tmp_path, corpus, cwd=tmp_path,
        )  # fmt: skip

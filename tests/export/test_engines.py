"""Engines: built by the real TensorRT-RTX, without a GPU; whole or not there at all."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import random
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from graphs import small_graph
from salstream.export import engines, engines_cli
from salstream.export.engine_files import LEFTOVER_S, cache_folder, write_engine
from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.runtime.model import find_model
from salstream.runtime.sidecar import Sidecar, read_engine, sidecar_path
from salstream.runtime.spec import GraphSpec

RTX = ("--target", "tensorrt-rtx")
SALSTREAM = (sys.executable, "-c", "from salstream.runtime.cli import main; main()")
SMALL = Sidecar(
    engine_sha256=hashlib.sha256(b"engine").hexdigest(),
    graph_sha256="0" * 64,
    graph="graph.onnx",
    flavour="tensorrt",
    version="10.9.0.34",
    gpu="A4000",
    compute_capabilities=("8.6",),
    precision="fp32",
    batch=(1, 1, 4),
    options={"workspace": None},
    metadata={"salstream.schema": "1"},
    tensors=(),
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not cache_folder().is_relative_to(tmp_path):
        pytest.skip("the cache of this system cannot be moved")


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A graph that builds in a moment."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    return str(small_graph(folder / "small.onnx"))


def build(*arguments: str | Path) -> Result:
    return CliRunner().invoke(load_commands(), ["build", *map(str, arguments)])


def test_an_engine_and_what_it_says_about_itself(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "unisal.engine"
    options = ("--batch", "1:2:3", "--workspace", "1G")
    capabilities = ("--compute-capability", "8.9", "--compute-capability", "8.6")
    done = build("unisal-dhf1k", *RTX, *options, *capabilities, *capabilities, "-o", path)
    assert done.exit_code == 0, (done.output, done.exception)
    assert re.search(r"engine: \d+\.\d MB, fp32, TensorRT-RTX \d", done.output)
    assert "compute capability 8.6, 8.9, batch 1 to 3" in done.output
    assert sorted(file.name for file in path.parent.iterdir()) == [
        ".unisal.engine.lock",
        "unisal.engine",
        "unisal.engine.json",
    ]
    engine, sidecar = read_engine(path)
    assert len(engine) > 10_000_000
    graph = find_model("unisal-dhf1k")
    assert sidecar.graph_sha256 == hashlib.sha256(graph.read_bytes()).hexdigest()
    assert sidecar.graph == "unisal-dhf1k"
    assert (sidecar.flavour, sidecar.version) == ("tensorrt-rtx", rtx.__version__)
    assert sidecar.compute_capabilities == ("8.6", "8.9")
    assert (sidecar.batch, sidecar.options) == ((1, 2, 3), {"workspace": 1 << 30})
    metadata = {item.key: item.value for item in onnx.load(graph).metadata_props}
    # All but the verification: that was the graph's.
    assert metadata.pop("salstream.verification")
    assert sidecar.metadata == metadata
    assert GraphSpec.from_metadata(sidecar.metadata).name == "unisal-dhf1k"
    assert [(t.name, t.is_input, t.dtype, t.shape) for t in sidecar.tensors] == [
        ("frames", True, "uint8", (1, 224, 384, 3)),
        ("state_gru", True, "float32", (256, 7, 12)),
        ("saliency", False, "float32", (224, 384)),
        ("state_gru_next", False, "float32", (256, 7, 12)),
    ]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Sidecar]:
    """What was built and not taken from the cache."""
    seen: list[Sidecar] = []
    compile_ = engines._compile

    def counting(trt: Any, content: bytes, sidecar: Sidecar) -> Any:
        seen.append(sidecar)
        return compile_(trt, content, sidecar)

    monkeypatch.setattr(engines, "_compile", counting)
    return seen


@pytest.mark.slow
def test_the_cache_knows_what_makes_an_engine(
    rtx: Any, small: str, compiled: list[Sidecar], tmp_path: Path
) -> None:
    def built(*options: str) -> bytes:
        done = build(small, *RTX, *options, "-o", tmp_path / "x.engine")
        assert done.exit_code == 0, (done.output, done.exception)
        return read_engine(tmp_path / "x.engine")[0]

    first = built()
    assert built() == first
    assert built("--batch", "1:1:4") == first
    assert len(compiled) == 1
    built("--no-cache")
    built("--batch", "2")
    built("--workspace", "100M")
    built("--compute-capability", "8.6")
    assert len(compiled) == 5
    assert built() == first
    assert len(list(cache_folder().glob("*.engine"))) == 4
    # The same graph in another file: the same engine, and a sidecar that names that file.
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(small).read_bytes())
    assert build(copy, *RTX, "-o", tmp_path / "y.engine").exit_code == 0
    engine, sidecar = read_engine(tmp_path / "y.engine")
    assert (engine, sidecar.graph) == (first, "copy.onnx")
    assert len(compiled) == 5


def test_a_changed_byte_in_the_cache_is_mended(
    rtx: Any, small: str, compiled: list[Sidecar], tmp_path: Path
) -> None:
    path = tmp_path / "x.engine"
    assert build(small, *RTX, "-o", path).exit_code == 0
    (kept,) = cache_folder().glob("*.engine")
    for count, file in enumerate((kept, sidecar_path(kept)), start=2):
        _flip(file, file.stat().st_size // 2)
        path.unlink()
        assert build(small, *RTX, "-o", path).exit_code == 0
        assert read_engine(path) == read_engine(kept)
        assert len(compiled) == count


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    write_engine(path, b"engine", SMALL)
    assert read_engine(path) == (b"engine", SMALL)
    for file in (path, sidecar_path(path)):
        good = file.read_bytes()
        for position in range(len(good)):
            _flip(file, position)
            with pytest.raises(SalstreamError, match="build it again with `salstream build`"):
                read_engine(path)
            file.write_bytes(good)
        for other in (good[:-1], good + b" ", good.replace(b" ", b"  ", 1) + b"\n"):
            file.write_bytes(other)
            with pytest.raises(SalstreamError, match="changed"):
                read_engine(path)
        file.write_bytes(good)
    read_engine(path)
    sidecar_path(path).unlink()
    with pytest.raises(SalstreamError, match=r"has no x\.engine\.json beside it"):
        read_engine(path)


@pytest.mark.slow
def test_two_builds_at_once_give_one_good_engine(rtx: Any, tmp_path: Path) -> None:
    # No two builds of this graph give the same bytes: those that do come from the cache.
    paths = [tmp_path / "one.engine", tmp_path / "one.engine", tmp_path / "two.engine"]
    processes = [_start("build", "unisal-dhf1k", *RTX, "-o", str(path)) for path in paths]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert read_engine(paths[0]) == read_engine(paths[2])  # one was built, and taken twice
    assert len(list(cache_folder().glob("*.engine"))) == 1
    _assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_killing_a_build_leaves_no_broken_engine(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    rng = random.Random(0)
    begin = time.monotonic()
    assert _start("build", "unisal-dhf1k", *RTX, "-o", str(path)).wait(120) == 0
    whole_s = time.monotonic() - begin
    outcomes = set()
    for number in range(8):
        for file in cache_folder().glob("*.engine*"):
            file.unlink()
        if number % 2:
            path.unlink(missing_ok=True)
        process = _start("build", "unisal-dhf1k", *RTX, "-o", str(path))
        time.sleep(whole_s * rng.uniform(0.2, 1.1))
        process.kill()
        outcomes.add(process.wait(120))
        for engine in (path, *cache_folder().glob("*.engine")):
            if engine.exists():
                read_engine(engine)
    assert -signal.SIGKILL in outcomes
    _age(tmp_path)
    done = build("unisal-dhf1k", *RTX, "-o", path)
    assert done.exit_code == 0, (done.output, done.exception)
    read_engine(path)
    _assert_nothing_left(tmp_path)


def _write_and_die(path: Path, step: int, sidecar: Sidecar) -> int:
    """Write an engine in another process that is killed at a step; return how it ended.

    Steps lie before and after each thing that it does to files.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = itertools.count(step, -1)

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for name in ("replace", "unlink", "open"):
        setattr(Path, name, deadly(getattr(Path, name)))
    os.fsync = deadly(os.fsync)
    write_engine(path, b"new", sidecar)
    os._exit(0)


def test_builds_in_other_surroundings_do_not_meet(tmp_path: Path) -> None:
    """Two processes with temporary folders of their own write the same engine again and again."""
    path = tmp_path / "x.engine"
    script = """
import hashlib, sys
from pathlib import Path
from dataclasses import replace
from salstream.export.engine_files import write_engine
from salstream.runtime.sidecar import Sidecar
content = sys.argv[3].encode()
sidecar = Sidecar.from_json(Path(sys.argv[2]).read_text())
sidecar = replace(sidecar, engine_sha256=hashlib.sha256(content).hexdigest())
for _ in range(60):
    write_engine(Path(sys.argv[1]), content, sidecar)
"""
    example = tmp_path / "example.json"
    example.write_text(SMALL.to_json())
    processes = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        environment = {**os.environ, "TMPDIR": str(folder)}
        command = [sys.executable, "-c", script, str(path), str(example), name]
        processes.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    read_engine(path)
    _assert_nothing_left(tmp_path)


def test_only_a_temporary_file_that_is_surely_dead_goes(tmp_path: Path) -> None:
    others = [tmp_path / f".x.engine{kind}.1.part" for kind in ("", ".json")]
    for other in others:
        other.write_bytes(b"of a build that runs, where locks do not work")
    write_engine(tmp_path / "x.engine", b"engine", SMALL)
    assert all(other.exists() for other in others)
    _age(tmp_path)
    write_engine(tmp_path / "x.engine", b"engine", SMALL)
    _assert_nothing_left(tmp_path)


def test_files_have_the_usual_rights_and_the_umask_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The umask belongs to the whole process: another thread may be writing a secret."""
    path = tmp_path / "x.engine"
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
            write_engine(path, b"engine", SMALL)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (path, sidecar_path(path))} == {0o640}


@pytest.mark.parametrize("there", [False, True])
def test_killing_at_every_step_leaves_the_old_the_new_or_none(there: bool, tmp_path: Path) -> None:
    new = replace(SMALL, engine_sha256=hashlib.sha256(b"new").hexdigest())
    seen = set()
    for step in itertools.count():
        folder = tmp_path / str(step)
        path = folder / "x.engine"
        if there:
            write_engine(path, b"engine", SMALL)
        status = _write_and_die(path, step, new)
        seen.add(read_engine(path)[0] if path.exists() else None)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        _age(folder)
        write_engine(path, b"new", new)
        assert read_engine(path) == (b"new", new)
        _assert_nothing_left(folder)
    assert step >= 10
    assert seen == ({b"engine", None, b"new"} if there else {None, b"new"})


@pytest.mark.slow
def test_ctrl_c_ends_a_build_and_leaves_nothing_broken(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    for delay_s in (0.5, 0.8):
        path.unlink(missing_ok=True)
        process = _start("build", "unisal-dhf1k", *RTX, "--no-cache", "-o", str(path))
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert path.exists() or process.returncode != 0, errors
        if path.exists():  # it was quicker, or on its way out
            read_engine(path)
    _assert_nothing_left(tmp_path)


def test_the_same_path_builds_for_tensorrt_10_and_11(rtx: Any, tmp_path: Path) -> None:
    """TensorRT's own wheel has no libraries: TensorRT-RTX's stand in, without what is its own."""
    script = """
import sys
from pathlib import Path
from types import ModuleType
import tensorrt_rtx
from fake_tensorrt import FakeGpu

class Standing(ModuleType):
    def __getattr__(self, name):
        if name in ("ComputeCapability", "DynamicShapesKernelSpecializationStrategy"):
            raise AttributeError(name)
        return getattr(tensorrt_rtx, name)

sys.modules["tensorrt"] = library = Standing("tensorrt")
library.__version__ = sys.argv[1]
from salstream.export import engines
engines.Gpu = FakeGpu
options = engines.EngineOptions(target="tensorrt", batch=(1, 2, 3))
engines.build_engine("unisal-dhf1k", Path(sys.argv[2]), options)
"""
    for version in ("10.9.0.34", "11.4.1.5"):
        path = tmp_path / f"{version}.engine"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, "-c", script, version, path], check=True, env=environment)
        engine, sidecar = read_engine(path)
        assert len(engine) > 10_000_000
        assert (sidecar.product, sidecar.gpu) == (f"TensorRT {version}", "Fake A4000")
        assert (sidecar.compute_capabilities, sidecar.batch) == (("8.6",), (1, 2, 3))
    assert len(list(cache_folder().glob("*.engine"))) == 2


def test_polygraphy_is_left_as_it_was(rtx: Any, small: str, tmp_path: Path) -> None:
    from polygraphy.logger import G_LOGGER

    def state() -> tuple[Any, ...]:
        log = logging.getLogger("Polygraphy")
        severity = G_LOGGER.module_severity.get()
        python = G_LOGGER.use_python_logging_system
        return G_LOGGER.colors, python, severity, log.propagate, list(log.handlers)

    before = state()
    assert before == (True, False, G_LOGGER.INFO, True, [])
    assert build(small, *RTX, "--no-cache", "-o", tmp_path / "x.engine").exit_code == 0
    assert state() == before


def test_a_bug_of_ours_is_not_the_graphs_fault(
    rtx: Any, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_tensors", lambda trt: ())  # too few parameters
    done = build(small, *RTX, "--no-cache", "-o", tmp_path / "x.engine")
    assert isinstance(done.exception, TypeError)


@pytest.mark.parametrize("workspace", [None, 3 << 20])
@pytest.mark.parametrize(
    ("flavour", "capabilities"), [("tensorrt", ("8.6",)), ("tensorrt-rtx", ("8.6", "8.9"))]
)
def test_the_command_that_builds_again_asks_for_the_same(
    flavour: str,
    capabilities: tuple[str, ...],
    workspace: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sidecar = replace(
        SMALL,
        graph="my graph $HOME.onnx",
        flavour=flavour,
        compute_capabilities=capabilities,
        batch=(1, 2, 8),
        options={"workspace": workspace},
    )
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(engines, "build_engine", lambda *a, cache: asked.append(a))
    output = Path("a folder") / "it's.engine"
    program, command, *words = shlex.split(sidecar.rebuild(output))
    assert (program, command) == ("salstream", "build")
    build(*words)  # ends when the engine is not there
    options = engines.EngineOptions(
        target=flavour,
        batch=(1, 2, 8),
        compute_capabilities=capabilities if flavour == "tensorrt-rtx" else (),
        workspace=workspace,
    )
    assert asked == [("my graph $HOME.onnx", output, options)]
    assert "--compute-capability" not in sidecar.rebuild(output, "tensorrt")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("unisal-dhf1k", "--target", "tpu"), 2, "unknown target 'tpu'; known: tensorrt, "),
        (("unisal-dhf1k", *RTX, "--batch", "4:1"), 2, "batches must rise from at least 1"),
        (("unisal-dhf1k", *RTX, "--batch", "0:1"), 2, "batches must rise from at least 1"),
        (("unisal-dhf1k", *RTX, "--batch", "two"), 2, "cannot read the batch 'two'"),
        (("unisal-dhf1k", *RTX, "--workspace", "2 bananas"), 2, "cannot read the size"),
        (("unisal-dhf1k", *RTX, "--workspace", "0"), 2, "at least one byte"),
        (("unisal-dhf1k", *RTX, "--workspace", "1K"), 1, "OutOfMemory .* with --workspace"),
        (
            ("unisal-dhf1k", *RTX, "--compute-capability", "9.0"),
            2,
            r"does not build for compute capability '9\.0'; it knows: 7\.5, 8\.0, ",
        ),
        (
            ("unisal-dhf1k", "--target", "tensorrt", "--compute-capability", "8.6"),
            2,
            "for the GPU of this machine; --compute-capability is for --target tensorrt-rtx",
        ),
        (("nothing.onnx", *RTX), 2, "unknown model 'nothing.onnx'"),
        (("{folder}/x.txt", *RTX), 2, "expected an .onnx file"),
        (("{folder}/damaged.onnx", *RTX), 1, "damaged or no ONNX graph"),
        (("{folder}/empty.onnx", *RTX), 1, "is not a graph for salstream: it has no salstream"),
        (("{folder}/refused.onnx", *RTX), 1, "build the graph: .*refused_node.* has type UInt8"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    rtx: Any, tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "x.txt").write_text("no graph")
    (tmp_path / "damaged.onnx").write_bytes(find_model("unisal-dhf1k").read_bytes()[:100_000])
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "refused.onnx").write_bytes(_refused_graph())
    before = {file.name for file in tmp_path.iterdir()}
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    _refuses(build(*filled, "-o", tmp_path / "x.engine"), code, sentence)
    assert {file.name for file in tmp_path.iterdir()} - before <= {"cache"}
    assert not list(tmp_path.rglob("*.engine*"))


def test_an_output_that_cannot_be(rtx: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.engine").mkdir()
    for name in ("x.onnx", "x", "folder.engine"):
        _refuses(build("unisal-dhf1k", *RTX, "-o", tmp_path / name), 2, "ends in .engine")
    _refuses(build("unisal-dhf1k", *RTX, "-o", tmp_path / "file" / "x.engine"), 1, "cannot write")


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("tensorrt_rtx", r"TensorRT-RTX is not installed .* 'salstream\[tensorrt-rtx\]'"),
        ("polygraphy", r"Polygraphy is not installed .*'salstream\[tensorrt-rtx\]'"),
        ("filelock", r"building needs filelock; .* 'salstream\[tensorrt-rtx\]'"),
    ],
)
def test_a_library_that_is_not_installed(
    module: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == module or name.startswith("salstream.export.engine"):
            monkeypatch.delitem(sys.modules, name)
    for parent in (sys.modules["salstream.export"],):
        for name in ("engines", "engine_files"):
            monkeypatch.delattr(parent, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    done = CliRunner().invoke(
        _application(engines_cli.register),
        ["build", "unisal-dhf1k", *RTX, "-o", str(tmp_path / "x.engine")],
    )
    _refuses(done, 1, sentence)


def test_tensorrt_builds_on_its_gpu_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> None:
        raise SalstreamError("no GPU was found")

    library = ModuleType("tensorrt")
    library.__dict__["__version__"] = "10.9.0.34"
    monkeypatch.setattr(engines, "import_library", lambda target: library)
    monkeypatch.setattr(engines, "Gpu", no_gpu)
    done = build("unisal-dhf1k", "--target", "tensorrt", "-o", tmp_path / "x.engine")
    _refuses(done, 1, r"only on the GPU that the engine is for: no GPU .* tensorrt-rtx builds")


def test_one_process_builds_for_one_target(rtx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.import_library("tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(SalstreamError, match="one process builds for one target"):
        engines.import_library("tensorrt")


def test_an_unwritable_cache_says_how_to_do_without(
    rtx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("in the way")
    path = tmp_path / "x.engine"
    _refuses(build("unisal-dhf1k", *RTX, "-o", path), 1, "cannot write the cache .*--no-cache")
    assert build("unisal-dhf1k", *RTX, "-o", path, "--no-cache").exit_code == 0
    read_engine(path)


def test_sizes_and_batches() -> None:
    assert [engines_cli.parse_bytes(t) for t in ("7", "1K", "2.5m", "3GiB", "1 GB")] == [
        7,
        1024,
        2621440,
        3 << 30,
        1 << 30,
    ]
    assert [engines_cli.parse_batch(t) for t in ("4", "1:4", "1:2:8")] == [
        (4, 4, 4),
        (1, 1, 4),
        (1, 2, 8),
    ]


def _refuses(done: Result, code: int, sentence: str) -> None:
    assert isinstance(done.exception, UsageError if code == 2 else SalstreamError), (
        done.output,
        done.exception,
    )
    assert done.exception.exit_code == code
    with pytest.raises(SalstreamError, match=sentence):
        raise done.exception
    assert "\n" not in str(done.exception)


def _application(register: Callable[[Any], None]) -> Any:
    import typer

    application = typer.Typer()
    application.command("other")(lambda: None)
    register(application)
    return application


def _refused_graph() -> bytes:
    """TensorRT transposes no uint8."""
    size = 8
    spec = GraphSpec(model="x", domain="", height=size, width=size)
    nodes = [
        helper.make_node("Transpose", ["frames"], ["x"], name="refused_node", perm=[0, 4, 1, 2, 3]),
        helper.make_node("Cast", ["x"], ["saliency"], to=TensorProto.FLOAT),
    ]
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["b", 1, size, size, 3])
    maps = helper.make_tensor_value_info("saliency", TensorProto.FLOAT, ["b", 3, 1, size, size])
    graph = helper.make_graph(nodes, "x", [frames], [maps])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, spec.to_metadata())
    return bytes(model.SerializeToString())


def _flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SALSTREAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _age(folder: Path) -> None:
    """Make temporary files older than any build that still runs."""
    for part in folder.rglob("*.part"):
        os.utime(part, (time.time() - LEFTOVER_S - 1,) * 2)


def _assert_nothing_left(folder: Path) -> None:
    """No temporary file of a build that is over."""
    assert not list(folder.rglob("*.part"))

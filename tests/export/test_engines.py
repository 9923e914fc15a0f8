"""Engines: built by the real TensorRT-RTX, without a GPU; whole or not there at all."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
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

from salstream.export import engines, engines_cli
from salstream.export.engine_files import cache_folder, write_engine
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


def build(*arguments: str | Path) -> Result:
    return CliRunner().invoke(load_commands(), ["build", *map(str, arguments)])


def test_an_engine_and_what_it_says_about_itself(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "unisal.engine"
    options = ("--batch", "1:2:3", "--workspace", "1G")
    capabilities = ("--compute-capability", "8.9", "--compute-capability", "8.6")
    done = build("unisal-dhf1k", *RTX, *options, *capabilities, *capabilities, "-o", path)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "16.5 MB, fp32, TensorRT-RTX 1." in done.output
    assert "compute capability 8.6, 8.9, batch 1 to 3" in done.output
    assert sorted(file.name for file in path.parent.iterdir()) == [
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
    assert sidecar.metadata == metadata
    assert GraphSpec.from_metadata(sidecar.metadata).name == "unisal-dhf1k"
    assert [(t.name, t.is_input, t.dtype, t.shape) for t in sidecar.tensors] == [
        ("frames", True, "uint8", (1, 224, 384, 3)),
        ("state_gru", True, "float32", (256, 7, 12)),
        ("saliency", False, "float32", (224, 384)),
        ("state_gru_next", False, "float32", (256, 7, 12)),
    ]


def test_the_cache_knows_what_makes_an_engine(rtx: Any, tmp_path: Path) -> None:
    """No two builds of TensorRT-RTX give the same bytes: those that do come from the cache."""

    def built(*options: str) -> bytes:
        done = build("unisal-dhf1k", *RTX, *options, "-o", tmp_path / "x.engine")
        assert done.exit_code == 0, (done.output, done.exception)
        return read_engine(tmp_path / "x.engine")[0]

    first = built()
    assert built() == first
    assert built("--batch", "1:1:4") == first
    others = [
        built("--no-cache"),
        built("--batch", "2"),
        built("--workspace", "100M"),
        built("--compute-capability", "8.6"),
    ]
    assert len({first, *others}) == 5
    assert built() == first
    assert len(list(cache_folder().glob("*.engine"))) == 4
    # The same graph by its path: the same engine, and a sidecar that names the path.
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(find_model("unisal-dhf1k").read_bytes())
    assert build(copy, *RTX, "-o", tmp_path / "y.engine").exit_code == 0
    engine, sidecar = read_engine(tmp_path / "y.engine")
    assert (engine, sidecar.graph) == (first, "copy.onnx")


def test_a_changed_byte_in_the_cache_is_mended(rtx: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    assert build("unisal-dhf1k", *RTX, "-o", path).exit_code == 0
    (kept,) = cache_folder().glob("*.engine")
    before = kept.read_bytes()
    for file in (kept, sidecar_path(kept)):
        _flip(file, file.stat().st_size // 2)
        path.unlink()
        assert build("unisal-dhf1k", *RTX, "-o", path).exit_code == 0
        assert read_engine(path) == read_engine(kept)
        assert kept.read_bytes() != before
        before = kept.read_bytes()


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


def test_two_builds_at_once_give_one_good_engine(rtx: Any, tmp_path: Path) -> None:
    paths = [tmp_path / "one.engine", tmp_path / "one.engine", tmp_path / "two.engine"]
    processes = [_start("build", "unisal-dhf1k", *RTX, "-o", str(path)) for path in paths]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert read_engine(paths[0]) == read_engine(paths[2])  # one was built, and taken twice
    assert len(list(cache_folder().glob("*.engine"))) == 1
    _assert_nothing_left(tmp_path)


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

    for name in ("replace", "unlink", "chmod"):
        setattr(Path, name, deadly(getattr(Path, name)))
    os.fsync = deadly(os.fsync)
    write_engine(path, b"new", sidecar)
    os._exit(0)


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
        write_engine(path, b"new", new)
        assert read_engine(path) == (b"new", new)
        _assert_nothing_left(folder)
    assert step >= 10
    assert seen == ({b"engine", None, b"new"} if there else {None, b"new"})


def test_ctrl_c_ends_a_build_and_leaves_nothing(rtx: Any, tmp_path: Path) -> None:
    for delay_s in (0.5, 0.8):
        process = _start("build", "unisal-dhf1k", *RTX, "--no-cache", "-o", f"{tmp_path}/x.engine")
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:  # it was quicker
            read_engine(tmp_path / "x.engine")
        else:
            assert not (tmp_path / "x.engine").exists(), errors
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


def _assert_nothing_left(folder: Path) -> None:
    """No temporary file of a build that is over."""
    assert not list(folder.rglob("*.part"))

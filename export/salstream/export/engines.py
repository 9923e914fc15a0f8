"""From a graph to an engine: one path for TensorRT 10, TensorRT 11 and TensorRT-RTX.

Polygraphy drives each of them. Precision lies in the graph, so networks are always strongly
typed and no builder flag chooses a precision. What differs: TensorRT builds for the GPU that
it finds, TensorRT-RTX without one for the compute capabilities that it is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from salstream.export.engine_files import EngineCache, write_engine
from salstream.runtime.cuda import Gpu
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.model import bundled_models, find_model
from salstream.runtime.sidecar import FLAVOURS, PRODUCTS, Sidecar, TensorFacts
from salstream.runtime.spec import PREFIX, GraphSpec

# Raised whenever the same recipe would give another engine.
RECIPE_VERSION: Final = 1

logger = logging.getLogger("salstream")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to build.

    Attributes:
        target: ``tensorrt`` or ``tensorrt-rtx``.
        batch: Smallest batch, the one to tune for, largest.
        compute_capabilities: Of the GPUs to build for, such as ``8.6``; TensorRT-RTX only.
            Empty: what it builds for by itself, Ampere and later.
        workspace: Largest temporary memory of the engine on the GPU, in bytes; None: no limit.
    """

    target: str
    batch: tuple[int, int, int] = (1, 1, 4)
    compute_capabilities: tuple[str, ...] = ()
    workspace: int | None = None

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.target not in FLAVOURS:
            raise UsageError(f"unknown target {self.target!r}; known: {', '.join(FLAVOURS)}")
        low, best, high = self.batch
        if not 1 <= low <= best <= high:
            raise UsageError(
                f"batches must rise from at least 1, got {':'.join(map(str, self.batch))}"
            )
        if self.compute_capabilities and self.target == "tensorrt":
            raise UsageError(
                "TensorRT builds for the GPU of this machine; --compute-capability is for "
                "--target tensorrt-rtx"
            )
        if self.workspace is not None and self.workspace < 1:
            raise UsageError("the workspace must be at least one byte")


def build_engine(
    graph: str | Path, output: Path, options: EngineOptions, *, cache: bool = True
) -> Sidecar:
    """Build an engine and its sidecar, or take them from the cache.

    Args:
        graph: A bundled name, or an ``.onnx`` file that salstream exported.
        output: The ``.engine`` file; ``NAME.engine.json`` comes beside it.
        options: How to build.
        cache: Whether to look for the engine in the cache, and to keep it there.

    Returns:
        The sidecar.

    Raises:
        UsageError: The graph is not there, or an option is wrong.
        SalstreamError: The library or what it needs is not there, the graph is not ours or
            cannot be built, or a file cannot be written.
    """
    path = find_model(graph)
    if output.suffix != ".engine" or output.is_dir():
        raise UsageError(f"cannot build {output}: expected a file that ends in .engine")
    content, metadata = _read_graph(path)
    spec = GraphSpec.from_metadata(metadata)
    trt = import_library(options.target)
    gpu = _gpu(options.target)
    sidecar = Sidecar(
        engine_sha256="",
        graph_sha256=hashlib.sha256(content).hexdigest(),
        graph=str(graph) if str(graph) in bundled_models() else path.name,
        flavour=options.target,
        version=str(trt.__version__),
        gpu=gpu.name if gpu else None,
        compute_capabilities=_capabilities(trt, options, gpu),
        precision=spec.precision,
        batch=options.batch,
        options={"workspace": options.workspace},
        # The graph was verified, not this engine: `salstream verify` says what is true of it.
        metadata={k: v for k, v in metadata.items() if k != f"{PREFIX}verification"},
        tensors=(),
    )
    if not cache:
        engine, tensors = _compile(trt, content, sidecar)
        sidecar = _complete(sidecar, engine, tensors)
    else:
        entry = EngineCache(_recipe(sidecar))
        with entry.building():
            found = entry.find()
            if found is None:
                engine, tensors = _compile(trt, content, sidecar)
                sidecar = _complete(sidecar, engine, tensors)
                try:
                    entry.store(engine, sidecar)
                except SalstreamError as error:
                    logger.warning("the engine is not kept for the next time: %s", error)
            else:
                engine, kept = found
                sidecar = replace(kept, graph=sidecar.graph, gpu=sidecar.gpu)
                logger.info("taken from the cache: %s", entry.path)
    write_engine(output, engine, sidecar)
    return sidecar


def import_library(target: str) -> Any:
    """Return the module ``tensorrt`` or ``tensorrt_rtx``, and make Polygraphy drive it.

    Raises:
        SalstreamError: It or Polygraphy is not installed, or this process has built for the
            other target already.
    """
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if target == "tensorrt-rtx" else "0"
    try:
        trt = importlib.import_module(FLAVOURS[target])
        import polygraphy.config
    except ImportError as error:
        of_polygraphy = (error.name or "").startswith("polygraphy")
        missing = "Polygraphy" if of_polygraphy else PRODUCTS[target]
        raise SalstreamError(
            f"{missing} is not installed ({error}); install it with: "
            f"pip install 'salstream[{target}]'"
        ) from error
    if (target == "tensorrt-rtx") is not polygraphy.config.USE_TENSORRT_RTX:
        raise SalstreamError("one process builds for one target; start another one for the other")
    return trt


def _read_graph(path: Path) -> tuple[bytes, dict[str, str]]:
    """Return a graph's file and its metadata."""
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"cannot build {path}: expected an .onnx file made by `salstream export`")
    try:
        content = path.read_bytes()
        graph = onnx.load_model_from_string(content)
    except OSError as error:
        raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise SalstreamError(f"{path} cannot be loaded: it is damaged or no ONNX graph") from error
    metadata = {item.key: item.value for item in graph.metadata_props}
    try:
        GraphSpec.from_metadata(metadata)
    except SalstreamError as error:
        raise SalstreamError(f"{path} is not a graph for salstream: {error}") from error
    return content, metadata


def _gpu(target: str) -> Gpu | None:
    """Return the GPU; TensorRT-RTX needs none."""
    try:
        return Gpu()
    except SalstreamError as error:
        if target == "tensorrt-rtx":
            return None
        raise SalstreamError(
            f"TensorRT builds only on the GPU that the engine is for: {error} "
            "(--target tensorrt-rtx builds without one)"
        ) from error


def _capabilities(trt: Any, options: EngineOptions, gpu: Gpu | None) -> tuple[str, ...]:
    """Return the compute capabilities of the engine, without repetition, rising."""
    if options.target == "tensorrt":
        assert gpu is not None
        return ("{}.{}".format(*gpu.compute_capability),)
    known = [
        f"{name[2:-1]}.{name[-1]}"
        for name in trt.ComputeCapability.__members__
        if name.startswith("SM")
    ]
    for capability in options.compute_capabilities:
        if capability not in known:
            raise UsageError(
                f"TensorRT-RTX {trt.__version__} does not build for compute capability "
                f"{capability!r}; it knows: {', '.join(known)}"
            )
    return tuple(name for name in known if name in options.compute_capabilities)


def _recipe(sidecar: Sidecar) -> dict[str, Any]:
    """Return all that decides what an engine is like."""
    return {
        "recipe": RECIPE_VERSION,
        "graph": sidecar.graph_sha256,
        "flavour": sidecar.flavour,
        "version": sidecar.version,
        # TensorRT-RTX's engines are the same wherever they are built.
        "gpu": sidecar.gpu if sidecar.flavour == "tensorrt" else None,
        "compute_capabilities": sidecar.compute_capabilities,
        "batch": sidecar.batch,
        "options": sidecar.options,
        "platform": [platform.system(), platform.machine()],
    }


def _complete(sidecar: Sidecar, engine: bytes, tensors: tuple[TensorFacts, ...]) -> Sidecar:
    return replace(sidecar, engine_sha256=hashlib.sha256(engine).hexdigest(), tensors=tensors)


def _compile(trt: Any, content: bytes, sidecar: Sidecar) -> tuple[bytes, tuple[TensorFacts, ...]]:
    """Return an engine as the sidecar wants it, and its inputs and outputs.

    Raises:
        SalstreamError: The library refuses the graph.
    """
    from polygraphy.backend.trt import (
        CreateConfig,
        EngineBytesFromNetwork,
        NetworkFromOnnxBytes,
        PostprocessConfig,
        Profile,
    )
    from polygraphy.exception import PolygraphyException

    special: dict[str, Any] = {}
    if sidecar.flavour == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX as CreateConfig

        pairs = [name.split(".") for name in sidecar.compute_capabilities]
        special["compute_capabilities"] = [(int(a), int(b)) for a, b in pairs] or None
    workspace = sidecar.options["workspace"]
    if workspace is not None:
        special["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: workspace}
    with _messages() as messages, _progress(trt) as monitor:
        try:
            # TensorRT 11 takes the flag, and knows nothing but strong typing anyway.
            builder, network, parser = NetworkFromOnnxBytes(content, strongly_typed=True)()
            tensors = _tensors(trt, network)
            profile = Profile()
            for tensor in tensors:
                if tensor.is_input:
                    profile.add(tensor.name, *((size, *tensor.shape) for size in sidecar.batch))
            config = CreateConfig(profiles=[profile], progress_monitor=monitor, **special)
            engine = EngineBytesFromNetwork(
                (builder, network, parser), PostprocessConfig(config, _set_flags(trt))
            )()
        except (PolygraphyException, RuntimeError) as error:
            if monitor.stopped is not None:  # Ctrl-C, or asked to end
                raise monitor.stopped from None
            # The last one says where, the first one why.
            reason = "; ".join(dict.fromkeys([*messages[-1:], *messages[:1]])) or str(error)
            if "outofmemory" in reason.lower().replace(" ", ""):
                reason += (
                    "; end other programs that use the GPU, or build for smaller batches"
                    if workspace is None
                    else "; allow more with --workspace"
                )
            raise SalstreamError(
                f"{PRODUCTS[sidecar.flavour]} cannot build the graph: {reason}"
            ) from error
    return bytes(engine), tensors


def _set_flags(trt: Any) -> Any:
    """Return what sets the flags that Polygraphy does not."""

    def set_flags(builder: Any, network: Any, config: Any) -> None:
        # The graph says what precision it wants; TF32 would be less than float32.
        config.clear_flag(trt.BuilderFlag.TF32)
        # TensorRT-RTX: without it an engine may not be recorded into a CUDA graph.
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    return set_flags


def _tensors(trt: Any, network: Any) -> tuple[TensorFacts, ...]:
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    outputs = [network.get_output(number) for number in range(network.num_outputs)]
    return tuple(
        TensorFacts(
            name=tensor.name,
            is_input=number < len(inputs),
            dtype=np.dtype(trt.nptype(tensor.dtype)).name,
            shape=tuple(tensor.shape)[1:],
        )
        for number, tensor in enumerate([*inputs, *outputs])
    )


@contextlib.contextmanager
def _messages() -> Iterator[Sequence[str]]:
    """Collect the errors that Polygraphy and the library below it report."""
    from polygraphy.logger import G_LOGGER

    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # The critical ones are Polygraphy's own, and say less.
            if record.levelno == logging.ERROR:
                first_line = record.getMessage().strip().partition("\n")[0]
                messages.append(first_line.removeprefix("[E] ")[:300])

    log, handler = logging.getLogger("Polygraphy"), Collector()
    settings = {
        "colors": False,  # it would ask for a library for them
        "use_python_logging_system": True,
        "module_severity": G_LOGGER.ERROR,
    }
    before = {name: getattr(G_LOGGER, name) for name in settings}
    propagate = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        for name, value in settings.items():
            setattr(G_LOGGER, name, value)
        yield messages
    finally:
        for name, value in before.items():
            setattr(G_LOGGER, name, value)
        log.propagate = propagate
        log.removeHandler(handler)


@contextlib.contextmanager
def _progress(trt: Any) -> Iterator[Any]:
    """Show the builder's phases while they run."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Called by the builder; an exception must not pass through it."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped: BaseException | None = None
            self.phases: dict[str, Any] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._kept():
                self.phases[phase_name] = progress.add_task(phase_name, total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._kept():
                progress.update(self.phases[phase_name], completed=step + 1)
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            with self._kept():
                progress.remove_task(self.phases.pop(phase_name))

        @contextlib.contextmanager
        def _kept(self) -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                self.stopped = error

    with progress:
        yield Monitor()

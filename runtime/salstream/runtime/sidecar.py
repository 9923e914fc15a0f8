"""What an engine says about itself: ``NAME.engine.json`` beside ``NAME.engine``.

An engine itself is TensorRT's own format, so that `trtexec` loads it. The sidecar carries
what the graph's metadata said, how and for what the engine was built, and checksums of the
engine and of itself: a pair that does not belong together is noticed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from salstream.runtime.errors import SalstreamError

SCHEMA_VERSION: Final = 1
# What `build --target` is called, and the Python module that builds and runs it.
FLAVOURS: Final = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
PRODUCTS: Final = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """An input or output of an engine.

    Attributes:
        name: For example ``frames``.
        is_input: Or an output.
        dtype: Name of the numpy type.
        shape: Without the batch axis, which comes first.
    """

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The facts that lie beside an engine.

    Attributes:
        engine_sha256: Of the engine's file.
        graph_sha256: Of the ONNX file that it was built from.
        graph: Name of that file, or the bundled name.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: Of the library that built it, and the only one that runs it.
        gpu: Name of the GPU that it was built on; None where there was none.
        compute_capabilities: Of the GPUs that it runs on, such as ``8.6``; empty: what the
            library builds for by itself.
        precision: ``fp32``, ``fp16`` or ``int8``, as the graph has it.
        batch: Smallest batch, the one it is tuned for, largest.
        options: Further options of the build.
        metadata: The graph's ``metadata_props``, for
            :meth:`~salstream.runtime.spec.GraphSpec.from_metadata`.
        tensors: Inputs and outputs.
    """

    engine_sha256: str
    graph_sha256: str
    graph: str
    flavour: str
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    precision: str
    batch: tuple[int, int, int]
    options: Mapping[str, Any]
    metadata: Mapping[str, str]
    tensors: tuple[TensorFacts, ...]

    def to_json(self) -> str:
        """Return the file's text, with a checksum of everything in it."""
        content = {"schema": SCHEMA_VERSION, **asdict(self)}
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the file's text.

        Raises:
            KeyError, TypeError, ValueError: It is no such text, or was changed.
        """
        content: Any = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError("it holds no JSON object")
        checksum = content.pop("checksum", None)
        schema = content.pop("schema", None)
        if schema != SCHEMA_VERSION:
            raise ValueError(f"it has schema version {schema}, not {SCHEMA_VERSION}")
        if checksum != _checksum({"schema": schema, **content}):
            raise ValueError("its checksum does not fit its content")
        for name in ("batch", "compute_capabilities"):
            content[name] = tuple(content[name])
        content["tensors"] = tuple(
            TensorFacts(**{**facts, "shape": tuple(facts["shape"])}) for facts in content["tensors"]
        )
        sidecar = cls(**content)
        if sidecar.to_json() != text:  # a changed blank, for example
            raise ValueError("it is not as salstream wrote it")
        _check_kinds(sidecar)
        return sidecar

    @property
    def product(self) -> str:
        """Library and version, such as ``TensorRT-RTX 1.7.1.116``."""
        return f"{PRODUCTS[self.flavour]} {self.version}"

    def rebuild(
        self, output: Path, flavour: str | None = None, capabilities: tuple[str, ...] = ()
    ) -> str:
        """Return the command that builds such an engine on the machine where it is given.

        It names the graph's file without its folder, which is another one on each machine.

        Args:
            output: The ``.engine`` file.
            flavour: What to build for; None: the same again.
            capabilities: Further compute capabilities, for TensorRT-RTX.
        """
        flavour = flavour or self.flavour
        words = ["salstream", "build", self.graph, "--target", flavour]
        words += ["--batch", ":".join(map(str, self.batch))]
        if flavour == "tensorrt-rtx":
            for capability in (*self.compute_capabilities, *capabilities):
                words += ["--compute-capability", capability]
        if self.options.get("workspace") is not None:
            words += ["--workspace", str(self.options["workspace"])]
        return shlex.join([*words, "-o", str(output)])


def sidecar_path(engine: Path) -> Path:
    """Return where an engine's sidecar lies."""
    return engine.with_name(engine.name + ".json")


def read_engine(path: Path) -> tuple[bytes, Sidecar]:
    """Read an engine and its sidecar.

    Raises:
        SalstreamError: One is not there or was changed, or they do not belong together.
    """
    beside = sidecar_path(path)
    again = "build it again with `salstream build`"
    try:
        engine = path.read_bytes()
    except OSError as error:
        raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
    try:
        sidecar = Sidecar.from_json(beside.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SalstreamError(
            f"{path} has no {beside.name} beside it, which says how to run it; copy both files, "
            f"or {again}"
        ) from error
    except OSError as error:
        raise SalstreamError(f"{beside} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SalstreamError(f"{beside} is damaged or was changed ({error}); {again}") from error
    if hashlib.sha256(engine).hexdigest() != sidecar.engine_sha256:
        raise SalstreamError(
            f"{path} is not the engine that {beside.name} describes: one of them was changed or "
            f"copied without the other; {again}"
        )
    return engine, sidecar


def _check_kinds(sidecar: Sidecar) -> None:
    """Refuse facts of another kind than salstream writes (C++ has the same rules).

    Raises:
        ValueError: There is one.
    """

    def check(name: str, right: bool) -> None:
        if not right:
            raise ValueError(f"its {name} is of another kind: {getattr(sidecar, name)!r:.80}")

    def counts(values: tuple[Any, ...]) -> bool:
        return all(type(value) is int and 1 <= value < 2**31 for value in values)

    for name in ("engine_sha256", "graph_sha256", "graph", "flavour", "version", "precision"):
        check(name, isinstance(getattr(sidecar, name), str))
    check("flavour", sidecar.flavour in FLAVOURS)
    check("gpu", sidecar.gpu is None or isinstance(sidecar.gpu, str))
    capabilities: tuple[Any, ...] = sidecar.compute_capabilities
    check("compute_capabilities", all(isinstance(one, str) for one in capabilities))
    batch: tuple[Any, ...] = sidecar.batch
    check("batch", len(batch) == 3 and counts(batch) and batch == tuple(sorted(batch)))
    check("options", isinstance(sidecar.options, dict))
    check("metadata", isinstance(sidecar.metadata, dict))
    check("metadata", all(isinstance(value, str) for value in sidecar.metadata.values()))
    for tensor in sidecar.tensors:
        check("tensors", isinstance(tensor.name, str) and isinstance(tensor.dtype, str))
        check("tensors", isinstance(tensor.is_input, bool) and counts(tensor.shape))
    check("tensors", len({tensor.name for tensor in sidecar.tensors}) == len(sidecar.tensors))


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

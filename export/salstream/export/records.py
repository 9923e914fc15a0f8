"""Facts in an artefact that is there already: read and written without running it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from salstream.runtime import GraphSpec, SalstreamError
from salstream.runtime.files import write_bytes
from salstream.runtime.sidecar import read_engine, sidecar_path


def spec_of(path: Path) -> GraphSpec:
    """Return what an ``.onnx`` file, or the sidecar of an ``.engine``, says about itself.

    Raises:
        SalstreamError: It is damaged or not ours.
    """
    if path.suffix.lower() == ".engine":
        return GraphSpec.from_metadata(read_engine(path)[1].metadata)
    metadata = {entry.key: entry.value for entry in _load(path).metadata_props}
    return GraphSpec.from_metadata(metadata)


def record(path: Path, spec: GraphSpec) -> None:
    """Replace what an ``.onnx`` file, or the sidecar of an ``.engine``, says about itself.

    Raises:
        SalstreamError: It cannot be read or written; it is then as it was.
    """
    if path.suffix.lower() == ".engine":
        _, sidecar = read_engine(path)
        changed = replace(sidecar, metadata=spec.to_metadata())
        write_bytes(sidecar_path(path), changed.to_json().encode())
        return
    graph = _load(path)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, spec.to_metadata())
    write_bytes(path, graph.SerializeToString(deterministic=True))


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as error:
        raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # protobuf has classes of its own
        raise SalstreamError(f"{path} is damaged or no ONNX graph") from error

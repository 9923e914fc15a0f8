"""Facts written into an artefact that is there already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from salstream.runtime import GraphSpec
from salstream.runtime.files import write_bytes
from salstream.runtime.sidecar import read_engine, sidecar_path


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
    graph = onnx.load(path)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, spec.to_metadata())
    write_bytes(path, graph.SerializeToString(deterministic=True))

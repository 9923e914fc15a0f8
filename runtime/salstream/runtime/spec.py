"""What a deployable graph says about itself.

A graph carries these facts in ONNX ``metadata_props``, one entry per field under the
prefix ``salstream.``. They are all that the runtime knows of a model: no model's name
is ever looked at in the code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from salstream.runtime.errors import SalstreamError

SCHEMA_VERSION: Final = 1
PREFIX: Final = "salstream."
RESIZE_METHODS: Final = ("pyramid",)
FITS: Final = ("stretch", "letterbox")


@dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """The facts that a graph carries.

    Attributes:
        model: Name of the network, for example ``unisal``.
        domain: Domain whose layers the graph holds, for example ``dhf1k``; empty for a
            network that is the same for all.
        height: Height of the network's input, in pixels.
        width: Width of the same. The map may be smaller.
        window: Frames that one map is made from (T).
        map_frame: Which frame of the window the map is for, 0 for the oldest.
        phases: Interleaved passes over a video, each with a recurrent state of its own;
            used when the source's frame rate is not known.
        state_fps: Frames per second that one recurrent state sees. A source of ``fps``
            frames per second is read in ``fps / state_fps`` phases. None: always ``phases``.
        window_fps: Frames per second of the clips that the network was trained on. The frames
            of a window are ``fps / window_fps`` frames of the source apart. None: always 1.
        resize: How frames are brought to the model's size; ``pyramid`` is
            :func:`salstream.runtime.preprocess.prepare`.
        fit: ``stretch``: a frame fills the input. ``letterbox``: it keeps its proportions, lies
            in the middle, and the rest is black.
        smoothing_sigma: Standard deviation of the Gaussian smoothing inside the graph, in
            pixels of the map; None where the network's own smoothing is all there is.
        precision: Arithmetic of the graph: ``fp32``, ``fp16`` or ``int8``.
        license: SPDX identifier of the weights' licence.
        attribution: Whose weights these are.
        checkpoint_sha256: Of the file that the graph was exported from.
        verification: Figures of the comparison with the PyTorch model.
        calibration: How an int8 graph was quantized: windows, method, layers left in float.
    """

    model: str
    domain: str
    height: int
    width: int
    window: int = 1
    map_frame: int = 0
    phases: int = 1
    state_fps: float | None = None
    window_fps: float | None = None
    resize: str = "pyramid"
    fit: str = "stretch"
    smoothing_sigma: float | None = None
    precision: str = "fp32"
    license: str = "unknown"
    attribution: str = ""
    checkpoint_sha256: str = ""
    verification: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse facts that contradict each other."""
        if min(self.height, self.width, self.window, self.phases) < 1:
            raise SalstreamError("height, width, window and phases of a graph must be at least 1")
        if not 0 <= self.map_frame < self.window:
            raise SalstreamError(
                f"map_frame must lie in the window: expected 0 to {self.window - 1}, "
                f"got {self.map_frame}"
            )
        for name in ("state_fps", "window_fps"):
            fps = getattr(self, name)
            if fps is not None and not fps > 0:
                raise SalstreamError(f"{name} must be above 0, got {fps}")
        for name, known in (("resize", RESIZE_METHODS), ("fit", FITS)):
            if getattr(self, name) not in known:
                raise SalstreamError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    @property
    def name(self) -> str:
        """Network and domain, such as ``unisal-dhf1k``."""
        return "-".join(filter(None, (self.model, self.domain)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    def phases_at(self, fps: float | None) -> int:
        """Phases for a source of ``fps`` frames per second (None: rate unknown)."""
        if fps is None or self.state_fps is None:
            return self.phases
        return max(1, round(fps / self.state_fps))

    def stride_at(self, fps: float | None) -> int:
        """Stride for a source of ``fps`` frames per second (None: rate unknown)."""
        if fps is None or self.window_fps is None or self.window == 1:
            return 1
        return max(1, round(fps / self.window_fps))

    def to_metadata(self) -> dict[str, str]:
        """Return the entries for ONNX ``metadata_props``."""
        metadata = {PREFIX + "schema": str(SCHEMA_VERSION)}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or value == {}:
                continue
            text = json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)
            metadata[PREFIX + item.name] = text
        return metadata

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> GraphSpec:
        """Read the entries of ``metadata_props``.

        Raises:
            SalstreamError: There are none, one is missing or cannot be read, or they were
                written by another schema version.
        """
        ours = {k.removeprefix(PREFIX): v for k, v in metadata.items() if k.startswith(PREFIX)}
        if "schema" not in ours:
            raise SalstreamError("it has no salstream metadata; make one with `salstream export`")
        schema = ours.pop("schema")
        if schema != str(SCHEMA_VERSION):
            raise SalstreamError(
                f"its metadata have schema version {schema}, this salstream reads "
                f"{SCHEMA_VERSION}; export it again with this version"
            )
        values: dict[str, Any] = {}
        for item in fields(cls):
            if item.name not in ours:
                continue
            try:
                values[item.name] = _PARSERS.get(item.name, str)(ours[item.name])
            except ValueError as error:
                raise SalstreamError(
                    f"its metadata entry {PREFIX}{item.name} cannot be read: {ours[item.name]!r}"
                ) from error
        try:
            return cls(**values)
        except TypeError as error:
            raise SalstreamError(f"its metadata are incomplete: {error}") from error


_PARSERS: Final[dict[str, Any]] = {
    "height": int,
    "width": int,
    "window": int,
    "map_frame": int,
    "phases": int,
    "state_fps": float,
    "window_fps": float,
    "smoothing_sigma": float,
    "verification": json.loads,
    "calibration": json.loads,
}

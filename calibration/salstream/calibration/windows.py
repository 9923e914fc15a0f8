"""Calibration windows: what a graph is given when real videos are streamed through it.

Two passes over each video. The first runs no network: it notes how much the picture changes,
and chooses windows evenly over time and over what is to be seen. The second keeps them, each
with the recurrent state that the stream has at that moment.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.calibration.graphs import Graph
from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.backends import Backend, Output
from salstream.runtime.backends.onnxruntime import OnnxRuntimeBackend
from salstream.runtime.predictor import Predictor
from salstream.runtime.sources import open_source
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES

_THUMBNAIL: Final = 8
_INDEX: Final = "windows.json"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where a window comes from.

    Attributes:
        source: Name of the video.
        frame: Index of the window's last frame.
    """

    source: str
    frame: int


@dataclass(frozen=True)
class Windows:
    """Inputs of a graph, from real videos.

    Attributes:
        frames: uint8 RGB, (windows, window, height, width, 3), memory-mapped.
        states: float32, (windows, …) for each recurrent state, memory-mapped.
        origins: One per window.
    """

    frames: NDArray[np.uint8]
    states: Mapping[str, NDArray[np.float32]]
    origins: Sequence[Origin]

    def __len__(self) -> int:
        return len(self.origins)

    def inputs(self, index: int) -> dict[str, NDArray[Any]]:
        """Return what the graph is given for one window, as a batch of 1."""
        states = {name: values[index : index + 1] for name, values in self.states.items()}
        return {"frames": self.frames[index : index + 1], **states}


def find_clips(paths: Iterable[str | Path]) -> list[Path]:
    """Return the videos that are named, and those in the folders that are named.

    A folder without videos stands for itself: a sequence of images.

    Raises:
        UsageError: One is not there or empty, or none is named.
    """
    clips: list[Path] = []
    for name in paths:
        path = Path(name)
        if not path.exists():
            raise UsageError(f"there is no video or folder {name}; clips are files, not URLs")
        inside = sorted(path.iterdir()) if path.is_dir() else []
        if path.is_dir() and not inside:
            raise UsageError(f"the folder {path} is empty: expected videos, or images")
        clips += [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES] or [path]
    if not clips:
        raise UsageError("no clips are given: name videos, or folders of videos")
    return clips


def draw(
    graph: Graph,
    clips: Sequence[Path],
    count: int,
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Windows:
    """Draw windows from videos and write them to a folder; what lies there already is used.

    Args:
        graph: In float32.
        clips: Videos.
        count: Windows in all; every clip gives an equal share. Of more clips than windows
            some are left out, evenly.
        folder: Where the windows lie, or are to lie.
        seed: Of the choice.
        progress: Told what is being done.

    Returns:
        The windows: fewer than ``count`` where the clips have fewer.

    Raises:
        SalstreamError: No clip is long enough for a window, a clip cannot be read, or the
            folder holds something else.
    """
    asked = {
        "graph": graph.sha256,
        "clips": [_identity(clip) for clip in clips],
        "count": count,
        "seed": seed,
    }
    if folder.exists():
        return _stored(folder, asked)
    rng = np.random.default_rng(seed)
    if len(clips) > count:
        clips = [clips[place] for place in np.linspace(0, len(clips) - 1, count).astype(int)]
    backend = OnnxRuntimeBackend(graph.path, "cpu")
    shares = [len(part) for part in np.array_split(np.arange(count), len(clips))]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".salstream-") as temporary:
            part = Path(temporary) / folder.name
            part.mkdir()
            writer = _Writer(part, graph.state_shapes, count)
            for clip, share in zip(clips, shares, strict=True):
                progress(f"choosing windows: {clip.name}")
                survey = _Survey(backend)
                _stream(survey, clip)
                chosen = _choose(survey.thumbnails, share, rng)
                if chosen:
                    progress(f"keeping windows: {clip.name}")
                    _stream(_Keeper(backend, writer, chosen, clip.name), clip, chosen[-1])
            if not writer.origins:
                raise SalstreamError(
                    f"no clip is long enough: a window has {graph.spec.window} frames"
                )
            writer.close(asked)
            part.replace(folder)
    except OSError as error:
        raise SalstreamError(f"cannot write {folder}: {error.strerror}") from error
    return _stored(folder, asked)


def _identity(clip: Path) -> list[Any]:
    """Return what tells a clip from another one, or from what it was before."""
    files = sorted(clip.iterdir()) if clip.is_dir() else [clip]
    facts = [file.stat() for file in files]
    newest = max((fact.st_mtime_ns for fact in facts), default=0)
    return [clip.name, len(files), sum(fact.st_size for fact in facts), newest]


class _Recorder(Backend):
    """A graph that looks at what it is given."""

    name = "recorder"
    conspicuity = False

    def __init__(self, backend: OnnxRuntimeBackend) -> None:
        self.spec = backend.spec
        self.recurrent = backend.recurrent
        self.frame = -1  # that was pushed last
        self.runs = 0
        self._blank = np.zeros((1, *backend.spec.size), np.float32)

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        self.runs += 1
        return Output(self._blank, None)


class _Survey(_Recorder):
    """Runs nothing; notes a thumbnail of the last frame of every window."""

    def __init__(self, backend: OnnxRuntimeBackend) -> None:
        super().__init__(backend)
        self.thumbnails: list[NDArray[np.uint8]] = []

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        last = frames[0, -1]
        rows, columns = (np.linspace(0, n - 1, _THUMBNAIL).astype(int) for n in last.shape[:2])
        self.thumbnails.append(last[rows][:, columns])
        return super().run(frames, state)


class _Keeper(_Recorder):
    """Writes chosen windows down; runs the graph if it has a state to carry."""

    def __init__(
        self, backend: OnnxRuntimeBackend, writer: _Writer, chosen: list[int], source: str
    ) -> None:
        super().__init__(backend)
        self._backend = backend
        self._writer = writer
        self._chosen = set(chosen)
        self._source = source

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        if self.runs in self._chosen:
            self._writer.add(frames, state, Origin(self._source, self.frame))
        nothing = super().run(frames, state)
        return self._backend.run(frames, state) if self.recurrent else nothing


def _stream(recorder: _Survey | _Keeper, clip: Path, last_run: int | None = None) -> None:
    """Stream a clip as users do, but for windows that are not whole."""
    with open_source(clip) as source:
        predictor = Predictor(recorder, start="skip", fps=source.fps)
        for frame in source:
            recorder.frame = frame.index
            predictor.push(frame)
            if last_run is not None and recorder.runs > last_run:
                break


def _choose(
    thumbnails: Sequence[NDArray[np.uint8]], count: int, rng: np.random.Generator
) -> list[int]:
    """Choose windows evenly along a way of which half is time and half is change."""
    total = len(thumbnails)
    if total <= count:
        return list(range(total))
    pictures = np.array(thumbnails, np.float32).reshape(total, -1)
    change = np.abs(np.diff(pictures, axis=0, prepend=pictures[:1])).mean(axis=1)
    way = np.cumsum(1 + change / (change.mean() or 1))
    stretches = np.searchsorted(way, np.linspace(0, way[-1], count + 1)[1:-1])
    chosen = {
        int(rng.integers(begin, end))
        for begin, end in zip([0, *stretches], [*stretches, total], strict=True)
        if begin < end
    }
    # A cut may be longer than a stretch: the windows that fall on it are taken elsewhere.
    others = sorted(set(range(total)) - chosen)
    chosen |= set(rng.choice(others, count - len(chosen), replace=False).tolist())
    return sorted(chosen)


class _Writer:
    """Writes windows into memory-mapped arrays."""

    def __init__(
        self, folder: Path, state_shapes: Mapping[str, tuple[int, ...]], count: int
    ) -> None:
        self._folder = folder
        self._state_shapes = state_shapes
        self._count = count
        self._arrays: dict[str, np.memmap[Any, np.dtype[Any]]] = {}
        self.origins: list[Origin] = []

    def add(
        self,
        frames: NDArray[np.uint8],
        state: Mapping[str, NDArray[np.float32]] | None,
        origin: Origin,
    ) -> None:
        zeros = {
            name: np.zeros((1, *shape), np.float32) for name, shape in self._state_shapes.items()
        }
        inputs: dict[str, NDArray[Any]] = {"frames": frames, **(state or zeros)}
        for name, value in inputs.items():
            if name not in self._arrays:
                self._arrays[name] = np.lib.format.open_memmap(
                    self._folder / f"{name}.npy",
                    mode="w+",
                    dtype=value.dtype,
                    shape=(self._count, *value.shape[1:]),
                )
            self._arrays[name][len(self.origins)] = value[0]
        self.origins.append(origin)

    def close(self, asked: Mapping[str, Any]) -> None:
        for values in self._arrays.values():
            values.flush()
        self._arrays.clear()
        origins = [asdict(origin) for origin in self.origins]
        (self._folder / _INDEX).write_text(json.dumps({**asked, "windows": origins}, indent=1))


def _stored(folder: Path, asked: Mapping[str, Any]) -> Windows:
    """Return the windows in a folder."""
    try:
        found = json.loads((folder / _INDEX).read_text())
        origins = [Origin(**origin) for origin in found.pop("windows")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SalstreamError(
            f"{folder} is there, but holds no calibration windows; name another folder"
        ) from error
    if found != asked:
        different = ", ".join(key for key in asked if found.get(key) != asked[key])
        raise SalstreamError(
            f"{folder} holds windows that were drawn otherwise (other {different}); remove it, "
            "or name another folder"
        )
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    kept = {name: values[: len(origins)] for name, values in arrays.items()}
    return Windows(kept.pop("frames"), kept, origins)

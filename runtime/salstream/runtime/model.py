"""The front door: open a model, stream a source through it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.backends import Backend, open_backend
from salstream.runtime.errors import UsageError
from salstream.runtime.pipeline import Stream
from salstream.runtime.predictor import Predictor, Start
from salstream.runtime.sources import PicturesAs, open_source
from salstream.runtime.spec import GraphSpec

MODELS_FOLDER: Final = Path(__file__).parent / "models"


def bundled_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    return {path.stem: path for path in sorted(MODELS_FOLDER.glob("*.onnx"))}


def find_model(model: str | Path) -> Path:
    """Return the file of a bundled name, or the path itself.

    Raises:
        UsageError: It is neither a bundled name nor a file.
    """
    bundled = bundled_models().get(str(model))
    if bundled is not None:
        return bundled
    path = Path(model)
    if not path.is_file():
        raise UsageError(
            f"unknown model {str(model)!r}: expected a file, or one of the bundled names "
            f"{', '.join(bundled_models())}"
        )
    return path


class SaliencyModel:
    """A graph that is ready to run, shared by as many streams as you like.

    Attributes:
        path: The file that was opened.
        spec: What the graph says about itself.
        backend: What runs it.
    """

    def __init__(self, path: Path, backend: Backend) -> None:
        self.path = path
        self.backend = backend

    @classmethod
    def open(
        cls, model: str | Path, *, backend: str | None = None, threads: int | None = None
    ) -> Self:
        """Open a model.

        Args:
            model: A bundled name such as ``unisal-dhf1k``, an exported ``.onnx`` file, or an
                ``.engine`` file with its sidecar.
            backend: Inference library; None picks one.
            threads: Threads for one inference; None leaves it to the library.

        Raises:
            UsageError: There is no such model or backend.
            SalstreamError: The library is not installed, or the file is damaged or not ours.
        """
        path = find_model(model)
        return cls(path, open_backend(path, backend, threads))

    @property
    def spec(self) -> GraphSpec:
        """What the graph says about itself."""
        return self.backend.spec

    def predictor(
        self,
        *,
        start: Start | None = None,
        phases: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
    ) -> Predictor:
        """Return a state machine for a loop of your own (see :class:`Predictor`)."""
        return Predictor(self.backend, start=start, phases=phases, stride=stride, fps=fps)

    def stream(
        self,
        source: str | Path | int | Sequence[str | Path] | Iterable[NDArray[np.uint8]],
        *,
        start: Start | None = None,
        phases: int | None = None,
        stride: int | None = None,
        fps: float | None = None,
        limit: int | None = None,
        raw_size: tuple[int, int] | None = None,
        pictures: PicturesAs | None = None,
    ) -> Stream:
        """Stream a source through the model.

        Args:
            source: A video file, a folder, list or pattern of images, a camera number or
                device, a network URL, a GStreamer pipeline, ``-`` for standard input, or BGR
                uint8 frames.
            start: What to do before the first window is whole; None: ``repeat`` for live
                sources, else ``reverse`` where the graph allows it.
            phases: Interleaved recurrent passes; None: as the graph wants at the source's rate.
            stride: Distance of the frames of a window; None: as the graph wants at the
                source's rate.
            fps: Frame rate of a source that does not know its own.
            limit: Stop after so many frames.
            raw_size: Height and width of raw BGR24 frames on standard input.
            pictures: ``video``: images are the frames of a video; ``single``: the map of each
                depends on nothing but itself; None: as their names and sizes say.

        Returns:
            An iterator over results, one per frame, in order.

        Raises:
            UsageError: The source is not there, or an option does not fit the graph.
            SalstreamError: The source cannot be opened. Iterating raises it after the results
                of all frames that could be read, where others could not.
        """
        opened = open_source(source, fps=fps, raw_size=raw_size, pictures=pictures)
        if start is None and opened.live:
            start = "repeat"
        predictor = self.predictor(start=start, phases=phases, stride=stride, fps=opened.fps)
        return Stream(opened, predictor, limit)

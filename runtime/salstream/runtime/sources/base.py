"""What every source is: an iterator of frames that holds one decoded frame at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.sources.address import redact

PicturesAs = Literal["video", "single"]
PICTURES_AS: Final = get_args(PicturesAs)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a source.

    Attributes:
        index: 0, 1, 2, … in the order that the source gave them.
        time: Seconds since the source's first frame; None where the source has no clock.
        image: (height, width, 3) BGR.
        cut: True where it does not follow the frame before it: windows and states start anew.
        captured_s: When its data arrived, on the clock of ``time.monotonic``; None: not known.
        pixel_aspect: Width of a pixel as it is shown, divided by its height.
        name: Of the file, where each frame is a file of its own: from the folder on that all of
            them lie in.
        label: What outputs of this frame are called, without a suffix; None: by its index.
    """

    index: int
    time: float | None
    image: NDArray[np.uint8]
    cut: bool = False
    captured_s: float | None = None
    pixel_aspect: float = 1.0
    name: str | None = None
    label: str | None = None


class Source(Protocol):
    """One pass over frames; it ends by itself, by ``close`` or by leaving a ``with`` block.

    Attributes:
        name: For people; passwords are replaced by ``***``.
        fps: Frames per second; None: unknown.
        live: True where frames cannot wait (camera, network): who reads too slowly has to
            drop frames, or lags further and further behind.
        frame_count: As declared by the container; None: unknown.
    """

    name: str
    fps: float | None
    live: bool
    frame_count: int | None

    def __iter__(self) -> Iterator[Frame]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def close(self) -> None:
        """Let go of the file, the camera or the connection; may be called again.

        While another thread waits for a frame, that thread lets go, once the frame or the
        source's timeout has come.
        """


class Reader(ABC):
    """What the kinds of source share: one pass, and an end that lets go of everything."""

    def __init__(
        self,
        name: str,
        *,
        fps: float | None = None,
        live: bool = False,
        frame_count: int | None = None,
    ) -> None:
        self.name = redact(name)
        self.fps = fps
        self.live = live
        self.frame_count = frame_count
        self._closing = False
        self._frames = self._guarded()

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield all frames."""

    def _release(self) -> None:  # noqa: B027 - most kinds hold nothing
        """Let go of the file or the device; may be called again."""

    def _guarded(self) -> Generator[Frame]:
        try:
            for frame in self._read():
                if self._closing:
                    return
                yield frame
        finally:
            self._release()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; may be called again."""
        self._closing = True
        try:
            self._frames.close()
        except ValueError:
            return  # another thread is reading; it lets go when its frame has come
        self._release()


def time_of(index: int, fps: float | None) -> float | None:
    """Return when a frame is due in a source without a clock, in seconds."""
    return index / fps if fps else None

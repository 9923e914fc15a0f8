"""A source that comes back: it is opened again after growing pauses, and says where it was cut."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UnusableSource, UsageError
from salstream.runtime.live.camera import Camera, State
from salstream.runtime.sources import Frame, PicturesAs, Reader, Source, open_source
from salstream.runtime.sources.address import has_scheme
from salstream.runtime.sources.open import is_camera, is_pipeline
from salstream.runtime.sources.parts import Part

CameraSource = (
    str | Path | int | Callable[[], Source] | Sequence[str | Path] | Iterable[NDArray[np.uint8]]
)

_PLAYS_A_FILE: Final = re.compile(r"filesrc|file:|num-buffers=")
_PERIOD_S: Final = 0.5  # over which frames are counted
_PERIODS: Final = 8  # whose median is the rate
_JUMP_S: Final = 3.0  # a clock that goes otherwise than ours by less is jitter
_OTHER_RATE: Final = 0.25  # a change by less is jitter


@dataclass(frozen=True, slots=True)
class Reconnect:
    """When to open a live source again.

    Attributes:
        tries: Give up after so many in a row that bring no frame, or are lost again sooner than
            the pause before them took; 0: never open it again, None: never give up.
        first_pause_s: Before the first try; each pause is twice as long as the one before.
        longest_pause_s: They grow up to this.
    """

    tries: int | None = None
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def pause_s(self, number: int) -> float:
        """Return how long to wait before a try, from 1.

        Up to half of it is left to chance, so that the cameras behind one switch do not come
        all at once.
        """
        whole = min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(number - 1, 30))
        return whole * random.uniform(0.5, 1)


class ReconnectingSource(Reader):
    """A source that is opened when it is first read from, and again when it fails.

    Files and other sources that can wait are read once. A live source goes on after a failure:
    the first frame then is marked as a cut, indices go on, and times go on by the clock. A
    frame that comes after more than half of ``timeout_s`` is a cut as well, and so is one before
    which the source's own clock jumped.

    Args:
        source: What :func:`~salstream.runtime.sources.open_source` takes, or a function that
            opens a live source of your own.
        camera: Told what happens, its password-free source among it.
        reconnect: When to try again.
        fps: As ``open_source`` takes it.
        timeout_s: As ``open_source`` takes it; so is ``pictures``.
        pictures: ``video``, ``single``, or None.
        alone: Whether nobody waits for other sources: what cannot work at all then fails at its
            first answer, instead of being tried again.

    Attributes:
        fps: As declared, or as measured where that differs by more than a quarter.
        part: Of the stream: one more after each failure and stall.
        pictures: How a set of pictures is read; None: it is none.
        left_out: Pictures beside the others that are of a kind that cannot be read.
        heard_s: When its newest frame came, on the clock of ``time.monotonic``.

    Raises:
        UsageError: It is a URL of a scheme that is not known.
    """

    def __init__(
        self,
        source: CameraSource,
        camera: Camera,
        reconnect: Reconnect | None = None,
        *,
        fps: float | None = None,
        timeout_s: float = 5.0,
        pictures: PicturesAs | None = None,
        alone: bool = True,
    ) -> None:
        super().__init__(camera.source, live=is_live(source))
        self.camera = camera
        self.stalled_after_s = timeout_s / 2
        self._damaged = 0
        self._dropped = 0
        self.part = 0
        self.heard_s = time.monotonic()
        self._reconnect = reconnect or Reconnect()
        self._hopeless = (UsageError, UnusableSource) if alone else (UsageError,)
        # a camera that ends is lost; OpenCV gives a pipeline's end and its failure as one
        self._endless = isinstance(source, str) and (
            " ! " not in source or not _PLAYS_A_FILE.search(source)
        )
        self._opener: Callable[[], Source] = (
            source
            if callable(source)
            else lambda: open_source(source, fps=fps, timeout_s=timeout_s, pictures=pictures)
        )
        self.path: Path | None = None  # of a plain file, and where its frames lie in it
        self.offsets: Sequence[float] = ()
        self.parts: Sequence[Part] = ()
        self._opened: Source | None = None
        self.pictures: PicturesAs | None = None
        self.left_out = 0
        self._closed = threading.Event()
        self._count = 0
        self._began_s = 0.0  # by the clock, of the first frame
        self._last_time = 0.0

    def _read(self) -> Iterator[Frame]:
        failed, pause_s = 0, 0.0  # tries in a row, and the pause before this one
        while not self._closing:
            before, opened_s = self._count, time.monotonic()
            try:
                yield from self._read_once()
                if not (self.live and self._endless and self._reconnect.tries != 0):
                    return
                why = "the stream ended"
            except (SalstreamError, OSError) as error:  # an opener of the user's raises either
                hopeless = isinstance(error, self._hopeless) and not self._count
                if hopeless or not self.live or self._reconnect.tries == 0:
                    raise
                why = str(error) or type(error).__name__
            if self._closing:
                return
            # one that is lost again at once is no success
            lasted = self._count > before and time.monotonic() - opened_s >= pause_s
            failed = 1 if lasted else failed + 1
            tries = self._reconnect.tries
            if tries is not None and failed > tries:
                turns = "try" if tries == 1 else "tries"
                raise SalstreamError(f"{why} (gave up after {tries} {turns})")
            self.camera.enter(State.RECONNECTING, why)
            pause_s = self._reconnect.pause_s(failed)
            self._closed.wait(pause_s)

    def _read_once(self) -> Iterator[Frame]:
        with self._opener() as opened:
            self._opened = opened
            self.live, self.fps, self.frame_count = opened.live, opened.fps, opened.frame_count
            self.path = getattr(opened, "path", None)
            self.offsets = getattr(opened, "offsets", ())
            self.parts = getattr(opened, "parts", ())
            self.pictures = getattr(opened, "pictures", None)
            self.left_out = getattr(opened, "left_out", 0)
            try:
                yield from self._renumbered(opened) if self.live else self._plain(opened)
            finally:
                self._opened = None
                self._dropped += getattr(opened, "dropped", 0)
                self._damaged += getattr(opened, "damaged", 0)

    def _plain(self, opened: Source) -> Iterator[Frame]:
        for frame in opened:
            if not self._count:
                self.camera.enter(State.WARMING)
            self._count += 1
            yield frame

    def _renumbered(self, opened: Source) -> Iterator[Frame]:
        """Let indices and times go on where those of the connection before ended."""
        rate = _Rate(self.fps, given=getattr(opened, "rate_given", False))
        offset, last_s, last_time = 0.0, float("-inf"), 0.0
        for frame in opened:
            if self._closing:
                return
            now = time.monotonic() if frame.captured_s is None else frame.captured_s
            first = last_s == float("-inf")
            step_s = (frame.time or 0.0) - last_time
            # MPEG-TS counts 26.5 h and begins anew, as does a relay that is started again
            jumped = not first and not -_JUMP_S < step_s < now - last_s + _JUMP_S
            cut = jumped or now - last_s > self.stalled_after_s
            self.heard_s = time.monotonic()
            self.part += cut  # first: a map of the part before does not make this one live
            # a slow start of the model may look like a stall
            self.camera.enter(State.WARMING, after=tuple(State) if cut else (State.STALLED,))
            if cut or frame.cut:
                rate.restart()
            if first and not self._count:
                self._began_s = now
            elif first or jumped:
                self.camera.reconnects += first
                follows = max(now - self._began_s, self._last_time + 0.001)
                offset = follows - (frame.time or 0.0)
            last_s, last_time = now, frame.time or 0.0
            moment = now - self._began_s if frame.time is None else offset + frame.time
            self.fps = rate.add(moment)
            self._last_time = max(self._last_time, moment)
            cut = cut or frame.cut
            yield replace(frame, index=self._count, time=moment, cut=cut, captured_s=now)
            self._count += 1

    @property
    def dropped(self) -> int:
        """Frames that were left out before they were decoded, because decoding was too slow."""
        return self._dropped + getattr(self._opened, "dropped", 0)

    @property
    def damaged(self) -> int:
        """Packets, or pictures, that were left out because they could not be decoded."""
        return self._damaged + getattr(self._opened, "damaged", 0)

    def close(self) -> None:
        """Let go of the source; a pause ends at once."""
        self._closing = True
        self._closed.set()
        if (opened := self._opened) is not None:
            opened.close()
        super().close()


def is_live(source: CameraSource) -> bool:
    """Whether a source's frames cannot wait, as far as can be told before it is opened.

    Raises:
        UsageError: It is a URL of a scheme that is not known.
    """
    if isinstance(source, str):
        return is_camera(source) or is_pipeline(source) or has_scheme(source)
    return isinstance(source, int) or callable(source)


class _Rate:
    """Frames per second: what was declared, until what comes is clearly another rate.

    The median over periods, for frames that a network held back come all at once. A rate that was
    given by hand stays.
    """

    def __init__(self, declared: float | None, *, given: bool = False) -> None:
        self._fps = declared
        self._given = given
        self._rates: deque[float] = deque(maxlen=_PERIODS)
        self.restart()

    def restart(self) -> None:
        self._rates.clear()
        self._begin: float | None = None
        self._frames = 0

    def add(self, moment: float) -> float | None:
        if self._begin is None:
            self._begin = moment
            return self._fps
        self._frames += 1
        lasted = moment - self._begin
        if lasted >= _PERIOD_S:
            self._rates.append(self._frames / lasted)
            self._begin, self._frames = moment, 0
        if len(self._rates) == _PERIODS:
            measured = median(self._rates)
            if not self._given and (
                self._fps is None or abs(measured / self._fps - 1) > _OTHER_RATE
            ):
                self._fps = measured
        return self._fps

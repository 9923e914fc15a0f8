"""Overlay video in pieces: a new file every so often, the oldest ones removed."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from salstream.runtime.errors import UsageError
from salstream.runtime.results import Result
from salstream.runtime.sinks import OverlayVideo
from salstream.runtime.sound import Sound
from salstream.runtime.timeline import TIME_BASE, Timeline

_CHECK_S: Final = 10.0  # between two looks at what was written


class Segments:
    """Overlay videos of a fixed length, named after the time (UTC) at which they begin.

    ``door.mp4`` becomes ``door-20260131T235900.000Z.mp4`` and so on. Only files of such names are
    ever removed, and never the one that is being written. What goes beyond a limit goes within
    ten seconds, also while nothing is written.

    Args:
        path: Folder, name and suffix.
        seconds: Length of a piece.
        keep_gb: Remove the oldest while all of them are larger than this, in 10⁹ bytes.
        keep_hours: Remove those that were completed longer ago.
        opacity: Of the colour, in [0, 1].
        sound: Of the source, shared out among the pieces; None: without sound.

    Raises:
        UsageError: A limit is not above 0, or the suffix is not known.
        SalstreamError: The file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        seconds: float,
        keep_gb: float | None = None,
        keep_hours: float | None = None,
        opacity: float = 0.7,
        sound: Sound | None = None,
    ) -> None:
        for name, value in (("length", seconds), ("size", keep_gb), ("age", keep_hours)):
            if value is not None and not value > 0:
                raise UsageError(f"the {name} of segments must be above 0, got {value:g}")
        self._path = path
        self._seconds = seconds
        self._keep_bytes = None if keep_gb is None else keep_gb * 1e9
        self._keep_s = None if keep_hours is None else keep_hours * 3600
        self._opacity = opacity
        self._sound = sound
        self._ours = re.compile(
            re.escape(path.stem) + r"-\d{8}T\d{6}\.\d{3}Z" + re.escape(path.suffix)
        )
        self._timeline = Timeline()
        self._begin = 0  # of the piece, on the timeline
        self._video: OverlayVideo | None = None
        self._current = self._new_path()
        OverlayVideo(self._current).close()  # whether it can be written shows at once
        self._remove_old()
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None
        if self._keep_bytes is not None or self._keep_s is not None:
            name = "salstream-segments"
            self._keeper = threading.Thread(target=self._keep, name=name, daemon=True)
            self._keeper.start()

    def write(self, result: Result) -> None:
        """Add one frame, to a new piece where the last one is long enough."""
        place = self._timeline.place(result.time)
        if self._video is None or float((place - self._begin) * TIME_BASE) >= self._seconds:
            self._begin_piece(place)
        assert self._video is not None
        self._video.add(result, place)

    def close(self) -> None:
        """Complete the last piece."""
        self._closed.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._video is not None:
            self._video.close()
        if self._sound is not None:
            self._sound.close()
        self._remove_old()

    def _begin_piece(self, place: int) -> None:
        """Complete a piece, begin the next one, and make room for it."""
        if self._video is not None:
            self._video.close()
        self._begin, self._current = place, self._new_path()
        self._video = OverlayVideo(
            self._current,
            opacity=self._opacity,
            sound=self._sound,
            timeline=self._timeline,
            begin=place,
        )
        self._remove_old()

    def _new_path(self) -> Path:
        """Return a path after the time, to the millisecond, that no file has yet."""
        now = datetime.now(UTC)
        while True:
            stamp = now.strftime("%Y%m%dT%H%M%S.%f")[:-3]
            path = self._path.with_stem(f"{self._path.stem}-{stamp}Z")
            if not path.exists():
                return path
            now += timedelta(milliseconds=1)

    def _keep(self) -> None:
        """Hold the limits whatever the camera does, from a thread of its own."""
        while not self._closed.wait(_CHECK_S):
            with suppress(OSError):  # if it stays, the next piece says so
                self._remove_old()

    def _remove_old(self) -> None:
        if self._keep_bytes is None and self._keep_s is None:
            return
        now = time.time()
        left = 0
        # names hold the time, so the last one is the newest
        for path in sorted(self._path.parent.iterdir(), reverse=True):
            if not self._ours.fullmatch(path.name):
                continue
            with suppress(FileNotFoundError):
                facts = path.stat()
                left += facts.st_size
                old = self._keep_s is not None and now - facts.st_mtime > self._keep_s
                full = self._keep_bytes is not None and left > self._keep_bytes
                if path != self._current and (old or full):
                    path.unlink()

"""Times of frames: from a container's timestamps to a clock that never goes back or leaps."""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np

# A step forward by more than this is a seam where containers begin their timestamps anew; ffmpeg's
# program takes the same (its -dts_delta_threshold).
LEAP_S: Final = 10.0
# No frame of a film is shown for longer than this, whatever the container.
_LONGEST_S: Final = 3600.0
# Frames that timestamps may go back, and for which they may not increase, before that is a seam.
_DISORDER: Final = 3
USUAL_S: Final = 1 / 25  # between frames of which nothing is known, as ffmpeg has it
_NUDGE: Final = 0.1  # of the usual step, between frames whose timestamps do not increase
_PAUSE_S: Final = 1.0
_FEWEST_STEPS: Final = 4  # that can contradict a rate
_TOLERANCE: Final = 0.25  # by which a declared rate may be off


class Clock:
    """Turns the timestamps of pictures, in the order in which they are shown, into times.

    Times begin at 0 and strictly increase. Where timestamps go back, or leap ahead, the container
    was joined, wrapped or damaged: a *seam*, after which time goes on at the stream's own pace.

    Args:
        time_base: Seconds per tick of the timestamps.
        fps: Frames per second; None: not known.
        joins: Whether the container may begin its timestamps anew (MPEG-TS, Ogg, NUT …).

    Attributes:
        offsets: Seconds to be added to the container's timestamps to give times: those of the
            first part, and of one more after each seam.
    """

    def __init__(self, time_base: Fraction, fps: float | None, *, joins: bool) -> None:
        self.offsets: list[float] = []
        self._usual_s = 1 / fps if fps else USUAL_S
        self._joins = joins
        # whole numbers: fractions would take a hundredth of the time of decoding
        self._numerator, self._denominator = time_base.numerator, time_base.denominator
        self._first = 0  # timestamp that the times of this part count from
        self._first_s = 0.0  # its time
        self._last_s = float("-inf")
        self._last_stamp: int | None = None  # None: a part begins
        self._duration_s = 0.0  # of the last picture, as declared
        self._stuck = 0  # pictures in a row whose timestamps are not above all before

    @property
    def next_s(self) -> float:
        """When a picture is due that follows at the stream's own pace, in seconds."""
        return max(0.0, self._last_s + self._usual_s)

    def begin_part(self, time_base: Fraction) -> None:
        """Take what comes next as another part, whatever its timestamps."""
        self._numerator, self._denominator = time_base.numerator, time_base.denominator
        self._last_stamp = None

    def add(
        self, stamp: int | None, duration: int = 0, *, pause_s: float = 0.0
    ) -> tuple[float, bool]:
        """Take the next picture and return its time in seconds, and whether it is a seam.

        Args:
            stamp: In ticks; None: the picture has none.
            duration: In ticks, as declared; 0: not known.
            pause_s: How long the picture came after the last one, by another clock: where there
                is a seam, its time does so too.
        """
        seam = False
        if stamp is None:
            time_s = self.next_s
        elif self._last_stamp is None:
            time_s = self.next_s
            self._anchor(stamp, time_s)
        else:
            time_s = self._first_s + self._seconds(stamp - self._first)
            step_s = time_s - self._last_s
            self._stuck = self._stuck + 1 if step_s <= 0 else 0
            back = step_s < -(_DISORDER - 0.5) * self._usual_s
            if back or self._leaps(step_s) or self._stuck >= _DISORDER:
                seam = stamp != self._last_stamp
                time_s = max(self.next_s, self._last_s + pause_s)
                self._anchor(stamp, time_s)
            elif step_s <= 0:
                time_s = self._last_s + _NUDGE * self._usual_s
        self._last_s = time_s
        self._last_stamp = self._last_stamp if stamp is None else stamp
        self._duration_s = self._seconds(duration)
        return time_s, seam

    def _seconds(self, ticks: int) -> float:
        return ticks * self._numerator / self._denominator

    def _anchor(self, stamp: int, time_s: float) -> None:
        self._first, self._first_s = stamp, time_s
        self.offsets.append(time_s - self._seconds(stamp))

    def _leaps(self, step_s: float) -> bool:
        if self._joins and step_s - max(self._duration_s, self._usual_s) > LEAP_S:
            return True
        return step_s > _LONGEST_S and step_s > 10 * self._usual_s


class DecodingOrder:
    """Timestamps for containers that give them in the order of decoding only (AVI, ASF, MXF …).

    Whichever packet a picture came from, it has the earliest timestamp that no picture has had.

    Args:
        depth: How many pictures may be decoded before one that is shown earlier.
    """

    def __init__(self, depth: int) -> None:
        self._depth = max(1, depth) + 1  # a packet may be said to be shown as the next is decoded
        self._waiting: list[int] = []

    def push(self, stamp: int) -> None:
        """Take the timestamp of a packet that goes to the decoder."""
        insort(self._waiting, stamp)

    def pop(self, stamp: int | None) -> int | None:
        """Return the timestamp of the picture that the decoder gives; None: not known.

        Args:
            stamp: For its presentation, as the picture's own packet has it.
        """
        if not self._waiting:
            return None
        if stamp is not None:
            # of packets that could not be decoded, nothing is shown
            stale = bisect_left(self._waiting, stamp) - self._depth
            del self._waiting[: max(0, stale)]
        return self._waiting.pop(0)


def in_decoding_order(stamps: Sequence[int | None]) -> bool:
    """Whether the presentation times of packets increase as if no picture were reordered."""
    known = [stamp for stamp in stamps if stamp is not None]
    return len(known) > 1 and all(a < b for a, b in itertools.pairwise(known))


def rate_of(declared: float | None, times_s: Sequence[float]) -> float | None:
    """Return frames per second: as declared, unless timestamps contradict it.

    Args:
        declared: By the container; None: it does not say.
        times_s: Of frames, in seconds, in any order.
    """
    steps = np.diff(np.unique(times_s))
    if len(steps) < (1 if declared is None else _FEWEST_STEPS):
        return declared
    usual_s = float(np.median(steps))
    # pauses and seams say nothing about the rate
    steady = steps[steps <= max(_PAUSE_S, 10 * usual_s)]
    usual, mean = 1 / usual_s, len(steady) / float(steady.sum())
    if declared is not None and min(_error(usual, declared), _error(mean, declared)) <= _TOLERANCE:
        return declared
    # of coarse timestamps only the mean is exact; of those with gaps only the median is right
    return mean if _error(mean, usual) <= _TOLERANCE else usual


def _error(measured: float, expected: float) -> float:
    return abs(measured / expected - 1)

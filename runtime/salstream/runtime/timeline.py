"""From the times of results to those of a video file, which have to grow."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from statistics import median
from typing import Final

TIME_BASE: Final = Fraction(1, 90_000)
# The longest step: MP4 keeps the ticks of one in 32 bits, which many read as signed.
LONGEST_S: Final = 6 * 3600.0
_SHORTEST_S: Final = 0.001  # the finest that every container keeps
_DISORDER_S: Final = 0.5  # going back by less is jitter, or frames out of order
_DEFAULT_FPS: Final = 30.0
_LATEST_STEPS: Final = 9


class Timeline:
    """Gives each result its place in a video: strictly increasing, at the source's pace.

    Times that stand still or go back a little wait until the source has caught up. After a step
    back by more, or a step of more than six hours, which is shortened to that, the video goes on
    from where it was. A result without a time comes one frame after the one before.

    Args:
        fps: Frame rate where nothing is known of the pace; None: 30.

    Attributes:
        shift_s: What is added to the latest result's time, in seconds.
    """

    def __init__(self, fps: float | None = None) -> None:
        self.shift_s = 0.0
        self._frame_s = 1 / (fps or _DEFAULT_FPS)
        self._steps: deque[float] = deque(maxlen=_LATEST_STEPS)
        self._latest_s: float | None = None  # the greatest time since the last jump
        self._place_s = 0.0  # of the last result in the video

    def place(self, time_s: float | None) -> int:
        """Take the next result's time in seconds and return its place in ticks of TIME_BASE."""
        if time_s is None or not math.isfinite(time_s):
            time_s = 0.0 if self._latest_s is None else self._latest_s + self.step_s
        if self._latest_s is None:
            self._place_s = time_s if 0 <= time_s <= LONGEST_S else 0.0
            self._jump(time_s)
        else:
            self._step(time_s, time_s - self._latest_s)
        return round(self._place_s / TIME_BASE)

    @property
    def step_s(self) -> float:
        """How long a frame lasts, in seconds: the median of the latest steps."""
        return median(self._steps) if self._steps else min(self._frame_s, LONGEST_S)

    def _step(self, time_s: float, step_s: float) -> None:
        if step_s < -_DISORDER_S or step_s > LONGEST_S:
            self._place_s += LONGEST_S if step_s > 0 else self.step_s
            self._jump(time_s)
            return
        if step_s > 0:
            assert self._latest_s is not None
            ahead_s = self._place_s - (self._latest_s + self.shift_s)
            if ahead_s > self._frame_s:  # never to be caught up with
                self.shift_s += ahead_s
            self._steps.append(max(step_s, _SHORTEST_S))
            self._latest_s = time_s
        self._place_s = max(self._place_s + _SHORTEST_S, time_s + self.shift_s)

    def _jump(self, time_s: float) -> None:
        self._latest_s = time_s
        self.shift_s = self._place_s - time_s

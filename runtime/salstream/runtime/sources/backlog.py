"""Packets of a live source that lie unread: because decoding is slow, or came in pieces."""

from __future__ import annotations

from collections import deque
from typing import Final

_LATE_S: Final = 1.0  # what lies longer for as long is left out, up to the next keyframe
_FOLLOW: Final = 0.01  # of the difference, with each packet that had to be waited for
# Packets in a row that had to be waited for: nothing lies unread. A single one may only show
# that the machine is busy.
_PROMPT: Final = 10
_WAITED: Final = 3
_JUMP_S: Final = 3.0
_DRAIN_S: Final = 0.5  # to read what lies there without decoding it


class Backlog:
    """How long packets lay unread.

    That is how much later one is read, against its timestamp, than the promptest was. Clocks
    drift and networks slow down, so the measure follows whenever a packet had to be waited for:
    then nothing lies unread.

    Attributes:
        dropping: Whether packets are to be left out, up to a keyframe that is in time.
    """

    def __init__(self) -> None:
        self.dropping = False
        self._promptest_s = float("inf")
        self._last: tuple[float, float] | None = None  # arrival and timestamp
        self._waited: deque[float] = deque(maxlen=_PROMPT)  # delays, in a row
        self._late_since_s = float("inf")
        self._dropped_from = (0.0, 0.0)  # arrival and timestamp

    def add(self, arrived_s: float, stamp_s: float, *, waited: bool, key: bool) -> float:
        """Take the next packet and return how long it lay, in seconds."""
        delay_s = arrived_s - stamp_s
        if self._last is not None:
            elapsed_s, step_s = arrived_s - self._last[0], stamp_s - self._last[1]
            if not -_JUMP_S < step_s < elapsed_s + _JUMP_S:
                self._promptest_s = delay_s  # another clock
                self._waited.clear()
        self._last = arrived_s, stamp_s
        self._promptest_s = min(self._promptest_s, delay_s)
        if waited:
            self._waited.append(delay_s)
        else:
            self._waited.clear()
        if len(self._waited) == _PROMPT:
            self._promptest_s = min(self._waited)
        elif waited:
            self._promptest_s += _FOLLOW * (delay_s - self._promptest_s)
        lag_s = delay_s - self._promptest_s
        # what a network held back comes at once, and is soon worked off: that is no lateness
        late = lag_s > _LATE_S and len(self._waited) < _WAITED
        self._late_since_s = min(self._late_since_s, arrived_s) if late else float("inf")
        if not self.dropping and arrived_s - self._late_since_s > _LATE_S:
            self.dropping, self._dropped_from = True, (arrived_s, stamp_s)
        elif self.dropping and key:
            began_s, from_s = self._dropped_from
            if lag_s > _LATE_S and arrived_s - began_s > (stamp_s - from_s) / 2:
                self._promptest_s, lag_s = delay_s, 0.0  # it is the sender that is late
            self.dropping = lag_s > _LATE_S
        return lag_s


class StamplessBacklog:
    """The same for motion JPEG, whose packets have no timestamps and all are keyframes.

    Something lies unread as long as no packet has to be waited for; how long, cannot be told.

    Attributes:
        dropping: Whether packets are to be left out, up to one that has to be waited for.
    """

    def __init__(self) -> None:
        self.dropping = False
        self._waited_s = float("inf")

    def add(self, arrived_s: float, stamp_s: float, *, waited: bool, key: bool) -> float:
        """Take the next packet; its age is not known, and said to be 0."""
        # by then all buffers are empty: it is a sender that knows no rate
        endless = arrived_s - self._waited_s > _LATE_S + _DRAIN_S
        self._waited_s = arrived_s if waited or endless else min(self._waited_s, arrived_s)
        self.dropping = arrived_s - self._waited_s > _LATE_S
        return 0.0


class Pace:
    """When frames are due that arrive many at once: as far apart as their times."""

    def __init__(self) -> None:
        self._offset_s: float | None = None  # from their clock to ours

    def wait_s(self, now_s: float, time_s: float) -> float:
        """Return how many seconds to wait for a frame's turn; not above 0: it has come."""
        wait_s = 0.0 if self._offset_s is None else self._offset_s + time_s - now_s
        # one is due soon after the one before, however many came at once
        if self._offset_s is None or not -_LATE_S < wait_s < _JUMP_S:
            self._offset_s, wait_s = now_s - time_s, 0.0  # the first one, late, or another clock
        return wait_s

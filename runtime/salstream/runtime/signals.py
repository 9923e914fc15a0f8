"""Ctrl-C and SIGTERM end the program in order: files are closed on the way out."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_END_S: Final = 2.0  # an orderly end takes no longer
CLOSE_S: Final = 2.0  # for files to be completed
_HOLD_S: Final = 0.5  # for a write to end; a reader that takes nothing may hold it for ever


class _End:
    """What is known of the end that was asked for."""

    def __init__(self) -> None:
        self.asked = 0  # by this signal
        self.asked_s = 0.0
        self.begun = False
        self.held = False
        self.longest_s = _HOLD_S

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Begin the end, or let it wait for what is held.

        Who asks again meanwhile is not heard, as long as an orderly end may take; after that the
        program ends at once.
        """
        if not self.asked:
            self.asked, self.asked_s = number, time.monotonic()
            if self.held:
                again = threading.Timer(self.longest_s, _send_again, (number,))
                again.daemon = True
                again.start()
                return
        waited_s = time.monotonic() - self.asked_s
        if not self.begun and (not self.held or waited_s >= self.longest_s):
            self.begin()
        elif self.begun and waited_s > _END_S:
            os._exit(128 + number)

    def begin(self) -> None:
        """Raise what ends the program."""
        self.begun = True
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + self.asked)


_end: Final = _End()


def _send_again(number: int) -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the main thread from what it waits for
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def end_in_order() -> Callable[[], int]:
    """Let Ctrl-C and SIGTERM raise ``KeyboardInterrupt`` and ``SystemExit`` in the main thread.

    Returns:
        What says which of the two signals has come; 0: none yet.
    """
    heard = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as for what runs in the background
        heard.append(signal.SIGINT)

    def ignore() -> None:  # Python takes its handlers away before it is gone itself
        for number in heard if _end.asked else ():
            signal.signal(number, signal.SIG_IGN)

    for number in heard:
        signal.signal(number, _end.hear)
    atexit.register(ignore)
    return lambda: _end.asked


@contextmanager
def held(longest_s: float = _HOLD_S) -> Iterator[None]:
    """Let the end wait until the block is over.

    Nothing is lost between two steps of writing. In other threads, and in programs that do not
    end by :func:`end_in_order`, it does nothing.

    Args:
        longest_s: After this the end comes all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _end.held, _end.longest_s = True, longest_s
    try:
        yield
    finally:
        _end.held = False
        if _end.asked and not _end.begun:
            _end.begin()

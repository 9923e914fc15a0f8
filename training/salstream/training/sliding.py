"""Whole videos through a window network: which frames make which map (HD2S, section 3.6).

Plain lists over the whole video. The runtime does the same frame by frame; this is what it
is checked against, and what validation uses.
"""

from __future__ import annotations


def windows(count: int, window: int) -> list[list[int]]:
    """Return, for every frame of a video, the frames that its map is made from.

    The map belongs to the window's last frame. For the first ``window - 1`` frames the
    window lies ahead and is read backwards. A video shorter than ``2 * window - 1`` frames
    is extended by going back and forth through its frames.

    Args:
        count: Frames of the video, at least 1.
        window: Frames of a window (T).

    Returns:
        ``count`` lists of ``window`` frame numbers.
    """
    there = back_and_forth(count)
    return [
        [
            there[n % len(there)]
            for n in (
                range(t - window + 1, t + 1)
                if t >= window - 1
                else range(t + window - 1, t - 1, -1)
            )
        ]
        for t in range(count)
    ]


def back_and_forth(count: int) -> list[int]:
    """Return the frames of a video there and back; repeated, they extend it without a jump."""
    return [*range(count), *range(count - 2, 0, -1)]

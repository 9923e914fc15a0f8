"""remega: HEVC test sequences watched by 32 people (Xu, Jiang, Sun, Ye and Wang, TIP 2017)."""

from __future__ import annotations

import re
from pathlib import Path

from salstream.runtime.sources.pictures import VIDEO_SUFFIXES
from salstream.training.data.readers.layouts import child, files_in
from salstream.training.data.readers.tables import belonging, misread, read_table, timed
from salstream.training.data.recordings import (
    Found,
    Recording,
    TimedFixations,
    composed,
    seeded_splits,
    without,
)


def find(root: Path) -> Found:
    """Find ``videos/NAME.avi`` and ``fixations.csv``; without official splits, seeded ones.

    Recordings of one scene (RaceHorsesC and D, Vidyo1 to 4) stay together.

    Columns: video, subject, start_ms, duration_ms, x, y, in the video's own pixels from 0.
    """
    table = child(root, "fixations.csv")
    columns = ("start_ms", "duration_ms", "subject", "y", "x")
    videos = sorted(
        files_in(child(root, "videos", "video"), VIDEO_SUFFIXES), key=lambda p: composed(p.stem)
    )
    named = read_table(table, "video", columns) if table.is_file() else {}
    rows, missing = belonging(named, videos)
    recordings = [
        Recording(
            path.stem,
            "train",
            path,
            TimedFixations(timed(rows[path])) if path in rows else None,
        )
        for path in videos
    ]
    notes = [
        *without(missing, "videos with fixations are not there"),
        *misread([table], missing),
    ]
    splits = seeded_splits(recordings, lambda recording: scene_of(recording.name))
    return Found(splits, "seeded, by scene", notes=notes)


def scene_of(name: str) -> str:
    """Return what a sequence's name begins with: BasketballDrillText is BasketballDrill again."""
    return re.sub(r"(Text|(?<=[a-z])[CD]|\d)$", "", name)

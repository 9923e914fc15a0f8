"""One random sequence of timestamps, from the file through the overlay video and its segments."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made import joined, video
from salstream.runtime import Result
from salstream.runtime.segments import Segments
from salstream.runtime.sinks import OverlayVideo
from salstream.runtime.sources import open_source

SEGMENT_S = 2.0
# begin in seconds, and steps between frames in thirtieths: even, with drops, with pauses
PART = st.tuples(
    st.sampled_from([0.0, 0.5, 100.0, 7200.0, 95443.0]),
    st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 90]), min_size=8, max_size=20),
)


def stamps_in(path: Path) -> list[float]:
    """Return the times at which a video's packets begin, and at last where it ends."""
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
        last = packets[-1]
        assert last.duration is not None
        return [float((p.pts or 0) * p.time_base) for p in packets] + [
            float(((last.pts or 0) + last.duration) * last.time_base)
        ]


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PART, min_size=1, max_size=3))
def test_times_agree_from_the_file_to_the_outputs(parts: list[tuple[float, list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = []
        for number, (begin_s, steps) in enumerate(parts):
            times_s = [begin_s + tick / 30 for tick in np.cumsum([0, *steps]).tolist()]
            files.append(video(folder / f"{number}.ts", times_s=times_s))
        overlay = OverlayVideo(folder / "all.mp4", 30.0)
        segments = Segments(folder / "part.mp4", SEGMENT_S)
        map_ = np.zeros((24, 32), np.float32)
        times: list[float] = []
        with open_source(joined(folder / "joined.ts", files)) as source:
            for frame in source:
                assert frame.time is not None
                times.append(frame.time)
                result = Result(frame.index, frame.time, frame.image, map_)
                overlay.write(result)
                segments.write(result)
        overlay.close()
        segments.close()

        assert len(times) == sum(len(steps) + 1 for _, steps in parts)
        assert times[0] == 0
        assert all(a < b for a, b in pairwise(times))
        written = stamps_in(folder / "all.mp4")
        assert written[:-1] == pytest.approx(times, abs=0.002)
        assert 0 < written[-1] - written[-2] < 4

        pieces = [stamps_in(path) for path in sorted(folder.glob("part-*.mp4"))]
        assert sum(len(piece) - 1 for piece in pieces) == len(times)
        index = 0
        for piece in pieces:
            own = times[index : index + len(piece) - 1]
            assert piece[:-1] == pytest.approx([t - own[0] for t in own], abs=0.002)
            assert own[-1] - own[0] < SEGMENT_S + 0.002
            index += len(own)

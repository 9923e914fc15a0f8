"""Frames per second of the Python and the C++ runtime over one clip, taken in turns.

    python benchmarks/runtimes.py CLIP LIBSALSTREAM.so [--model NAME] [--frames N] [--rounds N]

Both get the same decoded frames in the same process and give each frame's map at the frame's
size; decoding and writing are not in the figures. Ratios are of the rounds, which stand side by
side: other load on the machine meets both.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime import SaliencyModel
from salstream.runtime.sources import open_source

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from cpp.native import SAME_LIBRARY, Frame, Native, NativePredictor, RawResult
from cpp.toolchain import onnxruntime_library


def frames_of(clip: Path, count: int, size: tuple[int, int] | None) -> list[NDArray[np.uint8]]:
    """Return the first frames of a clip, uint8 BGR, at ``size`` if one is given."""
    with open_source(clip) as source:
        frames = [frame.image for frame, _ in zip(source, range(count), strict=False)]
    if size is not None:
        frames = [np.asarray(cv2.resize(f, size[::-1]), np.uint8) for f in frames]
    return frames


def python_seconds(model: SaliencyModel, frames: list[NDArray[np.uint8]]) -> float:
    """Return how long the Python runtime takes for the clip."""
    predictor = model.predictor(fps=30)
    begin = time.perf_counter()
    for frame in frames:
        for result in predictor.push(frame):
            _ = result.saliency
    for result in predictor.flush():
        _ = result.saliency
    return time.perf_counter() - begin


def native_seconds(predictor: NativePredictor, frames: list[NDArray[np.uint8]]) -> float:
    """Return how long the C++ runtime takes for it."""
    lib, stream, result = predictor.native.lib, predictor.handle, RawResult()
    described = [
        Frame(height=f.shape[0], width=f.shape[1], data=f.ctypes.data, pitch=f.strides[0])
        for f in frames
    ]
    begin = time.perf_counter()
    for frame in described:
        predictor.native.check(lib.sal_stream_push(stream, ctypes.byref(frame)))
        while lib.sal_stream_next(stream, ctypes.byref(result)) == 0:
            pass
    lib.sal_stream_flush(stream)
    while lib.sal_stream_next(stream, ctypes.byref(result)) == 0:
        pass
    seconds = time.perf_counter() - begin
    predictor.reset()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("library", type=Path)
    parser.add_argument("--model", default="unisal-dhf1k")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="for one inference; default: one per core")
    parser.add_argument("--size", help="HEIGHTxWIDTH to bring the frames to first")
    given = parser.parse_args()
    size = tuple(map(int, given.size.split("x"))) if given.size else None
    frames = frames_of(given.clip, given.frames, size)  # type: ignore[arg-type]
    python = SaliencyModel.open(given.model, backend=SAME_LIBRARY, threads=given.threads)
    model = Native(given.library, onnxruntime_library()).open(python.path, given.threads or 0)
    predictor = model.predictor(fps=30, map_size=0)
    ratios, fps = [], []
    for number in range(given.rounds + 1):
        one = python_seconds(python, frames)
        other = native_seconds(predictor, frames)
        if number:  # the first warms up
            ratios.append(one / other)
            fps.append((len(frames) / one, len(frames) / other))
    ratios.sort()
    print(f"{given.clip.name}, {len(frames)} frames of {frames[0].shape[0]}x{frames[0].shape[1]}")
    print(f"Python {statistics.median(f[0] for f in fps):.1f} frames per second (median)")
    print(f"C++    {statistics.median(f[1] for f in fps):.1f} frames per second (median)")
    print(
        f"C++ / Python: {statistics.median(ratios):.3f} (median of {len(ratios)} rounds, "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()

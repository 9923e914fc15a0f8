"""How close maps stay to the published resizing, and what resizing costs.

    python benchmarks/resizing.py VIDEO... [--frames 60]

Each way of bringing frames to the model's size feeds a stream of its own; the table shows
the correlation (CC) of its maps with those after Lanczos with antialiasing (Pillow), which
UNISAL was published with, and milliseconds per frame.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from salstream.runtime import SaliencyModel
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import Frame, open_source

Picture = NDArray[np.uint8]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()

    model = SaliencyModel.open("unisal-dhf1k")
    height, width = model.spec.size

    def lanczos(image: Picture) -> Picture:
        rgb = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
        return np.asarray(rgb.resize((width, height), Image.Resampling.LANCZOS))

    def by_opencv(interpolation: int) -> Callable[[Picture], Picture]:
        def resize(image: Picture) -> Picture:
            small = cv2.resize(image, (width, height), interpolation=interpolation)
            return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)

        return resize

    ways: dict[str, Callable[[Picture], Picture]] = {
        "pyramid (ours)": lambda image: prepare(Frame(0, None, image), model.spec),
        "INTER_AREA": by_opencv(cv2.INTER_AREA),
        "INTER_LINEAR": by_opencv(cv2.INTER_LINEAR),
    }
    print("| video | size | " + " | ".join(f"{way}: CC, worst, ms" for way in ways) + " |")
    print("|---|---|" + "---|" * len(ways))
    for video in arguments.videos:
        with open_source(video) as source:
            pairs = zip(source, range(arguments.frames), strict=False)
            frames = [frame.image for frame, _ in pairs]
        expected, _ = _maps(model, frames, lanczos)
        cells = []
        for way in ways.values():
            maps, milliseconds = _maps(model, frames, way)
            cc = [
                np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps, expected, strict=True)
            ]
            cells.append(f"{np.mean(cc):.4f}, {np.min(cc):.4f}, {milliseconds:.2f}")
        rows, columns = frames[0].shape[:2]
        print(f"| {video.stem} | {columns}×{rows} | " + " | ".join(cells) + " |", flush=True)


def _maps(
    model: SaliencyModel, frames: list[Picture], way: Callable[[Picture], Picture]
) -> tuple[list[NDArray[np.float32]], float]:
    """Return the maps of a stream, and the median milliseconds of resizing."""
    predictor = model.predictor()
    maps, seconds = [], []
    for frame in frames:
        begin = time.perf_counter()
        prepared = way(frame)
        seconds.append(time.perf_counter() - begin)
        maps += [result.map for result in predictor.push(frame, prepared)]
    return maps, 1000 * float(np.median(seconds))


if __name__ == "__main__":
    main()

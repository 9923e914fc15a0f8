"""Images, cameras and GStreamer pipelines: what OpenCV reads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UnusableSource, UsageError
from salstream.runtime.sources import Frame, Reader, redact, time_of

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class Images(Reader):
    """Image files, each a frame."""

    def __init__(self, name: str, paths: Sequence[Path], fps: float | None) -> None:
        super().__init__(name, fps=fps, frame_count=len(paths))
        self._paths = paths

    def _read(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            yield Frame(index, time_of(index, self.fps), read_image(path))


class Capture(Reader):
    """A camera or a GStreamer pipeline."""

    def __init__(self, capture: cv2.VideoCapture, name: str, *, ends: bool) -> None:
        fps = capture.get(cv2.CAP_PROP_FPS)
        super().__init__(name, fps=fps if 0 < fps < 1000 else None, live=True)
        self._capture = capture
        self._ends = ends

    def _read(self) -> Iterator[Frame]:
        index, start = 0, 0.0
        while True:
            if not self._capture.grab():
                break
            now = time.monotonic()  # decoding is yet to come
            good, image = self._capture.retrieve()
            if not good:
                break
            start = start if index else now
            yield Frame(index, now - start, np.asarray(image, np.uint8), captured_s=now)
            index += 1
        if not self._ends or index == 0:
            raise SalstreamError(
                f"{self.name} gave no frame after the first {index}: check that it is still "
                "connected and that no other program is using it"
            )

    def _release(self) -> None:
        self._capture.release()


def open_camera(number: int, fps: float | None) -> Capture:
    """Open a camera by its number.

    Raises:
        UsageError: The number is negative.
        SalstreamError: The camera cannot be opened.
    """
    if number < 0:
        raise UsageError(f"a camera number is 0 or above, got {number}")
    with _quiet_opencv():
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise UnusableSource(
            f"camera {number} cannot be opened: check that it is plugged in (Linux: ls "
            "/dev/video*), that you may read it and that no other program is using it"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an older frame than the newest is of no use
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    return Capture(capture, f"camera {number}", ends=False)


def open_pipeline(pipeline: str) -> Capture:
    """Start a GStreamer pipeline that ends in an appsink.

    Raises:
        SalstreamError: It does not start, or this OpenCV has no GStreamer.
    """
    with _quiet_opencv():
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if capture.isOpened():
        return Capture(capture, pipeline, ends=True)
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise UnusableSource(
            "this OpenCV was built without GStreamer, so it cannot run a pipeline: use an OpenCV "
            "that has it (Debian and Ubuntu: python3-opencv), or give the camera's URL itself"
        )
    raise UnusableSource(
        f"the GStreamer pipeline {redact(pipeline)!r} did not start: try it with gst-launch-1.0, "
        "and let it end in 'videoconvert ! video/x-raw,format=BGR ! appsink'"
    )


def images_among(paths: Iterable[Path]) -> list[Path]:
    """Return the image files in natural order: frame2 comes before frame10."""
    images = [
        path
        for path in paths
        # hidden ones are other programs' leavings, such as ._photo.jpg
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(images, key=lambda path: (_natural(str(path.with_suffix(""))), str(path)))


def _natural(name: str) -> list[tuple[int, str]]:
    # text and numbers alternate, so like is always compared with like
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image to (height, width, 3) BGR of 8 bits, whatever it holds.

    Raises:
        SalstreamError: It cannot be read or decoded.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        with _quiet_opencv():
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise SalstreamError(f"{path} cannot be read: {why}") from error
    except cv2.error:
        image = None
    if image is None:
        raise SalstreamError(f"{path} cannot be decoded: it is damaged, or not an image")
    return np.asarray(image, np.uint8)


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own warnings off standard error: ours say it in one sentence."""
    # OpenCV 5 moved these functions
    logging: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        yield
    finally:
        logging.setLogLevel(level)

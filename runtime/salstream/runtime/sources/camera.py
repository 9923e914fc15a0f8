"""Cameras and GStreamer pipelines, by OpenCV."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import cv2
import numpy as np

from salstream.runtime.errors import SalstreamError, UnusableSource, UsageError
from salstream.runtime.sources.address import redact
from salstream.runtime.sources.base import Frame, Reader
from salstream.runtime.sources.quiet import quiet_opencv


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
    with quiet_opencv():
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
    with quiet_opencv():
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

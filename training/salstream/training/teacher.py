"""Distillation: the maps of another model stand in for people, so that unlabelled video is of use.

The teacher is any graph that the runtime opens. A video goes through it once; its maps are
kept beside the packed data.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from salstream.runtime import SaliencyModel, SalstreamError
from salstream.runtime.model import find_model
from salstream.training.data.packed import PackedVideo

_log = logging.getLogger("salstream")


class Teacher:
    """A graph and the maps that it has made.

    Args:
        model: A bundled name such as ``unisal-dhf1k``, or a graph's file.
        cache: Folder for the maps.

    Raises:
        UsageError: There is no such model.
    """

    def __init__(self, model: str, cache: Path) -> None:
        path = find_model(model)
        # Maps belong to the graph's content, whatever it is called.
        self._folder = cache / f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        self._model = SaliencyModel.open(path)

    def maps(self, video: PackedVideo) -> NDArray[np.uint8]:
        """Return the teacher's maps of a video, made at the first call.

        Returns:
            uint8, maximum 255 each, (frames, height, width) of the packed frames;
            memory-mapped.

        Raises:
            SalstreamError: They cannot be written.
        """
        path = self._folder / f"{video.name}.npy"
        if not path.is_file():
            _log.info("%s: the teacher looks at %d frames", video.name, len(video))
            self._make(video, path)
        maps: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        return maps

    def _make(self, video: PackedVideo, path: Path) -> None:
        frames = video.frames
        height, width = frames.shape[1:3]
        maps = np.zeros((len(video), height, width), np.uint8)
        pictures = (np.ascontiguousarray(frame[..., ::-1]) for frame in frames)
        for result in self._model.stream(pictures, fps=video.fps or 30.0):
            resized = cv2.resize(result.saliency, (width, height))
            maps[result.index] = np.asarray(resized / max(float(resized.max()), 1e-12) * 255)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")  # processes may make it at once
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.save(file, maps)
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise SalstreamError(f"cannot write {path}: {error.strerror}") from error

"""Packed datasets: frames and density maps as plain arrays, mapped into memory.

    FOLDER/dataset.json              what it is, and whether it is finished
    FOLDER/packs/NAME/pack.json      the videos of a pack: one video, or many static images
    FOLDER/packs/NAME/frames.npy     uint8 RGB, (frames, height, width, 3)
    FOLDER/packs/NAME/maps.npy       uint8, (frames, height, width); absent if none is labelled
    FOLDER/packs/NAME/fixated.npy    bool, (frames,): whether the frame's map is not all zero
    FOLDER/packs/NAME/fixations.npy  int32, (k, 4): frame, subject (-1: unknown), y, x; by frame

A pack is written in FOLDER/parts and moved when it is whole, so what is in packs can be trusted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from salstream.runtime import files
from salstream.runtime.errors import SalstreamError, UsageError

__all__ = ["PackWriter", "PackedDataset", "PackedVideo", "Split", "open_packed", "write_dataset"]

Split = Literal["train", "val", "test"]
SPLITS: Final = get_args(Split)
SCHEMA: Final = 1


@dataclass(frozen=True)
class PackedVideo:
    """One video, or one static image, of a packed dataset.

    It holds no open file: arrays are mapped when they are asked for, so that thousands of
    videos can be open at once and be sent to other processes.

    Attributes:
        name: As in the dataset.
        split: ``train``, ``val`` or ``test``.
        fps: Frames per second; None: a static image.
        length: Frames.
        labelled: Whether it has density maps.
        fixation_size: Height and width that the fixations' coordinates belong to, in pixels.
        pack: The folder that holds it.
        first: Its first frame's place in the pack.
        pixel_aspect: Width of a pixel of ``fixation_size`` as it is shown, divided by its height.
    """

    name: str
    split: Split
    fps: float | None
    length: int
    labelled: bool
    fixation_size: tuple[int, int]
    pack: Path
    first: int = 0
    pixel_aspect: float = 1.0

    def __len__(self) -> int:
        return self.length

    @property
    def frames(self) -> NDArray[np.uint8]:
        """RGB frames at the dataset's size, uint8, (frames, height, width, 3); memory-mapped."""
        return self._array("frames")

    @property
    def maps(self) -> NDArray[np.uint8] | None:
        """Density maps, scaled to maximum 255, uint8, (frames, height, width); memory-mapped.

        All zero for a frame at which nobody fixated. None if the video is not labelled.
        """
        return self._array("maps") if self.labelled else None

    @property
    def fixated(self) -> NDArray[np.bool_]:
        """Which frames have a target, (frames,): the others are for input only, never scored."""
        if not self.labelled:
            return np.zeros(self.length, bool)
        return np.array(self._array("fixated"))

    def fixations(self, index: int) -> NDArray[np.int32]:
        """Return the fixations of a frame as (y, x), int32, (k, 2), in ``fixation_size`` pixels.

        Raises:
            IndexError: There is no such frame.
        """
        return self.fixations_by_subject(index)[:, 1:]

    def fixations_by_subject(self, index: int) -> NDArray[np.int32]:
        """Return the fixations of a frame as (subject, y, x), int32, (k, 3); -1: unknown.

        Raises:
            IndexError: There is no such frame.
        """
        if not 0 <= index < self.length:
            raise IndexError(f"{self.name} has no frame {index}: it has {self.length}")
        table = _load(self.pack / "fixations.npy")
        place = self.first + index
        begin, end = np.searchsorted(table[:, 0], (place, place + 1))
        return np.array(table[begin:end, 1:], np.int32)

    def _array(self, kind: str) -> NDArray[Any]:
        return _load(self.pack / f"{kind}.npy")[self.first : self.first + self.length]


@dataclass(frozen=True)
class PackedDataset:
    """A dataset that `salstream prepare` has packed.

    Attributes:
        name: Of the dataset, such as ``dhf1k``.
        size: Height and width of frames and maps, in pixels.
        static: Whether it consists of images.
        folder: Where it lies.
        about: What else was noted when it was packed.
    """

    name: str
    size: tuple[int, int]
    static: bool
    folder: Path
    about: Mapping[str, Any]

    @cached_property
    def all_videos(self) -> list[PackedVideo]:
        """Every video, by name."""
        packs = sorted((self.folder / "packs").glob("*/pack.json"))
        found = [video for pack in packs for video in _videos_of(pack)]
        return sorted(found, key=lambda video: video.name)

    def fingerprint(self) -> str:
        """Return what tells this data from other data: videos, splits, lengths, labels, size."""
        facts = [(v.name, v.split, len(v), v.labelled) for v in self.all_videos]
        return hashlib.sha256(json.dumps([self.size, facts]).encode()).hexdigest()[:16]

    def videos(self, split: str) -> list[PackedVideo]:
        """Return the videos of ``train``, ``val`` or ``test``, or ``all`` of them, by name.

        Raises:
            UsageError: There is no such split.
        """
        if split == "all":
            return list(self.all_videos)
        if split not in SPLITS:
            raise UsageError(f"unknown split {split!r}; known: {', '.join(SPLITS)}, all")
        return [video for video in self.all_videos if video.split == split]


def open_packed(folder: Path) -> PackedDataset:
    """Open a packed dataset.

    Raises:
        UsageError: There is none.
        SalstreamError: It was never finished, is damaged, or another version packed it.
    """
    about = read_about(folder)
    if about is None:
        raise UsageError(
            f"{folder} is no prepared dataset; make one with: salstream prepare DATASET PATH -o "
            f"{folder}"
        )
    if not about["finished"]:
        raise SalstreamError(
            f"{folder} is not finished; run the same `salstream prepare` again, it goes on where "
            "it was"
        )
    dataset = PackedDataset(
        about["name"], cast("tuple[int, int]", tuple(about["size"])), about["static"], folder, about
    )
    if not dataset.all_videos:
        raise SalstreamError(f"{folder} holds no videos; prepare it again")
    return dataset


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's ``dataset.json`` says; None if there is none.

    Raises:
        SalstreamError: It cannot be read, or another version wrote it.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    about = _read_json(path)
    if about.get("schema") != SCHEMA:
        raise SalstreamError(
            f"{folder} was packed with schema {about.get('schema')}, this salstream reads "
            f"{SCHEMA}; prepare it again"
        )
    return about


def write_dataset(
    folder: Path,
    name: str,
    size: tuple[int, int],
    *,
    static: bool,
    finished: bool,
    **about: Any,
) -> None:
    """Write ``dataset.json``, whole or not at all.

    Raises:
        SalstreamError: It cannot be written.
    """
    facts = {"schema": SCHEMA, "name": name, "size": size, "static": static, "finished": finished}
    files.write_text(folder / "dataset.json", json.dumps({**facts, **about}, indent=1))


class PackWriter:
    """Writes one pack, frame by frame; a pack that breaks off, or is empty, is not kept.

        with PackWriter(folder, "0001", (128, 192)) as pack:
            pack.start("0001", "train", 30.0, (360, 640), labelled=True)
            pack.append(frame, density, fixations)

    Args:
        folder: Of the dataset.
        name: Of the pack; a file name.
        size: Height and width of frames and maps.

    Attributes:
        failed: Whether the disk is full or cannot be written.

    Raises:
        SalstreamError: The disk is full or cannot be written.
    """

    def __init__(self, folder: Path, name: str, size: tuple[int, int]) -> None:
        self._final = folder / "packs" / name
        self._part = folder / "parts" / name
        self._size = size
        self._items: list[dict[str, Any]] = []
        self._fixated: list[bool] = []
        self._fixations: list[NDArray[np.int32]] = []
        self._notes: dict[str, Any] = {}
        self.failed = False

    def __enter__(self) -> Self:
        try:
            shutil.rmtree(self._part, ignore_errors=True)
            self._part.mkdir(parents=True)
            self._final.parent.mkdir(exist_ok=True)
            self._frames = _ArrayFile(self._part / "frames.npy", (*self._size, 3))
            self._maps = _ArrayFile(self._part / "maps.npy", self._size)
        except OSError as error:
            raise SalstreamError(f"cannot write {self._part}: {_why(error)}") from error
        return self

    def start(
        self,
        name: str,
        split: Split,
        fps: float | None,
        fixation_size: tuple[int, int],
        *,
        labelled: bool,
        pixel_aspect: float = 1.0,
    ) -> None:
        """Begin the next video; ``fps`` is None for a static image."""
        self._items.append(
            {
                "name": name,
                "split": split,
                "fps": fps,
                "first": len(self._fixated),
                "length": 0,
                "labelled": labelled,
                "fixation_size": fixation_size,
                "pixel_aspect": pixel_aspect,
            }
        )

    def append(
        self,
        frame: NDArray[np.uint8],
        density: NDArray[np.uint8] | None = None,
        fixations: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Add a frame to the video that was started last.

        Args:
            frame: uint8 RGB, (height, width, 3).
            density: uint8, (height, width), maximum 255 or all zero; None: the video is not
                labelled.
            fixations: (k, 3) as (subject, y, x); or None.

        Raises:
            UsageError: A shape does not fit.
            SalstreamError: The disk is full.
        """
        item = self._items[-1]
        if (density is None) == item["labelled"]:
            raise UsageError(f"{item['name']}: all frames have a density map, or none has")
        if density is None:
            density = np.zeros(self._size, np.uint8)
        try:
            self._frames.append(frame)
            self._maps.append(density)
        except OSError as error:
            self.failed = True
            raise SalstreamError(f"cannot write {self._part}: {_why(error)}") from error
        if fixations is not None and len(fixations):
            places = np.full((len(fixations), 1), len(self._fixated))
            self._fixations.append(np.hstack((places, fixations)).astype(np.int32))
        self._fixated.append(bool(density.any()))
        item["length"] += 1

    def take_back(self, videos: int) -> None:
        """Forget everything after the first ``videos`` videos, as if it had not been added."""
        del self._items[videos:]
        frames = sum(item["length"] for item in self._items)
        del self._fixated[frames:]
        self._fixations = [rows for rows in self._fixations if rows[0, 0] < frames]
        self._frames.truncate(frames)
        self._maps.truncate(frames)

    def note(self, **facts: Any) -> None:
        """Keep something else to know in ``pack.json``."""
        self._notes |= facts

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._frames.close()
            self._maps.close()
            if kind is None and self._items:
                self._finish()
        except OSError as failure:
            raise SalstreamError(f"cannot write {self._part}: {_why(failure)}") from failure
        finally:
            shutil.rmtree(self._part, ignore_errors=True)

    def _finish(self) -> None:
        if not any(item["labelled"] for item in self._items):
            (self._part / "maps.npy").unlink()
        np.save(self._part / "fixated.npy", np.array(self._fixated, bool))
        table = np.concatenate([np.zeros((0, 4), np.int32), *self._fixations])
        np.save(self._part / "fixations.npy", table)
        (self._part / "pack.json").write_text(json.dumps({"videos": self._items, **self._notes}))
        shutil.rmtree(self._final, ignore_errors=True)
        self._part.rename(self._final)


class _ArrayFile:
    """A uint8 ``.npy`` file that grows: its header leaves room for a larger first axis."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._count = 0
        self._file: BinaryIO = path.open("wb")
        self._write_header()
        self._begin = self._file.tell()

    def append(self, values: NDArray[np.uint8]) -> None:
        if values.shape != self._shape or values.dtype != np.uint8:
            raise UsageError(
                f"expected uint8 of shape {self._shape}, got {values.dtype} of {values.shape}"
            )
        self._file.write(np.ascontiguousarray(values).data)
        self._count += 1

    def truncate(self, count: int) -> None:
        self._count = count
        self._file.seek(self._begin + count * math.prod(self._shape))
        self._file.truncate()

    def close(self) -> None:
        try:
            self._file.seek(0)
            self._write_header()
            self._file.flush()
            os.fsync(self._file.fileno())  # the pack gets its name next
        finally:
            self._file.close()

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _videos_of(path: Path) -> list[PackedVideo]:
    try:
        return [
            PackedVideo(**{**item, "fixation_size": tuple(item["fixation_size"])}, pack=path.parent)
            for item in _read_json(path)["videos"]
        ]
    except (KeyError, TypeError) as error:
        raise SalstreamError(
            f"{path} is damaged: delete {path.parent} and prepare it again"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SalstreamError(f"{path} is damaged: prepare the dataset again") from error
    return found


def _load(path: Path) -> NDArray[Any]:
    try:
        return cast("NDArray[Any]", np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise SalstreamError(
            f"{path} is missing or damaged: delete {path.parent} and prepare the dataset again"
        ) from error


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

"""`salstream prepare`: every recording decoded once, packed, whole or not at all.

One pack per video, one per hundred images. A pack that is there is not made again, so a run
that was stopped goes on where it was. Frames are resized as the runtime resizes them
(:func:`salstream.runtime.preprocess.prepare`), density maps to the same size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.preprocess import placement, prepare
from salstream.runtime.sources import Frame
from salstream.runtime.sources.images import read_image
from salstream.runtime.spec import FITS, GraphSpec
from salstream.training.data.packed import SPLITS, PackWriter, read_about, write_dataset
from salstream.training.data.readers import find_recordings
from salstream.training.data.recordings import (
    CLIP,
    Found,
    Recording,
    Size,
    gaussian_density,
    inside,
    mismatch,
    resized_density,
)

logger = logging.getLogger("salstream")

OnError = Literal["fail", "skip"]
ON_ERROR: Final = get_args(OnError)
SIGMA: Final = 0.035  # of the frame's height: DHF1K's 12.7 of 360 pixels
SIZE: Final = (128, 192)  # HD2S's
IMAGES_PER_PACK: Final = 100
CHECKED: Final = 200  # recordings of a split whose annotation a check reads, and up to twice that


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user may choose.

    Attributes:
        size: Height and width of the packed frames and maps.
        fit: ``stretch``: a frame fills it. ``letterbox``: it keeps its proportions (ESAN).
        sigma: Of density maps made from fixations, as a share of the frame's height.
        on_error: ``fail`` stops at the first recording that is damaged or does not fit its
            annotation; ``skip`` names it and leaves it out (of a video in images, only the
            damaged frame).
        workers: Recordings decoded at a time.
    """

    size: Size = SIZE
    fit: str = "stretch"
    sigma: float = SIGMA
    on_error: OnError = "fail"
    workers: int = 2

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.fit not in FITS:
            raise UsageError(f"unknown --fit {self.fit!r}; known: {', '.join(FITS)}")
        if self.on_error not in ON_ERROR:
            raise UsageError(f"unknown --on-error {self.on_error!r}; known: {', '.join(ON_ERROR)}")
        if not 0 < self.sigma < 1:
            raise UsageError(f"sigma is a share of the frame's height, 0 to 1; got {self.sigma}")
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, got {self.workers}")
        _ = self.spec

    @property
    def spec(self) -> GraphSpec:
        """What `salstream.runtime.preprocess.prepare` wants to know."""
        height, width = self.size
        return GraphSpec(model="packed", domain="", height=height, width=width, fit=self.fit)


@dataclass
class Report:
    """What was packed.

    Attributes:
        recordings: In the dataset now, the ones packed earlier among them.
        packed: Of these, packed in this run.
        frames: In this run.
        counts: ``short``: videos of less than 16 frames; ``unlabelled``: recordings without
            annotation; ``nobody``: labelled frames at which nobody fixated; ``outside``:
            fixations outside of their frame, left out; ``damaged``: frames left out.
        left_out: Recordings left out, and why.
        notes: What was missing or doubtful, one sentence each.
    """

    recordings: int = 0
    packed: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prepare_dataset(
    dataset: str,
    path: Path,
    output: Path,
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Pack a dataset.

    Args:
        dataset: Its name, one of :data:`salstream.training.data.readers.READERS`.
        path: Where it was unpacked.
        output: Folder to pack into; packs that are there already stay.
        options: What to make of it.
        progress: Called with recordings done and recordings in all.

    Raises:
        UsageError: The dataset is not known, is not there, or ``output`` holds another one.
        SalstreamError: A recording is damaged or does not fit (and ``on_error`` is ``fail``),
            or the disk is full. What was finished stays, and the next run goes on from there.
    """
    options = options or Options()
    found = find_recordings(dataset, path)
    given = any(r.truth is not None and "maps" in r.truth.counts for r in found.recordings)
    choices = {
        "fit": options.fit,
        "sigma": options.sigma,
        "splits": found.splits,
        "densities": "given" if given else "made",
    }
    _refuse_another(output, dataset, options, choices)

    def write(*, finished: bool, **more: Any) -> None:
        write_dataset(
            output,
            dataset,
            options.size,
            static=found.static,
            finished=finished,
            **choices,
            **more,
        )

    write(finished=False)
    jobs = list(_jobs(found))
    report = Report(notes=list(found.notes))
    total = len(found.recordings)
    if progress:
        progress(0, total)
    stop = threading.Event()

    def work(job: _Job) -> _Job:
        job.run(output, options, stop)
        return job

    def collect(job: _Job) -> None:
        report.recordings += len(job.recordings) - len(job.left_out)
        report.packed += job.packed
        report.frames += job.frames
        report.counts += job.counts
        report.left_out |= job.left_out
        if progress:
            progress(report.recordings + len(report.left_out), total)

    with ThreadPoolExecutor(options.workers) as pool:
        running = {pool.submit(work, job) for job in jobs}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_EXCEPTION, timeout=0.2)
                for future in done:
                    collect(future.result())
        finally:  # a failure or an interruption: let the others end at their next frame
            stop.set()
            for future in running:
                future.cancel()
    if report.recordings == 0:
        first = next(iter(report.left_out.values()), "")
        raise SalstreamError(f"every recording of {path} was left out; the first one: {first}")
    _tidy(output, {job.name for job in jobs})
    write(finished=True, left_out=report.left_out, notes=report.notes)
    return report


def _tidy(output: Path, current: set[str]) -> None:
    """Remove what is no part of the dataset any more.

    Parts of a run that was killed; and packs of recordings that have since moved to another
    split, because more were found: nothing may be in two splits.
    """
    shutil.rmtree(output / "parts", ignore_errors=True)
    for pack in (output / "packs").iterdir():
        if pack.name not in current:
            logger.info("removed %s: its recordings are packed anew", pack)
            shutil.rmtree(pack)


class _Stopped(Exception):  # noqa: N818 - not an error: another one is on its way
    """The run ends."""


@dataclass
class _Job:
    """The recordings of one pack, and what became of them."""

    name: str
    recordings: Sequence[Recording]
    packed: int = 0
    frames: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)

    def run(self, output: Path, options: Options, stop: threading.Event) -> None:
        """Make the pack, if it is not there."""
        if (known := _counts_of(output / "packs" / self.name)) is not None:
            self.counts, self.left_out = known
            return
        with PackWriter(output, self.name, options.size) as pack:
            for recording in self.recordings:
                try:
                    self._add(recording, pack, options, stop)
                    self.packed += 1
                except (SalstreamError, OSError) as error:
                    if pack.failed:
                        raise
                    if options.on_error == "fail":
                        message = f"{error}; to go on without it: --on-error skip"
                        raise SalstreamError(message) from error
                    pack.take_back(self.packed)
                    self.left_out[recording.name] = str(error)
                    logger.warning("left out: %s", error)
            pack.note(counts=dict(self.counts), left_out=self.left_out)

    def _add(
        self, recording: Recording, pack: PackWriter, options: Options, stop: threading.Event
    ) -> None:
        counts: Counter[str] = Counter()
        fps, truth, length = recording.rate(), recording.truth, 0
        if not recording.static and fps is None:
            raise SalstreamError(f"{recording.name} does not tell its frame rate")
        for frame in _frames(recording, options.on_error, counts):
            if stop.is_set():
                raise _Stopped
            native: Size = (frame.image.shape[0], frame.image.shape[1])
            if length == 0:
                size = truth.size(native) if truth else native
                aspect = frame.pixel_aspect
                if size != native:  # that of the fixations' pixels
                    aspect *= native[1] / native[0] * size[0] / size[1]
                pack.start(
                    *(recording.name, recording.split, fps, size),
                    labelled=bool(truth),
                    pixel_aspect=aspect,
                )
            length += 1
            small = prepare(frame, options.spec)
            if truth is None:
                pack.append(small)
                continue
            points, outside = inside(truth.fixations(frame.index, size, fps), size)
            counts["outside"] += outside
            density = _density(truth.density(frame.index), points[:, 1:], size, aspect, options)
            counts["nobody"] += not density.any()
            pack.append(small, density, points)
        if length == 0:
            raise SalstreamError(f"{recording.name} has no frames")
        if wrong := mismatch(recording, length + counts["damaged"]):
            raise SalstreamError(f"{wrong}: expected one for each frame")
        counts["short"] += not recording.static and length < CLIP
        counts["unlabelled"] += truth is None
        self.frames += length
        self.counts += counts


def _frames(recording: Recording, on_error: OnError, counts: Counter[str]) -> Iterator[Frame]:
    """Yield the frames; damaged images of a video are left out where that was asked for."""
    if on_error == "fail" or recording.static or not recording.images():
        yield from recording.frames()
        return
    for index, path in enumerate(recording.images()):
        try:
            image = read_image(path)
        except SalstreamError as error:
            counts["damaged"] += 1
            logger.warning("left out: %s", error)
            continue
        yield Frame(index, None, image)


def _density(
    given: NDArray[Any] | None,
    points: NDArray[np.int32],
    size: Size,
    pixel_aspect: float,
    options: Options,
) -> NDArray[np.uint8]:
    """Return the density map at the packed size, where the frame lies in it."""
    top, left, height, width = 0, 0, *options.size
    if options.fit == "letterbox":
        top, left, height, width = placement(size, options.size, pixel_aspect)
    if given is None:
        density = gaussian_density(points, size, (height, width), options.sigma, pixel_aspect)
    else:
        density = resized_density(given, (height, width))
    canvas = np.zeros(options.size, np.uint8)
    canvas[top : top + height, left : left + width] = np.round(255 * density)
    return canvas


def _jobs(found: Found) -> Iterator[_Job]:
    """One pack per video; images in hundreds, named by which ones they are."""
    videos = [recording for recording in found.recordings if not recording.static]
    for recording in videos:
        yield _Job(_file_name(recording.name, recording.split), [recording])
    images = [recording for recording in found.recordings if recording.static]
    for begin in range(0, len(images), IMAGES_PER_PACK):
        some = images[begin : begin + IMAGES_PER_PACK]
        who = json.dumps([(recording.name, recording.split) for recording in some])
        yield _Job(f"images-{hashlib.sha256(who.encode()).hexdigest()[:16]}", some)


def _file_name(name: str, split: str) -> str:
    """A name that every file system takes; the split is in it, since it is in the pack."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    if plain != name:
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{split}-{plain}"


def _counts_of(pack: Path) -> tuple[Counter[str], dict[str, str]] | None:
    """Return what a finished pack noted; None if it is not there."""
    path = pack / "pack.json"
    if not path.is_file():
        return None
    facts = json.loads(path.read_text())
    return Counter(facts.get("counts", {})), dict(facts.get("left_out", {}))


def _refuse_another(output: Path, dataset: str, options: Options, choices: dict[str, Any]) -> None:
    """Refuse to mix datasets, sizes or kinds of maps in one folder."""
    about = read_about(output)
    if about is None:
        if output.is_dir() and any(output.iterdir()):
            raise UsageError(f"{output} holds other files; choose an empty or a new folder")
        return
    wanted = {"name": dataset, "size": list(options.size), **choices}
    for key, value in wanted.items():
        if about.get(key) != value:
            raise UsageError(
                f"{output} was prepared with {key} {about.get(key)}, not {value}; choose another "
                "folder, or delete it"
            )


@dataclass(frozen=True)
class Check:
    """What is there of a dataset, seen without decoding.

    Attributes:
        splits: Where the splits come from.
        rows: By split: ``expected`` (None: unknown), ``found``, ``labelled``, ``frames`` as
            declared, ``short`` (less than 16 frames).
        problems: One sentence each: missing annotation, counts that differ, files that cannot
            be opened.
    """

    splits: str
    rows: dict[str, dict[str, int | None]]
    problems: list[str]


def check_dataset(dataset: str, path: Path) -> Check:
    """Look at a dataset without decoding more of it than some annotations.

    Raises:
        UsageError: The dataset is not known, or nothing of it is there.
    """
    found = find_recordings(dataset, path)
    problems = list(found.notes)
    rows: dict[str, dict[str, int | None]] = {}
    for split in SPLITS:
        there = [recording for recording in found.recordings if recording.split == split]
        frames, short = 0, 0
        for recording in there:
            try:
                count = recording.frame_count()
            except SalstreamError as error:
                problems.append(str(error))
                continue
            if count is None:
                continue
            frames += count
            short += not recording.static and count < CLIP
            if wrong := mismatch(recording, count):
                problems.append(wrong)
        labelled = [recording for recording in there if recording.truth is not None]
        unreadable = _unreadable(labelled)
        if unreadable:
            problems.append(
                f"{len(unreadable)} of {split} have an annotation that cannot be read; the first "
                f"one: {unreadable[0]}"
            )
        # Published counts are of videos; a shot is not one.
        rows[split] = {
            "expected": found.expected.get(split),
            "found": len({found.video_of(recording.name) for recording in there}),
            "labelled": len(labelled) - len(unreadable),
            "frames": frames,
            "short": short,
        }
    return Check(found.splits, rows, problems)


def _unreadable(recordings: Sequence[Recording]) -> list[str]:
    """Say why annotations cannot be read: the first frame's, of recordings evenly chosen."""
    errors = []
    step = max(1, len(recordings) // CHECKED)
    for recording in recordings[::step]:
        truth = recording.truth
        if truth is None or not (recording.static or truth.counts):
            continue
        try:
            truth.fixations(0, truth.size(SIZE), recording.fps)
            truth.density(0)
        except SalstreamError as error:
            errors.append(str(error))
    return errors

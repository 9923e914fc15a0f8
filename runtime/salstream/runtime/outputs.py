"""The outputs of ``salstream run``: which there are, and each camera's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from salstream.runtime.errors import UsageError

if TYPE_CHECKING:
    from salstream.runtime.sinks import MapFormat, Sink

PLACE: Final = "{camera}"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What was asked for; ``{camera}`` in a path stands for the camera's name.

    Attributes:
        save: Overlay video, or ``-`` for raw frames on standard output.
        maps: Folder for one map per frame.
        form: Of the maps: ``png`` or ``npy``.
        conspicuity: Folder for pictures of frame, conspicuity maps and saliency.
        show: Whether to open a window.
        opacity: Of the overlay, in [0, 1].
        jsonl: File for a line of JSON per map, or ``-`` for standard output.
        threshold: Of the regions in those lines and on the page, in (0, 1].
        segment_s: Length of the pieces of overlay video; None: one file.
        keep_gb: Room for the pieces of each camera, in 10⁹ bytes.
        keep_hours: Age of the pieces.
        sound: Whether the overlay video has the sound of a video file.
    """

    save: str | None = None
    maps: str | None = None
    form: str = "png"
    conspicuity: str | None = None
    show: bool = False
    opacity: float = 0.7
    jsonl: str | None = None
    threshold: float = 0.5
    segment_s: float | None = None
    keep_gb: float | None = None
    keep_hours: float | None = None
    sound: bool = True

    def check(self, sources: Mapping[str, str | list[str]], *, as_json: bool) -> None:
        """Refuse what cannot be, before anything is opened.

        Args:
            sources: What is read, by the names of the cameras.
            as_json: Whether the summary goes to standard output.

        Raises:
            UsageError: Outputs get in each other's way, or in the sources', or an option has no
                such value.
        """
        from salstream.runtime.live.points import check_threshold
        from salstream.runtime.sinks import MAP_FORMATS

        asked = {"--json": as_json, "--save -": self.save == "-", "--jsonl -": self.jsonl == "-"}
        both = [name for name, wanted in asked.items() if wanted]
        if len(both) > 1:
            raise UsageError(f"{' and '.join(both)} all want standard output; choose one")
        if self.form not in MAP_FORMATS:
            raise UsageError(f"unknown map format {self.form!r}; known: {', '.join(MAP_FORMATS)}")
        check_threshold(self.threshold)
        keeps = self.keep_gb is not None or self.keep_hours is not None
        if keeps and self.segment_s is None:
            raise UsageError("--keep-gb and --keep-hours remove segments: add --segment-seconds")
        of_video = {"--segment-seconds": self.segment_s is not None, "--no-sound": not self.sound}
        lost = [name for name, wanted in of_video.items() if wanted]
        if lost and self.save in (None, "-"):
            raise UsageError(f"{lost[0]} is for the overlay video: add --save FILE.mp4")
        paths = {"--save": self.save, "--maps": self.maps, "--conspicuity": self.conspicuity}
        files = {**paths, "--jsonl": self.jsonl}
        for option, path in files.items():
            _check_places(option, path or "")
        for option, path in paths.items():
            if path is not None and len(sources) > 1 and PLACE not in path:
                raise UsageError(_not_for_all(option, sources))
        taken: dict[Path, str] = {}
        for option, path in files.items():
            for camera in sources if path not in (None, "-") else ():
                own = _own(path or "", camera)
                for source in sources.values():  # also those of other cameras
                    keep_apart(source, own)
                if taken.setdefault(own.resolve(), option) != option:
                    raise UsageError(
                        f"{taken[own.resolve()]} and {option} both want {own}; choose another"
                    )
        if self.show and len(sources) > 1:
            raise UsageError("--show is for one camera; use --serve, or --save, for several")

    def sinks(
        self, camera: str, title: str, fps: float | None = None, source: object = None
    ) -> Iterator[Sink]:
        """Open a camera's outputs.

        Args:
            camera: Its name.
            title: Of a window.
            fps: Frame rate where results have no times.
            source: Of the frames, whose sound is kept if it is a video file.
        """
        from salstream.runtime.live.points import JsonLines
        from salstream.runtime.segments import Segments
        from salstream.runtime.sinks import Figures, MapFolder, OverlayVideo, RawFrames, Window
        from salstream.runtime.sound import Sound

        if self.maps is not None:
            yield MapFolder(_own(self.maps, camera), cast("MapFormat", self.form))
        if self.conspicuity is not None:
            yield Figures(_own(self.conspicuity, camera))
        if self.jsonl is not None:
            out = sys.stdout.buffer if self.jsonl == "-" else _own(self.jsonl, camera)
            yield JsonLines(out, camera, self.threshold)
        sound = Sound(source) if self.sound and self.save is not None else None
        if self.save == "-":
            yield RawFrames(sys.stdout.buffer, self.opacity)
        elif self.save is not None and self.segment_s is not None:
            limits = self.segment_s, self.keep_gb, self.keep_hours
            yield Segments(_own(self.save, camera), *limits, self.opacity, sound)
        elif self.save is not None:
            yield OverlayVideo(_own(self.save, camera), fps, self.opacity, sound=sound)
        if self.show:
            yield Window(title, self.opacity)


def _not_for_all(option: str, sources: Mapping[str, str | list[str]]) -> str:
    """Say how an output that all cameras would share is given to each of them."""
    from salstream.runtime.live.source import is_live

    files = not any(is_live(source) for source in sources.values())
    out = "$f.overlay.mp4" if option == "--save" else "$f.maps"
    each = f'for f in FILES; do salstream run "$f" {option} "{out}"; done'
    instead = f"; or run these files one after the other: {each}" if files else ""
    return (
        f"{option} is for one camera, and there are {len(sources)} ({', '.join(sources)}): write "
        f"{PLACE} where its name belongs, as in {option} out/{PLACE}{instead}"
    )


def _check_places(option: str, path: str) -> None:
    """Refuse what looks like the place of a camera's name and is none."""
    for found in re.findall(r"\{[^{}]*\}", path):
        if found != PLACE:
            raise UsageError(
                f"{option} {path}: {found} stands for nothing; only {PLACE} does, for the name of "
                "the camera"
            )


def keep_apart(source: str | list[str], output: Path) -> None:
    """Refuse to write over the source.

    Raises:
        UsageError: It would happen.
    """
    from salstream.runtime.sources.patterns import literal, matches

    files = [Path(path) for path in ([source] if isinstance(source, str) else source)]
    folders: set[Path] = set()
    with suppress(OSError, ValueError):  # too long for a file's name: a pipeline
        if isinstance(source, str) and literal(source) is None:
            files += matches(source)
        folders = {path if path.is_dir() else path.parent for path in files}
    same = False
    for path in (*files, *folders):
        with suppress(OSError, ValueError):
            same = same or output.samefile(path)
    # maps of pictures from several folders come in folders of the same names
    if len(folders) > 1:
        same = same or any(path.resolve().is_relative_to(output.resolve()) for path in folders)
    if same:
        raise UsageError(f"{output} holds the source, and would be written over; choose another")


def _own(path: str, camera: str) -> Path:
    """Return the camera's own path."""
    return Path(path.replace(PLACE, camera))

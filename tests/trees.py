"""Small datasets on disk, in every layout that `salstream prepare` knows.

Frame number n carries its number (see `clips`), and in frame n people look at `place(n)`, so
that a test can tell from the packed dataset alone whether frames and annotation are in line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from clips import number_image, numbered_clip
from salstream.training.data.recordings import gaussian_density

SIZE: Final = (96, 128)  # height and width of every frame
SIGMA: Final = 0.035


def place(number: int) -> tuple[int, int]:
    """Where people look in the frame that carries this number: y and x."""
    return 12 + number * 17 % 72, 12 + number * 41 % 104


def image(path: Path, number: int) -> None:
    write(path, number_image(number, SIZE))


def density(path: Path, number: int) -> None:
    write(path, np.round(255 * gaussian_density(np.array([place(number)]), SIZE, SIZE, SIGMA)))


def fixations(path: Path, number: int) -> None:
    """One fixated pixel, as an image or as a .mat file."""
    fixated = np.zeros(SIZE, np.uint8)
    fixated[place(number)] = 255
    if path.suffix == ".mat":
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"I": fixated > 0})
    else:
        write(path, fixated)


def write(path: Path, picture: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def series(
    draw: Callable[[Path, int], None],
    folder: Path,
    pattern: str,
    numbers: Iterable[int],
    first: int,
) -> None:
    """Files of the frames ``numbers``; the pattern's number begins at ``first``."""
    for place_, number in enumerate(numbers):
        draw(folder / pattern.format(first + place_), number)


def video(path: Path, frames: int, codec: str = "libx264") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return numbered_clip(path, frames, SIZE, codec=codec)


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def folder(
    root: Path,
    frames: int,
    pattern: str = "{:04d}.png",
    *,
    fixation: str = "fixation",
    fixation_pattern: str | None = None,
    first: int = 1,
    images: bool = True,
) -> None:
    """One folder per video: images, maps and fixation maps."""
    numbers = range(frames)
    if images:
        series(image, root / "images", pattern, numbers, first)
    series(density, root / "maps", pattern, numbers, first)
    series(fixations, root / fixation, fixation_pattern or pattern, numbers, first)


def dhf1k_downloaded(root: Path, frames: int = 6) -> None:
    for number in (1, 601, 701):
        video(root / "video" / f"{number:03d}.AVI", frames, "mpeg4")
        if number < 701:
            folder(root / "annotation" / f"{number:04d}", frames, images=False)


def dhf1k_unisal(root: Path, frames: int = 6) -> None:
    for number in (1, 601):
        folder(root / "annotation" / f"{number:04d}", frames)


def dhf1k_hd2s(root: Path, frames: int = 6) -> None:
    for number in (1, 601):
        series(image, root / "frames" / str(number), "img_{:05d}.png", range(frames), 1)
        series(density, root / f"annotation/{number:04d}/maps", "{:04d}.png", range(frames), 1)


def dhf1k_vinet(root: Path, frames: int = 6) -> None:
    for split, number in (("train", 1), ("val", 601)):
        folder(
            root / split / f"{number:04d}",
            frames,
            fixation="fixation/maps",
            fixation_pattern="{:04d}.mat",
        )


def hollywood2(root: Path, frames: int = 6) -> None:
    """Shots begin anywhere in their video."""
    for kind, where in (("train", "training"), ("test", "testing")):
        for number, shot in ((1, 1), (1, 2), (2, 1)):
            name = f"actionclip{kind}{number:05d}"
            pattern = name + "_{:05d}.png"
            folder(root / where / f"{name}_{shot}", frames, pattern, first=100 * shot + 7)


def ucfsports(root: Path, frames: int = 6) -> None:
    for name in ("training/Diving-Side-003", "training/Run-Side-001", "testing/Walk-Front-001"):
        stem = Path(name).name
        folder(root / name, frames, f"{stem[:-4]}_{stem[-3:]}_" + "{:03d}.png")


def ledov(root: Path, frames: int = 6, *, version: str = "5", names: Sequence[str] = "abc") -> None:
    """Person 1 looks at the place of each frame while it is shown; 30 frames a second."""
    for name in names:
        video(root / name / f"{name}.mp4", frames)
        rows = np.array(
            [
                (1, number * 1000 / 30, 33, place(number)[1] + 1, place(number)[0] + 1)
                for number in range(frames)
            ]
        )
        data = {"VideoFrameRate": 30, "VideoSize": np.array(SIZE[::-1], float), "fixdata": rows}
        mat(root / name / "Data.mat", version, Data=data)
    mat(root / "VideoNameList.mat", version, VideoNameList=list(names))
    mat(root / "namelist.mat", version, trainlist=[1], vaildlist=[2], testlist=[3])


def mat(path: Path, version: str, **values: Any) -> None:
    """Write a .mat file: version 5 as SciPy does, 7.3 as MATLAB lays it out in HDF5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "5":
        as_cells = {
            name: np.array(value, object) if _is_cell(value) else value
            for name, value in values.items()
        }
        scipy.io.savemat(path, as_cells)
        return
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            _hdf5(file, file, name, value)


def _is_cell(value: Any) -> bool:
    return isinstance(value, list) and isinstance(value[0], str)


def _hdf5(file: Any, group: Any, name: str, value: Any) -> None:
    if isinstance(value, dict):
        inner = group.create_group(name)
        for key, member in value.items():
            _hdf5(file, inner, key, member)
    elif isinstance(value, str):
        letters = np.array([[ord(letter)] for letter in value], np.uint16)
        group.create_dataset(name, data=letters).attrs["MATLAB_class"] = np.bytes_("char")
    elif _is_cell(value):
        references = []
        for number, member in enumerate(value):
            _hdf5(file, file.require_group("#refs#"), f"{name}{number}", member)
            references.append(file[f"#refs#/{name}{number}"].ref)
        cells = np.array(references, h5py.ref_dtype).reshape(-1, 1)
        group.create_dataset(name, data=cells).attrs["MATLAB_class"] = np.bytes_("cell")
    else:
        matrix = np.atleast_2d(np.asarray(value, float))
        group.create_dataset(name, data=matrix.T).attrs["MATLAB_class"] = np.bytes_("double")


def diem(root: Path, frames: int = 6) -> None:
    """Two people, whose screen coordinates have the video in the middle of 1280x960."""
    for name in (f"{letter}_{SIZE[1]}x{SIZE[0]}" for letter in "abcde"):
        video(root / name / "video" / f"{name}.mp4", frames)
        for person in (1, 2):
            lines = []
            for number in range(frames):
                y, x = place(number)
                eye = (x + (1280 - SIZE[1]) / 2, y + (960 - SIZE[0]) / 2, 5, 1)
                blink = (0, 0, 0, 0)
                lines.append((number + 1, *eye, *(eye if person == 1 else blink)))
            path = root / name / "event_data" / f"diem1s{person:02d}_{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, np.array(lines), "%g", delimiter="\t")


def diem_images(root: Path, frames: int = 6) -> None:
    for name in "ab":
        series(image, root / "video_frames/DIEM" / name, "img_{:05d}.jpg", range(frames), 1)
        annotation = root / "annotations/DIEM" / name
        series(density, annotation / "maps", "eyeMap_{:05d}.jpg", range(frames), 1)
        series(fixations, annotation, "fixMap_{:05d}.mat", range(frames), 1)
    for split, name in (("train", "a"), ("test", "b")):
        path = root / "fold_lists" / f"DIEM_list_{split}_fps.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {frames} 29.999700\n")


def salicon(root: Path) -> None:
    """Images are 640x480; the numbers 1 and 2."""
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        name = f"COCO_{split}2014_{number:012d}"
        picture = number_image(number, (480, 640))
        write(root / "images" / split / f"{name}.jpg", picture)
        if split == "test":
            continue
        y, x = 5 * place(number)[0], 5 * place(number)[1]
        shown = gaussian_density(np.array([(y, x)]), (480, 640), (480, 640), SIGMA)
        write(root / "maps" / split / f"{name}.png", np.round(255 * shown))
        path = root / "fixations" / split / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        person = (np.zeros((3, 2)), np.array([[x + 1, y + 1]]))
        gaze = np.array([person, person], dtype=[("location", "O"), ("fixations", "O")])
        scipy.io.savemat(path, {"gaze": gaze, "resolution": [480, 640]})


def osie(root: Path, images: int = 5) -> None:
    rows = []
    for number in range(images):
        image(root / "images" / f"{1001 + number}.jpg", number)
        rows += [(f"{1001 + number}.jpg", who, 200, *_xy(number)) for who in (1, 2, 3)]
    table(root / "fixations.csv", ("image", "subject", "duration_ms", "x", "y"), rows)


def osie_matlab(root: Path, images: int = 5) -> None:
    cells = np.empty(images, object)
    for number in range(images):
        image(root / "data/stimuli" / f"{1001 + number}.jpg", number)
        y, x = place(number)
        person = {"fix_x": np.array([x + 1.0]), "fix_y": np.array([y + 1.0])}
        subjects = np.empty(2, object)
        subjects[:] = [person, person]
        cells[number] = {"img": f"{1001 + number}.jpg", "subjects": subjects}
    (root / "data/eye").mkdir(parents=True)
    scipy.io.savemat(root / "data/eye/fixations.mat", {"fixations": cells})


def remega(root: Path, videos: int = 5, frames: int = 6) -> None:
    """Three people look at the place of each frame while it is shown; 30 frames a second."""
    rows = []
    for name in "abcdefghij"[:videos]:
        video(root / "videos" / f"{name}.avi", frames)
        for number in range(frames):
            start = number * 1000 / 30
            rows += [(name, who, start, 33.0, *_xy(number)) for who in (1, 2, 3)]
    header = ("video", "subject", "start_ms", "duration_ms", "x", "y")
    table(root / "fixations.csv", header, rows)


def plain_images(root: Path, images: int = 5) -> None:
    for number in range(images):
        image(root / "images" / f"{number}.png", number)
        density(root / "maps" / f"{number}.png", number)
        fixations(root / "fixation" / f"{number}.png", number)


def plain_videos(root: Path, frames: int = 6) -> None:
    for split in ("train", "val", "test"):
        folder(root / split / "clip", frames)


def _xy(number: int) -> tuple[float, float]:
    y, x = place(number)
    return x + 0.3, y + 0.6

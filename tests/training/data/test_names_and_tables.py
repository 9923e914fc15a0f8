"""Tables of every spreadsheet, names of every system: what belongs together, and what is told."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import scipy.io
from typer.testing import CliRunner

import trees
from salstream.runtime import SalstreamError
from salstream.runtime.cli import load_commands
from salstream.training.data.matfile import map_in
from salstream.training.data.prepare import Options, check_dataset, prepare_dataset
from salstream.training.data.readers import find_recordings
from salstream.training.data.readers.tables import read_table, read_text

HEADER = "image,subject,x,y"
ROWS = ["über.png,1,40.5,90", "über.png,2,41,91.25", "b.png,1,200,7"]
VALUES = {"über.png": [[1, 90, 40.5], [2, 91.25, 41]], "b.png": [[1, 7, 200]]}
PLAIN = "\n".join([HEADER, *ROWS]) + "\n"


def semicolons(text: str) -> str:
    """As Excel writes it where the comma is the decimal sign."""
    return text.replace(",", ";").replace(".5", ",5").replace(".25", ",25")


READ: dict[str, bytes] = {
    "plain": PLAIN.encode(),
    "mark": PLAIN.encode("utf-8-sig"),
    "Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "big-endian": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16, big-endian, without a mark": PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "Windows-1252": PLAIN.encode("cp1252"),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "semicolons, decimal commas": semicolons(PLAIN).encode("utf-8-sig"),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "tabs, decimal commas": semicolons(PLAIN).replace(";", "\t").encode(),
    "declared": ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
    "Windows": PLAIN.replace("\n", "\r\n").encode(),
    "old Mac": PLAIN.replace("\n", "\r").encode(),
    "without a last line end": PLAIN.rstrip().encode(),
    "quoted": "".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in PLAIN.split()
    ).encode(),
    "capitals": PLAIN.replace(HEADER, "Image,SUBJECT,X,y").encode(),
    "spaces": PLAIN.replace(",", " , ").replace("b.png", "  b.png").encode(),
    "empty lines": ("\n\n" + PLAIN.replace("\n", "\n\n") + ",,,\n").encode(),
    "more columns": PLAIN.replace(HEADER, HEADER + ",note").replace("90\n", "90,a\n").encode(),
    "empty columns": PLAIN.replace("\n", ",,\n").encode(),
}


@pytest.mark.parametrize("kind", READ)
def test_tables_of_every_kind_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(READ[kind])
    read = read_table(tmp_path / "x.csv", "image", ("subject", "y", "x"))
    assert {name: values.tolist() for name, values in read.items()} == VALUES


REFUSED: dict[str, tuple[bytes, str]] = {
    "other separators": (PLAIN.replace(",", "|").encode(), "commas, semicolons or tabs"),
    "no header": (PLAIN.replace(HEADER + "\n", "").encode(), "lacks the column image"),
    "empty": (b"", "is empty: expected a header with image, subject, y, x"),
    "mark alone": (b"\xef\xbb\xbf\n", "is empty"),
    "decimal commas among commas": (PLAIN.replace(".5", ",5").encode(), "line 2: expected 4 cells"),
    "quoted decimal commas": (PLAIN.replace("40.5", '"40,5"').encode(), "got x '40,5'"),
    "thousands": (semicolons(PLAIN).replace("200", "1.200,5").encode(), "got x '1.200,5'"),
    "a short line": (PLAIN.replace(",200,7", "").encode(), "line 4: expected 4 cells"),
    "a word": (PLAIN.replace("200", "left").encode(), "line 4: expected numbers, got x 'left'"),
    "a column twice": (PLAIN.replace("subject", "x").encode(), "lacks the column subject"),
    "x twice": (PLAIN.replace(HEADER, HEADER + ",X").encode(), "column x twice"),
    "a spreadsheet": (b"PK\x03\x04" + bytes(50), "spreadsheet file, not text; export it as CSV"),
    "another code page": (PLAIN.encode("cp850"), "cannot be read as text; save it again as UTF-8"),
    "a quote without an end": (PLAIN.replace("b.png", '"b.png').encode(), "line 4"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_tables_are_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    content, said = REFUSED[kind]
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(SalstreamError) as error:
        read_table(tmp_path / "x.csv", "image", ("subject", "y", "x"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_encoding_that_is_assumed_is_said(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "x.txt").write_bytes("über".encode("cp1252"))
    assert read_text(tmp_path / "x.txt") == "über"
    assert "not UTF-8; it is read as Windows-1252" in caplog.text


NAMES: dict[str, Callable[[str], str]] = {
    "alike": lambda name: name,
    "composed": lambda name: unicodedata.normalize("NFC", name),
    "decomposed": lambda name: unicodedata.normalize("NFD", name),
    "capital suffix": lambda name: name[:-3] + name[-3:].upper(),
    "without suffix": lambda name: name.rpartition(".")[0],
    "in a folder": lambda name: f"images/{name}",
    "in a folder of Windows": lambda name: f"C:\\data\\{name}",
    "of another format": lambda name: name[:-3] + "tif",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_tables_are_those_of_files(
    kind: str, form: Literal["NFC", "NFD"], tmp_path: Path
) -> None:
    stems = ("über", "b.2", "한글")
    for number, stem in enumerate(stems):
        trees.image(tmp_path / "images/x.png", number)
        name = unicodedata.normalize(form, stem)
        (tmp_path / "images/x.png").rename(tmp_path / f"images/{name}.png")
    rows = [(NAMES[kind](f"{stem}.png"), 1, 5 + n, 7) for n, stem in enumerate(stems)]
    trees.table(tmp_path / "fixations.csv", HEADER.split(","), rows)
    for dataset in ("osie", "folder"):
        found = find_recordings(dataset, tmp_path)
        assert not [note for note in found.notes if "not there" in note or "have no" in note]
        for recording in found.recordings:
            assert recording.name == unicodedata.normalize("NFC", recording.name)
            assert recording.truth is not None
            (point,) = recording.truth.fixations(0, trees.SIZE, None).tolist()
            assert point == [1, 7, 5 + stems.index(recording.name.removesuffix(".png"))]


@pytest.mark.parametrize("suffix", ["", ".avi", ".MP4"])
def test_videos_in_tables_have_a_suffix_or_not(suffix: str, tmp_path: Path) -> None:
    trees.remega(tmp_path, videos=2, frames=2)
    (tmp_path / "videos/a.avi").rename(tmp_path / "videos/a\u0308.avi")
    table = tmp_path / "fixations.csv"
    text = table.read_text().replace("\na,", "\nä,")
    table.write_text(text.replace("ä,", f"ä{suffix},").replace("b,", f"b{suffix},"))
    found = find_recordings("remega", tmp_path)
    assert [(r.name, r.truth is not None) for r in found.recordings] == [("b", True), ("ä", True)]
    assert "not there" not in str(found.notes)


def test_names_that_only_look_alike_are_told_apart(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "animal.png"):
        trees.image(tmp_path / "images" / name, 0)
    names = ("a.png", "a", "animal.v3", "animal.tif", "animal.png")
    trees.table(tmp_path / "fixations.csv", HEADER.split(","), [(n, 1, 2, 3) for n in names])
    found = find_recordings("osie", tmp_path)
    assert [r.name for r in found.recordings if r.truth] == ["a.png", "animal.png"]
    note = "3 images with fixations are not there: a, animal.tif, animal.v3"
    assert note in found.notes
    splits = [r.split for r in found.recordings if r.name == "a.jpg"]
    assert any(note.endswith(splits[0] + " has an annotation") or "a.jpg" in note
               for note in found.notes)  # fmt: skip


def decompose(root: Path) -> None:
    """Rename every file and folder below as macOS would."""
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def salicon(root: Path) -> None:
    trees.salicon(root)
    for path in [*root.rglob("COCO_val*")]:
        path.rename(path.with_name(path.name.replace("COCO", "é")))
    decompose(root / "images")


def annotation_apart(root: Path) -> None:
    trees.series(trees.image, root / "frames/é", "{}.png", range(3), 1)
    trees.folder(root / "annotation/é", 3, "{}.png", images=False)
    decompose(root / "frames")


def pictures(root: Path) -> None:
    trees.plain_images(root, images=1)
    for kind in ("images", "maps", "fixation"):
        (root / kind / "0.png").rename(root / kind / "é.png")
    decompose(root / "maps")


def diem(root: Path) -> None:
    trees.diem_images(root, frames=2)
    for kind in ("video_frames", "annotations"):
        (root / kind / "DIEM/b").rename(root / kind / "DIEM/é")
    lists = root / "fold_lists/DIEM_list_test_fps.txt"
    lists.write_bytes("\r\n é;2;29.9\r\n".encode("utf-16"))
    decompose(root / "annotations")


def ledov(root: Path) -> None:
    trees.ledov(root, 2, names="aé")
    trees.mat(root / "VideoNameList.mat", "5", VideoNameList=["a", "é"])
    trees.mat(root / "namelist.mat", "5", trainlist=[1], testlist=[2])
    decompose(root)


def ledov_texts(root: Path) -> None:
    trees.ledov(root, 2, names="aé")
    for path in root.glob("*List.mat"):
        path.unlink()
    (root / "Training.txt").write_bytes("\ufeffa.mp4\r".encode())
    (root / "Testing.txt").write_bytes('1\t"videos\\é.mp4"\r\n\r\n'.encode("cp1252"))
    decompose(root)


@pytest.mark.parametrize(
    ("dataset", "build", "name", "split"),
    [
        ("salicon", salicon, "é_val2014_000000000002.jpg", "val"),
        ("folder", annotation_apart, "é", None),
        ("folder", pictures, "é.png", None),
        ("diem", diem, "é", "test"),
        ("ledov", ledov, "é", "test"),
        ("ledov", ledov_texts, "é", "test"),
    ],
)
def test_every_reader_knows_names_in_another_form(
    dataset: str, build: Callable[[Path], None], name: str, split: str | None, tmp_path: Path
) -> None:
    build(tmp_path)
    found = find_recordings(dataset, tmp_path)
    (recording,) = (recording for recording in found.recordings if "é" in recording.name)
    assert recording.name == unicodedata.normalize("NFC", name)
    assert split in (None, recording.split)
    assert recording.truth is not None
    assert len(recording.truth.fixations(0, (480, 640), 30.0))
    assert "é" not in unicodedata.normalize("NFC", str(found.notes))


def test_lists_that_do_not_fit_are_told(tmp_path: Path) -> None:
    trees.ledov(tmp_path / "a", 2)
    trees.mat(tmp_path / "a/namelist.mat", "5", trainlist=[0, 1])
    with pytest.raises(SalstreamError, match=r"names the video 0, but .* has 1 to 3"):
        find_recordings("ledov", tmp_path / "a")
    trees.diem_images(tmp_path / "b", frames=2)
    (tmp_path / "b/fold_lists/DIEM_list_test_fps.txt").write_text("c 2 29.9\n \n")
    notes = find_recordings("diem", tmp_path / "b").notes
    assert "1 are in no list and were left out: b" in notes
    assert "1 are in the lists, but not there: c" in notes


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeff1,600.5,500,5,1,601.5,501,5,1\r\n", [[0, 500.5, 601]]),
        ("1;600,5;500;5;1;601,5;501;5;1\r1;9;9;0;2;9;9;0;2\r", [[0, 500.5, 601]]),
        ("1\t600,5\t500\t5\t1\t601,5\t501\t5\t1\n\n", [[0, 500.5, 601]]),
        ("1 600.5 500 5 1 601.5 501 5 1 7\n", [[0, 500.5, 601]]),
        ("1 2 3\n", "expected nine numbers a line"),
        ("frame,x,y,p,e,x,y,p,e\n", "expected nine numbers a line"),
    ],
)
def test_diems_gaze_with_other_separators(
    content: str, expected: list[Any] | str, tmp_path: Path
) -> None:
    trees.diem(tmp_path)
    paths = sorted(tmp_path.glob("a_*/event_data/*.txt"))
    paths[1].unlink()
    paths[0].write_bytes(content.encode())
    truth = find_recordings("diem", tmp_path).recordings[0].truth
    assert truth is not None
    if isinstance(expected, str):
        with pytest.raises(SalstreamError, match=expected):
            truth.fixations(0, trees.SIZE, 30.0)
        return
    # the video is shown in the middle of 1280x960
    points = [[who, int(y - 432), int(x - 576)] for who, y, x in expected]
    assert truth.fixations(0, trees.SIZE, 30.0).tolist() == points


def test_what_has_no_other_half_is_told_by_evaluate(tmp_path: Path) -> None:
    trees.osie(tmp_path)
    (tmp_path / "images/1001.jpg").rename(tmp_path / "images/2001.jpg")
    arguments = ["evaluate", "unisal-dhf1k", "--data", f"osie={tmp_path}", "--split", "all"]
    done = CliRunner().invoke(load_commands(), [*arguments, "--threads", "1", "--no-baselines"])
    assert done.exit_code == 0, done.output
    assert "1 images with fixations are not there: 1001.jpg" in done.output
    assert "2001.jpg" in done.output or "has an annotation" in done.output


@pytest.mark.parametrize(
    ("dataset", "build", "gone", "note"),
    [
        ("salicon", trees.salicon, "images/val", "images with maps or fixations are not there: CO"),
        ("folder", trees.plain_images, "images/3.png", "maps have no image: 3"),
        ("diem", trees.diem, "a_128x96/video", "have gaze or maps, but no video or frames: a_128"),
        ("diem", trees.diem_images, "video_frames/DIEM/a", "have gaze or maps, but no video"),
        ("ledov", trees.ledov, "b/b.mp4", "folders with Data.mat have no video: b"),
        ("dhf1k", trees.dhf1k_downloaded, "video/001.AVI", "no video or frames: annotation/0001"),
        ("dhf1k", trees.dhf1k_vinet, "val/0601/images", "no video or frames: val/0601"),
        ("hollywood2", trees.hollywood2, "testing/actioncliptest00001_1/images", "1_1"),
        ("remega", trees.remega, "videos/b.avi", "videos with fixations are not there: b"),
    ],
)
def test_annotation_without_pictures_is_told(
    dataset: str, build: Callable[[Path], None], gone: str, note: str, tmp_path: Path
) -> None:
    build(tmp_path)
    assert note not in str(find_recordings(dataset, tmp_path).notes)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert note in str(find_recordings(dataset, tmp_path).notes)


def first_release(root: Path, **values: Any) -> Path:
    """SALICON's fixations without people: `I`, or what else is given."""
    trees.salicon(root)
    path = next((root / "fixations/val").iterdir())
    y, x = (5 * length for length in trees.place(2))
    point = np.zeros((480, 640), np.uint8)
    point[y, x] = 1
    scipy.io.savemat(path, values or {"I": point})
    return path


def points_of(root: Path) -> Any:
    (recording,) = (r for r in find_recordings("salicon", root).recordings if r.split == "val")
    assert recording.truth is not None
    return recording.truth.fixations(0, (480, 640), None).tolist()


@pytest.mark.parametrize("name", ["I", "fixLocs", "fixationPts"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "logical", "7.3"])
def test_salicons_first_release_is_read(name: str, kind: str, tmp_path: Path) -> None:
    path = first_release(tmp_path)
    point = scipy.io.loadmat(path)["I"]
    y, x = (5 * length for length in trees.place(2))
    if kind == "7.3":
        trees.mat(path, "7.3", **{name: point})
    else:
        stored = scipy.sparse.csc_matrix(point.astype(float)) if kind == "sparse" else point
        scipy.io.savemat(path, {name: stored > 0 if kind == "logical" else stored})
    assert points_of(tmp_path) == [[-1, y, x]]
    report = prepare_dataset("salicon", tmp_path, tmp_path / "packed", Options(size=(48, 64)))
    assert report.packed == 3


def test_check_counts_what_can_be_read(tmp_path: Path) -> None:
    path = first_release(tmp_path / "a", fixations=np.array([[1.0, 2], [3, 4]]), n=3)
    bad = tmp_path / "b"
    trees.salicon(bad)
    next((bad / "fixations/val").iterdir()).write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    torn = tmp_path / "c"
    trees.salicon(torn)
    cut = next((torn / "maps/val").iterdir())
    cut.write_bytes(cut.read_bytes()[:50])
    for root, said in (
        (tmp_path / "a", "such as I or fixLocs; it has fixations float64 (2, 2), n"),
        (bad, "it is damaged, or not a .mat file"),
        (torn, "cannot be decoded"),
    ):
        check = check_dataset("salicon", root)
        assert check.rows["val"]["labelled"] == 0, root
        assert check.rows["train"]["labelled"] == 1
        (problem,) = (problem for problem in check.problems if "cannot be read; the" in problem)
        assert problem.startswith("1 of val have an annotation that cannot be read")
        assert said in problem
    with pytest.raises(SalstreamError, match="expected a matrix of numbers, one for each pixel"):
        map_in(path)


def test_a_map_is_told_from_other_matrices_by_its_name(tmp_path: Path) -> None:
    """CAT2000 and MIT1003 call it fixLocs; other matrices may be larger."""
    for name in ("fixLocs", "I"):
        path = tmp_path / f"{name}.mat"
        scipy.io.savemat(path, {"image": np.ones((20, 30)), name: np.eye(12), "fixPts": [[1, 2]]})
        assert map_in(path).shape == (12, 12)

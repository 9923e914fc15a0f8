"""Sets of pictures: which are read, as what, under which names, and what is said of the rest."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from clips import number_image, numbered_clip, read_number
from fakes import FakeBackend, numbered, spec
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.live.listing import read_cameras
from salstream.runtime.live.points import JsonLines
from salstream.runtime.live.source import is_live
from salstream.runtime.model import SaliencyModel
from salstream.runtime.outputs import Outputs, keep_apart
from salstream.runtime.pipeline import Stream
from salstream.runtime.predictor import Predictor
from salstream.runtime.results import Result
from salstream.runtime.sinks import Figures, MapFolder, Sink
from salstream.runtime.sources import Frame, open_source
from salstream.runtime.sources.numbering import are_numbered
from salstream.runtime.sources.patterns import matches
from salstream.runtime.sources.pictures import Pictures

PROGRAM = Path(sys.executable).with_name("salstream")
PHOTOGRAPHS = ("bridge", "cat", "door", "field", "harbour", "lamp")
HALF_A_JPEG = cv2.imencode(".jpg", number_image(9, (64, 80)))[1].tobytes()
HALF_A_JPEG = HALF_A_JPEG[: len(HALF_A_JPEG) // 2]


def salstream(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a run that failed."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return errors[0]


def write_numbered(folder: Path, names: Iterable[str]) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = number_image(number, (64, 80))
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())  # whatever the name says


def read(source: object, **options: object) -> tuple[list[Frame], SalstreamError | None]:
    frames: list[Frame] = []
    opener: Callable[..., Iterable[Frame]] = open_source
    try:
        for frame in opener(source, **options):
            frames.append(frame)
    except SalstreamError as error:
        return frames, error
    return frames, None


def numbers(frames: Iterable[Frame]) -> list[int | None]:
    return [read_number(frame.image) for frame in frames]


def opened(source: str | Path | list[str | Path], **options: object) -> Pictures:
    opener: Callable[..., object] = open_source
    pictures = opener(source, **options)
    assert isinstance(pictures, Pictures)
    return pictures


# A video, or each for itself


@pytest.mark.parametrize(
    ("names", "video"),
    [
        (["1.png", "2.png", "3.png"], True),
        (["frame_0001.png", "frame_0002.png"], True),
        (["cam2_0009.png", "cam2_0010.png", "cam2_0011.png"], True),
        (["shot003-v2.png", "shot004-v2.png", "shot005-v2.png"], True),
        ([f"f{number}.jpg" for number in range(0, 100, 25)], True),
        ([f"f{number:03}.jpg" for number in range(30) if number not in (7, 20)], True),
        (["IMG_0012.JPG", "IMG_0057.JPG", "IMG_0101.JPG"], False),
        (["IMG_0012.JPG", "IMG_0057.JPG"], False),
        (["a-9.png", "a-10.png", "b-17.png"], False),
        (["1.png", "2.jpg", "3.png"], False),
        (["1.png", "2.png", "4.png"], False),
        (["1.png", "01.png"], False),
        (["IMG_20240101_101500.jpg", "IMG_20240102_093010.jpg"], False),
        (["cat.png", "dog.png"], False),
        (["cat1.png", "dog2.png", "cow3.png"], False),
        (["1-1.png", "2-2.png", "3-3.png"], False),
        (["1.png"], False),
        (["a/1.png", "b/2.png"], False),
        (["2.png", "1.png"], False),
    ],
)
def test_which_names_are_those_of_a_video(names: list[str], video: bool) -> None:
    assert are_numbered([Path(name) for name in names]) is video


@settings(deadline=None)
@given(
    first=st.integers(0, 10**6),
    step=st.integers(1, 50),
    count=st.integers(4, 60),
    width=st.integers(1, 8),
    prefix=st.sampled_from(["", "frame", "cam2-", "2024-05-01_"]),
    suffix=st.sampled_from(["", "_L", "-v2"]),
    data=st.data(),
)
def test_a_sequence_is_one_with_few_holes_and_none_with_many(
    first: int, step: int, count: int, width: int, prefix: str, suffix: str, data: st.DataObject
) -> None:
    values = [first + step * place for place in range(count)]
    holes = data.draw(st.integers(0, (count - 2) // 11))
    inner = st.sampled_from(range(1, count - 1))
    gone = data.draw(st.sets(inner, min_size=holes, max_size=holes))
    kept = [
        Path(f"{prefix}{values[n]:0{width}}{suffix}.png") for n in range(count) if n not in gone
    ]
    assert are_numbered(kept) or len(kept) < 4
    assert not are_numbered(kept[::-1])
    assert not are_numbered([*kept, Path(f"{prefix}{values[-1] + 3 * step * count}{suffix}.png")])
    assert not are_numbered([*kept, Path("poster.png")])


def test_sizes_and_cameras_tell_photographs_from_frames(tmp_path: Path) -> None:
    for folder in ("frames", "sizes", "turned", "camera"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            size = (80, 64) if folder == "sizes" and number == 2 else (64, 80)
            exif = Image.Exif()
            if folder == "turned" and number == 2:
                exif[0x0112] = 6
            if folder == "camera":
                exif[0x010F] = "Maker"
            image = Image.fromarray(number_image(number, size))
            image.save(tmp_path / folder / f"DSC_{number:04}.jpg", exif=exif)
    found = {folder.name: opened(folder).pictures for folder in tmp_path.iterdir()}
    assert found == {"frames": "video", "sizes": "single", "turned": "single", "camera": "single"}
    assert opened(tmp_path / "camera", pictures="video").pictures == "video"
    assert opened(tmp_path / "sizes", fps=10).pictures == "video"
    assert opened(tmp_path / "frames", pictures="single").pictures == "single"
    assert opened(str(tmp_path / "frames/*.jpg")).pictures == "video"
    assert opened(str(tmp_path / "sizes/%*.jpg").replace("%", "")).pictures == "single"
    assert opened(str(tmp_path / "sizes/DSC_%04d.jpg")).pictures == "video"
    assert opened(sorted((tmp_path / "frames").iterdir())).pictures == "video"
    assert opened(tmp_path / "frames/DSC_0001.jpg").pictures == "single"


def test_photographs_have_no_time_and_are_cuts(tmp_path: Path) -> None:
    write_numbered(tmp_path / "single", [f"{name}.png" for name in PHOTOGRAPHS])
    write_numbered(tmp_path / "video", ["1.png", "2.png"])
    frames, error = read(tmp_path / "single")
    assert error is None
    assert [(frame.index, frame.time, frame.cut) for frame in frames] == [
        (index, None, True) for index in range(6)
    ]
    frames, error = read(tmp_path / "video", fps=4)
    assert error is None
    assert [(frame.index, frame.time, frame.cut) for frame in frames] == [
        (0, 0, False),
        (1, 0.25, False),
    ]


@pytest.mark.parametrize(
    ("start", "recurrent"), [("reverse", False), ("repeat", False), ("repeat", True)]
)
def test_the_map_of_a_photograph_depends_on_nothing_else(
    tmp_path: Path, start: str, recurrent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(PHOTOGRAPHS):
        size = (8, 6) if number == 3 else (4, 6)  # another size is nothing to warn of
        cv2.imwrite(str(tmp_path / f"{name}.png"), numbered(number, size))
    backend = FakeBackend(spec(16), recurrent)
    predictor = Predictor(backend, start=start)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "salstream"):
        results = list(Stream(open_source(tmp_path), predictor))
    assert [result.name for result in results] == [f"{name}.png" for name in PHOTOGRAPHS]
    for number, result in enumerate(results):
        window, seen = backend.asked(result.map)
        assert set(window) == {number}
        assert not seen
    assert not caplog.records


def test_maps_of_photographs_are_those_that_each_has_alone(tmp_path: Path) -> None:
    model = SaliencyModel.open("unisal-dhf1k")
    for number, name in enumerate(PHOTOGRAPHS):
        image = np.full((90, 120, 3), 60, np.uint8)
        cv2.circle(image, (15 + 18 * number, 20 + 9 * number), 8, (0, 220, 255), -1)
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    images = [cv2.imread(str(path)) for path in sorted(tmp_path.iterdir())]
    together = [result.map for result in model.stream(tmp_path)]
    arrays = [np.asarray(image, np.uint8) for image in images]
    backwards = list(model.stream(arrays[::-1], pictures="single"))[::-1]
    as_video = [result.map for result in model.stream(tmp_path, pictures="video")]
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        (alone,) = model.stream(path)
        np.testing.assert_allclose(together[number], alone.map, atol=1e-6)
        np.testing.assert_allclose(backwards[number].map, alone.map, atol=1e-6)
    assert np.abs(as_video[5] - together[5]).max() > 1e-3  # there was something to keep apart


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda folder: numbered_clip(folder / "a.mp4", 3), {"pictures": "single"}, "no set of"),
        (lambda folder: folder / "in", {"pictures": "album"}, "unknown pictures 'album'"),
        (lambda folder: folder / "in", {"pictures": "single", "fps": 5}, "fps"),
        (lambda folder: 0, {"pictures": "single"}, "0 is no set of"),
        (lambda folder: "rtsp://me:geheim@host/1", {"pictures": "video"}, "me:***@host"),
        (lambda folder: [numbered(1)], {"pictures": "single", "fps": 5}, "fps"),
    ],
)
def test_pictures_are_refused_where_it_makes_no_sense(
    tmp_path: Path, make: Callable[[Path], object], options: dict[str, object], said: str
) -> None:
    write_numbered(tmp_path / "in", ["a.png"])
    frames, error = read(make(tmp_path), **options)
    assert not frames
    assert isinstance(error, UsageError)
    assert said in str(error)


# Names


def labels(source: str | Path | list[str | Path]) -> list[tuple[str | None, str | None]]:
    return [(frame.name, frame.label) for frame in opened(source)]


def test_pictures_are_named_from_their_common_folder_on(tmp_path: Path) -> None:
    write_numbered(tmp_path, ["b-17.png", "a-9.png", "a-10.png"])
    assert labels(tmp_path) == [("a-9.png", "a-9"), ("a-10.png", "a-10"), ("b-17.png", "b-17")]
    write_numbered(tmp_path / "in", ["one/a.png", "two/a.png", "two/b.c.png"])
    assert labels(str(tmp_path / "in/*/*.png")) == [
        ("one/a.png", "one/a"),
        ("two/a.png", "two/a"),
        ("two/b.c.png", "two/b.c"),
    ]


def test_outputs_of_names_that_differ_in_the_suffix_keep_it(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in", ["a.jpg", "a.png", "B.PNG", "b.webp", "c.png"])
    assert dict(labels(tmp_path / "in")) == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "B.PNG": "B.PNG",
        "b.webp": "b.webp",
        "c.png": "c",
    }
    write_numbered(tmp_path / "more", ["a.jpg", "a.png", "a.jpg.webp"])
    found = [label for _, label in labels(tmp_path / "more")]
    assert found == ["a.jpg", "a.png", "a.jpg.webp"]
    path = tmp_path / "in/c.png"
    assert labels([path, path]) == [("c.png", None), ("c.png", None)]  # by their numbers


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "x/", "y/z/"]),
            st.text("aAb.1-", min_size=1, max_size=3),
            st.sampled_from([".png", ".PNG", ".jpg", ""]),
        ),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
@example([("", "a", ".png"), ("", "a", ".jpg"), ("", "a.png", ".jpg")])
def test_no_two_pictures_share_an_output(parts: list[tuple[str, str, str]]) -> None:
    paths = [Path("root") / folder / f"p{stem}{suffix}" for folder, stem, suffix in parts]
    from salstream.runtime.sources.pictures import _names  # no files are needed for names

    names, found = _names(paths)
    used = [f"{number:06}" if label is None else label for number, label in enumerate(found)]
    assert len(set(names)) == len(names) == len(set(used))
    assert not any(".." in Path(label).parts for label in used)


def test_maps_figures_and_lines_have_the_names(tmp_path: Path) -> None:
    write_numbered(tmp_path / "in", ["one/a.png", "two/a.png", "two/b.jpg"])
    sinks: list[Sink] = [
        MapFolder(tmp_path / "png"),
        MapFolder(tmp_path / "npy", "npy"),
        Figures(tmp_path / "figures"),
        JsonLines(tmp_path / "lines.jsonl", "camera1"),
    ]
    results = Stream(open_source(str(tmp_path / "in/*/*")), Predictor(FakeBackend(spec())))
    for result in results:
        for sink in sinks:
            sink.write(result)
    for sink in sinks:
        sink.close()
    for folder, suffix in (("png", "png"), ("npy", "npy"), ("figures", "png")):
        written = {path.relative_to(tmp_path / folder).as_posix() for path in tmp_path.rglob("*")
                   if path.is_file() and path.is_relative_to(tmp_path / folder)}  # fmt: skip
        assert written == {f"one/a.{suffix}", f"two/a.{suffix}", f"two/b.{suffix}"}
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["one/a.png", "two/a.png", "two/b.jpg"]


def test_frames_of_videos_have_numbers(tmp_path: Path) -> None:
    maps = MapFolder(tmp_path / "maps")
    lines = JsonLines(tmp_path / "lines.jsonl", "camera1")
    video = numbered_clip(tmp_path / "a.mp4", 2)
    for result in Stream(open_source(video), Predictor(FakeBackend(spec()))):
        maps.write(result)
        lines.write(result)
    lines.close()
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "000000.png",
        "000001.png",
    ]
    assert '"file": null' in (tmp_path / "lines.jsonl").read_text()


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in/*/*.png", "in"),
        ("in/*/*.png", "in/one"),
        ("in/*/*.png", "."),
        ("in/one/*.png", "in/one"),
        ("in/one/%d.png", "in/one"),
        (["in/one/1.png", "in/two/1.png"], "in"),
        (["in/one/1.png", "in/one/2.png"], "in/one"),
        ("in/one/1.png", "in/one"),
    ],
)
def test_maps_never_replace_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | list[str], output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_numbered(tmp_path, ["in/one/1.png", "in/one/2.png", "in/two/1.png", "in/one/two/1.png"])
    with pytest.raises(UsageError, match="holds the source"):
        keep_apart(source, Path(output))
    keep_apart(source, Path("out"))


# What is read, and what is left out


def test_what_cannot_be_read_is_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_numbered(tmp_path, ["a.jpg", "b.jfif", "c.avif", "d.heic", "e", "f.JP2"])
    for name in ("g.exr", "h.nef", "i.svg", "notes.txt", "list.json", ".hidden.png"):
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "folder.png").mkdir()
    with caplog.at_level(logging.WARNING, "salstream"):
        source = opened(tmp_path)
    assert source.left_out == 3
    (record,) = caplog.records
    for name in ("g.exr", "h.nef", "i.svg", "convert to PNG"):
        assert name in record.getMessage()
    frames = list(source)
    assert [frame.name for frame in frames] == ["a.jpg", "b.jfif", "c.avif", "d.heic", "e", "f.JP2"]
    assert numbers(frames) == list(range(6))


def test_heic_without_libheif_is_left_out_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from salstream.runtime.sources import images

    monkeypatch.setattr(images, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    frames, error = read(tmp_path)
    assert isinstance(error, UsageError)
    assert "a.heic" in str(error)
    assert "pip install 'salstream[heic]'" in str(error)
    frames, error = read(tmp_path / "a.heic")
    assert "pip install 'salstream[heic]'" in str(error)
    write_numbered(tmp_path, ["b.png"])
    with caplog.at_level(logging.WARNING, "salstream"):
        frames, error = read(tmp_path)
    assert (numbers(frames), error) == ([0], None)
    assert "a.heic" in caplog.text


@pytest.mark.parametrize("others", [[], ["poster.jpg"], ["a.gif", "notes.txt"]])
def test_videos_in_a_folder_are_refused_by_name(tmp_path: Path, others: list[str]) -> None:
    write_numbered(tmp_path, others)
    for name in ("1.mp4", "2.MOV"):
        numbered_clip(tmp_path / name, 2)
    for source in (tmp_path, str(tmp_path / "*"), sorted(tmp_path.iterdir())):
        frames, error = read(source)
        assert not frames
        assert isinstance(error, UsageError)
        for word in ("1.mp4", "2.MOV", f"for f in {tmp_path}/*.MOV {tmp_path}/*.mp4; do"):
            assert word in str(error)
        assert (f"{tmp_path}/'*.jpg'" in str(error)) == ("poster.jpg" in others)
        assert "\n" not in str(error)
    frames, error = read(str(tmp_path / "*.mp4"))  # one video is one, however it is found
    assert len(frames) == 2
    assert error is None


# Pictures that are not whole


def damage(folder: Path, name: str) -> None:
    (folder / name).write_bytes(HALF_A_JPEG)


def test_a_damaged_picture_is_named_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_numbered(tmp_path, [f"{number}.png" for number in range(7)])
    damage(tmp_path, "2.png")
    (tmp_path / "4.png").write_bytes(b"")
    (tmp_path / "6.png").unlink()
    (tmp_path / "6.png").symlink_to(tmp_path / "nowhere.png")
    source = opened(tmp_path, fps=10)
    frames: list[Frame] = []
    with (
        caplog.at_level(logging.WARNING, "salstream"),
        pytest.raises(SalstreamError, match="3 of 7 pictures"),
    ):
        for frame in source:
            frames.append(frame)
    assert [(frame.index, frame.time, frame.name) for frame in frames] == [
        (number, number / 10, f"{number}.png") for number in (0, 1, 3, 5)
    ]
    assert numbers(frames) == [0, 1, 3, 5]
    assert source.damaged == 3
    for record, name in zip(caplog.records, ("2.png", "4.png", "6.png"), strict=True):
        assert name in record.getMessage()


def test_a_stream_gives_all_results_before_it_tells_of_damage(tmp_path: Path) -> None:
    write_numbered(tmp_path, ["0.png", "1.png", "2.png"])
    damage(tmp_path, "0.png")
    backend = FakeBackend(spec(), recurrent=True)
    results: list[Result] = []
    with pytest.raises(SalstreamError, match=r"1 of 3 .*0\.png"):
        for result in Stream(open_source(tmp_path), Predictor(backend)):
            results.append(result)
    assert [(result.index, result.name) for result in results] == [(1, "1.png"), (2, "2.png")]


def test_names_with_a_newline_stay_on_one_line(tmp_path: Path) -> None:
    write_numbered(tmp_path, ["a.png", "b\nc.png"])
    damage(tmp_path, "b\nc.png")
    frames, error = read(tmp_path)
    assert len(frames) == 1
    assert "b\\nc.png" in str(error)
    assert "\n" not in str(error)


# Patterns and names


@settings(deadline=None, max_examples=60)
@given(
    values=st.sets(st.integers(0, 20000), min_size=1, max_size=6),
    width=st.integers(0, 5),
    before=st.sampled_from(["", "f", "100% ", "[1]", "*x", "a.b-", "%%"]),
    after=st.sampled_from(["", "_L", "?", "]"]),
    other=st.text("0123456789f", min_size=1, max_size=6),
)
@example(values={7}, width=2, before="", after="", other="007")
@example(values={100}, width=2, before="", after="", other="0100")
def test_patterns_with_a_number_are_ffmpegs(
    values: set[int], width: int, before: str, after: str, other: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        form = f"%0{width}d" if width else "%d"
        text = f"{before.replace('%', '%%')}{form}{after}.png"
        made = {text % value for value in values}  # what printf, and so ffmpeg, writes
        for name in {*made, f"{before}{other}{after}.png", "x.png"}:
            (Path(folder) / name).touch()
        found = {path.name for path in matches(f"{folder}/{text}")}
        possible = {text % int(other)} if other.isdecimal() else set()
        assert made <= found
        assert found - made <= possible & {f"{before}{other}{after}.png"}


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("a[1]", "*.png"),
        ("a[1]", "%04d.png"),
        ("b*", "*.png"),
        ("c?", "0*.png"),
        ("d/[2024] x", "**/*.png"),
        ("100%", "%04d.png"),
        ("50%d", "*.png"),
        ("e=f", "*.png"),
        ("#1", "*.png"),
        ("-g", "*.png"),
        ("h.", "*.png"),
        (" i ", "*.png"),
        ("j ! k", "*.png"),
    ],
)
def test_folders_are_what_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, pattern: str
) -> None:
    write_numbered(tmp_path / folder, ["0001.png", "0002.png", "0003.png"])
    write_numbered(tmp_path / "b1", ["0001.png"])
    monkeypatch.chdir(tmp_path)
    for source in (folder, f"{folder}/{pattern}", f"./{folder}/{pattern}", str(tmp_path / folder)):
        frames, error = read(source)
        assert numbers(frames) == [0, 1, 2], source
        assert error is None
        assert list(read_cameras([source]).values()) == [source]
        assert not is_live(source)


def test_brackets_that_match_nothing_are_brackets(tmp_path: Path) -> None:
    write_numbered(tmp_path, ["img[1]-1.png", "img[1]-2.png", "img1-1.png"])
    assert numbers(read(str(tmp_path / "img[1]-*.png"))[0]) == [2]
    (tmp_path / "img1-1.png").unlink()
    assert numbers(read(str(tmp_path / "img[1]-*.png"))[0]) == [0, 1]


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_numbered(tmp_path / "home/in", ["1.png", "2.png"])
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for source in ("~/in", "~/in/*.png", "~/in/%d.png"):
        assert numbers(read(source)[0]) == [0, 1]
    write_numbered(tmp_path / "~/in", ["0.png"])  # a folder of this name comes first
    assert len(read("~/in")[0]) == 1
    _, error = read("~nobody-of-this-name/in")
    assert "does not exist" in str(error)


def test_a_number_is_a_file_or_folder_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_live("5")
    write_numbered(tmp_path / "5", ["1.png", "2.png"])
    assert not is_live("5")
    with caplog.at_level(logging.WARNING, "salstream"):
        assert numbers(read("5")[0]) == [0, 1]
    assert "/dev/video5" in caplog.text
    _, error = read("")
    assert "empty" in str(error)


# Several sources on the command line


def test_several_pictures_are_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["1.png", "2.png", "10.png", "-3.png", "a=b.png"]
    write_numbered(tmp_path, [*names, "sub/x.png"])
    numbered_clip(tmp_path / "v.mp4", 2)
    numbered_clip(tmp_path / "w.mp4", 2)
    shell = sorted(names)
    assert read_cameras(shell) == {"camera1": ["1.png", "2.png", "10.png", "-3.png", "a=b.png"]}
    Outputs(maps="out").check(read_cameras(shell), as_json=False)
    with pytest.raises(UsageError, match=r"v\.mp4.*\*\.png"):
        read_cameras(["1.png", "2.png", "v.mp4"])
    assert read_cameras(["v.mp4", "w.mp4"]) == {"camera1": "v.mp4", "camera2": "w.mp4"}
    with pytest.raises(UsageError, match=r"camera1, camera2.*\{camera\}.*one after the other"):
        Outputs(maps="out").check(read_cameras(["v.mp4", "w.mp4"]), as_json=False)
    assert read_cameras(["a=1.png", "b=2.png"]) == {"a": "1.png", "b": "2.png"}  # as asked for
    with pytest.raises(UsageError, match="does not exist"):
        read_cameras(["1.png", "missing.png"])


def test_a_list_of_pictures_keeps_its_order(tmp_path: Path) -> None:
    write_numbered(tmp_path, ["0.png", "1.png", "2.txt"])
    paths: list[str | Path] = [tmp_path / "1.png", str(tmp_path / "0.png")]
    assert numbers(read(paths)[0]) == [1, 0]
    _, error = read([*paths, tmp_path / "missing.png", tmp_path])
    assert isinstance(error, UsageError)
    assert "missing.png" in str(error)
    frames, error = read([*paths, tmp_path / "2.txt"])  # a picture, whatever its name
    assert numbers(frames) == [1, 0, 2]


@pytest.mark.slow
def test_runs_over_pictures(tmp_path: Path) -> None:
    write_numbered(tmp_path, [f"in/{name}.png" for name in ("b-17", "a-9", "a-10", "c")])
    damage(tmp_path / "in", "c.png")
    (tmp_path / "in/raw.NEF").write_bytes(b"content")
    done = salstream("run", "in", "--maps", "out", "--jsonl", "o.jsonl", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 4 pictures of in could not be read (c.png)" in error_of(done)
    assert "raw.NEF" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a-9.png",
        "a-10.png",
        "b-17.png",
    }
    summary = json.loads(done.stdout)
    shown = {key: summary[key] for key in ("frames", "maps", "damaged", "left_out", "pictures")}
    assert shown == {"frames": 3, "maps": 3, "damaged": 1, "left_out": 1, "pictures": "single"}
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a-9.png", "a-10.png", "b-17.png"]

    done = salstream("run", "in", "--pictures", "video", cwd=tmp_path)
    for words in ("3 frames in (pictures of a video)", "1 damaged pictures", "1 left out"):
        assert words in done.stdout

    for path in (tmp_path / "in").glob("*.png"):
        path.write_bytes(HALF_A_JPEG)
    done = salstream("run", "in", "--save", "o.mp4", "--maps", "none", cwd=tmp_path)
    assert done.returncode == 1
    assert "4 of 4 pictures" in error_of(done)
    assert not (tmp_path / "o.mp4").exists()
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.slow
def test_runs_over_many_files(tmp_path: Path) -> None:
    write_numbered(tmp_path, [f"p/{number}.png" for number in range(3)])
    write_numbered(tmp_path, ["v/poster.jpg"])
    for name in ("1.mp4", "2.mp4"):
        numbered_clip(tmp_path / "v" / name, 3)
    names = [f"p/{number}.png" for number in range(3)]
    done = salstream("run", *names, "--maps", "o1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] == "video"
    assert len(list((tmp_path / "o1").iterdir())) == 3
    done = salstream("run", "v", "--maps", "o2", cwd=tmp_path)
    assert done.returncode == 2
    assert "1.mp4, 2.mp4" in error_of(done)
    assert not (tmp_path / "o2").exists()
    done = salstream("run", "v/1.mp4", "--pictures", "single", cwd=tmp_path)
    assert done.returncode == 2
    assert "no set of pictures" in error_of(done)
    (tmp_path / "v/1.mp4").rename(tmp_path / "-1.mp4")
    done = salstream("run", "-1.mp4", cwd=tmp_path)
    assert done.returncode == 2
    assert "./-1.mp4" in error_of(done)

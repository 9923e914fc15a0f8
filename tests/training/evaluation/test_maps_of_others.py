"""Maps that another model made: paired as a dataset's own are, never with another recording."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

import trees
from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.training.data.prepare import Options, prepare_dataset
from salstream.training.data.recordings import gaussian_density
from salstream.training.evaluation.entrants import Maps, read_saliency
from salstream.training.evaluation.evaluate import Result as Scored
from salstream.training.evaluation.evaluate import evaluate
from salstream.training.evaluation.scenes import Scenes, open_scenes


def saliency(number: int) -> NDArray[np.float32]:
    """Return a map of the frame that carries this number; its truth, but for rounding."""
    points = np.array([trees.place(number)])
    return gaussian_density(points, trees.SIZE, trees.SIZE, trees.SIGMA)


def grey(path: Path, number: int) -> None:
    trees.write(path, np.round(255 * saliency(number)))


def array(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, saliency(number)[None] * 3 + 1)


def colour(path: Path, number: int) -> None:
    """Grey in three channels, of another size, as many programs write it."""
    big = cv2.resize(saliency(number), (400, 300))
    trees.write(path, cv2.merge([np.round(255 * big)] * 3))


def deep(path: Path, number: int) -> None:
    trees.write(path, np.round(65535 * saliency(number)).astype(np.uint16))


def score(folder: Path, scenes: Scenes) -> tuple[Scored, list[str]]:
    evaluation = evaluate(scenes, "all", [Maps("other", folder, scenes.scored)])
    return evaluation.results[0], [note for note in evaluation.notes if note.startswith("other")]


def videos(tmp_path: Path) -> Scenes:
    trees.dhf1k_unisal(tmp_path / "raw")
    return open_scenes("dhf1k", tmp_path / "raw", "all")


def pictures(tmp_path: Path) -> Scenes:
    trees.osie(tmp_path / "raw")
    return open_scenes("osie", tmp_path / "raw", "all")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(load_commands(), ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize("first", [0, 1, 40])
@pytest.mark.parametrize(
    ("draw", "pattern"),
    [
        (grey, "{:04d}.png"),
        (array, "map_{:d}.npy"),
        (colour, "{:05d}.jpg"),
        (deep, "eye_{:06d}_96x128.png"),
    ],
)
def test_maps_of_every_kind_are_in_line(
    first: int, draw: Callable[[Path, int], None], pattern: str, tmp_path: Path
) -> None:
    scenes = videos(tmp_path)
    for name in ("0001", "601"):  # numbers, however they are written
        trees.series(draw, tmp_path / "other" / name, pattern, range(6), first)
    result, notes = score(tmp_path / "other", scenes)
    assert notes == []
    assert [scene.frames for scene in result.scenes] == [[*range(6)]] * 2
    assert result.per_frame()[1, 0] > 0.99  # CC


def test_a_moved_map_scores_as_an_equal_gaussian_does(tmp_path: Path) -> None:
    scenes = videos(tmp_path)
    for name in ("0001", "0601"):
        for number in range(6):
            moved = np.roll(np.round(255 * saliency(number)), 3, 1)
            trees.write(tmp_path / f"other/{name}/{number}.png", moved)
    result, _ = score(tmp_path / "other", scenes)
    sigma = trees.SIGMA * trees.SIZE[0]
    assert result.per_frame()[1, 0] == pytest.approx(np.exp(-9 / (4 * sigma**2)), abs=0.02)


@pytest.mark.parametrize("form", ["1001.jpg.png", "1001.png", "1001.npy"])
def test_images_have_one_map_each(form: str, tmp_path: Path) -> None:
    scenes = pictures(tmp_path)
    for number in range(5):
        draw = array if form.endswith("npy") else grey
        draw(tmp_path / "other" / form.replace("1001", str(1001 + number)), number)
    result, notes = score(tmp_path / "other", scenes)
    assert notes == []
    assert result.per_video()[1, 0] > 0.98


def test_maps_below_splits_and_in_another_unicode_form(tmp_path: Path) -> None:
    trees.salicon(tmp_path / "raw")
    for path in (tmp_path / "raw").rglob("COCO_val*"):
        path.rename(path.with_name(f"é{path.suffix}"))
    scenes = open_scenes("salicon", tmp_path / "raw", "val")
    name = unicodedata.normalize("NFD", "é")
    trees.write(tmp_path / f"other/val/{name}.png", np.round(255 * saliency(2)))
    result, notes = score(tmp_path / "other", scenes)
    assert (notes, len(result.scenes)) == ([], 1)
    assert result.per_video()[1, 0] > 0.9


def test_videos_in_files_and_packed_are_scored_alike(tmp_path: Path) -> None:
    trees.remega(tmp_path / "raw", videos=2)
    prepare_dataset("remega", tmp_path / "raw", tmp_path / "packed", Options(size=(48, 64)))
    for name in ("a", "b"):
        trees.series(grey, tmp_path / "other" / name / "maps", "{:06d}.png", range(6), 0)
    values = [
        score(tmp_path / "other", open_scenes("remega", tmp_path / kind, "all"))[0].per_frame()
        for kind in ("raw", "packed")
    ]
    assert values[0] == pytest.approx(values[1], nan_ok=True)
    assert values[0][1, 0] > 0.99


def test_missing_maps_are_named_and_counted(tmp_path: Path) -> None:
    scenes = videos(tmp_path)
    trees.series(grey, tmp_path / "other/0601", "{}.png", range(6), 1)
    for number in (3, 5):
        (tmp_path / f"other/0601/{number}.png").unlink()
    result, notes = score(tmp_path / "other", scenes)
    assert [scene.frames for scene in result.scenes] == [[], [0, 1, 3, 5]]
    said = "2 recordings have frames without a map, which were not scored: "
    which = "0001 (6 of 6, from 0: 0, 1, 2, 3, 4, …), 0601 (2 of 6, from 0: 2, 4)"
    assert notes == [f"other: {said}{which}"]
    done = run(
        tmp_path / "other", "--data", f"dhf1k={tmp_path / 'raw'}", "--split", "all", "--json", "-"
    )
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)
    assert f"other: {said}{which}" in numbers["notes"]
    assert [r["frames"] for r in numbers["entrants"][0]["recordings"]] == [0, 4]


def test_missing_maps_of_images_are_named(tmp_path: Path) -> None:
    scenes = pictures(tmp_path)
    for number in (0, 1, 3, 4):
        grey(tmp_path / f"other/{1001 + number}.png", number)
    result, notes = score(tmp_path / "other", scenes)
    assert sum(len(scene.frames) for scene in result.scenes) == 4
    assert notes == [
        "other: 1 recordings have frames without a map, which were not scored: 1003.jpg"
    ]


def test_numbers_that_leave_it_open_are_told(tmp_path: Path) -> None:
    scenes = videos(tmp_path)
    for name in ("0001", "0601"):
        trees.series(grey, tmp_path / "other" / name, "{}.png", range(5), 0)
    _, notes = score(tmp_path / "other", scenes)
    assert any("leave open which frames" in note for note in notes)
    assert any("0601 (1 of 6, from 0: 5)" in note for note in notes)


def test_maps_are_never_those_of_another_recording(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        trees.image(tmp_path / "raw/images" / name, 0)
    rows = [(name, 1, 50, 50) for name in ("a.png", "a.jpg", "b.png")]
    trees.table(tmp_path / "raw/fixations.csv", ("image", "subject", "x", "y"), rows)
    scenes = open_scenes("osie", tmp_path / "raw", "all")
    grey(tmp_path / "other/a.bmp", 0)  # of a.png or a.jpg?
    grey(tmp_path / "other/b.npy.png", 0)
    with pytest.raises(UsageError, match="holds no maps of these recordings"):
        Maps("other", tmp_path / "other", scenes.scored)
    grey(tmp_path / "other/a.jpg", 0)
    grey(tmp_path / "other/b.jpg", 0)
    result, notes = score(tmp_path / "other", scenes)
    assert [s.scene for s in result.scenes if s.frames] == ["a.jpg", "b.png"]
    assert "a.png" in str(notes)
    array(tmp_path / "other/b.npy", 0)
    with pytest.raises(SalstreamError, match=r"b\.png has two maps"):
        Maps("other", tmp_path / "other", scenes.scored)


BAD: dict[str, tuple[str, Any, str]] = {
    "drawn": ("x.png", np.dstack([np.eye(9) * 255, np.zeros((9, 9)), np.zeros((9, 9))]), "colour"),
    "not finite": ("x.npy", np.array([[1.0, np.nan]]), "not finite"),
    "too large": ("x.npy", np.array([[1.0, 1e300]]), "not finite"),
    "logarithms": ("x.npy", np.full((9, 9), -2.0), "negative values"),
    "a vector": ("x.npy", np.ones(9), "is no map"),
    "words": ("x.npy", np.array([["a", "b"], ["c", "d"]]), "is no map"),
    "complex": ("x.npy", np.ones((9, 9), complex), "is no map"),
    "empty": ("x.npy", np.ones((0, 9)), "is no map"),
    "objects": ("x.npy", np.array([[None]], object), "damaged, or not a map"),
    "text": ("x.npy", b"hello", "damaged, or not a map"),
    "nothing": ("x.npy", b"", "damaged, or not a map"),
    "no picture": ("x.png", b"hello", "cannot be decoded"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_map_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    name, content, said = BAD[kind]
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        trees.write(path, content)
    with pytest.raises(SalstreamError, match=rf"x\.(npy|png).*{said}") as error:
        read_saliency(path)
    assert "\n" not in str(error.value)


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    videos(tmp_path)
    (tmp_path / "graphs").mkdir()
    done = run(tmp_path / "graphs", "--data", f"dhf1k={tmp_path / 'raw'}", "--split", "all")
    assert isinstance(done.exception, UsageError)
    assert "graphs/0001/0001.png or .npy" in str(done.exception)


def test_maps_stand_beside_models_and_baselines(tmp_path: Path) -> None:
    videos(tmp_path)
    for name in ("0001", "0601"):
        trees.series(grey, tmp_path / "other" / name, "{}.png", range(6), 1)
    page, data = tmp_path / "page.html", f"dhf1k={tmp_path / 'raw'}"
    models = (tmp_path / "other", "unisal-dhf1k")
    done = run(*models, "--data", data, "--split", "all", "--threads", "1", "--html", page)
    assert done.exit_code == 0, done.output
    assert done.output.index("other") < done.output.index("unisal") < done.output.index("chance")
    assert "maps in" in page.read_text()

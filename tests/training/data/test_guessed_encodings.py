"""Tables in encodings that cannot be told: what was misread is said, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

import trees
from salstream.runtime.errors import SalstreamError
from salstream.training.data.readers import find_recordings

NAMES = {"cp1251": "собака", "koi8-r": "собака", "cp1250": "źrebię", "cp1253": "σκύλος"}


def remega(root: Path, name: str, encoding: str) -> None:
    trees.remega(root, videos=5, frames=2)
    (root / "videos/a.avi").rename(root / f"videos/{name}.avi")
    table = root / "fixations.csv"
    text = table.read_text().replace("\na,", f"\n{name},")
    table.write_bytes(text.encode(encoding))


@pytest.mark.parametrize("encoding", NAMES)
def test_a_table_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    remega(tmp_path, NAMES[encoding], encoding)
    notes = find_recordings("remega", tmp_path).notes
    assert any("save it as UTF-8" in note and "fixations.csv" in note for note in notes)


@pytest.mark.parametrize(("encoding", "name"), [("shift_jis", "犬ト"), ("gb18030", "狗")])
def test_a_table_in_an_encoding_of_two_bytes(tmp_path: Path, encoding: str, name: str) -> None:
    remega(tmp_path, name, encoding)
    try:
        said = "\n".join(find_recordings("remega", tmp_path).notes)
    except SalstreamError as error:
        said = str(error)
    assert "as UTF-8" in said


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "собака"), ("cp1252", "père")])
def test_what_is_read_right_is_not_doubted(tmp_path: Path, encoding: str, name: str) -> None:
    remega(tmp_path, name, encoding)
    (tmp_path / "videos/b.avi").unlink()  # missing for another reason
    notes = find_recordings("remega", tmp_path).notes
    assert len(notes) == 1
    assert "UTF-8" not in notes[0]


def test_lists_in_another_encoding(tmp_path: Path) -> None:
    trees.ledov(tmp_path, 2, names="aж")
    for path in tmp_path.glob("*List.mat"):
        path.unlink()
    (tmp_path / "Training.txt").write_text("a\n")
    (tmp_path / "Testing.txt").write_bytes("ж\n".encode("cp1251"))
    notes = find_recordings("ledov", tmp_path).notes
    assert any("Testing.txt" in note and "save it as UTF-8" in note for note in notes)


@pytest.mark.parametrize("suffix", [".ts", ".wmv", ".mpeg", ".3gp", ".ogv", ".MTS", ".flv"])
def test_videos_of_every_suffix_that_the_runtime_reads(tmp_path: Path, suffix: str) -> None:
    trees.remega(tmp_path, videos=5, frames=2)
    for path in (tmp_path / "videos").iterdir():
        path.rename(path.with_suffix(suffix))
    found = find_recordings("remega", tmp_path)
    assert [recording.name for recording in found.recordings] == list("abcde")
    assert all(recording.truth for recording in found.recordings)

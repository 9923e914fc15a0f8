"""Fixations in tables, lists in text files, and the recordings that their names belong to.

People save tables from spreadsheets of many countries and systems. What can be told apart is
read; the rest is refused in one sentence.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError
from salstream.runtime.sources.images import IMAGE_SUFFIXES
from salstream.runtime.sources.pictures import VIDEO_SUFFIXES
from salstream.training.data.recordings import composed

_log = logging.getLogger("salstream")

_SEPARATORS: Final = (",", ";", "\t")
_MARKS: Final = (  # UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESS: Final = "cp1252"  # of what is neither UTF nor ASCII
_SPREADSHEETS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls


def read_table(path: Path, key: str, columns: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Read a table with a header, grouped by one of its columns.

    Commas, semicolons or tabs separate its columns; with the last two, numbers may have decimal
    commas. Capitals in the header, spaces around cells and empty lines do not matter.

    Args:
        path: The file.
        key: Column that says which recording a line belongs to.
        columns: Columns of numbers to return, in this order.

    Returns:
        (lines, columns) by the key's value.

    Raises:
        SalstreamError: A column is missing, a value is no number, or the file is no text.
    """
    text = read_text(path)
    declared = re.match(r'"?sep=([,;\t|])"?\n', text)  # Excel's own first line
    separator = declared[1] if declared else _separator(text, {key, *columns})
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    rows: dict[str, list[list[float]]] = {}
    header: list[str] = []
    try:
        for line in reader:
            cells = [cell.strip() for cell in line]
            if not any(cells) or (declared and reader.line_num == 1):
                continue
            if not header:
                header = [cell.casefold() for cell in cells]
                _check_header(path, header, {key, *columns})
                continue
            where = f"{path}, line {reader.line_num}"
            row = dict(zip(header, cells, strict=False))
            if any(cells[len(header) :]) or not {key, *columns} <= set(row):
                raise SalstreamError(
                    f"{where}: expected {len(header)} cells as in the header, got {len(cells)}"
                )
            values = [_number(row[column], separator) for column in columns]
            for column, value in zip(columns, values, strict=True):
                if not math.isfinite(value):
                    raise SalstreamError(f"{where}: expected numbers, got {column} {row[column]!r}")
            rows.setdefault(row[key], []).append(values)
    except csv.Error as error:
        raise SalstreamError(f"{path}, line {reader.line_num}: {error}") from error
    if not header:
        raise SalstreamError(
            f"{path} is empty: expected a header with {', '.join((key, *columns))}"
        )
    return {name: np.array(values) for name, values in rows.items()}


def read_text(path: Path) -> str:
    """Read text in the encodings that editors and spreadsheets write, with plain line ends.

    UTF-8, UTF-16 and UTF-32, with or without a byte order mark; else Windows-1252, with a
    warning.

    Raises:
        SalstreamError: It cannot be read, or is no text.
    """
    text, encoding = _decoded(path)
    if encoding == _GUESS:
        _log.warning("%s is not UTF-8; it is read as Windows-1252", path)
    return re.sub(r"\r\n?", "\n", text)


def misread(paths: Iterable[Path], missing: Iterable[str]) -> list[str]:
    """Return notes on texts whose encoding was guessed, likely wrongly.

    Args:
        paths: Tables or lists.
        missing: Names in them that belong to nothing.
    """
    name = next((name for name in sorted(missing) if not name.isascii()), None)
    if name is None:
        return []
    return [
        f"{path} is likely in another encoding than Windows-1252, as which it is read: its name "
        f"{name!r} belongs to no file; save it as UTF-8"
        for path in paths
        if path.is_file() and _decoded(path)[1] == _GUESS
    ]


def _decoded(path: Path) -> tuple[str, str]:
    """Return a text and its encoding.

    Raises:
        SalstreamError: It cannot be read, or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SalstreamError(f"{path} cannot be read: {error.strerror}") from error
    if content.startswith(_SPREADSHEETS):
        raise SalstreamError(f"{path} is a spreadsheet file, not text; export it as CSV")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and b"\0" in content:  # every other byte of Latin letters is zero
        even, odd = content[::2].count(0), content[1::2].count(0)
        encoding = "utf-16-le" if odd > even else "utf-16-be"
    for candidate in [encoding] if encoding else ["utf-8", _GUESS]:
        try:
            return content.decode(candidate), candidate
        except UnicodeDecodeError:
            continue
    raise SalstreamError(f"{path} cannot be read as text; save it again as UTF-8")


def cells_in(line: str) -> list[str]:
    """Return the words of a list's line, which commas, semicolons or blanks separate."""
    return [cell for cell in (part.strip("\"'") for part in re.split(r"[,;\s]+", line)) if cell]


def belonging(
    rows: Mapping[str, NDArray[np.float64]], paths: Collection[Path]
) -> tuple[dict[Path, NDArray[np.float64]], list[str]]:
    """Return the rows of each file by the names in a table, and the names without a file.

    A name may have the file's suffix or not, in capitals or not, and folders before it; its
    Unicode form does not matter. Files that were converted to another format since are found
    too, where no other file has that stem.
    """
    exact = {_file_name(path.name): path for path in paths}
    stems = Counter(composed(path.stem) for path in paths)
    alone = {composed(path.stem): path for path in paths if stems[composed(path.stem)] == 1}
    found: dict[Path, list[NDArray[np.float64]]] = {}
    converted, missing = {}, []
    for name, values in rows.items():
        plain = _file_name(name)
        path = exact.get(plain) or alone.get(plain)
        if path is None and Path(plain).suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
            converted[name] = alone.get(Path(plain).stem)
        elif path is None:
            missing.append(name)
        else:
            found.setdefault(path, []).append(values)
    for name, path in converted.items():
        if path is None or path in found:
            missing.append(name)
        else:
            found[path] = [rows[name]]
    return {path: np.concatenate(values) for path, values in found.items()}, sorted(missing)


def timed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn start_ms, duration_ms, subject, y, x into the same with seconds."""
    return rows / (1000, 1000, 1, 1, 1)


def _separator(text: str, wanted: Collection[str]) -> str:
    """Return the separator by which the header has most of the columns."""
    header = next((line for line in text.split("\n") if line.strip()), "")

    def known(separator: str) -> int:
        cells = next(csv.reader([header], delimiter=separator), [])
        return len({cell.strip().casefold() for cell in cells} & set(wanted))

    return max(_SEPARATORS, key=known)  # the first one of equals


def _check_header(path: Path, header: Sequence[str], wanted: Collection[str]) -> None:
    missing = sorted(set(wanted) - set(header))
    if missing:
        raise SalstreamError(
            f"{path} lacks the column {missing[0]}; separated by commas, semicolons or tabs, its "
            f"header is {', '.join(map(repr, header[:10]))}"
        )
    twice = [column for column in sorted(wanted) if header.count(column) > 1]
    if twice:
        raise SalstreamError(f"{path} has the column {twice[0]} twice; remove one")


def _number(cell: str, separator: str) -> float:
    if separator != "," and cell.count(",") == 1:
        cell = cell.replace(",", ".")
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _file_name(name: str) -> str:
    """Return a file's name, composed, without folders, its suffix in small letters."""
    path = Path(composed(re.split(r"[\\/]", name)[-1]))
    return path.stem + path.suffix.lower()

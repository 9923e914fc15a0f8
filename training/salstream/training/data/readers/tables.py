"""Fixations in CSV files, and the recordings that they belong to."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError


def read_table(path: Path, key: str, columns: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Read a CSV file with a header, grouped by one of its columns.

    Args:
        path: The file.
        key: Column that says which recording a line belongs to.
        columns: Columns of numbers to return, in this order.

    Returns:
        (lines, columns) by the key's value.

    Raises:
        SalstreamError: A column is missing, or a value is no number.
    """
    rows: dict[str, list[list[float]]] = {}
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = {key, *columns} - set(reader.fieldnames or ())
            if missing:
                raise SalstreamError(f"{path} lacks the column {sorted(missing)[0]}")
            for line, row in enumerate(reader, 2):
                try:
                    values = [float(row[column]) for column in columns]
                except (TypeError, ValueError):
                    values = [math.nan]
                if not all(map(math.isfinite, values)):
                    raise SalstreamError(f"{path}, line {line}: expected numbers")
                rows.setdefault(row[key], []).append(values)
    except (OSError, UnicodeDecodeError) as error:
        raise SalstreamError(f"{path} cannot be read: {error}") from error
    return {name: np.array(values) for name, values in rows.items()}


def timed(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn start_ms, duration_ms, subject, y, x into the same with seconds."""
    return rows / (1000, 1000, 1, 1, 1)

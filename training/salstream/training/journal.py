"""What a run writes down: CSV tables, TensorBoard, pictures."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from salstream.runtime.errors import SalstreamError
from salstream.training.validation import METRICS

TRAINING: Final = (
    "iteration", "source", "loss", "saliency", "domain", "learning_rate", "reversal",
    "gradient_norm", "clips_per_second",
)  # fmt: skip
VALIDATION: Final = ("iteration", *METRICS)

Row = Mapping[str, float | int | str]


class Journal:
    """The records of a run, which go on where a resumed run goes on.

    Args:
        run: Its folder.
        iteration: Iterations that are done: what was written of later ones is forgotten.

    Raises:
        SalstreamError: The folder cannot be written.
    """

    def __init__(self, run: Path, iteration: int) -> None:
        try:
            self._training = _Table(run / "training.csv", TRAINING, iteration)
            self._validation = _Table(run / "validation.csv", VALIDATION, iteration)
            (run / "tensorboard").mkdir(exist_ok=True)
            # The writer below SummaryWriter: that one writes from a thread, whose errors (a full
            # disk) nobody would hear of.
            self._board = EventsWriter(str(run / "tensorboard" / "events"), f".{os.getpid()}")
            self._board.write_event(
                Event(
                    wall_time=time.time(),
                    step=iteration + 1,
                    session_log=SessionLog(status=SessionLog.START),
                )
            )
        except OSError as error:
            raise SalstreamError(_cannot(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in (self._training, self._validation, self._board):
            with suppress(OSError):
                part.close()

    def training(self, row: Row) -> None:
        """Write down an iteration.

        Raises:
            SalstreamError: The disk is full.
        """
        self._record(self._training, "training", row)

    def validation(self, row: Row, pictures: Path) -> None:
        """Write down a validation, and show its pictures on TensorBoard.

        Raises:
            SalstreamError: The disk is full.
        """
        self._record(self._validation, "validation", row, sorted(pictures.glob("*.png")))

    def _record(self, table: _Table, group: str, row: Row, pictures: Sequence[Path] = ()) -> None:
        values = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in row.items()
            if name != "iteration" and not isinstance(value, str)
        ]
        try:
            table.write(row)
            for path in pictures:
                picture = Summary.Image(encoded_image_string=path.read_bytes(), colorspace=3)
                values.append(Summary.Value(tag=f"maps/{path.stem}", image=picture))
            step = int(row["iteration"])
            self._board.write_event(
                Event(wall_time=time.time(), step=step, summary=Summary(value=values))
            )
            if group == "validation":
                self._board.flush()
        except OSError as error:
            raise SalstreamError(_cannot(error)) from error


def _cannot(error: OSError) -> str:
    return f"cannot write the run's records: {error.strerror}; make room and go on with --resume"


class _Table:
    """A CSV file with one row per iteration, whole after every row."""

    def __init__(self, path: Path, columns: tuple[str, ...], iteration: int) -> None:
        rows = [row for row in read(path) if int(row["iteration"]) <= iteration]
        part = path.with_name(f"{path.name}.part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(path)
        self._file: TextIO = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, columns)

    def write(self, row: Row) -> None:
        self._writer.writerow(
            {name: repr(v) if isinstance(v, float) else v for name, v in row.items()}
        )
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no such file.

    A row that was cut short when the run was killed is left out.
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]

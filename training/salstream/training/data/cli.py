"""The command `salstream prepare`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from salstream.runtime.errors import UsageError

if TYPE_CHECKING:
    from salstream.training.data.prepare import Check, OnError, Report

_DATASETS = "dhf1k, hollywood2, ucfsports, ledov, diem, salicon, osie, remega or folder"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("prepare", epilog="Example: salstream prepare dhf1k data/DHF1K -o packed/dhf1k")(
        prepare
    )


def prepare(
    dataset: Annotated[str, typer.Argument(help=f"Which one: {_DATASETS}.")],
    path: Annotated[Path, typer.Argument(help="Folder that it was unpacked to.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the packed dataset.")
    ] = None,
    size: Annotated[
        str, typer.Option(help="HEIGHTxWIDTH of frames and maps: the network's size.")
    ] = "128x192",
    fit: Annotated[
        str, typer.Option(help="stretch, or letterbox to keep the proportions (ESAN).")
    ] = "stretch",
    sigma: Annotated[
        float,
        typer.Option(help="Of density maps made from fixations, as a share of the height."),
    ] = 0.035,
    on_error: Annotated[
        str, typer.Option(help="A damaged recording: fail, or skip it and go on.")
    ] = "fail",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Recordings decoded at a time.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is there and what is missing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Decode an eye-tracking dataset once, into packed frames and density maps.

    What is finished is not done again, so the same command goes on after an interruption.
    """
    from salstream.runtime.cli import parse_size
    from salstream.training.data.prepare import Options, check_dataset, prepare_dataset

    if check:
        checked = check_dataset(dataset, path)
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(checked)))
        else:
            _print_check(dataset, checked)
        return
    if output is None:
        raise UsageError("say where to: salstream prepare DATASET PATH -o FOLDER")
    options = Options(
        size=parse_size(size),
        fit=fit,
        sigma=sigma,
        on_error=cast("OnError", on_error),
        workers=workers or min(8, os.cpu_count() or 1),
    )

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(dataset, total=None)
        report = prepare_dataset(
            dataset,
            path,
            output,
            options,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report)))
    else:
        _print_report(output, report)


def _print_report(output: Path, report: Report) -> None:
    typer.echo(
        f"{output}: {_count(report.recordings, 'recording')}, {report.packed} of them packed now "
        f"({_count(report.frames, 'frame')})"
    )
    said = {
        "short": "shorter than 16 frames: ",
        "unlabelled": "without annotation: ",
        "nobody": "labelled frames at which nobody fixated (never a target): ",
        "outside": "fixations outside of their frame, left out: ",
        "damaged": "damaged frames, left out: ",
    }
    for kind, text in said.items():
        if report.counts[kind]:
            typer.echo(f"  {text}{report.counts[kind]}")
    for reason in report.left_out.values():
        typer.echo(f"  left out: {reason}")
    for note in report.notes:
        typer.echo(f"- {note}")


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _print_check(dataset: str, check: Check) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        dataset, "expected", "found", "labelled", "frames", "shorter than 16", title_justify="left"
    )
    for split, row in check.rows.items():
        table.add_row(split, *("–" if value is None else str(value) for value in row.values()))
    console = Console(soft_wrap=True)
    console.print(table)
    typer.echo(f"Splits: {check.splits}")
    for problem in check.problems:
        typer.echo(f"- {problem}")

"""The command `salstream train`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from salstream.runtime.errors import SalstreamError, UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("train")(train)


def train(
    recipe: Annotated[str, typer.Argument(help="Its name; a wrong one lists them all.")],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="NAME=FOLDER, packed by `salstream prepare`; repeat it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; default: runs/RECIPE.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe; repeat it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that the folder holds.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe's settings and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Train a network from packed data.

    Example: salstream train hd2s --data source=packed/dhf1k -o runs/hd2s
    """
    try:
        import lightning_fabric  # noqa: F401
        import tensorboardX  # noqa: F401

        from salstream.training import recipes
    except ImportError as error:
        raise SalstreamError(
            f"training needs {error.name}; install it with: pip install 'salstream[training]'"
        ) from error

    chosen = recipes.get(recipe).with_settings(settings or [])
    if show:
        for key, value in chosen.settings().items():
            typer.echo(f"{key} = {_shown(value)}")
        return
    folders: dict[str, Path] = {}
    for entry in data or []:
        name, equals, folder = entry.partition("=")
        if not equals:
            raise UsageError(f"expected --data NAME=FOLDER, got {entry!r}")
        folders[name] = Path(folder)
    _train(chosen, folders, output or Path("runs") / recipe, resume, as_json)


def _train(chosen: Any, data: dict[str, Path], run: Path, resume: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from salstream.training import trainer
    from salstream.training.states import latest

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining(),
        TextColumn("{task.fields[said]}"),
    )  # fmt: skip
    # torchrun's other processes keep quiet.
    first = os.environ.get("RANK", "0") == "0"
    shown = first and console.is_terminal
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task(chosen.model, total=chosen.iterations or None, said="")

        def listen(iteration: int, row: dict[str, Any], total: int) -> None:
            said = f"loss {row['loss']:.4f}"
            bar.update(task, completed=iteration, total=total, said=said)
            scores = {k: v for k, v in row.items() if k.startswith("validation ")}
            if scores and first:
                told = ", ".join(f"{k.split()[1].upper()} {v:.4f}" for k, v in scores.items())
                console.print(f"iteration {iteration}: {said}; validation: {told}")

        try:
            outcome = trainer.train(chosen, data, run, resume=resume, listener=listen)
        except KeyboardInterrupt:
            saved = latest(run)
            kept = (
                f"iteration {int(saved.name)} is saved, go on with --resume"
                if saved
                else ("nothing was saved yet; start anew in another folder")
            )
            typer.echo(f"Interrupted: {kept}.", err=True)
            raise
    if not outcome.writes:
        return
    progress = outcome.progress
    if as_json:
        facts = {
            "run": str(run),
            "iterations": progress.iteration,
            "best": str(outcome.best) if outcome.best else None,
            "best_iteration": progress.best_iteration,
            chosen.validation.select_by: progress.best if outcome.best else None,
        }
        typer.echo(json.dumps(facts, indent=2))
    elif outcome.best:
        by = chosen.validation.select_by.upper()
        typer.echo(
            f"{outcome.best}: {by} {progress.best:.4f} in validation, "
            f"iteration {progress.best_iteration} of {progress.iteration}"
        )
    else:
        typer.echo(f"{outcome.last}: iteration {progress.iteration}, not validated")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ("x" if value and isinstance(value[0], int) else ",").join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)

"""The commands of the training part: `salstream weights list` and `salstream weights pull`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

_weights = typer.Typer(help="Published checkpoints: what there is, and fetching it.")
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this part to the application."""
    app.add_typer(_weights, name="weights", no_args_is_help=True)


@_weights.command("list", epilog="Example: salstream weights list")
def list_weights(as_json: _AsJson = False) -> None:
    """Show the published checkpoints, their licences, and where they are if pulled."""
    from salstream.training.weights import REGISTRY, find

    found = [(entry, find(entry.name)) for entry in REGISTRY.values()]
    if as_json:
        rows = [
            {
                "name": entry.name,
                "model": entry.model,
                "license": entry.license,
                "size_bytes": entry.size_bytes,
                "sha256": entry.sha256,
                "citation": entry.citation,
                "path": None if path is None else str(path),
            }
            for entry, path in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Name", "Model", "Licence", "Size")
    table.add_column("Path", overflow="fold")
    for entry, path in found:
        table.add_row(
            entry.name,
            entry.model,
            entry.license,
            f"{entry.size_bytes / 1e6:.1f} MB",
            Text("-" if path is None else str(path)),  # a path may look like rich's markup
        )
    Console().print(table)


@_weights.command("pull", epilog="Example: salstream weights pull unisal")
def pull_weights(
    name: Annotated[str, typer.Argument(help="A name that `salstream weights list` shows.")],
    as_json: _AsJson = False,
) -> None:
    """Fetch a published checkpoint into the cache, if it is not there, and print its path."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from salstream.training.weights import get, pull

    entry = get(name)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(entry.name, total=entry.size_bytes)
        path = pull(
            name, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    typer.echo(entry.license_note, err=True)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "name": entry.name,
                    "path": str(path),
                    "size_bytes": entry.size_bytes,
                    "sha256": entry.sha256,
                    "license": entry.license,
                    "license_note": entry.license_note,
                },
                indent=2,
            )
        )
    else:
        typer.echo(path)

"""The commands of the training part: `salstream weights list`, `pull`, `inspect`, `import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salstream.runtime.errors import SalstreamError, UsageError

if TYPE_CHECKING:
    from salstream.training.networks import Match

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


@_weights.command("inspect", epilog="Example: salstream weights inspect weights.pth")
def inspect_weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint.")], as_json: _AsJson = False
) -> None:
    """Say what a checkpoint is: network, domains, completeness, sha256, licence."""
    facts = _examine(file)[1]
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        typer.echo(f"{name.replace('_', ' '):24} {text or '–'}")


@_weights.command("import", epilog="Example: salstream weights import hd2s.pth -o hd2s.safetensors")
def import_weights(
    file: Annotated[Path, typer.Argument(help="A published checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
) -> None:
    """Convert a checkpoint to safetensors under the published names, with what is known of it."""
    if output.suffix != ".safetensors":
        raise UsageError(f"cannot write {output}: expected a name that ends in .safetensors")
    found, facts = _examine(file)
    from salstream.training.checkpoints import save_state_dict
    from salstream.training.networks import faults

    if not found.complete:
        raise SalstreamError(
            f"{file} is nearly a checkpoint of {found.network.name}: {faults(found)}"
        )
    metadata = {
        "model": facts["model"],
        "sha256": facts["converted_from_sha256"] or facts["sha256"],
        "license": facts["license"],
    }
    save_state_dict(found.state, output, metadata)
    typer.echo(
        f"{output}: {facts['model']}, {facts['entries']} entries, licence {facts['license']}"
    )


def _examine(file: Path) -> tuple[Match, dict[str, Any]]:
    """Return how a checkpoint fits, and the facts about it."""
    try:
        from salstream.training.checkpoints import load_state_dict, metadata_of, sha256_of
        from salstream.training.networks import faults, match
    except ImportError as error:
        raise SalstreamError(
            f"looking into a checkpoint needs {error.name}; install it with: "
            "pip install 'salstream[training]'"
        ) from error
    from salstream.training.weights import published_as

    try:
        found = match(load_state_dict(file))
    except SalstreamError as error:
        if type(error) is not SalstreamError or str(file) in str(error):
            raise
        raise SalstreamError(f"{file}: {error}") from error
    # A converted file knows the sha256 of the one that it was made from.
    origin = metadata_of(file).get("sha256") or sha256_of(file)
    published = published_as(origin)
    return found, {
        "model": found.network.name,
        "also_fits": list(found.also),
        "published_as": published.name if published else "",
        "names": found.origin,
        "domains": list(found.network.domains),
        "complete": found.complete,
        "faults": faults(found),
        "entries": len(found.state),
        "parameters": sum(tensor.numel() for tensor in found.state.values()),
        "sha256": sha256_of(file),
        "converted_from_sha256": origin if origin != sha256_of(file) else "",
        "license": published.license if published else "unknown",
        "license_of_the_published": found.network.license,
    }

"""The command `salstream evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salstream.runtime.errors import UsageError

if TYPE_CHECKING:
    from salstream.training.evaluation.entrants import Entrant, Model
    from salstream.training.evaluation.scenes import Scenes

# What needs PyTorch; everything else goes to the runtime.
_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors", ".tar", ".bin")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        "evaluate", epilog="Example: salstream evaluate unisal-dhf1k --data remega=data/remega"
    )(evaluate)


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Bundled names, .onnx graphs, .engine files, checkpoints, or folders of maps."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="NAME=PATH of a dataset, unpacked or prepared; see `prepare`.")
    ],
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "test",
    every: Annotated[
        int, typer.Option(min=1, help="Score every n-th frame; all are streamed.")
    ] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many recordings.")
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Of density maps made from fixations, as a share of the height [0.035].",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Score the baselines too.")
    ] = True,
    domain: Annotated[
        str | None, typer.Option(help="Of a checkpoint; images: salicon, else dhf1k.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="Of a checkpoint, where several would fit.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference library for graphs.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for inference.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers as JSON (-: print them).")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the scores of every frame.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Score models and baselines against where people looked (NSS, CC, SIM, KLD, AUC).

    Each model is streamed over each video as `salstream run` does.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from salstream.runtime.model import bundled_models
    from salstream.training.evaluation import report
    from salstream.training.evaluation.entrants import Maps
    from salstream.training.evaluation.evaluate import evaluate as run
    from salstream.training.evaluation.scenes import open_scenes

    name, found, path = data.partition("=")
    if not found or not name or not path:
        raise UsageError(f"--data wants NAME=PATH, such as remega=data/remega; got {data!r}")
    graphs = [m for m in models if Path(m).suffix.lower() not in _CHECKPOINTS]
    if (domain or network) and len(graphs) == len(models):
        raise UsageError(
            f"--domain and --network are for checkpoints; {graphs[0]} has the one it was made for"
        )
    scenes = open_scenes(name, Path(path), split, limit, sigma)
    static = all(scene.static for scene in scenes.scored)
    opened = [
        Maps(shown, Path(model), scenes.scored)
        if Path(model).is_dir() and model not in bundled_models()
        else _open(model, shown, static, backend, threads, network=network, domain=domain)
        for model, shown in zip(models, _names(models), strict=True)
    ]
    entrants: list[Entrant] = [*opened]
    if baselines:
        entrants += _baselines(scenes)
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
        task = bar.add_task(name, total=len(entrants) * len(scenes.scored), completed=-1)
        evaluation = run(
            scenes,
            split,
            entrants,
            every,
            lambda who, what: bar.update(task, advance=1, description=f"{who}: {what}"),
        )
    if str(json_file) == "-":
        typer.echo(json.dumps(report.as_json(evaluation)))
    else:
        report.print_table(evaluation, Console(soft_wrap=True))
        if json_file:
            report.write_json(evaluation, json_file)
    if csv_file:
        report.write_csv(evaluation, csv_file)
    if html_file:
        report.write_html(evaluation, html_file)


def _names(models: list[str]) -> list[str]:
    """Return what to call each: the file's name, with its folder's where two are the same."""
    names = [Path(model).name or model for model in models]
    if len(set(names)) == len(names):
        return names
    longer = [str(Path(*Path(model).parts[-2:])) for model in models]
    return longer if len(set(longer)) == len(longer) else models


def _open(
    model: str,
    name: str,
    static: bool,
    backend: str | None,
    threads: int | None,
    *,
    network: str | None,
    domain: str | None,
) -> Model:
    from salstream.runtime.model import SaliencyModel
    from salstream.training.evaluation.entrants import Model

    path = Path(model)
    if path.suffix.lower() in _CHECKPOINTS:
        from salstream.training.evaluation.checkpoint import open_checkpoint

        opened = open_checkpoint(path, static=static, network=network, domain=domain)
        return Model(f"{name} (PyTorch)", opened)
    return Model(name, SaliencyModel.open(model, backend=backend, threads=threads))


def _baselines(scenes: Scenes) -> Iterator[Entrant]:
    from salstream.training.evaluation.entrants import CentreBias, Chance, Observers

    names = {scene.name for scene in scenes.scored}
    if any(scene.name not in names or len(scenes.training) > 1 for scene in scenes.training):
        yield CentreBias(scenes.training)
    yield Chance()
    if any(scene.observers for scene in scenes.scored):
        yield Observers(one=False, sigma=scenes.sigma)
        yield Observers(one=True, sigma=scenes.sigma)

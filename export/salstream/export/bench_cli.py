"""The command `salstream bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from salstream.runtime.commands import ManyValues
from salstream.runtime.errors import SalstreamError, UsageError

if TYPE_CHECKING:
    from salstream.export.bench import Artefact, Contender, Frames, PyTorch, Score


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("bench", cls=ManyValues)(bench)


def bench(
    artefacts: Annotated[
        list[str], typer.Argument(help=".onnx or .engine files, or bundled names: one or more.")
    ],
    source: Annotated[
        Path | None, typer.Option(help="A video to take frames from; default: made-up pictures.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="torch: also the network in PyTorch; wants --checkpoint.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="What the artefacts were made from.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Only these libraries, such as openvino:CPU.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="To stream in every round.")] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for inference.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Measure artefacts on every library that is installed, interleaved in one run.

    graph: a map of frames that lie ready. frame to map: from a frame of the source's size to
    the map, one after the other. stream: maps per second of a whole run with its threads.

    Example: salstream bench hd2s.onnx hd2s-int8.onnx --against torch --checkpoint hd2s.pth
    """
    try:
        from salstream.export.bench import Score, compete
    except ImportError as error:
        raise SalstreamError(
            f"measuring needs {error.name}; install it with: pip install 'salstream[cpu,export]'"
        ) from error
    if against not in (None, "torch"):
        raise UsageError(f"cannot measure against {against!r}: expected torch")
    if (against is None) != (checkpoint is None):
        raise UsageError("--against torch and --checkpoint belong together")
    given = _frames(source, frames)
    makers = _makers(artefacts, backend or [], given, source, frames, threads)
    if checkpoint is not None:
        makers = [*_torch_makers(artefacts, checkpoint, given, threads), *makers]
    with Console(stderr=True).status("starting") as status:
        outcomes = list(compete(makers, given, rounds, status.update))
    scores = [outcome for outcome in outcomes if isinstance(outcome, Score)]
    for outcome in outcomes:
        if isinstance(outcome, SalstreamError):
            typer.echo(f"left out: {outcome}", err=True)
    if not scores:
        raise SalstreamError("nothing could be measured; `salstream doctor` says what is missing")
    if checkpoint is not None and not scores[0].contender.library.startswith("torch"):
        raise SalstreamError("PyTorch failed, and the ratios are to PyTorch: see above")
    if as_json:
        content = {
            "source": source.name if source else "made-up pictures",
            "frame_size": list(given[0].image.shape[:2]),
            "rounds": rounds,
            "threads": threads,
            "scores": [score.as_json(scores[0]) for score in scores],
        }
        typer.echo(json.dumps(content))
    else:
        _print(scores)


def _frames(source: Path | None, count: int) -> Frames:
    """Return the first frames of a source, or made-up ones."""
    from salstream.runtime.sources import Frame, open_source

    if source is None:
        import numpy as np

        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (count, 9, 16, 3), dtype=np.uint8)
        images = (image.repeat(80, 0).repeat(80, 1) for image in coarse)
        return [Frame(index, None, image) for index, image in enumerate(images)]
    with open_source(source) as opened:
        return [frame for frame, _ in zip(opened, range(count), strict=False)]


def _makers(
    artefacts: list[str],
    wanted: list[str],
    given: Frames,
    source: Path | None,
    limit: int,
    threads: int | None,
) -> list[tuple[str, Callable[[], Contender]]]:
    """Return what opens every artefact in every library."""
    from salstream.export.bench import Artefact, libraries
    from salstream.runtime.model import SaliencyModel, find_model

    def make(path: Path, library: str) -> Artefact:
        model = SaliencyModel.open(path, backend=library, threads=threads)
        return Artefact(model, given, source, limit)

    paths = [find_model(artefact) for artefact in artefacts]
    return [
        (f"{path} on {library}", partial(make, path, library))
        for path in paths
        for library in libraries(path, wanted)
    ]


def _torch_makers(
    artefacts: list[str], checkpoint: str, given: Frames, threads: int | None
) -> list[tuple[str, Callable[[], Contender]]]:
    """Return what opens the artefacts' network in PyTorch."""
    import torch

    from salstream.export.bench import PyTorch
    from salstream.export.cli import find_checkpoint
    from salstream.export.records import spec_of
    from salstream.export.verify import deployable_of
    from salstream.runtime.model import find_model

    first, *others = (find_model(artefact) for artefact in artefacts)
    spec = spec_of(first)
    for other in others:
        told = spec_of(other)
        if (told.name, told.size, told.window) != (spec.name, spec.size, spec.window):
            raise UsageError(
                f"{other} is another network than {first}, or of another size: measure them "
                "against PyTorch one by one"
            )
    if threads is not None:
        torch.set_num_threads(threads)
    deployable = deployable_of(first, spec, find_checkpoint(checkpoint))
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def make(autocast: bool) -> PyTorch:
        return PyTorch(deployable, given, device, autocast)

    makers: list[tuple[str, Callable[[], Contender]]] = [("PyTorch", partial(make, False))]
    if device == "cuda":
        makers.append(("PyTorch, autocast", partial(make, True)))
    return makers


def _print(scores: list[Score]) -> None:
    table = Table(box=None)
    for title in ("artefact", "library", "precision"):
        table.add_column(title, overflow="fold")
    for title in ("graph p50", "p95", "p99 ms", "frame to map p50", "p95", "p99 ms"):
        table.add_column(title, justify="right")
    table.add_column("stream fps", justify="right")
    table.add_column("MB", justify="right")
    table.add_column("× first", justify="right")
    for score in scores:
        figures: dict[str, Any] = score.as_json(scores[0])
        times = [*figures["graph_ms"].values(), *figures["frame_to_map_ms"].values()]
        fps = figures["stream_fps"]
        table.add_row(
            *(figures[name] for name in ("artefact", "library", "precision")),
            *(f"{value:.2f}" for value in times),
            "–" if fps is None else f"{fps:.1f}",
            f"{figures['memory_mb']:.0f}",
            f"{figures['ratio']:.2f}",
        )
    console = Console()
    Console(width=max(150, console.width)).print(table)

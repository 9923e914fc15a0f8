"""The command `salstream calibrate`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from salstream.runtime.commands import ManyValues
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.files import write_bytes

if TYPE_CHECKING:
    from salstream.calibration.budget import Fit
    from salstream.calibration.graphs import Graph, Layer
    from salstream.calibration.windows import Progress, Windows

_SHOWN_LAYERS = 20
_POOR_CC = 0.98  # what `verify` asks for


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate", cls=ManyValues)(calibrate)


def calibrate(
    graph: Annotated[str, typer.Argument(help="A float32 .onnx file, or a bundled name.")],
    clips: Annotated[
        list[str], typer.Option(help="Videos, or folders of videos, after the graph.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The int8 .onnx file.")],
    windows: Annotated[int, typer.Option(min=1, help="How many to draw from the clips.")] = 128,
    method: Annotated[
        str, typer.Option(help="Of choosing the ranges: minmax, entropy or percentile.")
    ] = "minmax",
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Largest fall of CC against the float32 graph; layers stay in float for it.",
        ),
    ] = None,
    check: Annotated[
        int, typer.Option(min=1, help="Frames of the clips on which the fall is measured.")
    ] = 240,
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder to keep the windows in; one that is there is used again."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of windows.")] = 0,
) -> None:
    """Quantize a graph to int8, with ranges measured on real videos.

    Example: salstream calibrate unisal-dhf1k --clips videos/ -o unisal-int8.onnx --budget 0.02
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise SalstreamError(
            f"calibrating needs {error.name}; install it with: pip install 'salstream[cpu,export]'"
        ) from error
    from salstream.calibration.budget import BudgetError, cut_segments, fit
    from salstream.calibration.graphs import Graph
    from salstream.calibration.ranges import METHODS, measure
    from salstream.calibration.windows import draw, find_clips
    from salstream.runtime.model import find_model

    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"cannot write {output}: expected a name ending in .onnx")
    path = find_model(graph)
    if output.exists() and output.samefile(path):
        raise UsageError(f"{output} is the graph itself, and would be written over; choose another")
    loaded = Graph(path)
    videos = find_clips(clips)
    with _status() as say, _temporary() as temporary:
        folder = keep or temporary / "windows"
        drawn = draw(loaded, videos, windows, folder, seed=seed, progress=say)
        done = iter(range(1, len(drawn) + 1))
        largest = measure(
            loaded, drawn, method, lambda: say(f"measuring ranges: {next(done)} of {len(drawn)}")
        )
        segments = cut_segments(loaded, videos, check)
        try:
            result = fit(loaded, largest, drawn, segments, budget, say)
        except BudgetError as error:
            _print_ranking(error.ranking, kept=[])
            raise
    spec = replace(
        loaded.spec,
        precision="int8",
        verification={},
        calibration=_story(drawn, method, seed, budget, result),
    )
    quantized = loaded.quantized(largest, result.quantized, spec)
    onnx.checker.check_model(quantized, full_check=True)
    write_bytes(output, quantized.SerializeToString(deterministic=True))
    if result.ranking:
        _print_ranking(result.ranking, result.kept)
    elif budget is not None:
        typer.echo("The budget holds with every layer in int8.")
    _print_result(output, loaded, drawn, result)


def _story(
    windows: Windows, method: str, seed: int, budget: float | None, result: Fit
) -> dict[str, object]:
    """Return what the graph's metadata say of its calibration."""
    return {
        "windows": len(windows),
        "clips": sorted({origin.source for origin in windows.origins}),
        "method": method,
        "seed": seed,
        "budget": budget,
        "mean_cc": round(result.mean_cc, 6),
        "worst_cc": round(result.worst_cc, 6),
        "frames": result.frames,
        "float_layers": [layer.name for layer in result.kept],
    }


def _print_ranking(ranking: list[tuple[Layer, float]], kept: list[Layer]) -> None:
    names = {layer.name for layer in kept}
    table = Table("layer", "CC falls by", "share of work", "stays in", box=None)
    total = sum(layer.macs for layer, _ in ranking)
    shown = max(_SHOWN_LAYERS, len(kept))
    for layer, fall in ranking[:shown]:
        where = "float" if layer.name in names else "int8"
        table.add_row(layer.name, f"{fall:.5f}", f"{layer.macs / total:.1%}", where)
    console = Console()
    console.print("Each layer in int8 alone, the most sensitive first:")
    console.print(table)
    if len(ranking) > shown:
        console.print(f"… and {len(ranking) - shown} less sensitive ones, all in int8")


def _print_result(output: Path, graph: Graph, windows: Windows, result: Fit) -> None:
    share = sum(layer.macs for layer in result.quantized) / graph.macs
    clips = len({origin.source for origin in windows.origins})
    typer.echo(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, {len(result.quantized)} of "
        f"{len(graph.layers)} convolutions in int8 ({share:.1%} of the multiply-accumulates), "
        f"ranges from {_count(len(windows), 'window')} of {_count(clips, 'clip')}; "
        f"mean CC {result.mean_cc:.4f} (worst frame {result.worst_cc:.4f}) with the float32 graph "
        f"on {result.frames} frames of the same clips"
    )
    if result.mean_cc < _POOR_CC:
        typer.echo(
            f"Warning: a mean CC of {result.mean_cc:.3f} is poor; --budget keeps the layers that "
            "suffer most in float",
            err=True,
        )


@contextmanager
def _temporary() -> Iterator[Path]:
    """Give a folder for windows and graphs on trial; a full disk is one sentence."""
    try:
        with tempfile.TemporaryDirectory(prefix="salstream-") as folder:
            yield Path(folder)
    except OSError as error:
        raise SalstreamError(
            f"cannot write temporary files in {tempfile.gettempdir()}: {error.strerror}; "
            "TMPDIR names another folder"
        ) from error


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@contextmanager
def _status() -> Iterator[Progress]:
    """Show what is being done, in one line that changes."""
    console = Console(stderr=True)
    with console.status("starting") as status:
        yield status.update

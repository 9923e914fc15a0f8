"""The command `salstream build`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from salstream.runtime.errors import SalstreamError, UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("build")(build)


def build(
    graph: Annotated[str, typer.Argument(help="A bundled name or an exported .onnx file.")],
    target: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .engine file.")],
    batch: Annotated[
        str,
        typer.Option(
            help="Batches that the engine takes: N, MIN:MAX or MIN:BEST:MAX; it is tuned for BEST "
            "(else MIN)."
        ),
    ] = "1:4",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            help="TensorRT-RTX: a GPU generation to build for, such as 8.6; may be repeated. "
            "Default: Ampere and later."
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(help="Largest temporary memory on the GPU, such as 512M or 2G."),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Build anew, and keep nothing for the next time.")
    ] = False,
) -> None:
    """Build a TensorRT engine from a graph.

    Example: salstream build unisal-dhf1k --target tensorrt-rtx -o unisal-dhf1k.engine
    """
    try:
        from salstream.export.engines import EngineOptions, build_engine
    except ImportError as error:
        raise SalstreamError(
            f"building needs {error.name}; install it with: pip install 'salstream[{target}]'"
        ) from error
    options = EngineOptions(
        target=target,
        batch=parse_batch(batch),
        compute_capabilities=tuple(compute_capability or ()),
        workspace=parse_bytes(workspace) if workspace else None,
    )
    sidecar = build_engine(graph, output, options, cache=not no_cache)
    capabilities = ", ".join(sidecar.compute_capabilities) or "8.0 and later"
    typer.echo(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, {sidecar.precision}, "
        f"{sidecar.product}, compute capability {capabilities}, "
        f"batch {sidecar.batch[0]} to {sidecar.batch[2]}"
    )


def parse_batch(text: str) -> tuple[int, int, int]:
    """Read ``4``, ``1:4`` or ``1:2:4``: smallest, the one to tune for, largest.

    Raises:
        UsageError: It is none of them.
    """
    if re.fullmatch(r"\d{1,4}(:\d{1,4}){0,2}", text.strip()) is None:
        raise UsageError(f"cannot read the batch {text!r}: expected N, MIN:MAX or MIN:BEST:MAX")
    numbers = [int(part) for part in text.split(":")]
    best = numbers[1] if len(numbers) == 3 else numbers[0]
    return numbers[0], best, numbers[-1]


def parse_bytes(text: str) -> int:
    """Read ``1048576``, ``512M`` or ``2G``, in bytes.

    Raises:
        UsageError: It is none of them.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"cannot read the size {text!r}: expected bytes, such as 512M or 2G")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))

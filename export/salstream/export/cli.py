"""The command `salstream export`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from salstream.runtime.errors import SalstreamError, UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the name of pulled weights.")],
    model: Annotated[str, typer.Option(help="The network: unisal.")],
    domain: Annotated[str, typer.Option(help="The domain whose layers to keep.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    size: Annotated[
        str | None, typer.Option(help="Input size as HEIGHTxWIDTH; default: the domain's own.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(help="Video or images for the check; default: made-up pictures."),
    ] = None,
) -> None:
    """Write a checkpoint as one deployable graph, checked against PyTorch.

    Example: salstream export unisal --model unisal --domain dhf1k -o unisal-dhf1k.onnx
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise SalstreamError(
            f"exporting needs {error.name}; install it with: pip install 'salstream[cpu,export]'"
        ) from error
    from salstream.export.deployable import load
    from salstream.export.graph import export_graph, given_frames, made_frames

    if output.suffix.lower() != ".onnx":
        raise UsageError(f"cannot export to {output}: expected a name that ends in .onnx")
    deployable = load(_find(checkpoint), model, domain, parse_size(size) if size else None)
    if frames is None:
        pictures, origin = made_frames(deployable.spec), "made-up pictures"
    else:
        pictures, origin = given_frames(frames, deployable.spec), Path(frames).name
    spec = export_graph(deployable, output, pictures, origin)
    figures = spec.verification
    typer.echo(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB, equal to PyTorch on "
        f"{figures['frames']} frames ({origin}): largest difference {figures['max_abs']:.1e}, "
        f"mean {figures['mean_abs']:.1e}, smallest CC {figures['min_cc']:.6f}"
    )


def parse_size(text: str) -> tuple[int, int]:
    """Read a size such as ``224x384``: height, width.

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"(\d+)[x×](\d+)", text.strip())
    if match is None:
        raise UsageError(f"cannot read the size {text!r}: expected HEIGHTxWIDTH, such as 224x384")
    return int(match[1]), int(match[2])


def _find(checkpoint: str) -> Path:
    """Return the file, or the pulled weights of that name."""
    from salstream.training.weights import REGISTRY, find

    path = Path(checkpoint)
    if path.exists() or checkpoint not in REGISTRY:
        return path
    pulled = find(checkpoint)
    if pulled is None:
        raise UsageError(
            f"the weights {checkpoint} are not there yet; get them with: "
            f"salstream weights pull {checkpoint}"
        )
    return pulled

"""The command `salstream export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from salstream.runtime.cli import parse_size
from salstream.runtime.errors import SalstreamError, UsageError

if TYPE_CHECKING:
    from salstream.export.deployable import Deployable


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint, or the name of pulled weights.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .onnx file, or a folder for several.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The network, such as unisal or hd2s-dsl; default: what the file fits."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(help="Whose layers to keep, or all: one graph per domain."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input size as HEIGHTxWIDTH; default: the network's own.")
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(help="Sigma of HD2S's smoothing in pixels: 5 in the paper, 7 in its code."),
    ] = None,
    conspicuity: Annotated[
        bool, typer.Option("--conspicuity", help="HD2S's four maps as a second output.")
    ] = False,
    clip_length: Annotated[int | None, typer.Option(help="Frames of HD2S's window.")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32 or fp16; for int8 see: salstream calibrate.")
    ] = "fp32",
    frames: Annotated[
        str | None,
        typer.Option(help="Video or images for the check; default: made-up pictures."),
    ] = None,
) -> None:
    """Write a checkpoint as deployable graphs, each checked against PyTorch.

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
    from salstream.export.deployable import Options, domains_of, identify, load
    from salstream.export.precision import PRECISIONS

    if precision not in PRECISIONS:
        raise UsageError(
            f"cannot export in {precision!r}: expected fp32 or fp16; int8 is made from "
            "an fp32 graph by `salstream calibrate`"
        )
    path = find_checkpoint(checkpoint)
    model = model or identify(path)
    domains = (domains_of(model) or (None,)) if domain == "all" else (domain,)
    one = output.suffix.lower() == ".onnx"
    if one and len(domains) > 1:
        raise UsageError(
            f"{output} is one file, and {model} has {len(domains)} domains: give a folder"
        )
    options = Options(
        size=parse_size(size) if size else None,
        smoothing=smoothing,
        conspicuity=conspicuity,
        clip_length=clip_length,
    )
    if output.suffix and not one and not output.is_dir():
        raise UsageError(f"cannot export to {output}: expected an .onnx file or a folder")
    for name in domains:
        typer.echo(f"Exporting {'-'.join(filter(None, (model, name)))} and checking it", err=True)
        deployable = load(path, model, name, options)
        file = output if one else output / f"{'-'.join(filter(None, (model, name)))}.onnx"
        _export_one(deployable, file, frames, precision)


def _export_one(deployable: Deployable, file: Path, source: str | None, precision: str) -> None:
    from salstream.export.graph import export_graph, given_frames, made_frames

    if source is None:
        pictures, origin = made_frames(deployable.spec), "made-up pictures"
    else:
        pictures, origin = given_frames(source, deployable.spec)
    figures = export_graph(deployable, file, pictures, origin, precision).verification
    typer.echo(
        f"{file}: {file.stat().st_size / 1e6:.1f} MB, {precision}, compared with PyTorch on "
        f"{figures['frames']} frames ({origin}): largest difference {figures['max_abs']:.1e}, "
        f"mean {figures['mean_abs']:.1e}, smallest CC {figures['min_cc']:.6f}"
    )


def find_checkpoint(checkpoint: str) -> Path:
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

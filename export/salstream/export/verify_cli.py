"""The command `salstream verify`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from salstream.runtime.commands import ManyValues
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.sidecar import sidecar_path

if TYPE_CHECKING:
    from salstream.export.verify import Comparison
    from salstream.training.data.recordings import Truth


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("verify", cls=ManyValues)(verify)


def verify(
    artefacts: Annotated[
        list[str], typer.Argument(help=".onnx or .engine files, or bundled names: one or more.")
    ],
    checkpoint: Annotated[
        str, typer.Option(help="What they were made from: a file, or the name of pulled weights.")
    ],
    clips: Annotated[
        list[str], typer.Option(help="Videos, or folders of videos, after the artefacts.")
    ],
    frames: Annotated[int, typer.Option(min=1, help="Of each clip, from its start.")] = 120,
    fixations: Annotated[
        str | None,
        typer.Option(help="Who looked where, as DATASET=PATH, such as remega=data/remega."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Library, or library:device, as for `run`.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json-file", help="Write the report for programs, by frame.")
    ] = None,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Leave the artefacts' metadata as they are.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output.")
    ] = False,
) -> None:
    """Compare artefacts with PyTorch over real clips; exit code 1 when one fails.

    Allowed: fp32 1e-4 in any value of a map; fp16 CC 0.9995 in every frame; int8 mean CC 0.98.

    Example: salstream verify unisal.onnx unisal-int8.onnx --checkpoint unisal --clips videos/
    """
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise SalstreamError(
            f"verifying needs {error.name}; install it with: pip install 'salstream[cpu,export]'"
        ) from error
    from salstream.calibration.windows import find_clips
    from salstream.export.cli import find_checkpoint
    from salstream.export.verify import compare
    from salstream.export.verify_report import as_html, json_text
    from salstream.export.verify_report import as_json as report_of
    from salstream.runtime.files import write_text
    from salstream.runtime.model import SaliencyModel, find_model

    path = find_checkpoint(checkpoint)
    videos = find_clips(clips)
    truths = _truths(fixations) if fixations else {}
    if truths and not any(clip.stem in truths for clip in videos):
        raise UsageError(f"none of the clips has fixations in {fixations}")
    _keep_apart([html, json_file], [path, *videos, *map(find_model, artefacts)])
    models = [SaliencyModel.open(artefact, backend=backend) for artefact in artefacts]
    with Console(stderr=True).status("starting") as status:
        comparisons = compare(models, path, videos, frames, truths, status.update)
    report = report_of(comparisons, path.name)
    if html is not None:
        write_text(html, as_html(comparisons, path.name))
    if json_file is not None:
        write_text(json_file, json_text(report))
    for comparison in comparisons if not no_record else ():
        _record(comparison)
    if as_json:
        for artefact in report["artefacts"]:
            del artefact["by_frame"]
        typer.echo(json.dumps(report))
    else:
        _print(comparisons)
    if not report["passed"]:
        raise typer.Exit(1)


def _keep_apart(reports: list[Path | None], inputs: list[Path]) -> None:
    """Refuse to write a report over what is read, or over the other report."""
    taken = {path.resolve() for path in inputs}
    taken |= {sidecar_path(path).resolve() for path in inputs}
    for report in filter(None, reports):
        if report.resolve() in taken:
            raise UsageError(f"{report} would be written over; choose another name")
        taken.add(report.resolve())


def _truths(fixations: str) -> dict[str, Truth]:
    """Read where people looked."""
    from salstream.training.data.readers import find_recordings

    dataset, equals, path = fixations.partition("=")
    if not equals:
        raise UsageError(
            f"cannot read {fixations!r}: expected DATASET=PATH, as in remega=data/remega"
        )
    recordings = find_recordings(dataset, Path(path)).recordings
    return {recording.name: recording.truth for recording in recordings if recording.truth}


def _record(comparison: Comparison) -> None:
    """Write the figures into the artefact's metadata, where `info` finds them."""
    from salstream.export.records import record
    from salstream.runtime.model import MODELS_FOLDER

    if comparison.path.parent == MODELS_FOLDER:
        return  # the package's own files are not changed
    figures = {**comparison.figures(), "passed": not comparison.fault()}
    record(comparison.path, replace(comparison.spec, verification=figures))


def _print(comparisons: list[Comparison]) -> None:
    table = Table(box=None)
    columns = {
        "max_abs": "largest difference",
        "mean_abs": "mean",
        "mean_cc": "mean CC",
        "min_cc": "worst CC",
        "mean_sim": "mean SIM",
        "mean_kld": "mean KLD",
        "nss_change": "NSS",
        "auc_judd_change": "AUC-Judd",
    }
    table.add_column("artefact", overflow="fold")
    for title in ("precision", "backend", "frames", *columns.values(), ""):
        table.add_column(title)
    for comparison in comparisons:
        figures = comparison.figures()
        cells = [_shown(name, figures.get(name)) for name in columns]
        verdict = "[red]failed[/red]" if comparison.fault() else "passed"
        facts = [comparison.spec.precision, comparison.backend, str(figures["frames"])]
        table.add_row(comparison.path.name, *facts, *cells, verdict)
    Console(width=max(140, Console().width)).print(table)
    for comparison in comparisons:
        if comparison.fault():
            typer.echo(f"{comparison.path} fails: {comparison.fault()}")


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name.endswith("_change"):
        return f"{value:+.2%}"
    # Rounded first, so that nothing is shown as -0.
    return f"{value:.1e}" if name.endswith("_abs") else f"{round(value, 5) + 0.0:.5f}"

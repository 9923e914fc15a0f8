"""The command line. Commands of the other parts join through entry points."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from importlib.metadata import entry_points
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer
from rich.console import Console

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.runtime.faults import explain, is_missing, library_at_fault
from salstream.runtime.logs import is_json, use_json
from salstream.runtime.signals import end_in_order

if TYPE_CHECKING:
    from salstream.runtime.live.camera import Camera, Event
    from salstream.runtime.live.fleet import Fleet
    from salstream.runtime.model import SaliencyModel
    from salstream.runtime.pipeline import Stream
    from salstream.runtime.predictor import Start
    from salstream.runtime.run import Summary
    from salstream.runtime.sinks import Sink
    from salstream.runtime.sources import PicturesAs

app = typer.Typer(
    name="salstream",
    help="Video saliency in real time: where people look, frame by frame.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Model = Annotated[str, typer.Option(help="A bundled name, an exported .onnx file or an .engine.")]
_Backend = Annotated[
    str | None,
    typer.Option(
        help="Library, or library:device, such as onnxruntime, onnxruntime:cuda, openvino:GPU."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
DEFAULT_MODEL: Final = "unisal-dhf1k"
# What Click raises for a command line that it cannot read, wherever Typer keeps its Click.
_Misuse: Final = cast("type[typer.BadParameter]", typer.BadParameter.__base__)


def load_commands() -> typer.Typer:
    """Return the application with the commands of every part."""
    if not app.registered_groups:
        for entry in entry_points(group="salstream.commands"):
            register: Callable[[typer.Typer], None] = entry.load()
            register(app)
    return app


def main() -> None:
    """Run the program: errors of the user's are one sentence and an exit code."""
    try:
        _main()
    except SystemExit as end:
        # A thread that still waits for a camera is inside FFmpeg, which must not wake up while
        # Python takes itself apart; every file that could be closed is closed by now.
        if any(thread.name == "salstream-capture" for thread in threading.enumerate()):
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else bool(end.code))
        raise


def _main() -> None:
    asked = end_in_order()
    try:
        _run_app()
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        number = asked()
        cause = error.__cause__ if isinstance(error, SalstreamError) else error
        library = None if cause is None else library_at_fault(cause)
        if isinstance(error, SystemExit) and (library is None or number):
            raise
        if isinstance(error, SalstreamError) and not (
            # a library whose import is interrupted seems not to be there
            number and isinstance(cause, ImportError)
        ):
            broken = isinstance(cause, ImportError) and library and not is_missing(library)
            _say(f"Error: {explain(cause) if cause and broken else error}", logging.ERROR)
            sys.exit(128 + number if number else error.exit_code)
        if number:
            sys.exit(128 + number)
        if os.environ.get("SALSTREAM_TRACEBACK"):
            raise
        with suppress(OSError):
            _say(f"Error: {explain(error)}", logging.ERROR)
        sys.exit(SalstreamError.exit_code)


def _run_app() -> None:
    load_commands()
    warnings.filterwarnings("ignore", module="PIL")  # ours say it in one sentence
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("salstream").setLevel(logging.INFO)
    # looked for here, because what is wrong with a command line is said before it is read
    words = list(takewhile(lambda word: word != "--", sys.argv[1:]))
    in_json = "--log-json" in words
    if in_json:
        use_json()
    for word in words:
        if re.match(r"-[^.=]*\.", word) and Path(word).is_file():
            raise UsageError(f"{word} would be read as an option: write ./{word}")
    try:
        sys.exit(app(standalone_mode=not in_json))
    except _Misuse as error:  # else Typer draws a box
        _say(f"Error: {error.format_message()}", logging.ERROR)
        sys.exit(error.exit_code)
    except OSError as error:  # standard output is full, for example
        if library_at_fault(error):
            raise
        with suppress(OSError):
            _say(f"Error: {error.strerror or error}", logging.ERROR)
        sys.exit(SalstreamError.exit_code)


@app.command()
def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Video file, folder or pattern of images (*.jpg, %04d.png), camera number, URL, "
            "GStreamer pipeline, or - for standard input. Several: cameras, each SOURCE or "
            "NAME=SOURCE; several images: one set.",
            show_default=False,
        ),
    ] = None,
    cameras: Annotated[
        Path | None, typer.Option(help="A file with one camera per line: NAME = SOURCE.")
    ] = None,
    model: _Model = DEFAULT_MODEL,
    backend: _Backend = None,
    save: Annotated[
        str | None,
        typer.Option(help="Overlay as .mp4, .mov or .mkv (- : raw BGR frames)."),
    ] = None,
    maps: Annotated[str | None, typer.Option(help="Folder for one map per frame.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="Of the maps: png (8 bits) or npy (float32).")
    ] = "png",
    conspicuity: Annotated[
        str | None,
        typer.Option(help="Folder for pictures of frame, conspicuity maps and saliency."),
    ] = None,
    jsonl: Annotated[
        str | None,
        typer.Option(help="Peak, centre and regions of each map, a line of JSON (- : here)."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of the regions in --jsonl and --serve, in (0, 1].", show_default="0.5"),
    ] = None,
    no_sound: Annotated[
        bool, typer.Option("--no-sound", help="Leave a video file's sound out of --save.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the overlay in a window.")] = False,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.7,
    segment_seconds: Annotated[
        float | None, typer.Option(help="Cut --save into files of this length.")
    ] = None,
    keep_gb: Annotated[
        float | None, typer.Option(help="Remove a camera's oldest segments beyond this size.")
    ] = None,
    keep_hours: Annotated[
        float | None, typer.Option(help="Remove segments that are older.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Before the first window is whole: reverse, repeat or skip."),
    ] = None,
    phases: Annotated[int | None, typer.Option(min=1, help="Interleaved recurrent passes.")] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Distance of a window's frames.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frame rate; overrides what a video file says.")
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            help="How to read a set of images: video, or single (each map for itself).",
            show_default="as names and sizes say",
        ),
    ] = None,
    raw_size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of raw BGR frames on standard input.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    reconnect: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Give a camera up after so many tries in a row; 0: never open it again.",
            show_default="try for ever",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a network source may be silent.")
    ] = 5.0,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Cameras that share a run of the graph.")
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Show the cameras on a page, such as 8080."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="Holds what one must know to see the page from another machine."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads for inference.")] = None,
    log_json: Annotated[  # see _main
        bool, typer.Option("--log-json", help="Log lines on standard error as JSON.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Run a model over a video, or over cameras for as long as you like.

    Example: salstream run video.mp4 --save overlay.mp4 --maps maps/

    Example: salstream run door=rtsp://host/1 yard=rtsp://host/2 --save 'out/{camera}.mp4'
    """
    from salstream.runtime.live.listing import read_cameras
    from salstream.runtime.live.source import Reconnect, is_live
    from salstream.runtime.model import SaliencyModel
    from salstream.runtime.outputs import Outputs

    if token_file is not None and serve is None:
        raise UsageError("--token-file is for the page: add --serve")
    if threshold is not None and jsonl is None and serve is None:
        raise UsageError("--threshold is of the regions in lines of JSON: add --jsonl or --serve")
    token = None if token_file is None else _read_token(token_file)
    named = read_cameras(sources or [], cameras)
    outputs = Outputs(
        save=save,
        maps=maps,
        form=form,
        conspicuity=conspicuity,
        show=show,
        opacity=opacity,
        jsonl=jsonl,
        threshold=0.5 if threshold is None else threshold,
        segment_s=segment_seconds,
        keep_gb=keep_gb,
        keep_hours=keep_hours,
        sound=not no_sound,
    )
    outputs.check(named, as_json=as_json)
    opened = SaliencyModel.open(model, backend=backend, threads=threads)
    if conspicuity is not None and not opened.backend.conspicuity:
        raise UsageError(
            f"{model} gives no conspicuity maps; export it with: salstream export --conspicuity"
        )
    console = Console(stderr="-" in (save, jsonl))
    options: dict[str, Any] = {
        "start": cast("Start | None", start),
        "phases": phases,
        "stride": stride,
        "fps": fps,
        "limit": limit,
        "pictures": cast("PicturesAs | None", pictures),
    }
    (name, source), *others = named.items()
    if not others and not is_live(source) and serve is None:
        size = parse_size(raw_size) if raw_size else None
        stream = opened.stream(source, raw_size=size, **options)
        title = f"salstream: {stream.source.name}"
        sinks = outputs.sinks(name, title, stream.source.fps, stream.source)
        _run(opened, stream, sinks, as_json, console)
        return
    if raw_size is not None:
        raise UsageError("--raw-size describes frames on standard input: give - as the source")

    from salstream.runtime.live.camera import State
    from salstream.runtime.live.fleet import Fleet
    from salstream.runtime.live.run import log_event

    def tell(event: Event) -> None:
        if others or event.state is not State.FAILED:  # an only camera's failure ends the run
            log_event(event)

    fleet = Fleet(
        opened,
        named,
        sinks=lambda camera: outputs.sinks(
            camera.name, f"salstream: {camera.source}", source=files[camera.name]
        ),
        on_event=tell,
        reconnect=Reconnect(tries=reconnect),
        timeout_s=timeout,
        batch=batch,
        **options,
    )

    files = {member.camera.name: member.source for member in fleet.members}

    def watch(shown: list[Camera]) -> AbstractContextManager[object]:
        if serve is None:
            return nullcontext()
        from salstream.runtime.live.points import record
        from salstream.runtime.serve import serve as show_page

        page = show_page(
            shown, serve, token=token, points=partial(record, threshold=outputs.threshold)
        )
        _say(f"The page is at {page.url}", logging.INFO)
        return closing(page)

    _run_fleet(fleet, as_json, console, watch)


@app.command()
def demo(
    source: Annotated[
        str, typer.Argument(help="Video or camera number; 0 is the first camera.")
    ] = "0",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the video and the picture.")
    ] = Path("demo"),
    model: _Model = DEFAULT_MODEL,
    limit: Annotated[int, typer.Option(min=1, help="Stop after so many frames.")] = 300,
) -> None:
    """Run the bundled model and keep an overlay video and a picture.

    Example: salstream demo video.mp4 -o demo/
    """
    from salstream.runtime.model import SaliencyModel
    from salstream.runtime.outputs import keep_apart
    from salstream.runtime.sinks import OverlayVideo, Picture
    from salstream.runtime.sound import Sound

    video, picture = output / "overlay.mp4", output / "frame-and-map.png"
    for path in (video, picture):
        keep_apart(source, path)
    opened = SaliencyModel.open(model)
    stream = opened.stream(source, limit=limit)

    def sinks() -> Iterator[Sink]:
        yield OverlayVideo(video, stream.source.fps, sound=Sound(stream.source))
        yield Picture(picture, min(limit, stream.source.frame_count or limit) // 2)

    _run(opened, stream, sinks(), as_json=False, console=Console())
    typer.echo(f"Overlay video: {video}\nFrame and map: {picture}")


def _run(
    model: SaliencyModel, stream: Stream, sinks: Iterator[Sink], as_json: bool, console: Console
) -> None:
    """Feed a stream into sinks and print the summary, also when something fails."""
    from salstream.runtime.run import consume, print_summary, summary_of

    summary = summary_of(model, stream)
    try:
        consume(stream, sinks, summary)
    except (KeyboardInterrupt, SystemExit):
        _say("Interrupted: what was written so far is complete.")
        raise
    finally:
        if as_json:
            typer.echo(json.dumps(summary.as_json()))
        elif summary.frames:
            print_summary(summary, console)


def _read_token(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"the token in {path} cannot be read: {why}") from error


def _run_fleet(
    fleet: Fleet,
    as_json: bool,
    console: Console,
    watch: Callable[[list[Camera]], AbstractContextManager[object]],
) -> None:
    """Run over cameras and print what each did, also when something fails."""
    from salstream.runtime.live.run import run_fleet
    from salstream.runtime.run import print_summary

    summaries: dict[str, Summary] = {}
    try:
        run_fleet(fleet, summaries, watch)
    except (KeyboardInterrupt, SystemExit):
        incomplete = fleet.incomplete
        if incomplete:
            _say(f"Interrupted: what was written is not complete of {', '.join(incomplete)}.")
        else:
            _say("Interrupted: what was written so far is complete.")
        raise
    finally:
        if as_json and len(summaries) == 1:
            typer.echo(json.dumps(next(iter(summaries.values())).as_json()))
        elif as_json:
            by_name = {name: summary.as_json() for name, summary in summaries.items()}
            typer.echo(json.dumps({"cameras": by_name}))
        else:
            for name, summary in summaries.items():
                if summary.frames and len(summaries) > 1:
                    console.print(f"{name} ({summary.source}):", soft_wrap=True)
                if summary.frames:
                    print_summary(summary, console)


@app.command()
def info(
    model: Annotated[
        str, typer.Argument(help="A bundled name, an exported .onnx file or a built .engine.")
    ],
    as_json: _Json = False,
) -> None:
    """Say what a graph or an engine is: network, domain, size, precision, licence, verification.

    Example: salstream info unisal-dhf1k
    """
    from salstream.runtime.model import find_model

    path = find_model(model)
    facts: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size}
    facts |= _engine_facts(path) if path.suffix.lower() == ".engine" else _graph_facts(path)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        typer.echo(f"{name.replace('_', ' '):18} {'–' if shown in (None, '') else shown}")


def _graph_facts(path: Path) -> dict[str, Any]:
    """Open a graph and return what it says about itself."""
    from salstream.runtime.model import SaliencyModel

    opened = SaliencyModel.open(path)
    return {
        "backend": opened.backend.name,
        "recurrent": opened.backend.recurrent,
        "conspicuity": opened.backend.conspicuity,
        **dataclasses.asdict(opened.spec),
    }


def _engine_facts(path: Path) -> dict[str, Any]:
    """Return what an engine's sidecar says: no GPU is needed for that."""
    from salstream.runtime.sidecar import read_engine
    from salstream.runtime.spec import GraphSpec

    _, sidecar = read_engine(path)
    names = [tensor.name for tensor in sidecar.tensors]
    return {
        "backend": sidecar.flavour,
        "built_by": sidecar.product,
        "built_on": sidecar.gpu,
        "compute_capabilities": ", ".join(sidecar.compute_capabilities) or "8.0 and later",
        "batch": ":".join(map(str, sidecar.batch)),
        "graph": sidecar.graph,
        "graph_sha256": sidecar.graph_sha256,
        "recurrent": any(name.startswith("state_") for name in names),
        "conspicuity": "conspicuity" in names,
        **dataclasses.asdict(GraphSpec.from_metadata(sidecar.metadata)),
    }


@app.command()
def doctor(as_json: _Json = False) -> None:
    """Say what is installed, what is missing, and the command that mends it.

    Example: salstream doctor
    """
    from salstream.runtime import doctor as examination

    findings = examination.examine()
    if as_json:
        typer.echo(json.dumps(examination.as_json(findings)))
    else:
        marks = {"ok": "✓", "missing": "–", "problem": "✗"}
        for finding in findings:
            typer.echo(f"{marks[finding.status]} {finding.name:24} {finding.detail}")
            if finding.remedy:
                typer.echo(f"{'':26} → {finding.remedy}")
    if not examination.can_stream(findings):
        raise typer.Exit(1)


def parse_size(text: str) -> tuple[int, int]:
    """Read a size such as ``224x384``: height, width.

    Raises:
        UsageError: It is none.
    """
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text.strip())
    if match is None:
        raise UsageError(f"cannot read the size {text!r}: expected HEIGHTxWIDTH, such as 224x384")
    return int(match[1]), int(match[2])


def _say(text: str, level: int = logging.WARNING) -> None:
    """Tell people, or whoever reads the log."""
    if is_json():
        logging.getLogger("salstream").log(level, text.removeprefix("Error: "))
    else:
        typer.echo(text, err=True)

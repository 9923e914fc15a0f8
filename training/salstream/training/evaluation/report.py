"""An evaluation for people and programs: table, JSON, CSV and a page with pictures."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from salstream.runtime import files
from salstream.training.evaluation.evaluate import METRICS, Evaluation, Picture, Result

TITLES: Final = {
    "nss": "NSS ↑",
    "cc": "CC ↑",
    "sim": "SIM ↑",
    "kld": "KLD ↓",
    "auc_judd": "AUC-J ↑",
    "s_auc": "s-AUC ↑",
}
PICTURES: Final = 8

_Stats = NDArray[np.float64]


def print_table(evaluation: Evaluation, console: Console) -> None:
    """Print the means and their 95 % intervals, and how to read them."""
    table = Table(box=None, padding=(0, 1, 0, 0))  # 80 columns are enough
    table.add_column("", overflow="fold")
    for title in TITLES.values():
        table.add_column(title, justify="right", no_wrap=True)
    for result in evaluation.results:
        stats = result.per_video()
        table.add_row(result.name, *(_number(mean) for mean in stats[:, 0]))
        table.add_row("  95 %", *(_interval(row) for row in stats), style="dim")
        table.add_row("  over frames", *(_number(mean) for mean in result.per_frame()[:, 0]))
    console.print(f"{_title(evaluation)}. {_reading(evaluation)}")
    console.print(table)
    for note in evaluation.notes:
        console.print(f"- {note}", markup=False, highlight=False)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything but the pictures and the single frames."""
    return {
        "schema": 1,
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "every": evaluation.every,
        "notes": evaluation.notes,
        "entrants": [_entrant(result) for result in evaluation.results],
    }


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Write :func:`as_json`.

    Raises:
        SalstreamError: The file cannot be written.
    """
    files.write_text(path, json.dumps(as_json(evaluation), indent=1))


def write_csv(evaluation: Evaluation, path: Path) -> None:
    """Write one line per entrant and frame: all that is needed to compute anything else.

    Raises:
        SalstreamError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["entrant", "recording", "split", "frame", *METRICS])
    for result in evaluation.results:
        for scene in result.scenes:
            for frame, values in zip(scene.frames, scene.values, strict=True):
                cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
                writer.writerow([result.name, scene.scene, scene.split, frame, *cells])
    files.write_text(path, text.getvalue())


def write_html(evaluation: Evaluation, path: Path) -> None:
    """Write a page that needs no other file: tables, and maps beside the ground truth.

    Raises:
        SalstreamError: The file cannot be written.
    """
    title = html.escape(_title(evaluation))
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        _means_table(evaluation),
        f"<p>{html.escape(_reading(evaluation))}</p><ul>",
        *(f"<li>{html.escape(note)}</li>" for note in evaluation.notes),
        *(
            f"<li><b>{html.escape(result.name)}</b>: {html.escape(result.about)}</li>"
            for result in evaluation.results
        ),
        "</ul>",
        _pictures(evaluation),
        _scenes_table(evaluation),
        "</html>",
    ]
    files.write_text(path, "\n".join(parts))


_STYLE: Final = (
    "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.25em .8em;text-align:right;"
    "border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
    "small{color:#666;display:block}figure{display:inline-block;margin:.3em}"
    "figcaption{font-size:13px}section{margin:1.5em 0}"
)


def _title(evaluation: Evaluation) -> str:
    first = evaluation.results[0]
    frames = sum(len(scene.frames) for scene in first.scenes)
    return (
        f"{evaluation.dataset}, split {evaluation.split}: {len(first.scenes)} recordings, "
        f"{frames} scored frames"
    )


def _reading(evaluation: Evaluation) -> str:
    nobody = sum(scene.nobody for scene in evaluation.results[0].scenes)
    every = f", every {evaluation.every}th frame scored" if evaluation.every > 1 else ""
    return (
        f"Means over recordings, 95 % intervals by bootstrap over recordings{every}; {nobody} "
        "frames left out because nobody fixated."
    )


def _entrant(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "about": result.about,
        "model": result.model,
        "per_video": _stats(result.per_video()),
        "per_frame": _stats(result.per_frame()),
        "recordings": [
            {
                "name": scene.scene,
                "split": scene.split,
                "frames": len(scene.frames),
                "nobody": scene.nobody,
                **dict(zip(METRICS, map(_plain, scene.means), strict=True)),
            }
            for scene in result.scenes
        ],
    }


def _stats(stats: _Stats) -> dict[str, dict[str, float | None]]:
    return {
        metric: dict(zip(("mean", "low", "high"), map(_plain, row), strict=True))
        for metric, row in zip(METRICS, stats, strict=True)
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _interval(row: Sequence[float] | _Stats) -> str:
    return "–" if math.isnan(row[1]) else f"{row[1]:.2f}–{row[2]:.2f}"


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _means_table(evaluation: Evaluation) -> str:
    rows = [_row(["", *TITLES.values()], "th")]
    for result in evaluation.results:
        videos, frames = result.per_video(), result.per_frame()
        cells = [
            f"{_number(video[0])}<small>{_interval(video)}</small>"
            f"<small>over frames {_number(frame[0])}</small>"
            for video, frame in zip(videos, frames, strict=True)
        ]
        rows.append(_row([html.escape(result.name), *cells]))
    return f"<table>{''.join(rows)}</table>"


def _scenes_table(evaluation: Evaluation) -> str:
    parts = ["<h2>By recording</h2>"]
    for result in evaluation.results:
        rows = [_row(["recording", "frames", *TITLES.values()], "th")]
        rows += [
            _row([html.escape(scene.scene), str(len(scene.frames)), *map(_number, scene.means)])
            for scene in result.scenes
        ]
        parts.append(
            f"<details><summary>{html.escape(result.name)}</summary>"
            f"<table>{''.join(rows)}</table></details>"
        )
    return "".join(parts)


def _pictures(evaluation: Evaluation) -> str:
    """Show scenes from the best to the worst of the first model, evenly."""
    first = evaluation.results[0]
    ranked = sorted(
        (scene for scene in first.scenes if scene.scene in evaluation.truths),
        key=lambda scene: -np.nan_to_num(scene.means[0]),
    )
    places = np.unique(np.linspace(0, len(ranked) - 1, min(PICTURES, len(ranked))).round())
    parts = ["<h2>Pictures</h2>"]
    for place in places.astype(int):
        scene = ranked[place]
        frame, truth = evaluation.truths[scene.scene]
        figures = [("frame", frame), ("people", truth)]
        figures += [
            (result.name, result.pictures[scene.scene])
            for result in evaluation.results
            if scene.scene in result.pictures
        ]
        shown = "".join(_figure(caption, picture) for caption, picture in figures)
        said = f"{html.escape(scene.scene)}: NSS {_number(float(scene.means[0]))}"
        parts.append(f"<section><div>{said}</div>{shown}</section>")
    return "".join(parts)


def _figure(caption: str, picture: Picture) -> str:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    encoded = base64.b64encode(np.asarray(data).tobytes()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{encoded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )

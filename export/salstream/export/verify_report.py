"""The report of a verification, for programs and for people."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from salstream.export.verify import Comparison, Picture, WorstFrame

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>salstream: verification</title><style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr { border-bottom: 1px solid #8884 }
figure { margin: 0 } img { max-width: 100% }
.frame { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)) }
.failed { color: #c33; font-weight: bold }
</style>"""


def as_json(comparisons: Sequence[Comparison], checkpoint: str) -> dict[str, Any]:
    """Return the report for programs: a summary per artefact, and every frame."""
    return {
        "checkpoint": checkpoint,
        "passed": all(not comparison.fault() for comparison in comparisons),
        "artefacts": [
            {
                "path": str(comparison.path),
                "model": comparison.spec.name,
                "precision": comparison.spec.precision,
                "passed": not comparison.fault(),
                "fault": comparison.fault(),
                **comparison.figures(),
                "by_frame": comparison.rows,
            }
            for comparison in comparisons
        ],
    }


def json_text(report: dict[str, Any]) -> str:
    """Return a report as strict JSON."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def as_html(comparisons: Sequence[Comparison], checkpoint: str) -> str:
    """Return the report as one page that needs no other file."""
    parts = [
        _HEAD,
        "<h1>Verification</h1>",
        f"<p>Against {html.escape(checkpoint)} in PyTorch.</p>",
    ]
    for comparison in comparisons:
        fault = comparison.fault()
        verdict = (
            f'<p class="failed">Failed: {html.escape(fault)}</p>' if fault else "<p>Passed.</p>"
        )
        figures = "".join(
            f"<tr><td>{name.replace('_', ' ')}</td><td>{html.escape(str(value))}</td></tr>"
            for name, value in comparison.figures().items()
        )
        title = f"{comparison.path.name} ({comparison.spec.name}, {comparison.spec.precision})"
        parts += [
            f"<h2>{html.escape(title)}</h2>{verdict}<table>{figures}</table>",
            _clips(comparison),
            "<h3>Farthest from PyTorch</h3>",
            *map(_worst, comparison.worst),
        ]
    return "\n".join(parts) + "\n"


def _clips(comparison: Comparison) -> str:
    """Return a table of means by clip."""
    names = ["max_abs", "mean_abs", "cc", "sim", "kld", "nss_reference", "nss"]
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in ("clip", "frames", *names))
    rows = []
    for clip in dict.fromkeys(row["clip"] for row in comparison.rows):
        of_clip = [row for row in comparison.rows if row["clip"] == clip]
        cells = []
        for name in names:
            values = [row[name] for row in of_clip if name in row]
            mean = max(values) if name == "max_abs" else float(np.mean(values)) if values else None
            cells.append("–" if mean is None else f"{mean:.3g}" if "abs" in name else f"{mean:.4f}")
        texts = [html.escape(clip), str(len(of_clip)), *cells]
        rows.append("<tr>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _worst(frame: WorstFrame) -> str:
    text = f"{frame.clip}, frame {frame.index}: CC {1 - frame.distance:.5f}"
    pictures = "".join(_figure(name, picture) for name, picture in frame.pictures.items())
    return f'<p>{html.escape(text)}</p><div class="frame">{pictures}</div>'


def _figure(name: str, picture: Picture) -> str:
    _, encoded = cv2.imencode(".jpg", picture)
    data = base64.b64encode(np.asarray(encoded).tobytes()).decode()
    caption = html.escape(name)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )

"""The table of docs/benchmarks.md from what `salstream evaluate --json FILE` wrote.

Run: python benchmarks/accuracy.py FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

METRICS = {
    "nss": "NSS",
    "cc": "CC",
    "sim": "SIM",
    "kld": "KLD",
    "auc_judd": "AUC-Judd",
    "s_auc": "s-AUC",
}


def main(path: Path) -> None:
    """Print a Markdown table: mean over recordings, and its 95 % interval."""
    print("| | " + " | ".join(METRICS.values()) + " |")
    print("|---" * (1 + len(METRICS)) + "|")
    for entrant in json.loads(path.read_text())["entrants"]:
        cells = (_cell(metric, entrant["per_video"][metric]) for metric in METRICS)
        print(f"| {entrant['name']} | " + " | ".join(cells) + " |")


def _cell(metric: str, stats: dict[str, Any]) -> str:
    if stats["mean"] is None:
        return "–"
    digits = 2 if metric in ("nss", "kld") else 3
    mean, low, high = (f"{stats[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low}–{high})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

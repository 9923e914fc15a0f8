"""Milliseconds per frame of each metric, at the sizes of real frames.

Run: python benchmarks/metrics.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from salstream.training.data.recordings import gaussian_density, resized_density
from salstream.training.metrics import auc_judd, cc, kld, nss, s_auc, sim


def main() -> None:
    """Print a Markdown table."""
    rng = np.random.default_rng(0)
    print("| map | fixations | NSS | CC | SIM | KLD | AUC-Judd | s-AUC | all |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size, count in (((360, 640), 17), ((600, 800), 150), ((1080, 1920), 20)):
        saliency = resized_density(rng.random((224, 384)), size)
        points = rng.integers(0, size, (count, 2))
        others = rng.integers(0, size, (5000, 2))
        density = gaussian_density(points, size, size, 0.035)
        times = [
            _median_ms(run)
            for run in (
                lambda s=saliency, p=points: nss(s, p),
                lambda s=saliency, d=density: cc(s, d),
                lambda s=saliency, d=density: sim(s, d),
                lambda s=saliency, d=density: kld(s, d),
                lambda s=saliency, p=points: auc_judd(s, p),
                lambda s=saliency, p=points, o=others: s_auc(s, p, o),
            )
        ]
        cells = " | ".join(f"{value:.1f}" for value in (*times, sum(times)))
        print(f"| {size[0]}×{size[1]} | {count} | {cells} |")


def _median_ms(run: Callable[[], float], rounds: int = 15) -> float:
    run()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begin))
    return median(times)


if __name__ == "__main__":
    main()

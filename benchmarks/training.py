"""Clips per second of `salstream train` and of a plain PyTorch loop, in turns in one process.

    python benchmarks/training.py --packed packed/remega --recipe hd2s-small --set iterations=20

The plain loop reads the same clips one batch ahead, forwards the same network and makes the same
steps; what the real one adds is Fabric, checks, records and, once at its end, a saved state. Both
are timed from the end of their first iteration to their end. Each round runs both from the start;
the table has the medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from salstream.training import recipes
from salstream.training.clips import open_source
from salstream.training.data.packed import PackedDataset, open_packed
from salstream.training.objectives import build, costs
from salstream.training.recipes import Recipe
from salstream.training.trainer import train


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packed", type=Path, required=True, help="labelled videos")
    parser.add_argument("--recipe", default="hd2s", help="one with a single source")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    recipe = recipes.get(arguments.recipe).with_settings(arguments.set)
    # Neither validation nor saving in the midst: those are rare in a real run.
    recipe = recipe.with_settings([f"validation.every={recipe.iterations + 1}",
                                   f"save_every={recipe.iterations + 1}"])  # fmt: skip
    dataset = open_packed(arguments.packed)
    rates: dict[str, list[float]] = {"plain PyTorch": [], "salstream train": []}
    for number in range(-1, arguments.rounds):
        for name, measure in (("plain PyTorch", _plain), ("salstream train", _ours)):
            rate = measure(recipe, dataset)
            if number >= 0:  # the first round warms up
                rates[name].append(rate)
    ratios = [ours / plain for plain, ours in zip(*rates.values(), strict=True)]
    for name, values in rates.items():
        print(f"{name:16} {statistics.median(values):8.2f} clips per second")
    print(f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def _plain(recipe: Recipe, dataset: PackedDataset) -> float:
    device = "cuda" if recipe.accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    model = build(recipe).to(device)
    decay = recipe.optimizer.weight_decay
    optimizer = torch.optim.Adam(
        model.parameters(), recipe.optimizer.learning_rate, weight_decay=decay
    )
    source = open_source(recipe.sources[0], dataset, recipe, True)
    accumulate = recipe.clips.accumulate
    mixed = recipe.precision == "bf16-mixed"
    begin = 0.0
    reader = ThreadPoolExecutor(1)
    following = reader.submit(source.batch, 0)
    for iteration in range(recipe.iterations):
        optimizer.zero_grad()
        for part in range(accumulate):
            batch = following.result().to(torch.device(device))
            following = reader.submit(source.batch, iteration * accumulate + part + 1)
            with torch.autocast(device, torch.bfloat16, enabled=mixed):
                loss = costs(model, recipe, batch, 0.0)["saliency"] / accumulate
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()
        begin = begin or time.perf_counter()
    seconds = time.perf_counter() - begin
    reader.shutdown()
    return (recipe.iterations - 1) * accumulate * source.batch_size / seconds


def _ours(recipe: Recipe, dataset: PackedDataset) -> float:
    times: list[float] = []
    size = recipe.clips.batch * recipe.clips.accumulate
    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe, {recipe.sources[0]: dataset.folder}, Path(folder) / "run",
            listener=lambda *_: times.append(time.perf_counter()),
        )  # fmt: skip
    return (len(times) - 1) * size / (times[-1] - times[0])


if __name__ == "__main__":
    main()

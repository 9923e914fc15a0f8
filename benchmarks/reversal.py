"""Does gradient reversal make two datasets look alike to the network?

Trains HD2S-DA twice from the same start, with gradient reversal and without (λ = 0), then
freezes the backbone and trains new domain classifiers on each level's features until they are
as good as they get. The worse they tell the source from the target, the more alike the two are
to the network. Told apart are other clips of the videos that were trained on, and clips of
videos (and images) that were not.

    python benchmarks/reversal.py --source packed/remega --target packed/osie -o runs/reversal

writes the curve of each classifier to ``curve.csv`` and prints where the curves end.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from salstream.training import hd2s, recipes
from salstream.training.checkpoints import load_state_dict
from salstream.training.clips import open_source
from salstream.training.data.packed import open_packed
from salstream.training.objectives import build
from salstream.training.recipes import Recipe
from salstream.training.states import latest
from salstream.training.trainer import train

LEVELS = (1, 2, 3, 4)
STEPS = 400  # of the new classifiers; they have converged by then
SEEDS = 3


def main() -> None:
    """Train, freeze, classify, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="packed, labelled")
    parser.add_argument("--target", type=Path, required=True, help="packed")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--recipe", default="hd2s-da-small")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the recipe")
    parser.add_argument("--clips", type=int, default=160, help="of each dataset, for training")
    parser.add_argument("--held-out", type=int, default=80, help="of each dataset, for testing")
    arguments = parser.parse_args()
    recipe = recipes.get(arguments.recipe).with_settings(arguments.set)
    data = {"source": arguments.source, "target": arguments.target}
    rows = []
    for name, strength in (("without", 0.0), ("with", recipe.reversal)):
        run = arguments.output / name
        chosen = recipe.with_settings([f"reversal={strength}"])
        train(chosen, data, run, resume=(run / "recipe.json").exists())
        rows += probe(chosen, data, run, name, arguments.clips, arguments.held_out)
    with (arguments.output / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("accuracy at the end, mean of the seeds; 0.5 is chance")
    for clips_of in ("training", "unseen"):
        for name in ("without", "with"):
            ends = [
                [
                    float(row[clips_of])
                    for row in rows
                    if (row["reversal"], row["level"], row["step"]) == (name, level, STEPS)
                ]
                for level in LEVELS
            ]
            levels = [sum(values) / len(values) for values in ends]
            told = "  ".join(
                f"level {level}: {mean:.3f}" for level, mean in zip(LEVELS, levels, strict=True)
            )
            print(f"{clips_of:8} videos, {name:7} reversal  {told}  mean: {sum(levels) / 4:.3f}")
    (arguments.output / "settings.json").write_text(json.dumps(recipe.settings(), indent=1))


def probe(
    recipe: Recipe, data: dict[str, Path], run: Path, name: str, clips: int, held_out: int
) -> list[dict[str, str | int | float]]:
    """Train new classifiers per level on frozen features; return their curves."""
    model = build(recipe)
    assert isinstance(model, hd2s.Hd2s)
    saved = latest(run)
    assert saved is not None
    model.load_state_dict(load_state_dict(saved / "weights.safetensors"))
    given = features(model, recipe, data, "train", clips)
    known = features(model, recipe, data, "train", held_out, skip=clips)
    unknown = features(model, recipe, data, "test", held_out)
    rows: list[dict[str, str | int | float]] = []
    for level in LEVELS:
        x, labels = given[level]
        mean, deviation = x.mean(dim=0), x.std(dim=0) + 1e-6
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            classifier = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))
            optimizer = torch.optim.Adam(classifier.parameters(), 1e-3, weight_decay=1e-3)
            for step in range(STEPS + 1):
                if step % 20 == 0:
                    right = {}
                    with torch.no_grad():
                        for key, of in (("training", known), ("unseen", unknown)):
                            answers = classifier((of[level][0] - mean) / deviation).argmax(dim=1)
                            right[key] = (answers == of[level][1]).float().mean().item()
                    rows.append(
                        {"reversal": name, "level": level, "seed": seed, "step": step, **right}
                    )
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(classifier((x - mean) / deviation), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return rows


@torch.no_grad()
def features(
    model: hd2s.Hd2s, recipe: Recipe, data: dict[str, Path], split: str, count: int, skip: int = 0
) -> dict[int, tuple[Tensor, Tensor]]:
    """Return each level's frozen features of clips of both datasets, and whose they are.

    Returns:
        Per level (clips, 2 · channels), mean and deviation of each channel over the frame;
        and 0 for clips of the source, 1 for the target's.
    """
    model.eval()
    found: dict[int, list[Tensor]] = {level: [] for level in LEVELS}
    labels = []
    for label, name in enumerate(("source", "target")):
        source = open_source(name, open_packed(data[name]), recipe, False, split=split)
        size = source.batch_size
        for number in range(skip // size, (skip + count) // size):
            # Numbers that training did not reach: other clips of the same videos.
            batch = source.batch(1_000_000 + number)
            for level, x in model.encode(hd2s.normalise(batch.frames)).items():
                found[level].append(torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1))
            labels.append(torch.full((len(batch.frames),), label))
    whose = torch.cat(labels)
    return {level: (torch.cat(parts), whose) for level, parts in found.items()}


if __name__ == "__main__":
    main()

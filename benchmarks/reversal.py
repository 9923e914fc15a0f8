"""Does gradient reversal make two datasets look alike to the network?

Trains HD2S-DA twice from the same start, with gradient reversal and without (λ = 0), then
freezes the backbone and trains new domain classifiers on its features until they are as good
as they get. The better they tell held-out videos of the source from held-out images of the
target, the less alike the datasets are to the network.

    python benchmarks/reversal.py --source packed/remega --target packed/osie -o runs/reversal

writes the curve of each classifier's accuracy to ``curve.csv`` and prints a table.
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
from salstream.training.hd2s.adaptation import domain_classifier, feature_reduction
from salstream.training.objectives import build
from salstream.training.recipes import Recipe
from salstream.training.states import latest
from salstream.training.trainer import train

LEVELS = (1, 2, 3, 4)


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
    parser.add_argument("--steps", type=int, default=300, help="of the new classifiers")
    arguments = parser.parse_args()
    recipe = recipes.get(arguments.recipe).with_settings(arguments.set)
    data = {"source": arguments.source, "target": arguments.target}
    rows = []
    for name, strength in (("without", 0.0), ("with", recipe.reversal)):
        run = arguments.output / name
        chosen = recipe.with_settings([f"reversal={strength}"])
        train(chosen, data, run, resume=(run / "recipe.json").exists())
        rows += probe(chosen, data, run, name, arguments.clips, arguments.held_out, arguments.steps)
    with (arguments.output / "curve.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print("accuracy on held-out clips after the last step; 0.5 is chance")
    for name in ("without", "with"):
        last = [row for row in rows if row["reversal"] == name and row["step"] == arguments.steps]
        told = " ".join(f"level {row['level']}: {float(row['accuracy']):.3f}" for row in last)
        mean = sum(float(row["accuracy"]) for row in last) / len(last)
        print(f"{name:8} reversal  {told}  mean: {mean:.3f}")
    (arguments.output / "settings.json").write_text(json.dumps(recipe.settings(), indent=1))


def probe(
    recipe: Recipe,
    data: dict[str, Path],
    run: Path,
    name: str,
    clips: int,
    held_out: int,
    steps: int,
) -> list[dict[str, str | int | float]]:
    """Train a new classifier per level on frozen features; return its accuracy as it learns."""
    model = build(recipe)
    assert isinstance(model, hd2s.Hd2s)
    saved = latest(run)
    assert saved is not None
    model.load_state_dict(load_state_dict(saved / "weights.safetensors"))
    known = features(model, recipe, data, "train", clips)
    unknown = features(model, recipe, data, "test", held_out)
    rows: list[dict[str, str | int | float]] = []
    for level in LEVELS:
        torch.manual_seed(0)
        facts = hd2s.LEVELS[level]
        classifier = nn.Sequential(
            feature_reduction(facts), nn.Flatten(1), domain_classifier(facts, recipe.clips.size)
        )
        optimizer = torch.optim.Adam(classifier.parameters(), 1e-3)
        x, labels = known[level]
        for step in range(steps + 1):
            if step % 20 == 0:
                classifier.eval()
                with torch.no_grad():
                    answer = classifier(unknown[level][0])
                    accuracy = (answer.argmax(1) == unknown[level][1]).float().mean().item()
                    loss = nn.functional.nll_loss(answer, unknown[level][1]).item()
                rows.append(
                    {"reversal": name, "level": level, "step": step,
                     "accuracy": accuracy, "loss": loss}
                )  # fmt: skip
                classifier.train()
            chosen = torch.randint(len(x), (32,))
            optimizer.zero_grad()
            nn.functional.nll_loss(classifier(x[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return rows


@torch.no_grad()
def features(
    model: hd2s.Hd2s, recipe: Recipe, data: dict[str, Path], split: str, count: int
) -> dict[int, tuple[Tensor, Tensor]]:
    """Return each level's frozen features of clips of both datasets, and whose they are."""
    model.eval()
    found: dict[int, list[Tensor]] = {level: [] for level in LEVELS}
    labels = []
    for label, name in enumerate(("source", "target")):
        source = open_source(name, open_packed(data[name]), recipe, False, split=split)
        for number in range(count // source.batch_size):
            # Numbers that training did not reach: other clips of the same videos.
            batch = source.batch(1_000_000 + number)
            for level, x in model.encode(hd2s.normalise(batch.frames)).items():
                found[level].append(x)
            labels.append(torch.full((len(batch.frames),), label))
    whose = torch.cat(labels)
    return {level: (torch.cat(parts), whose) for level, parts in found.items()}


if __name__ == "__main__":
    main()

"""The small study of docs/training.md: which part of HD2S helps, on real eye tracking.

    salstream prepare remega PATH -o packed/remega --size 64x96
    salstream prepare osie PATH -o packed/osie --size 64x96
    python benchmarks/study.py --packed packed --remega PATH --osie PATH -o runs/study

Every step is one `salstream` command, which is printed; one that was done is not done again.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

# Name of the run, recipe, data by the recipe's names, further settings.
RUNS: tuple[tuple[str, str, dict[str, str], tuple[str, ...]], ...] = (
    ("base", "hd2s-small", {"source": "remega"}, ()),
    ("base-output-loss", "hd2s-small", {"source": "remega"}, ("multi_level=false",)),
    ("da", "hd2s-da-small", {"source": "remega", "target": "osie"}, ()),
    (
        "da-output-loss",
        "hd2s-da-small",
        {"source": "remega", "target": "osie"},
        ("multi_level=false",),
    ),
    (
        "both",
        "hd2s-small",
        {"remega": "remega", "osie": "osie"},
        ("sources=remega,osie", "validation.on=remega"),
    ),
    (
        "dsl",
        "hd2s-dsl-small",
        {"dhf1k": "remega", "hollywood": "osie"},
        ("sources=dhf1k,hollywood",),
    ),
    (
        "dsl-output-loss",
        "hd2s-dsl-small",
        {"dhf1k": "remega", "hollywood": "osie"},
        ("sources=dhf1k,hollywood", "multi_level=false"),
    ),
)
# HD2S-DSL's layers of each dataset: the published names of the domains stand for ours.
DOMAINS = {"remega": "dhf1k", "osie": "hollywood"}
SMOOTHING = "2.5"  # pixels of a map half as large as the paper's


def main() -> None:
    """Train, export and evaluate what is not there yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packed", type=Path, required=True, help="holds remega/ and osie/")
    parser.add_argument("--remega", type=Path, required=True, help="as unpacked")
    parser.add_argument("--osie", type=Path, required=True, help="as unpacked")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for every run")
    arguments = parser.parse_args()
    unpacked = {"remega": arguments.remega, "osie": arguments.osie}

    graphs: dict[str, list[Path]] = {"remega": [], "osie": []}
    for name, recipe, data, settings in RUNS:
        run = arguments.output / name
        if not (run / "finished").exists():
            command = ["train", recipe, "-o", run]
            command += [f"--data={key}={arguments.packed / value}" for key, value in data.items()]
            command += [f"--set={setting}" for setting in (*settings, *arguments.set)]
            salstream(*command, *(["--resume"] if (run / "recipe.json").exists() else []))
            (run / "finished").touch()
        model = recipe.removesuffix("-small")
        for dataset, found in graphs.items():
            graph = arguments.output / "graphs" / dataset / f"{name}.onnx"
            domain = ["--domain", DOMAINS[dataset]] if model == "hd2s-dsl" else []
            if not graph.exists():
                best = run / "best.safetensors"
                salstream(
                    "export", best, "--model", model, *domain, "--smoothing", SMOOTHING,
                    "-o", graph,
                )  # fmt: skip
            found.append(graph)
    for dataset, found in graphs.items():
        every = "10" if dataset == "remega" else "1"
        published = arguments.output / "graphs" / "unisal-salicon.onnx"
        if dataset == "osie" and not published.exists():
            salstream("weights", "pull", "unisal")
            salstream(
                "export", "unisal", "--model", "unisal", "--domain", "salicon", "-o", published
            )
        unisal = "unisal-dhf1k" if dataset == "remega" else published
        table = arguments.output / f"{dataset}.json"
        if not table.exists():
            salstream(
                "evaluate", unisal, *found, "--data", f"{dataset}={unpacked[dataset]}",
                "--split", "test", "--every", every, "--json", table,
            )  # fmt: skip


def salstream(*arguments: object) -> None:
    """Print a command and run it."""
    command = ["salstream", *map(str, arguments)]
    print("$", shlex.join(command), flush=True)
    program = Path(sys.executable).with_name("salstream")
    subprocess.run([program, *command[1:]], check=True)


if __name__ == "__main__":
    main()

"""The loop: tiny runs of every model, going on after a crash, and what can go wrong."""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from torch.backends.cpu import get_cpu_capability
from typer.testing import CliRunner

from clips import clip
from packs import pack
from salstream.runtime import SaliencyModel, SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.training import networks, recipes, trainer
from salstream.training.checkpoints import load_state_dict, metadata_of
from salstream.training.clips import Batch, open_source
from salstream.training.data.packed import open_packed
from salstream.training.journal import read
from salstream.training.objectives import CLASSIFIERS, build, costs, start_from
from salstream.training.recipes.config import Recipe
from salstream.training.states import latest

GOLDEN = Path(__file__).with_name("golden_losses.json")
Golden = dict[str, list[float]]
PROGRAM = Path(sys.executable).with_name("salstream")

# Data of each tiny recipe, by its own names for it.
TINY = {
    "hd2s-tiny": {"source": "video"},
    "hd2s-net4-tiny": {"source": "video"},
    "hd2s-da-tiny": {"source": "video", "target": "images"},
    "hd2s-dsl-tiny": {"dhf1k": "video", "hollywood": "images", "ucfsports": "video"},
    "unisal-tiny": {
        "dhf1k": "video", "hollywood": "video", "ucfsports": "video", "salicon": "images",
    },
    "esan-tiny": {"source": "boxed"},
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A tiny run and what it wrote down."""

    folder: Path
    rows: list[dict[str, Any]]
    outcome: trainer.Outcome


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packs")
    return {
        "video": pack(folder / "video"),
        "images": pack(folder / "images", fps=None, videos=8, seed=1),
        "boxed": pack(folder / "boxed", size=(32, 64), frames=5, fit="letterbox"),
        "unlabelled": pack(folder / "unlabelled", labelled=False, seed=2),
    }


@pytest.fixture(scope="module")
def tiny(packs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Return a function that trains a tiny recipe, once each."""
    done: dict[str, Run] = {}
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Run:
        if name not in done:
            rows: list[dict[str, Any]] = []
            data = {key: packs[value] for key, value in TINY[name].items()}
            outcome = trainer.train(
                recipes.get(name), data, folder / name, listener=lambda _, row, __: rows.append(row)
            )
            done[name] = Run(folder / name, rows, outcome)
        return done[name]

    return run


# Every model


def golden(dtype: str, name: str, losses: Golden) -> tuple[Golden, str]:
    """Return the golden losses of a recipe, and the processor that they were computed on.

    With SALSTREAM_WRITE_GOLDEN=1 the losses given become the golden ones. Those of float32
    are all of one processor, so they are written together.
    """
    written = json.loads(GOLDEN.read_text())
    if os.environ.get("SALSTREAM_WRITE_GOLDEN"):
        if written[dtype]["processor"] != processor():
            written[dtype] = {"processor": processor(), "losses": {}}
        written[dtype]["losses"][name] = losses
        GOLDEN.write_text(json.dumps(written, indent=1) + "\n")
    return written[dtype]["losses"][name], written[dtype]["processor"]


def processor() -> str:
    """Return what float32 rounding depends on: the maker, and the instructions PyTorch uses."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    vendors = [line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")]
    return f"{vendors[0] if vendors else platform.machine()} {get_cpu_capability()}"


@pytest.mark.parametrize("name", TINY)
def test_losses_fall(name: str, tiny: Callable[[str], Run]) -> None:
    losses = [row["saliency"] for row in tiny(name).rows]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("name", TINY)
def test_float32_losses_are_the_golden_ones(name: str, tiny: Callable[[str], Run]) -> None:
    """The first loss everywhere; the others on the kind of processor that they are from.

    Processors round sums in ways of their own, and each step amplifies the difference. Between
    processors of one kind it stays below 1e-3, which is far below what a wrong term, weight or
    order of clips would do.
    """
    rows = tiny(name).rows
    losses = {
        "saliency": [row["saliency"] for row in rows],
        "domain": [row["domain"] for row in rows if "domain" in row],
    }
    expected, written_on = golden("float32", name, losses)
    np.testing.assert_allclose(losses["saliency"][0], expected["saliency"][0], rtol=1e-5)
    if processor() != written_on:
        pytest.skip(f"the later losses are from {written_on}, this is {processor()}")
    np.testing.assert_allclose(losses["saliency"], expected["saliency"], rtol=1e-3)
    np.testing.assert_allclose(losses["domain"], expected["domain"], rtol=1e-3)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train in float64 from the random start on, the ground truth included."""

    def in_float64(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.double() if isinstance(a, torch.Tensor) else a for a in arguments)

    def build_exact(recipe: Recipe) -> torch.nn.Module:
        network = build(recipe)
        network.register_forward_pre_hook(lambda _, arguments: in_float64(arguments))
        return network

    def costs_exact(
        model: torch.nn.Module, recipe: Recipe, batch: Batch, reversal: float
    ) -> dict[str, torch.Tensor]:
        return costs(model, recipe, replace(batch, maps=batch.maps.double()), reversal)

    monkeypatch.setattr(trainer, "build", build_exact)
    monkeypatch.setattr(trainer, "costs", costs_exact)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.usefixtures("one_thread", "float64")
def test_float64_losses_are_the_golden_ones(
    name: str, packs: dict[str, Path], tmp_path: Path
) -> None:
    """The same on every processor, with or without its vector instructions, to 1e-8.

    At 1e-4 of the recipe's learning rate: at the full one each step amplifies rounding
    about 1e5 times, in float64 too.
    """
    recipe = recipes.get(name)
    rate = recipe.optimizer.learning_rate / 1e4
    recipe = recipe.with_settings(
        ["clips.size=32x64", "iterations=3", f"optimizer.learning_rate={rate}"]
    )
    datasets = {key: open_packed(packs[value]) for key, value in TINY[name].items()}
    one = trainer._Trainer(trainer._fabric(recipe), recipe, datasets, tmp_path)
    assert {value.dtype for value in one.network.parameters()} == {torch.float64}
    with ThreadPoolExecutor(1) as reader:
        batches = one._batches(reader)
        rows = [one._iterate(iteration, batches) for iteration in range(recipe.iterations)]
    values = {
        key: [row[key] for row in rows if key in row]
        for key in ("saliency", "domain", "gradient_norm")
    }
    expected, _ = golden("float64", name, values)
    # A gradient's rounding is amplified more, to 2e-5 in UNISAL's third.
    for key, rtol in {"saliency": 1e-6, "domain": 1e-6, "gradient_norm": 1e-3}.items():
        np.testing.assert_allclose(values[key], expected[key], rtol=rtol, err_msg=key)


@pytest.mark.parametrize("name", TINY)
def test_what_a_run_leaves_behind(name: str, tiny: Callable[[str], Run]) -> None:
    run, recipe = tiny(name), recipes.get(name)
    table = read(run.folder / "training.csv")
    assert [row["loss"] for row in table] == [repr(row["loss"]) for row in run.rows]
    assert len(table) == recipe.iterations == run.outcome.progress.iteration
    scores = {
        int(row["iteration"]): float(row["cc"]) for row in read(run.folder / "validation.csv")
    }
    assert list(scores) == list(
        range(recipe.validation.every, recipe.iterations + 1, recipe.validation.every)
    )
    best = run.outcome.progress
    assert best.best == max(scores.values()) == scores[best.best_iteration]
    written = json.loads((run.folder / "recipe.json").read_text())
    assert set(written.pop("data")) == set(TINY[name])
    assert written == recipe.settings()
    # the weights have the published names
    model = networks.load(load_state_dict(run.folder / "best.safetensors"), recipe.model)
    assert not model.training
    facts = metadata_of(run.folder / "best.safetensors")
    assert facts["model"] == recipe.model
    assert facts["size"] == "x".join(map(str, recipe.clips.size))
    assert int(facts["iteration"]) == best.best_iteration
    saved = latest(run.folder)
    assert saved is not None
    assert [path.name for path in saved.parent.iterdir()] == [f"{recipe.iterations:06d}"]
    for iteration in scores:
        (picture,) = (run.folder / "pictures" / f"{iteration:06d}").glob("*.png")
        assert cv2.imread(str(picture)) is not None
    (events,) = (run.folder / "tensorboard").glob("events.out.tfevents.*")
    content = events.read_bytes()
    for tag in (b"training/loss", b"validation/cc", b"maps/0003", b"\x89PNG"):
        assert tag in content, tag


def test_a_trained_checkpoint_is_exported_and_streamed(
    tiny: Callable[[str], Run], tmp_path: Path
) -> None:
    """`train` → `export`, checked against PyTorch → `run`, with nothing said twice."""
    best, graph = tiny("hd2s-tiny").folder / "best.safetensors", tmp_path / "graph.onnx"
    video = clip("bikes.mp4")
    for command in (
        ["export", best, "--model", "hd2s", "--frames", video, "-o", graph],
        ["run", video, "--model", graph, "--limit", "12", "--maps", tmp_path / "maps"],
    ):
        done = CliRunner().invoke(load_commands(), [str(part) for part in command])
        assert done.exit_code == 0, (done.output, done.exception)
    spec = SaliencyModel.open(graph).spec
    assert (spec.size, spec.window) == ((64, 64), 8)
    assert len(list((tmp_path / "maps").iterdir())) == 12


# The optimizer's step


def test_the_gradient_of_the_shortest_clips_is_right() -> None:
    """PyTorch's float32 against its float64; below 8 frames they differ by half."""
    shortest = recipes.get("hd2s-tiny").clips.length
    with pytest.raises(UsageError, match="8 to 16"):
        recipes.get("hd2s-tiny").with_settings([f"clips.length={shortest - 1}"])
    torch.manual_seed(0)
    stem = build(recipes.get("hd2s-net1-tiny")).get_submodule("featureExtractor.block1.0.conv_t")
    x = torch.randn(2, 64, shortest, 16, 16)
    weights = torch.randn(2, 64, shortest // 2, 16, 16)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        stem.zero_grad()
        (stem.to(dtype)(x.to(dtype)) * weights.to(dtype)).sum().backward()
        (parameter,) = stem.parameters()
        assert parameter.grad is not None
        gradients.append(parameter.grad.clone().double())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["hd2s-dsl-tiny", "unisal-tiny"])
def test_a_batch_of_one_domain_changes_nothing_of_another(
    name: str, packs: dict[str, Path], tmp_path: Path
) -> None:
    """Neither a parameter (weight decay and the optimizer's memory included) nor a statistic."""
    domains = ["dhf1k", "hollywood", "ucfsports"]
    recipe = recipes.get(name).with_settings(
        ["optimizer.weight_decay=0.1", "iterations=3", "save_every=1", "validation.every=9",
         "validation.videos=1", "clips.accumulate=2", "clips.mix=alternate",
         f"sources={','.join(domains)}", "clips.size=32x64"]
    )  # fmt: skip
    before = build(recipe).state_dict()
    seen = []

    def listen(iteration: int, row: dict[str, Any], total: int) -> None:
        saved = latest(tmp_path)
        assert saved is not None
        state = load_state_dict(saved / "weights.safetensors")
        changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
        before.update(state)
        source = row["source"]
        seen.append(source)
        assert any(f"bn_{source}.running_mean" in entry.lower() for entry in changed)
        assert any(source in entry.lower() and "bn_" not in entry for entry in changed)
        memory = load_state_dict(saved / "training.safetensors")
        for other in domains:
            own = [entry for entry in changed if other in entry.lower()]
            assert bool(own) == (other == source), (source, own)
            remembered = [entry for entry in memory if other in entry.lower()]
            assert bool(remembered) == (other in seen), (source, remembered)

    trainer.train(recipe, dict.fromkeys(recipe.sources, packs["video"]), tmp_path, listener=listen)
    assert seen == domains


def test_reversal_reaches_the_backbone_as_minus_lambda_times_the_classifiers_gradient(
    packs: dict[str, Path],
) -> None:
    """Through the loss that is trained, for every parameter before the reversal; exactly."""
    recipe = recipes.get("hd2s-da-tiny")
    model = build(recipe).eval()  # dropout would differ between the two passes
    batch = open_source("target", open_packed(packs["images"]), recipe, False).batch(0)
    found: dict[float, dict[str, torch.Tensor]] = {}
    # Powers of two, so that multiplying is exact.
    for reversal in (-1.0, 0.25, 0.5, 1.0):
        model.zero_grad()
        terms = costs(model, recipe, batch, reversal)
        assert list(terms) == ["domain"]
        terms["domain"].backward()  # type: ignore[no-untyped-call]
        found[reversal] = {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }
    plain = found.pop(-1.0)  # reversing with -1 passes the gradient on as it is
    before = [n for n in plain if n.startswith(("featureExtractor", "conv_t"))]
    assert any(plain[name].any() for name in before)
    for reversal, gradients in found.items():
        for name, gradient in gradients.items():
            factor = -reversal if name in before else 1
            assert torch.equal(gradient, factor * plain[name]), (reversal, name)


@pytest.mark.parametrize("mixed", ["false", "true"])
def test_a_pair_of_batches_trains_the_classifiers_alone(
    mixed: str, packs: dict[str, Path], tmp_path: Path
) -> None:
    """HD2S, section 4.2; also where weight decay or Adam's memory would move the others."""
    recipe = recipes.get("hd2s-da-tiny").with_settings(
        [f"mixed={mixed}", "optimizer.weight_decay=0.1", "iterations=1", "clips.size=32x64"]
    )
    datasets = {name: open_packed(packs[of]) for name, of in TINY["hd2s-da-tiny"].items()}
    one = trainer._Trainer(trainer._fabric(recipe), recipe, datasets, tmp_path)
    with ThreadPoolExecutor(1) as reader:
        batches = list(one._batches(reader))
    assert [batch.source for batch in batches] == ["source", "target"] * 2
    one._iterate(0, iter(batches))  # Adam now remembers every parameter
    before = {name: value.clone() for name, value in one.network.named_parameters()}
    one._train_classifiers(0, iter(batches[2:]))
    changed = {n for n, p in one.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {name for name in before if name.startswith(CLASSIFIERS)}


def test_accumulated_batches_count_as_one(packs: dict[str, Path], tmp_path: Path) -> None:
    """Four clips at once, or two times two, move the weights alike (statistics frozen)."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for accumulate in (1, 2):
        found = rows.setdefault(accumulate, [])
        settings = ["frozen_norms=all", "iterations=2", f"clips.accumulate={accumulate}"]
        trainer.train(
            recipes.get("hd2s-net1-tiny").with_settings(
                [*settings, f"clips.batch={4 // accumulate}"]
            ),
            {"source": packs["video"]},
            tmp_path / str(accumulate),
            listener=lambda _, row, __, found=found: found.append(  # type: ignore[misc]
                (row["loss"], row["gradient_norm"])
            ),
        )
    np.testing.assert_allclose(rows[1], rows[2], rtol=1e-5)


def test_unisals_backbone_waits_and_learns_slower(packs: dict[str, Path], tmp_path: Path) -> None:
    """Frozen for two epochs, then at a tenth; images at half the learning rate."""
    recipe = recipes.get("unisal-tiny").with_settings(
        ["optimizer.backbone_after=1", "optimizer.backbone_rate=0.1", "frozen_norms=backbone",
         "sources=dhf1k,salicon", "validation.on=dhf1k", "save_every=1", "iterations=6",
         "validation.every=99", "clips.batch=1", "clips.image_batch=6"]
    )  # fmt: skip
    before = build(recipe).state_dict()
    rows = []
    moved = []

    def listen(iteration: int, row: dict[str, Any], total: int) -> None:
        saved = latest(tmp_path)
        assert saved is not None
        state = load_state_dict(saved / "weights.safetensors")
        changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
        before.update(state)
        rows.append(row)
        moved.append(any(name.startswith("cnn.") for name in changed))
        assert not [n for n in changed if n.startswith("cnn.") and "running" in n]
        assert any(name.startswith("post_cnn") for name in changed)

    data = {"dhf1k": packs["video"], "salicon": packs["images"]}
    trainer.train(recipe, data, tmp_path, listener=listen)
    # an epoch: 3 videos one by one, 6 images at once
    assert moved == [False] * 4 + [True] * 2
    for index, row in enumerate(rows):
        rate = 0.004 * (0.8 if index >= 4 else 1) * (0.5 if row["source"] == "salicon" else 1)
        assert row["learning_rate"] == pytest.approx(rate)
    assert [row["source"] for row in rows[:4]].count("salicon") == 1


def test_a_running_average_is_what_is_validated_and_kept(
    packs: dict[str, Path], tmp_path: Path
) -> None:
    settings = ["average=0.5", "iterations=2", "validation.every=2", "save_every=1"]
    recipe = recipes.get("hd2s-net1-tiny").with_settings(settings)
    weights = [build(recipe).state_dict()]

    def listen(iteration: int, row: dict[str, Any], total: int) -> None:
        saved = latest(tmp_path)
        assert saved is not None
        weights.append(load_state_dict(saved / "weights.safetensors"))

    outcome = trainer.train(recipe, {"source": packs["video"]}, tmp_path, listener=listen)
    assert outcome.best is not None
    best, name = load_state_dict(outcome.best), "decoder2.last_conv2.weight"
    a, b, c = (state[name] for state in weights)
    # at most (1 + n) / (10 + n) of the old after n iterations
    torch.testing.assert_close(best[name], (a * 2 / 11 + b * 9 / 11) / 4 + c * 3 / 4)
    assert not torch.equal(best[name], c)


@pytest.mark.slow
def test_bf16_is_close_to_float32(packs: dict[str, Path], tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for precision in ("32-true", "bf16-mixed"):
        found = losses.setdefault(precision, [])
        trainer.train(
            recipes.get("hd2s-net1-tiny").with_settings([f"precision={precision}", "iterations=3"]),
            {"source": packs["video"]},
            tmp_path / precision,
            listener=lambda _, row, __, found=found: found.append(row["loss"]),  # type: ignore[misc]
        )
    assert losses["bf16-mixed"] != losses["32-true"]
    np.testing.assert_allclose(losses["bf16-mixed"], losses["32-true"], rtol=0.05)


# Starting points


def test_a_backbone_starts_from_its_pretraining(tmp_path: Path) -> None:
    """By position, under names of another kind, with a classifier behind it."""
    for family, recipe in (
        ("unisal", "unisal-tiny"),
        ("esan", "esan-tiny"),
        ("hd2s", "hd2s-net1-tiny"),
    ):
        torch.manual_seed(1)
        donor = networks.get("s3d").build() if family == "hd2s" else build(recipes.get(recipe))
        if family == "hd2s":
            state = donor.state_dict()
        else:
            name = {"unisal": "cnn", "esan": "base"}[family]
            own = donor.get_submodule(name).state_dict()
            state = {f"features.{k}": torch.rand_like(v.float()) for k, v in own.items()}
            state["classifier.1.weight"] = torch.zeros(10, 1280)
        path = tmp_path / f"{family}.pth"
        torch.save(state, path)
        model = build(recipes.get(recipe).with_settings([f"start_from={path}"]))
        mine = model.get_submodule(
            {"unisal": "cnn", "esan": "base", "hd2s": "featureExtractor"}[family]
        )
        counters = "batches_tracked"
        given = [v for k, v in state.items() if counters not in k]
        got = [v for k, v in mine.state_dict().items() if counters not in k]
        assert all(torch.equal(a, b) for a, b in zip(got, given, strict=False))
    with pytest.raises(SalstreamError, match="neither a checkpoint of the network nor"):
        start_from(build(recipes.get("esan-tiny")), "esan", tmp_path / "unisal.pth")


def test_a_run_starts_from_a_checkpoint_of_the_network(tiny: Callable[[str], Run]) -> None:
    """As transfer learning does; HD2S-DA's classifiers for another size begin anew."""
    best = tiny("hd2s-da-tiny").folder / "best.safetensors"
    settings = [f"start_from={best}", "clips.size=32x32"]
    started = build(recipes.get("hd2s-da-tiny").with_settings(settings)).state_dict()
    given = load_state_dict(best)
    same = {
        name
        for name, value in given.items()
        if value.shape == started[name].shape and torch.equal(value, started[name])
    }
    assert {name.split(".")[0] for name in given.keys() - same} == {
        f"domainClassifier{number}" for number in (2, 3, 4, 5)
    }


def test_a_teacher_makes_maps_of_unlabelled_video(packs: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["iterations=2"])
    data = {"source": packs["unlabelled"]}
    with pytest.raises(UsageError, match="teacher=unisal-dhf1k"):
        trainer.train(recipe, data, tmp_path / "without")
    taught = recipe.with_settings(["teacher=unisal-dhf1k"])
    outcome = trainer.train(taught, data, tmp_path / "with")
    assert outcome.best is None  # nobody looked, so nothing to validate on
    cached = sorted((packs["unlabelled"] / "teachers").glob("unisal-dhf1k-*/*.npy"))
    assert [path.name for path in cached] == ["0000.npy", "0001.npy", "0002.npy"]
    # the teacher's maps are those of the runtime
    video = open_packed(packs["unlabelled"]).videos("train")[0]
    frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in video.frames]
    results = list(SaliencyModel.open("unisal-dhf1k").stream(frames, fps=30))
    maps = np.load(cached[0])
    expected = np.stack([result.saliency for result in results])
    expected = expected / expected.max(axis=(1, 2), keepdims=True) * 255
    np.testing.assert_allclose(maps, expected, atol=1.01)


# Going on


def _run(*arguments: object, threads: int = 1, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(part) for part in arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _same_losses(a: Path, b: Path) -> None:
    """Bit for bit: the tables hold numbers as repr writes them."""
    for table in ("training.csv", "validation.csv"):
        rows = [
            [{k: v for k, v in row.items() if k != "clips_per_second"} for row in read(run / table)]
            for run in (a, b)
        ]
        assert rows[0] == rows[1]
        assert rows[0]


def test_a_run_that_was_killed_and_resumed_is_the_same_run(
    packs: dict[str, Path], tmp_path: Path
) -> None:
    """SIGKILL at a random moment; dropout, shuffled sources, momentum, a running average."""
    data = {name: packs[value] for name, value in TINY["unisal-tiny"].items()}
    settings = ["iterations=16", "save_every=3", "validation.every=6", "average=0.9"]
    command = [PROGRAM, "train", "unisal-tiny", *(f"--data={k}={v}" for k, v in data.items())]
    command += [f"--set={setting}" for setting in settings]
    alone = _run(*command, "-o", tmp_path / "alone")
    assert alone.wait() == 0, alone.communicate()
    random = np.random.default_rng()
    killed, wanted = tmp_path / "killed", random.integers(1, 14)
    process = _run(*command, "-o", killed)
    while len(read(killed / "training.csv")) < wanted and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    at = len(read(killed / "training.csv"))
    assert at < 16, "it was killed too late to show anything"
    resumed = _run(*command, "-o", killed, "--resume")
    assert resumed.wait() == 0, resumed.communicate()
    _same_losses(tmp_path / "alone", killed)
    for name in ("weights.safetensors", "training.safetensors"):
        states = [latest(run) for run in (tmp_path / "alone", killed)]
        first, second = (load_state_dict(state / name) for state in states if state)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), (name, at)


def test_adam_and_gradient_reversal_go_on_too(packs: dict[str, Path], tmp_path: Path) -> None:
    """In one process: stopped between two states by whatever raises there."""
    recipe = recipes.get("hd2s-da-tiny").with_settings(
        ["iterations=3", "save_every=2", "validation.every=3"]
    )
    data = {name: packs[value] for name, value in TINY["hd2s-da-tiny"].items()}
    trainer.train(recipe, data, tmp_path / "alone")

    def stop(iteration: int, row: dict[str, Any], total: int) -> None:
        if iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, data, tmp_path / "stopped", listener=stop)
    trainer.train(recipe, data, tmp_path / "stopped", resume=True)
    _same_losses(tmp_path / "alone", tmp_path / "stopped")


def test_an_optimizer_that_remembers_nothing_goes_on_too(
    packs: dict[str, Path], tmp_path: Path
) -> None:
    recipe = recipes.get("hd2s-net1-tiny").with_settings(
        ["optimizer.kind=sgd", "iterations=2", "save_every=1", "validation.every=9"]
    )
    data = {"source": packs["video"]}

    def stop(iteration: int, row: dict[str, Any], total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(recipe, data, tmp_path, listener=stop)
    assert trainer.train(recipe, data, tmp_path, resume=True).progress.iteration == 2


def test_resuming_another_run_is_refused(packs: dict[str, Path], tmp_path: Path) -> None:
    run, data = tmp_path / "run", {"source": packs["video"]}
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["iterations=1"])
    outcome = trainer.train(recipe, data, run)
    with pytest.raises(UsageError, match="holds a run already; add --resume"):
        trainer.train(recipe, data, run)
    with pytest.raises(UsageError, match="started with seed=0, not 1"):
        trainer.train(recipe.with_settings(["seed=1"]), data, run, resume=True)
    with pytest.raises(UsageError, match=r"started with iterations=1, not 2; .*start_from="):
        trainer.train(recipe.with_settings(["iterations=2"]), data, run, resume=True)
    with pytest.raises(UsageError, match="data called source is not what"):
        trainer.train(recipe, {"source": packs["images"]}, run, resume=True)
    with pytest.raises(UsageError, match="no run to resume"):
        trainer.train(recipe, data, packs["video"], resume=True)
    # a finished run has nothing left to do
    assert trainer.train(recipe, data, run, resume=True).progress == outcome.progress


# Several processes


WITHOUT_DROPOUT = """
from salstream.runtime.cli import main
from salstream.training.hd2s import adaptation
adaptation._DROPOUT = 0.0
main()
"""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("hd2s-dsl-tiny", ("dhf1k", "hollywood", "ucfsports")),
        ("hd2s-da-tiny", ("source", "target")),
    ],
)
def test_two_processes_do_what_one_does(
    name: str, data: tuple[str, ...], packs: dict[str, Path], tmp_path: Path
) -> None:
    """The same global batch over gloo; without what differs by design, see docs/training.md.

    Domains take turns and batches are accumulated, and a target has no saliency, so each step
    leaves some layers out.
    """
    command: list[object] = [sys.executable, "-c", WITHOUT_DROPOUT, "train", name]
    command += [f"--data={key}={packs['video']}" for key in data]
    settings = ("frozen_norms=all", "iterations=4", "clips.accumulate=2", "clips.size=32x32")
    command += [f"--set={setting}" for setting in (*settings, "validation.every=2")]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
    ]
    one = _run(*command, "-o", tmp_path / "one")
    two = _run(*torchrun, *command, "-o", tmp_path / "two")
    for process in (one, two):
        output = process.communicate()
        assert process.returncode == 0, output
    tables = [read(tmp_path / name / "training.csv") for name in ("one", "two")]
    assert [row["source"] for row in tables[0]] == [row["source"] for row in tables[1]]
    for column in ("loss", "gradient_norm"):
        first, second = ([float(row[column]) for row in table] for table in tables)
        assert len(first) == 4
        np.testing.assert_allclose(second, first, rtol=1e-5)
    # Not CC: after four steps the maps are nearly constant, and their CC is a matter of rounding.
    scores = [
        float(row["kld"])
        for name in ("one", "two")
        for row in read(tmp_path / name / "validation.csv")
    ]
    np.testing.assert_allclose(scores[:2], scores[2:], rtol=1e-6)


def test_processes_that_cannot_share_a_batch(packs: dict[str, Path]) -> None:
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["clips.batch=3"])

    two = cast("Any", SimpleNamespace(global_rank=0, world_size=2, device=torch.device("cpu")))
    datasets = {"source": open_packed(packs["video"])}
    with pytest.raises(UsageError, match="2 processes cannot share a batch of 3"):
        trainer._Trainer(two, recipe, datasets, Path())


def test_a_compiled_network_learns_the_same(
    packs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PyTorch's tracing alone: writing and compiling C++ would take minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["iterations=2", "validation.every=2"])
    for compiled in ("false", "true"):
        chosen = recipe.with_settings([f"compile={compiled}"])
        trainer.train(chosen, {"source": packs["video"]}, tmp_path / compiled)
    _same_losses(tmp_path / "false", tmp_path / "true")
    states = [load_state_dict(tmp_path / name / "best.safetensors") for name in ("false", "true")]
    assert states[0].keys() == states[1].keys()


# What can go wrong


def test_a_validation_without_a_score_is_never_the_best(
    packs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = dict.fromkeys(("cc", "nss", "sim", "kld"), float("nan"))
    monkeypatch.setattr(trainer, "validate", lambda *_: [nothing])
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["iterations=1"])
    outcome = trainer.train(recipe, {"source": packs["video"]}, tmp_path)
    assert outcome.best is None
    assert outcome.last is not None


def test_a_loss_that_is_no_number_ends_the_run(packs: dict[str, Path], tmp_path: Path) -> None:
    """The message says which batch; the last state before it is intact."""
    recipe = recipes.get("hd2s-net1-tiny").with_settings(
        ["optimizer.learning_rate=1e20", "save_every=1", "iterations=9", "validation.every=9"]
    )
    with pytest.raises(
        SalstreamError, match=r"(loss|gradient) of iteration \d is nan, in the batch 000\d:\d+, "
    ) as caught:
        trainer.train(recipe, {"source": packs["video"]}, tmp_path)
    saved = latest(tmp_path)
    assert saved is not None
    assert f"{saved} is intact" in str(caught.value)
    iteration = int(saved.name)
    assert f"of iteration {iteration + 1} is" in str(caught.value)
    state = load_state_dict(saved / "weights.safetensors")
    assert iteration == len(read(tmp_path / "training.csv"))
    build(recipe).load_state_dict(state)


@pytest.mark.parametrize("name", ["hd2s-net1-tiny", "hd2s-da-tiny"])
@pytest.mark.parametrize("every", [1, 9])
def test_numbers_that_are_none_reach_no_file(
    name: str, every: int, packs: dict[str, Path], tmp_path: Path
) -> None:
    """Whatever finds them first: a loss, a gradient, a validation, the classifiers' own step."""
    recipe = recipes.get(name).with_settings(
        ["optimizer.learning_rate=1e16", "save_every=1", "iterations=9",
         f"validation.every={every}", "clips.size=32x64"]
    )  # fmt: skip
    data = {key: packs[value] for key, value in TINY.get(name, {"source": "video"}).items()}
    with pytest.raises(SalstreamError, match="the run stops") as caught:
        trainer.train(recipe, data, tmp_path)
    assert not isinstance(caught.value, UsageError)
    for saved in tmp_path.glob("checkpoints/*/*.safetensors"):
        assert all(value.isfinite().all() for value in load_state_dict(saved).values()), saved


def test_a_full_disk_leaves_the_state_before(packs: dict[str, Path], tmp_path: Path) -> None:
    """A real refusal by the system: files may not grow beyond a limit."""
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["save_every=1", "iterations=4"])
    data = {"source": packs["video"]}

    def fill(iteration: int, row: dict[str, Any], total: int) -> None:
        if iteration == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(
            SalstreamError, match=r"cannot save .*: File too large; make room"
        ) as caught:
            trainer.train(recipe, data, tmp_path / "full", listener=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the state of iteration 2 is intact" in str(caught.value)
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["000002"]
    trainer.train(recipe, data, tmp_path / "full", resume=True)
    trainer.train(recipe, data, tmp_path / "alone")
    _same_losses(tmp_path / "alone", tmp_path / "full")


def test_a_damaged_state_is_said(packs: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipes.get("hd2s-net1-tiny").with_settings(["iterations=1"])
    data = {"source": packs["video"]}
    trainer.train(recipe, data, tmp_path)
    saved = latest(tmp_path)
    assert saved is not None
    weights = saved / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(SalstreamError, match="damaged"):
        trainer.train(recipe, data, tmp_path, resume=True)


def test_the_command_says_what_is_wrong(packs: dict[str, Path], tmp_path: Path) -> None:
    def said(*arguments: object) -> str:
        done = CliRunner().invoke(load_commands(), ["train", *map(str, arguments)])
        assert isinstance(done.exception, UsageError), done.output
        return str(done.exception)

    run = ("-o", tmp_path / "run")
    assert "did you mean 'hd2s-tiny'" in said("hd2s-tinny")
    assert "did you mean 'iterations'" in said("hd2s-tiny", "--set", "iteratoins=3")
    assert "needs data called source" in said("hd2s-tiny", *run)
    assert "--data NAME=FOLDER" in said("hd2s-tiny", "--data", packs["video"], *run)
    assert "no prepared dataset" in said("hd2s-tiny", "--data", f"source={tmp_path}", *run)
    both = ("--data", f"source={packs['video']}", "--data", f"other={packs['video']}")
    assert "no data called 'other'" in said("hd2s-tiny", *both, *run)
    assert not (tmp_path / "run").exists()


def test_the_command_shows_settings_and_trains(packs: dict[str, Path], tmp_path: Path) -> None:
    application = load_commands()
    shown = CliRunner().invoke(application, ["train", "hd2s", "--show"])
    assert "optimizer.learning_rate = 0.001" in shown.stdout
    assert "clips.size = 128x192" in shown.stdout
    command = ["train", "hd2s-net1-tiny", "--data", f"source={packs['video']}", "--json"]
    command += ["--set", "iterations=2", "-o", str(tmp_path)]
    done = CliRunner().invoke(application, command)
    assert done.exit_code == 0, (done.output, done.exception)
    facts = json.loads(done.stdout)
    assert (facts["iterations"], facts["best_iteration"]) == (2, 2)
    assert Path(facts["best"]).is_file()

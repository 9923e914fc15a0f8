"""The training loop.

An iteration is one step of the optimizer: `clips` draws its batches, `objectives` says what
they cost, Lightning Fabric places it all on one device or on many. Whatever an iteration does
depends on the seed, its number and the state before it alone; that is why a run that is
killed and resumed is the same run.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from salstream.runtime import files
from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training import states
from salstream.training.clips import Batch, Source, open_source
from salstream.training.data.packed import PackedDataset, PackedVideo, open_packed
from salstream.training.journal import Journal
from salstream.training.objectives import (
    CLASSIFIERS,
    build,
    costs,
    mixed_costs,
    parameter_groups,
    train_mode,
)
from salstream.training.order import generator, source_of
from salstream.training.recipes.config import Recipe
from salstream.training.schedules import learning_rate, reversal_strength
from salstream.training.states import Progress
from salstream.training.teacher import Teacher
from salstream.training.validation import mean_over_videos, validate, validation_videos

_log = logging.getLogger("salstream")
_LESS_IS_MORE: Final = ("kld",)

# Called after every iteration with its number, what was written down of it, and how many
# iterations there are.
Listener = Callable[[int, dict[str, Any], int], None]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        best: The checkpoint that validated best; None without validation videos.
        last: The last saved state's folder.
        progress: How far it is, and when it was best.
        writes: Whether this is the one process of several that writes.
    """

    best: Path | None
    last: Path | None
    progress: Progress
    writes: bool = True


def train(
    recipe: Recipe,
    data: dict[str, Path],
    run: Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Train a network.

    Under torchrun every process calls this, and they share each batch.

    Args:
        recipe: The experiment.
        data: Folder of the packed dataset of each name in ``recipe.data``.
        run: Folder for checkpoints and records.
        resume: Go on with the run that the folder holds.
        listener: Told of every iteration.

    Raises:
        UsageError: Data is missing, or the folder holds another run.
        SalstreamError: The loss is not a number any more, a clip cannot be read, or the disk
            is full. What was saved before is intact.
    """
    datasets = _datasets(recipe, data)
    fabric = _fabric(recipe)
    facts = {**recipe.settings(), "data": {k: v.fingerprint() for k, v in datasets.items()}}
    if fabric.global_rank == 0:
        _refuse_another(run, facts, resume)
    fabric.barrier()
    trainer = _Trainer(fabric, recipe, datasets, run)
    if fabric.global_rank == 0 and not resume:
        files.write_text(run / "recipe.json", json.dumps(facts, indent=1))
    return trainer.run(listener or (lambda iteration, row, total: None))


def planned_iterations(recipe: Recipe, sources: list[Source]) -> int:
    """Return how many iterations a run has."""
    per_epoch = sum(source.iterations_per_epoch for source in sources)
    return recipe.iterations or recipe.epochs * per_epoch


class _Trainer:
    """A run: its network, optimizer and data, and how far it is."""

    def __init__(
        self, fabric: Fabric, recipe: Recipe, datasets: dict[str, PackedDataset], run: Path
    ) -> None:
        self.fabric, self.recipe, self.folder = fabric, recipe, run
        self.sources = [
            open_source(name, datasets[name], recipe, True, _teacher(recipe, datasets[name]))
            for name in recipe.sources
        ]
        self.target = (
            open_source(recipe.target, datasets[recipe.target], recipe, False)
            if recipe.target
            else None
        )
        for source in (*self.sources, *filter(None, [self.target])):
            if source.left_out:
                _log.info(
                    "%s: %d videos are too short for a clip and left out: %s",
                    source.name, len(source.left_out), ", ".join(source.left_out[:3]),
                )  # fmt: skip
            if source.batch_size % fabric.world_size:
                raise UsageError(
                    f"{fabric.world_size} processes cannot share a batch of {source.batch_size}; "
                    "set clips.batch to a multiple"
                )
        splits = {name: dataset.videos("val") for name, dataset in datasets.items()}
        self.validation = validation_videos(recipe, splits)
        if not self.validation:
            _log.warning("there are no labelled validation videos: the last state is what you get")
        self.iterations = planned_iterations(recipe, self.sources)
        self.per_epoch = sum(source.iterations_per_epoch for source in self.sources)

        self.network = build(recipe).to(fabric.device)
        backbone, rest = parameter_groups(self.network, recipe.family)
        self.optimizer = _optimizer(recipe, backbone, rest)
        self.average = (
            {k: v.detach().clone() for k, v in self.network.state_dict().items()}
            if recipe.average
            else {}
        )
        self.progress = Progress()
        saved = states.latest(run)
        if saved is not None:
            self.progress = states.load_state(saved, self.network, self.optimizer, self.average)
        self._refuse_unlike()
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
                self.network
            )
            train_mode(self.network, recipe)
        module: Any = torch.compile(self.network) if recipe.compile else self.network
        self.model, self.stepper = fabric.setup(module, self.optimizer)

    def _refuse_unlike(self) -> None:
        """Refuse processes that would go on from different states: they would wait for ever."""
        if self.fabric.world_size == 1:
            return
        begins: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(begins, self.progress.iteration)
        if len(set(begins)) > 1:
            raise UsageError(
                f"the processes see different states in {self.folder} (iterations "
                f"{', '.join(map(str, begins))}): give all machines one shared folder"
            )

    def run(self, listener: Listener) -> Outcome:
        """Do the iterations that are left."""
        records = Journal(self.folder, self.progress.iteration) if self._first else nullcontext()
        with records as journal, ThreadPoolExecutor(1) as reader:
            batches = self._batches(reader)
            for iteration in range(self.progress.iteration, self.iterations):
                began = time.perf_counter()
                row = self._iterate(iteration, batches)
                row["clips_per_second"] = self._clips(row["source"]) / (time.perf_counter() - began)
                done = iteration + 1
                self.progress = replace(self.progress, iteration=done)
                if journal is not None:
                    journal.training(row)
                last = done == self.iterations
                if self.validation and (last or done % self.recipe.validation.every == 0):
                    scores = self._validate(journal)
                    row |= {f"validation {name}": value for name, value in scores.items()}
                if last or done % self.recipe.save_every == 0:
                    self._save()
                listener(done, row, self.iterations)
        best = self.folder / states.BEST
        return Outcome(
            best if best.exists() else None, states.latest(self.folder), self.progress, self._first
        )

    @property
    def _first(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.fabric.global_rank == 0)

    def _clips(self, name: str) -> int:
        size = next(source.batch_size for source in self.sources if source.name == name)
        return size * self.recipe.clips.accumulate * (2 if self.target else 1)

    def _source(self, iteration: int) -> tuple[Source, int]:
        """Return the source of an iteration, and how many iterations it had before."""
        shuffled = self.recipe.clips.mix == "shuffle"
        per_epoch = [source.iterations_per_epoch for source in self.sources]
        chosen, before = source_of(self.recipe.seed, iteration, per_epoch, shuffled)
        return self.sources[chosen], before

    def _batches(self, reader: ThreadPoolExecutor) -> Iterator[Batch]:
        """Give every batch that is left, in order, each read while the one before is in use."""
        waiting: Future[Batch] | None = None
        for source, number in self._plan():
            rank, processes = self.fabric.global_rank, self.fabric.world_size
            following = reader.submit(source.batch, number, rank, processes)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()

    def _plan(self) -> Iterator[tuple[Source, int]]:
        """Give source and number of every batch; the target's take turns with the source's."""
        # With a target one more batch of each, for the classifiers alone.
        count = self.recipe.clips.accumulate + bool(self.target)
        for iteration in range(self.progress.iteration, self.iterations):
            source, before = self._source(iteration)
            for part in range(count):
                yield source, before * count + part
                if self.target is not None:
                    yield self.target, iteration * count + part

    def _iterate(self, iteration: int, batches: Iterator[Batch]) -> dict[str, Any]:
        """Do one step of the optimizer; return what there is to say about it."""
        recipe = self.recipe
        source, _ = self._source(iteration)
        reversal = recipe.reversal * reversal_strength(iteration / self.iterations)
        rate = self._set_learning_rate(iteration, source.static)
        # Dropout: of this iteration and process, whatever came before.
        key = generator(recipe.seed, "dropout", iteration, self.fabric.global_rank)
        torch.manual_seed(int(key.integers(2**63)))
        self.stepper.zero_grad()
        alternate = self.target is not None and not recipe.mixed
        count = recipe.clips.accumulate * (2 if alternate else 1)
        totals: dict[str, Tensor] = {}
        seen: list[Batch] = []
        for part in range(count):
            batch = next(batches).to(self.fabric.device)
            seen.append(batch)
            with self.fabric.no_backward_sync(self.model, enabled=part < count - 1):
                if self.target is not None and recipe.mixed:
                    seen.append(next(batches).to(self.fabric.device))
                    terms = mixed_costs(self.model, recipe, batch, seen[-1], reversal)
                else:
                    terms = costs(self.model, recipe, batch, reversal)
                loss = torch.stack(list(terms.values())).sum() / recipe.clips.accumulate
                self._refuse("loss", loss.detach(), iteration, batch)
                self.fabric.backward(loss)
            for name, value in terms.items():
                totals[name] = totals.get(name, 0) + value.detach() / recipe.clips.accumulate
        norm = self._step(iteration, *seen)
        if self.target is not None:
            self._train_classifiers(iteration, batches)
        self._follow()
        means = {name: float(self._mean(value)) for name, value in totals.items()}
        return {
            "iteration": iteration + 1,
            "source": source.name,
            "loss": sum(means.values()),
            **means,
            "learning_rate": rate,
            **({"reversal": reversal} if self.target else {}),
            "gradient_norm": float(norm),
        }

    def _step(self, iteration: int, *batches: Batch) -> Tensor:
        """Follow the gradients of these batches; return their norm."""
        settings = self.recipe.optimizer
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._refuse("gradient", norm, iteration, *batches)
        if settings.clip:
            torch.nn.utils.clip_grad_value_(self.network.parameters(), settings.clip)
        if iteration // self.per_epoch < settings.backbone_after:
            for parameter in self.optimizer.param_groups[0]["params"]:
                parameter.grad = None
        self.stepper.step()
        return norm

    def _train_classifiers(self, iteration: int, batches: Iterator[Batch]) -> None:
        """Update the domain classifiers alone, by one batch of each domain (HD2S, section 4.2)."""
        self.stepper.zero_grad()
        source, target = (next(batches).to(self.fabric.device) for _ in range(2))
        if self.recipe.mixed:
            loss = mixed_costs(self.model, self.recipe, source, target, 0.0)["domain"]
            self.fabric.backward(loss)
        else:
            for batch in (source, target):
                with self.fabric.no_backward_sync(self.model, enabled=batch is source):
                    self.fabric.backward(costs(self.model, self.recipe, batch, 0.0)["domain"])
        for name, parameter in self.network.named_parameters():
            if not name.startswith(CLASSIFIERS):
                parameter.grad = None
        self._step(iteration, source, target)

    def _set_learning_rate(self, iteration: int, static: bool) -> float:
        """Set the iteration's learning rates; return that of all but the backbone."""
        settings, epoch = self.recipe.optimizer, iteration // self.per_epoch
        rate = learning_rate(settings.learning_rate, settings.decay, epoch)
        rate *= settings.image_rate if static else 1
        backbone, rest = self.optimizer.param_groups
        backbone["lr"], rest["lr"] = rate * settings.backbone_rate, rate
        return rate

    def _refuse(self, what: str, value: Tensor, iteration: int, *batches: Batch) -> None:
        """End the run where a number is none any more, before it reaches the weights."""
        value = self._mean(value)
        if torch.isfinite(value):
            return
        clips = " and ".join(f"{', '.join(batch.names)} of {batch.source}" for batch in batches)
        raise self._diverged(
            f"the {what} of iteration {iteration + 1} is {float(value)}, in the batch {clips}"
        )

    def _diverged(self, what: str) -> SalstreamError:
        saved = states.latest(self.folder)
        kept = f"; {saved} is intact" if saved else ""
        return SalstreamError(
            f"{what}: the run stops{kept}; try a lower optimizer.learning_rate, or optimizer.clip"
        )

    def _mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes."""
        mean = self.fabric.all_reduce(value)
        assert isinstance(mean, Tensor)
        return mean

    def _follow(self) -> None:
        """Move the running average towards the weights."""
        if not self.average:
            return
        done = self.progress.iteration + 1
        # Early on a long average would be nothing but the random start.
        decay = min(self.recipe.average, (1 + done) / (10 + done))
        for name, now in self.network.state_dict().items():
            value = self.average[name]
            if value.is_floating_point():
                value.lerp_(now, 1 - decay)
            else:
                value.copy_(now)

    def _validate(self, journal: Journal | None) -> dict[str, float]:
        """Validate the network, or its running average, and keep it if it is the best."""
        kept = self.network.state_dict()
        weights = self.average or kept
        own = {name: value.clone() for name, value in kept.items()} if self.average else {}
        if self.average:
            self.network.load_state_dict(self.average)
        pictures = self.folder / "pictures" / f"{self.progress.iteration:06d}"
        share = self.validation[self.fabric.global_rank :: self.fabric.world_size]
        if self.fabric.world_size > 1:
            for buffer in self.network.buffers():  # each process has seen clips of its own
                torch.distributed.broadcast(buffer, 0)
        self.network.eval()
        try:
            scores = validate(self.network, self.recipe, share, pictures)
        except UsageError as error:  # the metrics', of maps that are not finite
            raise self._diverged(
                f"after iteration {self.progress.iteration} the network gives no maps ({error})"
            ) from error
        train_mode(self.network, self.recipe)
        if self.fabric.world_size > 1:
            everyone: list[Any] = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(everyone, scores)
            scores = [video for part in everyone for video in part]
        means = mean_over_videos(scores)
        if journal is not None:
            journal.validation({"iteration": self.progress.iteration, **means}, pictures)
        value = means[self.recipe.validation.select_by]
        if self._better(value):
            self.progress = replace(
                self.progress, best=value, best_iteration=self.progress.iteration
            )
            if self._first:
                states.save_best(self.folder, weights, self._metadata(means))
        if own:
            self.network.load_state_dict(own)
        return means

    def _better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if not self.progress.best_iteration:
            return True
        less = self.recipe.validation.select_by in _LESS_IS_MORE
        return value < self.progress.best if less else value > self.progress.best

    def _save(self) -> None:
        if not all(bool(value.isfinite().all()) for value in self.network.state_dict().values()):
            raise self._diverged(
                f"the weights after iteration {self.progress.iteration} are not finite"
            )
        if self._first:
            states.save_state(
                self.folder, self.network, self.optimizer, self.average, self.progress,
                self._metadata({}),
            )  # fmt: skip
        self.fabric.barrier()

    def _metadata(self, scores: dict[str, float]) -> dict[str, str]:
        """Return what a checkpoint says about itself."""
        clips = self.recipe.clips
        facts = {
            "model": self.recipe.model,
            "clip_length": str(clips.length),
            "iteration": str(self.progress.iteration),
        }
        if any(clips.size):
            facts["size"] = "x".join(map(str, clips.size))
        if clips.rate:
            facts["clip_rate"] = f"{clips.rate:f}"
        return facts | {f"validation_{name}": f"{value:.6g}" for name, value in scores.items()}


def _optimizer(
    recipe: Recipe, backbone: list[nn.Parameter], rest: list[nn.Parameter]
) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    groups = [
        {"params": backbone, "weight_decay": settings.backbone_weight_decay},
        {"params": rest, "weight_decay": settings.weight_decay},
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, settings.learning_rate, momentum=settings.momentum)
    return torch.optim.Adam(groups, settings.learning_rate)


def _fabric(recipe: Recipe) -> Fabric:
    """Return Fabric for this process, one of torchrun's or the only one."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = recipe.accelerator != "cpu" and torch.cuda.is_available()
    if recipe.accelerator == "cuda" and not cuda:
        raise UsageError("PyTorch finds no GPU here; use --set accelerator=cpu")
    strategy: Any = "auto"
    if processes > 1:
        # A batch of one domain leaves the other domains' layers out.
        strategy = DDPStrategy(
            find_unused_parameters=True, process_group_backend="nccl" if cuda else "gloo"
        )
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        strategy=strategy,
        devices=here,
        num_nodes=processes // here,
        precision=recipe.precision,
    )
    fabric.launch()
    return fabric


def _datasets(recipe: Recipe, data: dict[str, Path]) -> dict[str, PackedDataset]:
    """Open what the recipe needs, and refuse what it does not know."""
    needed = recipe.data
    missing = [name for name in needed if name not in data]
    if missing:
        raise UsageError(
            f"the recipe needs data called {', '.join(missing)}; give each one's packed folder: "
            + " ".join(f"--data {name}=FOLDER" for name in missing)
        )
    strangers = [name for name in data if name not in needed]
    if strangers:
        raise UsageError(
            f"the recipe has no data called {strangers[0]!r}, only {', '.join(needed)}; add it "
            "with --set sources=…, or leave it out"
        )
    return {name: open_packed(data[name]) for name in needed}


def _teacher(recipe: Recipe, dataset: PackedDataset) -> Callable[[PackedVideo], Any] | None:
    if not recipe.teacher:
        return None
    return Teacher(recipe.teacher, dataset.folder / "teachers").maps


def _refuse_another(run: Path, facts: dict[str, Any], resume: bool) -> None:
    """Refuse a folder that holds a run; to resume, one that holds none or another one."""
    path = run / "recipe.json"
    if not resume:
        if path.exists():
            raise UsageError(f"{run} holds a run already; add --resume, or give another folder")
        return
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{run} holds no run to resume; leave --resume out") from error
    for name, value in facts.pop("data").items():
        if before["data"].get(name) != value:
            raise UsageError(
                f"the data called {name} is not what {run} was started with: other videos, splits "
                "or sizes; resume it with the same data, or start another run"
            )
    for key, value in facts.items():
        if value != before.get(key):
            longer = (
                f"; a longer run is a new one: --set start_from={run / states.BEST} --set "
                f"{key}={value}, in another folder"
                if key in ("iterations", "epochs")
                else "; resume it as it was, or start another run"
            )
            raise UsageError(f"{run} was started with {key}={before.get(key)}, not {value}{longer}")

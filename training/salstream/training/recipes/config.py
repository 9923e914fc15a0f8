"""What a recipe says, and how single settings of it are changed from the command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, Literal, Self, get_args, get_origin, get_type_hints

from salstream.runtime.errors import UsageError
from salstream.training import esan, networks, unisal
from salstream.training.hd2s.config import CLIP_LENGTHS

# HD2S can make a map of 5 frames, but below 8 PyTorch 2.13 on a CPU gets the gradient of the
# stem's 7×1×1 convolution of stride 2 wrong by half, or crashes (oneDNN; forwards it is right).
_HD2S_LENGTHS: Final = range(8, CLIP_LENGTHS[-1] + 1)


@dataclass(frozen=True, kw_only=True)
class Clips:
    """How clips are drawn from videos.

    Attributes:
        size: Height and width of the network's input; 0x0: each domain's own, as published
            (UNISAL).
        length: Frames of a clip, T. An image is a video that stands still, except for UNISAL,
            which takes single images.
        rate: Frames per second of a clip; 0 takes every frame of the video.
        batch: Clips that are forwarded at once, over all processes together.
        image_batch: The same for data of images; 0: as ``batch``.
        accumulate: Batches whose gradients are added up for one iteration.
        flip: Probability of a horizontal flip.
        short_videos: Videos shorter than a clip: go back and forth through their frames, or
            leave them out of training.
        on_bad_clip: A clip that cannot be read: end the run, or take another one and say so.
        mix: Several sources: one after the other, or at random in proportion to their videos.
    """

    size: tuple[int, int]
    length: int
    rate: float = 0.0
    batch: int
    image_batch: int = 0
    accumulate: int = 1
    flip: float = 0.0
    short_videos: Literal["extend", "leave-out"] = "extend"
    on_bad_clip: Literal["stop", "skip"] = "stop"
    mix: Literal["alternate", "shuffle"] = "alternate"


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How parameters follow their gradients.

    Attributes:
        kind: The algorithm.
        learning_rate: At the start.
        decay: What the learning rate is multiplied by after each epoch, a pass over all
            videos.
        weight_decay: L2 penalty.
        momentum: Of SGD.
        clip: Largest absolute value of a gradient's entry; 0 does not clip.
        backbone_rate: Factor on the backbone's learning rate.
        backbone_weight_decay: L2 penalty of the backbone.
        backbone_after: Epochs before the backbone starts to learn.
        image_rate: Factor on the learning rate in batches of images.
    """

    kind: Literal["adam", "sgd"] = "adam"
    learning_rate: float
    decay: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip: float = 0.0
    backbone_rate: float = 1.0
    backbone_weight_decay: float = 0.0
    backbone_after: int = 0
    image_rate: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Validation:
    """When and on what the network is validated.

    Attributes:
        every: Iterations between two validations; the last iteration always is one.
        on: Name of the data; empty: every source.
        stride: Every how many frames a map is compared.
        videos: How many videos of the split, evenly chosen; 0 takes all.
        select_by: The metric that the best checkpoint has most of (of KLD, least).
        pictures: Example maps that are saved at each validation.
    """

    every: int
    on: str = ""
    stride: int = 1
    videos: int = 0
    select_by: Literal["cc", "nss", "sim", "kld"] = "cc"
    pictures: int = 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An experiment. Variants of a recipe are made with `dataclasses.replace`.

    Attributes:
        model: The network's name, see `networks`.
        sources: Names of the labelled data, which the command line gives folders for. Of a
            network with domains they are domains.
        target: Name of the unlabelled data that gradient reversal adapts to; empty: none.
        clips: How clips are drawn.
        optimizer: How parameters follow their gradients.
        validation: When and on what the network is validated.
        iterations: Steps of the optimizer; 0 goes by ``epochs``.
        epochs: Passes over all videos; 0 goes by ``iterations``.
        multi_level: HD2S's loss on conspicuity maps (Eq. 1) beside the output's.
        frozen_norms: BatchNorm layers that keep their statistics: those of the backbone, all.
        norm_momentum: Of every BatchNorm; 0 leaves the published ones. HD2S's, 0.001, are for
            a backbone that was trained before and thousands of batches.
        reversal: Largest strength of gradient reversal; Eq. 4 times this.
        mixed: Gradient reversal's source and target in one batch, so that BatchNorm does not
            even them out before the classifiers see them; otherwise they alternate, as in the
            paper.
        average: Decay of a running average of the weights, which is what is validated and
            kept as the best; it grows towards this in the first iterations. 0 keeps none.
        start_from: Checkpoint that the network, or its backbone alone, starts from.
        teacher: Graph or bundled model whose maps stand in where videos have none.
        save_every: Iterations between two saved states that a run can go on from.
        seed: Of everything random.
        precision: Of the arithmetic.
        compile: Whether PyTorch compiles the network.
        accelerator: What it runs on.
    """

    model: str
    sources: tuple[str, ...] = ("source",)
    target: str = ""
    clips: Clips
    optimizer: Optimizer
    validation: Validation
    iterations: int = 0
    epochs: int = 0
    multi_level: bool = True
    frozen_norms: Literal["none", "backbone", "all"] = "none"
    norm_momentum: float = 0.0
    reversal: float = 1.0
    mixed: bool = False
    average: float = 0.0
    start_from: str = ""
    teacher: str = ""
    save_every: int = 100
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        network = networks.get(self.model)
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise UsageError("a recipe needs sources, each of them once")
        strangers = [
            name for name in self.sources if network.domains and name not in network.domains
        ]
        if strangers:
            raise UsageError(
                f"{self.model} has no domain {strangers[0]!r}; its sources are domains: "
                f"{', '.join(network.domains)}"
            )
        if self.target and not self.adapts:
            raise UsageError(
                f"{self.model} has no domain classifiers, so there is nothing to do with the "
                f"target {self.target!r}; use hd2s-da, or set target= to leave it out"
            )
        if bool(self.iterations) == bool(self.epochs):
            raise UsageError("a recipe has either iterations or epochs; set the other one to 0")
        if min(self.iterations, self.epochs, self.validation.videos, self.validation.pictures) < 0:
            raise UsageError("iterations, epochs and counts of the validation cannot be negative")
        for key, share in {"clips.flip": self.clips.flip, "average": self.average}.items():
            if not 0 <= share <= 1:
                raise UsageError(f"{key} must lie in 0 to 1, got {share}")
        counts = {
            "clips.batch": self.clips.batch,
            "clips.length": self.clips.length,
            "clips.accumulate": self.clips.accumulate,
            "validation.every": self.validation.every,
            "validation.stride": self.validation.stride,
            "save_every": self.save_every,
        }
        for key, value in counts.items():
            if value < 1:
                raise UsageError(f"{key} must be at least 1, got {value}")

        self._check_clips()
        if not any(self.clips.size) and not network.sizes:
            raise UsageError(f"{self.model} has no sizes of its domains' own; set clips.size")

    def _check_clips(self) -> None:
        """Refuse lengths and sizes that the network cannot take."""
        if self.family == "hd2s" and self.clips.length not in _HD2S_LENGTHS:
            shortest, longest = _HD2S_LENGTHS[0], _HD2S_LENGTHS[-1]
            raise UsageError(
                f"HD2S is trained on clips of {shortest} to {longest} frames, got "
                f"clips.length={self.clips.length}"
            )
        if self.family == "esan" and self.clips.length % esan.WINDOW:
            raise UsageError(
                f"ESAN-VSP is trained on groups of {esan.WINDOW} frames, so clips.length must be a "
                f"multiple of that, got {self.clips.length}"
            )
        multiples = {"unisal": unisal.SIZE_MULTIPLE, "esan": esan.SIZE_MULTIPLE}
        multiple = multiples.get(self.family, 1)  # HD2S's depends on its levels, and it says so
        if (
            any(side % multiple for side in self.clips.size)
            or min(self.clips.size) < 0
            or (0 in self.clips.size and any(self.clips.size))
        ):
            raise UsageError(f"clips.size must be multiples of {multiple} for {self.model}")

    def size_of(self, source: str) -> tuple[int, int]:
        """Return height and width of the network's input for one of the sources."""
        size = self.clips.size
        return size if any(size) else networks.get(self.model).sizes[source]

    @property
    def family(self) -> str:
        """The network's family: hd2s, unisal or esan."""
        family = self.model.partition("-")[0]
        return "hd2s" if family == "salgradnet" else family

    @property
    def adapts(self) -> bool:
        """Whether the network has domain classifiers."""
        return self.model in ("hd2s-da", "salgradnet")

    @property
    def data(self) -> tuple[str, ...]:
        """Names of all data that it needs."""
        names = (*self.sources, self.target, self.validation.on)
        return tuple(dict.fromkeys(name for name in names if name))

    def with_settings(self, settings: Iterable[str]) -> Self:
        """Return the recipe with settings changed.

        Args:
            settings: Like ``optimizer.learning_rate=1e-4`` or ``clips.size=64x96``.

        Raises:
            UsageError: A key is unknown (the message names the nearest one), or a value is
                not of its type.
        """
        known = self.settings()
        changes: dict[str, dict[str, Any]] = {}
        for setting in settings:
            key, equals, value = (part.strip() for part in setting.partition("="))
            if not equals:
                raise UsageError(f"expected --set key=value, got {setting!r}")
            if key not in known:
                raise UsageError(
                    f"the recipe has no key {key!r}{suggestion(key, known)}; --show lists them all"
                )
            group, _, name = key.rpartition(".")
            owner = getattr(self, group) if group else self
            parsed = _parsed(get_type_hints(type(owner))[name], key, value)
            changes.setdefault(group, {})[name] = parsed
        top = changes.pop("", {})
        groups = {group: replace(getattr(self, group), **new) for group, new in changes.items()}
        return replace(self, **top, **groups)

    def settings(self) -> dict[str, Any]:
        """Return every setting by its key, as plain values that JSON can hold."""
        flat: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if is_dataclass(value):
                flat |= {f"{entry.name}.{f.name}": getattr(value, f.name) for f in fields(value)}
            else:
                flat[entry.name] = value
        plain: dict[str, Any] = json.loads(json.dumps(flat))
        return plain


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a question with the known name that is like a wrong one; empty if none is."""
    known = list(known)
    tails = {key.rpartition(".")[2]: key for key in known}
    for cutoff, candidates in ((0.75, known), (0.75, list(tails)), (0.5, known)):
        close = difflib.get_close_matches(name, candidates, n=1, cutoff=cutoff)
        if close:
            return f" (did you mean {tails.get(close[0], close[0])!r}?)"
    return ""


_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _parsed(kind: Any, key: str, text: str) -> Any:
    """Return a value of a field's type from what the user wrote."""
    expected = getattr(kind, "__name__", str(kind))
    try:
        if get_origin(kind) is Literal:
            expected = " or ".join(get_args(kind))
            return get_args(kind)[get_args(kind).index(text)]
        if kind is bool:
            expected = "true or false"
            return _BOOLEANS[text.lower()]
        if kind == tuple[int, int]:
            expected = "HEIGHTxWIDTH"
            height, width = text.lower().split("x")
            return int(height), int(width)
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return kind(text)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{key} must be {expected}, got {text!r}") from error

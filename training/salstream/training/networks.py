"""Every network by name, and which of them a checkpoint belongs to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

import torch
from torch import Tensor, nn

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training import hd2s, unisal
from salstream.training.checkpoints import AVERAGED, AVERAGES, PREFIXES, first_of
from salstream.training.esan import Esan
from salstream.training.s3d import S3D, from_torchvision

_log = logging.getLogger("salstream")

# What is known of the published weights' licence, whichever file they come in.
_HD2S_LICENSE: Final = "CC-BY-NC-4.0"

# What HD2S-DA has for training alone; the classifiers are made for one size of the input.
_CLASSIFIERS: Final = "domainClassifier"
_ADAPTATION: Final = ("featureReduction", _CLASSIFIERS)


@dataclass(frozen=True)
class Network:
    """A network that checkpoints belong to.

    Attributes:
        name: What users call it.
        build: Makes it, with fresh weights.
        domains: The domains that it has layers of its own for; none if all share them.
        license: Of the published weights, as an SPDX identifier.
        sizes: Height and width of the input by domain, where each was published with its own.
    """

    name: str
    build: Callable[[], nn.Module]
    domains: tuple[str, ...] = ()
    license: str = "unknown"
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every entry of its state dict, by name, in order."""
        with torch.device("meta"):
            return {name: tuple(value.shape) for name, value in self.build().state_dict().items()}


def _hd2s(name: str) -> Network:
    config = hd2s.CONFIGS[name]
    domains = tuple(hd2s.DOMAINS) if config.domain_specific else ()
    return Network(name, lambda: hd2s.Hd2s(config), domains, _HD2S_LICENSE)


NETWORKS: Final[dict[str, Network]] = {
    network.name: network
    for network in (
        Network(
            "unisal",
            unisal.Unisal,
            tuple(unisal.DOMAINS),
            "Apache-2.0",
            {name: domain.size for name, domain in unisal.DOMAINS.items()},
        ),
        *(_hd2s(name) for name in hd2s.CONFIGS),
        Network("esan", Esan),
        Network("s3d", S3D),
    )
}


@dataclass(frozen=True)
class Match:
    """How a checkpoint fits a network.

    Attributes:
        network: The one that it fits best.
        state: Its tensors under the published names.
        missing: Entries that it lacks.
        left_over: Entries that the network does not have.
        misshapen: Entries of another shape.
        also: Other networks that have the very same layout.
        origin: Whose names the file used, ``published`` or ``torchvision``.
        taken: What was done to the file's names for them to fit; empty: nothing.
    """

    network: Network
    state: Mapping[str, Tensor]
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    also: tuple[str, ...] = ()
    origin: str = "published"
    taken: str = ""

    @property
    def complete(self) -> bool:
        """Whether it loads as it is."""
        return not (self.missing or self.left_over or self.misshapen)


def get(name: str) -> Network:
    """Return the network called ``name``.

    Raises:
        UsageError: There is none.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown model {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def match(state: Mapping[str, Tensor]) -> Match:
    """Find the network that a state dict fits best, by the names and shapes of its entries.

    Raises:
        SalstreamError: Hardly an entry is known.
    """
    origin = "published"
    if "features.0.0.0.weight" in state and "classifier.1.weight" in state:
        state, origin = from_torchvision(state), "torchvision"
    matches = [_compare(state, network, origin) for network in NETWORKS.values()]
    matches.sort(key=lambda m: len(m.missing) + len(m.left_over) + len(m.misshapen))
    best = matches[0]
    known = len(best.state) - len(best.left_over)
    if known < len(best.state) / 2:
        raise SalstreamError(
            "it belongs to none of the networks that salstream knows: "
            f"of its {len(state)} entries {known} are those of {best.network.name}, the nearest"
        )
    if best.taken:
        _log.warning("%s", best.taken)
    if not best.complete:
        return best
    return replace(best, also=tuple(m.network.name for m in matches[1:] if m.complete))


def load(state: Mapping[str, Tensor], name: str) -> nn.Module:
    """Return a network with a checkpoint's weights, in eval mode.

    HD2S-DA's domain classifiers are made for one input size and serve training alone: if
    they are for another one, the base network comes, without them.

    Args:
        state: Tensors by name.
        name: The network's.

    Raises:
        UsageError: There is no network of that name.
        SalstreamError: The checkpoint is another network's; the message says which entries
            are missing, left over or of another shape.
    """
    network = get(name)
    fit = _compare(state, network, "published")
    if not fit.complete:
        raise SalstreamError(f"the checkpoint does not fit {name}: {faults(fit)}{_hint(state)}")
    if fit.taken:
        _log.warning("%s", fit.taken)
    state = fit.state
    model = network.build()
    shapes = {entry: tuple(value.shape) for entry, value in state.items()}
    if shapes != network.layout():
        model = NETWORKS["hd2s"].build()
        state = {k: v for k, v in state.items() if not k.startswith(_ADAPTATION)}
    model.load_state_dict(state)
    return model.eval()


def faults(fit: Match) -> str:
    """Say what keeps a checkpoint from fitting: the first three entries of each kind."""
    kinds = (("missing", fit.missing), ("left over", fit.left_over), ("misshapen", fit.misshapen))
    said = []
    for kind, names in kinds:
        if names:
            said.append(f"{len(names)} {kind} ({first_of(names)})")
    return ", ".join(said)


def _hint(state: Mapping[str, Tensor]) -> str:
    try:
        found = match(state)
    except SalstreamError:
        return ""
    return f"; it is a checkpoint of {found.network.name}" if found.complete else ""


def _compare(state: Mapping[str, Tensor], network: Network, origin: str) -> Match:
    layout = network.layout()
    state, taken = inside(state, layout)
    return Match(
        network,
        state,
        missing=[name for name in layout if name not in state],
        left_over=[name for name in state if name not in layout],
        misshapen=[
            f"{name} {tuple(state[name].shape)} instead of {shape}"
            for name, shape in layout.items()
            if name in state
            and tuple(state[name].shape) != shape
            and not name.startswith(_CLASSIFIERS)
        ],
        origin=origin,
        taken=taken,
    )


def inside(
    state: Mapping[str, Tensor], layout: Mapping[str, tuple[int, ...]]
) -> tuple[Mapping[str, Tensor], str]:
    """Find a network among other modules, or its parts inside of wrappers, if it fits better so.

    Names count without the parts that wrappers add, wherever these are. Where a name is there
    several times, a running average is preferred, then what has most of the network.

    Args:
        state: Tensors by name.
        layout: Shapes by the network's names.

    Returns:
        Tensors by the network's names, and what was done, for people; empty: nothing.
    """
    copies: dict[tuple[str, ...], dict[str, str]] = {}
    for name in state:
        parts = name.split(".")
        plain = ".".join(part for part in parts if part not in PREFIXES)
        if plain in layout:
            wrappers = tuple(part for part in parts if part in PREFIXES)
            copies.setdefault(wrappers, {})[plain] = name
    ranked = sorted(copies, key=lambda w: (bool({*w} & {*AVERAGES}), len(copies[w])))
    names = {plain: name for wrappers in ranked for plain, name in copies[wrappers].items()}
    used = [wrappers for wrappers in ranked if {*copies[wrappers].values()} & {*names.values()}]
    around = {_around(name) for name in names.values()}
    found = {name for named in copies.values() for name in named.values()}
    others = [name for name in state if name not in found]
    # Beside a whole network with a prefix of its own lie other modules, such as losses.
    beside = [name for name in others if not name.startswith(tuple(around))]
    if len(names) < len(layout):
        beside = []
    names |= {name: name for name in others if name not in beside}
    if len(names.keys() ^ layout.keys()) >= len(state.keys() ^ layout.keys()):
        return state, ""
    shown = ", ".join(f"'{'.'.join(wrappers)}.'" for wrappers in used if wrappers)
    taken = f"{shown} is taken off the checkpoint's names"
    if beside:
        taken += f", and entries beside them are left out: {first_of(beside)}"
    if any({*wrappers} & {*AVERAGES} for wrappers in used):
        taken += AVERAGED
    return {name: state[theirs] for name, theirs in names.items()}, taken


def _around(name: str) -> str:
    """Return the wrappers at the beginning of a name, with the dot after each."""
    return "".join(f"{part}." for part in takewhile(PREFIXES.__contains__, name.split(".")))

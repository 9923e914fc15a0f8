"""A trained network made ready for export: the graph's module and what to check it against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salstream.export.esan import DeployableEsan
from salstream.export.hd2s import DeployableHd2s
from salstream.export.smoothing import gaussian_matrix
from salstream.export.unisal import DeployableUnisal
from salstream.runtime import GraphSpec, UsageError
from salstream.training import esan, hd2s, networks, unisal
from salstream.training.checkpoints import (
    at_clip_rate,
    load_state_dict,
    metadata_of,
    sha256_of,
    trained_on,
)
from salstream.training.hd2s.config import CLIP_LENGTHS
from salstream.training.sliding import windows
from salstream.training.weights import published_as

# Frames that UNISAL takes at once: memory does not grow with the video.
_CHUNK: Final = 32

Frames = NDArray[np.uint8]
Maps = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user may choose; None leaves it to the network.

    Attributes:
        size: Height and width of the input.
        smoothing: Standard deviation of the test-time smoothing of HD2S, in pixels of the
            map (5 in the paper, 7 in the published code).
        conspicuity: Give HD2S's conspicuity maps as a second output.
        clip_length: Frames of a window of HD2S.
    """

    size: tuple[int, int] | None = None
    smoothing: float | None = None
    conspicuity: bool = False
    clip_length: int | None = None


class Expected(NamedTuple):
    """What the network says in PyTorch.

    Attributes:
        maps: (frames, map height, map width), maximum 1 each.
        conspicuity: (frames, levels, height, width); None where the graph gives none.
    """

    maps: Maps
    conspicuity: Maps | None = None


@dataclass(frozen=True, kw_only=True)
class Deployable:
    """A network of one domain and size.

    Attributes:
        module: Takes ``frames``, uint8 (batch, window, height, width, 3), and the states;
            gives the maps, float32 (batch, map height, map width), and the next states.
        spec: What the graph will say about itself.
        reference: What the network says of a video's frames, uint8 RGB (frames, height,
            width, 3), as it was trained: no rewrites, whole video at once.
        network: The network as it was trained.
        eager: The same network on one window: uint8 (batch, window, height, width, 3) on the
            network's device and what it gave as its state the time before (None: a start);
            gives the maps, (batch, map height, map width), and its state.
        reference_phases: How many interleaved passes ``reference`` is for.
        states: Name and shape, without the batch, of each recurrent state.
        outputs: Names of the outputs beside the map and the states.
    """

    module: nn.Module
    spec: GraphSpec
    reference: Callable[[Frames], Expected]
    network: nn.Module
    eager: Callable[[Tensor, Any], tuple[Tensor, Any]]
    reference_phases: int = 1
    states: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def identify(checkpoint: Path) -> str:
    """Return the name of the network that a checkpoint belongs to.

    Raises:
        SalstreamError: It is none that salstream knows.
    """
    return networks.match(load_state_dict(checkpoint)).network.name


def domains_of(model: str) -> tuple[str, ...]:
    """Return the domains that a network can be exported for; none if it is one for all."""
    return networks.get(model).domains


def load(
    checkpoint: Path, model: str, domain: str | None = None, options: Options | None = None
) -> Deployable:
    """Load a checkpoint as a deployable network.

    Args:
        checkpoint: A state dict in the network's published layout.
        model: The network's name.
        domain: One of its domains; None for a network without any.
        options: What the user chose.

    Raises:
        UsageError: The model, the domain or an option is not possible.
        SalstreamError: The file is damaged, or a checkpoint of another network.
    """
    domains = domains_of(model)
    if domain is None and domains:
        raise UsageError(f"{model} needs a domain: {', '.join(domains)}")
    if domain is not None and domain not in domains:
        known = f"known: {', '.join(domains)}" if domains else "leave it out: one graph is for all"
        raise UsageError(f"{model} has no domain {domain!r}; {known}")
    family = model.partition("-")[0]
    if family not in _FAMILIES:
        raise UsageError(f"{model} gives no saliency maps: it is a backbone to train from")
    options = options or Options()
    if family not in _WITH_SMOOTHING and options != Options(size=options.size):
        raise UsageError(f"{model} has no options for smoothing, conspicuity or clip length")
    # A converted file knows the sha256 and the licence of the one that it was made from, and
    # one that `salstream train` wrote knows the clips that it was trained on.
    told = metadata_of(checkpoint)
    network = networks.load(load_state_dict(checkpoint), model)
    size, clip_length, clip_rate = trained_on(told, model)
    options = replace(
        options,
        size=options.size or size,
        clip_length=clip_length if options.clip_length is None else options.clip_length,
    )
    deployable = _FAMILIES[family](network, domain or "", options)
    sha256 = told.get("sha256") or sha256_of(checkpoint)
    published = published_as(sha256)
    spec = replace(
        at_clip_rate(deployable.spec, clip_rate),
        model=model,
        domain=domain or "",
        license=published.license if published else told.get("license", "unknown"),
        attribution=published.citation if published else "",
        checkpoint_sha256=sha256,
    )
    return replace(deployable, spec=spec)


def _unisal(network: nn.Module, domain: str, options: Options) -> Deployable:
    model = cast("unisal.Unisal", network)
    facts = unisal.DOMAINS[domain]
    height, width = _checked(options.size or facts.size, unisal.SIZE_MULTIPLE, "unisal")

    def reference(frames: Frames) -> Expected:
        parts, state = [], None
        for part in torch.split(torch.from_numpy(frames), _CHUNK):
            maps, state = eager(part[None], state)
            parts.append(maps)
        return Expected(torch.cat(parts).numpy())

    def eager(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        logarithms, state = model(unisal.normalise(frames), domain, state)
        logarithms = logarithms.flatten(0, 1)
        return torch.exp(logarithms - _maximum(logarithms)), state

    return Deployable(
        module=DeployableUnisal(model, domain, (height, width)),
        spec=GraphSpec(
            model="unisal",
            domain=domain,
            height=height,
            width=width,
            phases=facts.phases,
            state_fps=None if facts.static else unisal.STATE_FPS,
        ),
        reference=torch.inference_mode()(reference),
        network=model,
        eager=torch.inference_mode()(eager),
        states={}
        if facts.static
        else {"state_gru": (256, height // unisal.SIZE_MULTIPLE, width // unisal.SIZE_MULTIPLE)},
    )


def _hd2s(network: nn.Module, domain: str, options: Options) -> Deployable:
    model = cast("hd2s.Hd2s", network)
    size = _checked(options.size or hd2s.SIZE, model.config.size_multiple, "hd2s")
    window = hd2s.WINDOW if options.clip_length is None else options.clip_length
    if window not in CLIP_LENGTHS:
        raise UsageError(
            f"hd2s takes clips of {CLIP_LENGTHS[0]} to {CLIP_LENGTHS[-1]} frames, got {window}"
        )
    sigma = 5.0 if options.smoothing is None else options.smoothing
    if not 0 <= sigma <= min(size):
        raise UsageError(f"the smoothing's sigma must lie in 0 to {min(size)} pixels, got {sigma}")
    if options.conspicuity and not model.config.multi_level:
        raise UsageError("this variant of hd2s gives no conspicuity maps")
    rows, columns = (gaussian_matrix(length, sigma) for length in size)

    def finish(maps: Tensor) -> Tensor:
        maps = rows.to(maps.device) @ maps @ columns.T.to(maps.device)
        return maps / _maximum(maps)

    def eager(frames: Tensor, _: Any) -> tuple[Tensor, Any]:
        return finish(model(hd2s.normalise(frames), domain or None).saliency.float()), None

    def reference(frames: Frames) -> Expected:
        clips = torch.from_numpy(frames)
        answers = [
            model(hd2s.normalise(clips[window_frames])[None], domain or None)
            for window_frames in windows(len(frames), window)
        ]
        maps = torch.cat([finish(answer.saliency) for answer in answers])
        conspicuity = (
            torch.cat([answer.conspicuity for answer in answers]).numpy()
            if options.conspicuity
            else None
        )
        return Expected(maps.numpy(), conspicuity)

    return Deployable(
        module=DeployableHd2s(model, domain, size, window, sigma, options.conspicuity),
        spec=GraphSpec(
            model="hd2s",
            domain=domain,
            height=size[0],
            width=size[1],
            window=window,
            map_frame=window - 1,
            window_fps=hd2s.WINDOW_FPS,
            smoothing_sigma=sigma,
        ),
        reference=torch.inference_mode()(reference),
        network=model,
        eager=torch.inference_mode()(eager),
        outputs=("conspicuity",) if options.conspicuity else (),
    )


def _esan(network: nn.Module, domain: str, options: Options) -> Deployable:
    model = cast("esan.Esan", network)
    size = _checked(options.size or esan.SIZE, esan.SIZE_MULTIPLE, "esan")

    def reference(frames: Frames) -> Expected:
        maps = esan.predict_video(model, torch.from_numpy(frames))
        return Expected((maps / _maximum(maps)).numpy())

    def eager(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        maps, state = model(esan.normalise(frames), state)
        return maps[:, 0] / _maximum(maps[:, 0]), state

    state = (512, size[0] // 8, size[1] // 8)
    return Deployable(
        module=DeployableEsan(model, size),
        spec=GraphSpec(
            model="esan",
            domain=domain,
            height=size[0],
            width=size[1],
            window=esan.WINDOW,
            map_frame=esan.MAP_FRAME,
            phases=esan.WINDOW,
            window_fps=esan.WINDOW_FPS,
            fit="letterbox",
        ),
        reference=reference,
        network=model,
        eager=torch.inference_mode()(eager),
        reference_phases=esan.WINDOW,
        states={"state_hidden": state, "state_cell": state},
    )


_FAMILIES: Final = {"unisal": _unisal, "hd2s": _hd2s, "salgradnet": _hd2s, "esan": _esan}
_WITH_SMOOTHING: Final = ("hd2s", "salgradnet")


def _checked(size: tuple[int, int], multiple: int, model: str) -> tuple[int, int]:
    """Return the size, or refuse one that the network cannot take."""
    height, width = size
    if height % multiple or width % multiple or min(size) < multiple:
        raise UsageError(
            f"{model} cannot take {height}x{width}: height and width must be multiples of "
            f"{multiple}"
        )
    return size


def _maximum(maps: Tensor) -> Tensor:
    return maps.amax(dim=(-2, -1), keepdim=True)

"""A trained network made ready for export: the graph's module and what to check it against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salstream.export.unisal import DeployableUnisal
from salstream.runtime import GraphSpec, UsageError
from salstream.training.checkpoints import check_layout, load_state_dict, sha256_of
from salstream.training.unisal import DOMAINS, SIZE_MULTIPLE, STATE_FPS, Unisal, normalise
from salstream.training.weights import REGISTRY

Frames = NDArray[np.uint8]
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Deployable:
    """A network of one domain and size.

    Attributes:
        module: Takes ``frames``, uint8 (batch, window, height, width, 3), and the states;
            gives the maps, float32 (batch, height, width), and the next states.
        spec: What the graph will say about itself.
        states: Name and shape, without the batch, of each recurrent state.
        reference: The network as it was trained: maps, (frames, height, width), of
            consecutive frames, uint8 RGB (frames, height, width, 3), in one phase.
    """

    module: nn.Module
    spec: GraphSpec
    states: Mapping[str, tuple[int, ...]]
    reference: Callable[[Frames], Maps]


def load(
    checkpoint: Path, model: str, domain: str, size: tuple[int, int] | None = None
) -> Deployable:
    """Load a checkpoint as a deployable network.

    Args:
        checkpoint: A state dict in the network's published layout.
        model: One of ``MODELS``.
        domain: One of the network's domains.
        size: Height and width of the input; None: the domain's own.

    Raises:
        UsageError: The model, the domain or the size is not possible.
        SalstreamError: The file is damaged, or a checkpoint of another network.
    """
    if model not in MODELS:
        raise UsageError(f"unknown model {model!r}; known: {', '.join(MODELS)}")
    return MODELS[model](checkpoint, domain, size)


def _unisal(checkpoint: Path, domain: str, size: tuple[int, int] | None) -> Deployable:
    if domain not in DOMAINS:
        raise UsageError(f"unisal has no domain {domain!r}; known: {', '.join(DOMAINS)}")
    facts = DOMAINS[domain]
    height, width = size or facts.size
    if height % SIZE_MULTIPLE or width % SIZE_MULTIPLE or min(height, width) < SIZE_MULTIPLE:
        raise UsageError(
            f"unisal cannot take {height}x{width}: height and width must be multiples of "
            f"{SIZE_MULTIPLE}"
        )
    state = load_state_dict(checkpoint)
    network = Unisal()
    check_layout(state, network, "unisal")
    network.load_state_dict(state)
    network.eval()
    sha256 = sha256_of(checkpoint)
    published = next((w for w in REGISTRY.values() if w.sha256 == sha256), None)

    def reference(frames: Frames) -> Maps:
        with torch.inference_mode():
            logarithms, _ = network(normalise(torch.from_numpy(frames))[None], domain)
        return _to_maximum(logarithms[0]).numpy()

    return Deployable(
        module=DeployableUnisal(network, domain, (height, width)),
        spec=GraphSpec(
            model="unisal",
            domain=domain,
            height=height,
            width=width,
            phases=facts.phases,
            state_fps=None if facts.static else STATE_FPS,
            license=published.license if published else "unknown",
            attribution=published.citation if published else "",
            checkpoint_sha256=sha256,
        ),
        states={}
        if facts.static
        else {"state_gru": (256, height // SIZE_MULTIPLE, width // SIZE_MULTIPLE)},
        reference=reference,
    )


def _to_maximum(logarithms: Tensor) -> Tensor:
    return torch.exp(logarithms - logarithms.amax(dim=(-2, -1), keepdim=True))


MODELS: Final = {"unisal": _unisal}

"""A checkpoint behind the runtime's interface, so that it is streamed like any graph.

The network runs in PyTorch as it was trained, on windows and states that the runtime's own
predictor makes. What a graph has after the network is here too: HD2S's maps are smoothed
(sigma 5, the paper's), every map is scaled to its maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salstream.runtime.backends import Backend, Output
from salstream.runtime.errors import UsageError
from salstream.runtime.model import SaliencyModel
from salstream.runtime.spec import GraphSpec
from salstream.training import esan, hd2s, networks, unisal
from salstream.training.checkpoints import at_clip_rate, load_state_dict, metadata_of, trained_on

SMOOTHING: Final = 5.0  # pixels of HD2S's map (section 3.6)

_Size = tuple[int, int]
_Run = Callable[[Tensor, Any], tuple[Tensor, Any]]


def open_checkpoint(
    path: Path, *, static: bool = False, network: str | None = None, domain: str | None = None
) -> SaliencyModel:
    """Open a checkpoint as a model that can be streamed, at the size that it was trained at.

    Args:
        path: A state dict in the published layout.
        static: Whether it will see images: UNISAL then takes its domain ``salicon``.
        network: Its name; None: the one that fits.
        domain: One of the network's; None: ``dhf1k``, or ``salicon`` for images.

    Raises:
        UsageError: The domain is not one of the network's, or it gives no maps.
        SalstreamError: The file is damaged or fits no network.
    """
    state = load_state_dict(path)
    name = network or networks.match(state).network.name
    domains = networks.get(name).domains
    if domain is None and domains:
        domain = "salicon" if static and "salicon" in domains else "dhf1k"
    if domain is not None and domain not in domains:
        raise UsageError(f"{name} has no domain {domain!r}; known: {', '.join(domains) or 'none'}")
    family = name.partition("-")[0]
    if family not in _FAMILIES:
        raise UsageError(f"{name} gives no saliency maps: it is a backbone to train from")
    model = networks.load(state, name).to(_device())
    size, clip_length, clip_rate = trained_on(metadata_of(path), name)
    backend = _FAMILIES[family](model, name, domain or "", size, clip_length)
    backend.spec = at_clip_rate(backend.spec, clip_rate)
    return SaliencyModel(path, backend)


class TorchBackend(Backend):
    """A network in PyTorch that runs one window at a time.

    Args:
        spec: How frames reach it.
        run: Takes uint8 RGB (1, window, height, width, 3) and a state, gives maps
            (1, map height, map width) of any scale, and the next state.
        recurrent: Whether it has a state.
    """

    conspicuity = False

    def __init__(self, spec: GraphSpec, run: _Run, *, recurrent: bool) -> None:
        self.spec = spec
        self.recurrent = recurrent
        self.name = f"PyTorch ({_device()})"
        self._run = run

    @torch.inference_mode()
    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        """Run the network once."""
        # a copy: the ring that the window lies in is written while the network may still run
        maps, state = self._run(torch.tensor(frames, device=_device()), state)
        maps = maps.float()
        peak = maps.amax(dim=(-2, -1), keepdim=True)
        return Output((maps / peak.clamp(min=1e-20)).cpu().numpy(), state)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _unisal(
    model: nn.Module, name: str, domain: str, size: _Size | None, _: int | None
) -> TorchBackend:
    facts = unisal.DOMAINS[domain]
    height, width = size or facts.size
    spec = GraphSpec(
        model=name,
        domain=domain,
        height=height,
        width=width,
        phases=facts.phases,
        state_fps=None if facts.static else unisal.STATE_FPS,
    )

    def run(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        logarithms, state = model(unisal.normalise(frames), domain, state)
        maps = logarithms[:, 0]
        return torch.exp(maps - maps.amax(dim=(-2, -1), keepdim=True)), state

    return TorchBackend(spec, run, recurrent=not facts.static)


def _hd2s(
    model: nn.Module, name: str, domain: str, size: _Size | None, length: int | None
) -> TorchBackend:
    from scipy.ndimage import gaussian_filter

    height, width = size or hd2s.SIZE
    window = length or hd2s.WINDOW
    spec = GraphSpec(
        model=name,
        domain=domain,
        height=height,
        width=width,
        window=window,
        map_frame=window - 1,
        window_fps=hd2s.WINDOW_FPS,
        smoothing_sigma=SMOOTHING,
    )

    def run(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        answer = cast("hd2s.Prediction", model(hd2s.normalise(frames), domain or None))
        smooth = gaussian_filter(answer.saliency.cpu().numpy(), SMOOTHING, axes=(-2, -1))
        return torch.from_numpy(smooth), None

    return TorchBackend(spec, run, recurrent=False)


def _esan(
    model: nn.Module, name: str, domain: str, size: _Size | None, _: int | None
) -> TorchBackend:
    height, width = size or esan.SIZE
    spec = GraphSpec(
        model=name,
        domain=domain,
        height=height,
        width=width,
        window=esan.WINDOW,
        map_frame=esan.MAP_FRAME,
        phases=esan.WINDOW,
        window_fps=esan.WINDOW_FPS,
        fit="letterbox",
    )

    def run(frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        maps, state = model(esan.normalise(frames), state)
        return maps[:, 0], state

    return TorchBackend(spec, run, recurrent=True)


_FAMILIES: Final = {"unisal": _unisal, "hd2s": _hd2s, "salgradnet": _hd2s, "esan": _esan}

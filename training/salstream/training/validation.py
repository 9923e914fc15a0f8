"""Whole videos through a network while it trains, by sliding window, against their maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from salstream.runtime.errors import SalstreamError
from salstream.training import esan, hd2s, metrics, networks, unisal
from salstream.training.clips import Geometry, resized, stride_of
from salstream.training.data.packed import PackedVideo
from salstream.training.recipes.config import Recipe
from salstream.training.sliding import windows

METRICS: Final = ("cc", "nss", "sim", "kld")

Map = NDArray[np.float32]


@torch.no_grad()
def predict(
    model: nn.Module, recipe: Recipe, video: PackedVideo, domain: str, wanted: Sequence[int]
) -> Iterator[tuple[int, Map]]:
    """Give the maps of some frames of a video, in any order.

    HD2S: each from the window that ends there. UNISAL and ESAN-VSP: from all frames before
    too, since their state goes on from frame to frame.

    Args:
        model: The network, in eval mode.
        recipe: Which network, and its size.
        video: The video.
        domain: Whose layers, for a network with domains.
        wanted: Numbers of the frames.

    Yields:
        A frame's number and its map, float32, (map height, map width).
    """
    device = next(model.parameters()).device
    geometry = Geometry.of(recipe, domain)
    film = video.frames

    def frames(indices: Sequence[int]) -> Tensor:
        """Return (frames, height, width, 3)."""
        fitted = [resized(film[i], geometry.size) for i in indices]
        return torch.from_numpy(np.stack(fitted)).to(device)

    if recipe.family == "hd2s":
        by_frame = windows(len(video), recipe.clips.length)
        for start in range(0, len(wanted), recipe.clips.batch):
            chosen = wanted[start : start + recipe.clips.batch]
            clips = torch.stack([hd2s.normalise(frames(by_frame[i])) for i in chosen])
            maps = model(clips, domain or None).saliency
            yield from zip(chosen, maps.float().cpu().numpy(), strict=True)
    elif recipe.family == "esan":
        whole = esan.predict_video(model, frames(range(len(video))))  # type: ignore[arg-type]
        yield from ((i, whole[i].float().cpu().numpy()) for i in wanted)
    else:
        phases = stride_of(video, recipe.clips.rate)
        for phase in range(min(phases, len(video))):
            state: Tensor | None = None
            for index in range(phase, max(wanted) + 1, phases):
                x = unisal.normalise(frames([index]))[None]
                logarithms, state = model(x, domain, state, video.fps is None)
                if index in wanted:
                    yield index, logarithms[0, 0].float().exp().cpu().numpy()


def validate(
    model: nn.Module,
    recipe: Recipe,
    videos: Sequence[tuple[str, PackedVideo]],
    pictures: Path | None = None,
) -> list[dict[str, float]]:
    """Score a network on videos, at the resolution of its own maps.

    Args:
        model: The network, in eval mode.
        recipe: Which network, its size, how many frames.
        videos: Each with its domain.
        pictures: Where to save example maps as ``NAME.png``: frame, ground truth, prediction.

    Returns:
        Per video, the means over its frames of every metric; NaN where there was no fixation.
    """
    by_video: list[dict[str, float]] = []
    shown = {v.name for _, v in _spread(videos, recipe.validation.pictures)} if pictures else set()
    for domain, video in videos:
        truth, geometry = video.maps, Geometry.of(recipe, domain)
        assert truth is not None
        fixated = np.flatnonzero(video.fixated)
        wanted = fixated[recipe.validation.stride // 2 :: recipe.validation.stride]
        wanted = (wanted if len(wanted) else fixated[:1]).tolist()
        values = defaultdict(list)
        for index, saliency in predict(model, recipe, video, domain, wanted):
            density = resized(truth[index], geometry.map_size)
            points = geometry.placed(video, index)
            values["cc"].append(metrics.cc(saliency, density))
            values["sim"].append(metrics.sim(saliency, density))
            values["kld"].append(metrics.kld(saliency, density))
            values["nss"].append(metrics.nss(saliency, points))
            if pictures is not None and video.name in shown:
                shown.discard(video.name)
                _picture(pictures / f"{Path(video.name).name}.png", video, index, density, saliency)
        if values:
            by_video.append({name: _mean(values[name]) for name in METRICS})
    return by_video


def mean_over_videos(by_video: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean over videos of each metric."""
    return {name: _mean([video[name] for video in by_video]) for name in METRICS}


def validation_videos(
    recipe: Recipe, splits: dict[str, list[PackedVideo]]
) -> list[tuple[str, PackedVideo]]:
    """Choose what to validate on: labelled videos of each dataset, each with its domain.

    Args:
        recipe: Says of which data, and how many.
        splits: The validation split of each data.
    """
    names = [recipe.validation.on] if recipe.validation.on else list(recipe.sources)
    domains = networks.get(recipe.model).domains
    chosen: list[tuple[str, PackedVideo]] = []
    for name in names:
        labelled = [video for video in splits[name] if video.labelled and video.fixated.any()]
        domain = name if name in domains else (domains[0] if domains else "")
        chosen += _spread([(domain, video) for video in labelled], recipe.validation.videos)
    return chosen


def _spread(videos: Sequence[tuple[str, PackedVideo]], count: int) -> list[tuple[str, PackedVideo]]:
    """Return ``count`` of the videos, evenly spread; all of them if that is 0 or too many."""
    if not count or count >= len(videos):
        return list(videos)
    return [videos[int(place)] for place in np.linspace(0, len(videos) - 1, count)]


def _picture(
    path: Path, video: PackedVideo, index: int, density: NDArray[np.uint8], saliency: Map
) -> None:
    """Save frame, ground truth and prediction side by side."""
    frame = cv2.cvtColor(np.asarray(video.frames[index]), cv2.COLOR_RGB2BGR)
    height, width = frame.shape[:2]
    row = [frame]
    for values in (density.astype(np.float32), saliency):
        grey = np.asarray(values / max(float(values.max()), 1e-12) * 255).astype(np.uint8)
        grey = np.asarray(cv2.resize(grey, (width, height)), np.uint8)
        row.append(np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(path), np.hstack(row))
    except OSError as error:
        raise SalstreamError(f"cannot write {path}: {error.strerror}") from error
    if not written:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise SalstreamError(f"cannot write {path}; check that the disk has room")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")

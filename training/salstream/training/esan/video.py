"""A whole video through the network, as it was tested when published."""

from __future__ import annotations

import torch
from torch import Tensor

from salstream.training.esan.model import MAP_FRAME, WINDOW, Esan, EsanState
from salstream.training.layers import imagenet_normalise


@torch.inference_mode()
def predict_video(model: Esan, frames: Tensor) -> Tensor:
    """Return a map of every frame.

    Groups of five frames follow each other in five passes, each of which starts one frame
    later and carries a state of its own. The first and the last frame are repeated twice
    beyond the ends, so that every frame is the middle of a group.

    Args:
        model: The network, in eval mode.
        frames: uint8 RGB of one video, (frames, height, width, 3), fitted into the network's
            input.

    Returns:
        (frames, height/2, width/2), in [0, 1].
    """
    ahead = WINDOW - 1 - MAP_FRAME
    padded = torch.cat([frames[:1]] * MAP_FRAME + [frames] + [frames[-1:]] * ahead)
    states: list[EsanState | None] = [None] * WINDOW
    maps = []
    for start in range(len(frames)):
        group = imagenet_normalise(padded[start : start + WINDOW])[None]
        saliency, states[start % WINDOW] = model(group, states[start % WINDOW])
        maps.append(saliency[0, 0])
    return torch.stack(maps)

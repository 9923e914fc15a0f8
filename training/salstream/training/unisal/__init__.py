"""UNISAL (ECCV 2020). Read `model`, then `encoder` and `gru`."""

from salstream.training.layers import imagenet_normalise as normalise
from salstream.training.unisal.model import DOMAINS, SIZE_MULTIPLE, STATE_FPS, Unisal

__all__ = ["DOMAINS", "SIZE_MULTIPLE", "STATE_FPS", "Unisal", "normalise"]

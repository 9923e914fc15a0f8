"""ESAN-VSP (2020). Read `model`, then `align`, `deformable` and `video`."""

from salstream.training.esan.model import (
    MAP_FRAME,
    SIZE,
    SIZE_MULTIPLE,
    WINDOW,
    WINDOW_FPS,
    Esan,
    EsanState,
    LstmState,
)
from salstream.training.esan.video import predict_video
from salstream.training.layers import imagenet_normalise as normalise

__all__ = [
    "MAP_FRAME",
    "SIZE",
    "SIZE_MULTIPLE",
    "WINDOW",
    "WINDOW_FPS",
    "Esan",
    "EsanState",
    "LstmState",
    "normalise",
    "predict_video",
]

"""ESAN-VSP (2020). Read `model`, then `align`, `deformable` and `video`."""

from salstream.training.esan.model import (
    MAP_FRAME,
    SIZE,
    SIZE_MULTIPLE,
    WINDOW,
    Esan,
    EsanState,
    LstmState,
    normalise,
)
from salstream.training.esan.video import predict_video

__all__ = [
    "MAP_FRAME",
    "SIZE",
    "SIZE_MULTIPLE",
    "WINDOW",
    "Esan",
    "EsanState",
    "LstmState",
    "normalise",
    "predict_video",
]

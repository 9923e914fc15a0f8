"""ESAN-VSP (2020). Read `model`, then `align`, `deformable` and `fit`."""

from salstream.training.esan.fit import fit, placement
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

__all__ = [
    "MAP_FRAME",
    "SIZE",
    "SIZE_MULTIPLE",
    "WINDOW",
    "Esan",
    "EsanState",
    "LstmState",
    "fit",
    "normalise",
    "placement",
]

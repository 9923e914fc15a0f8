"""HD2S (IJCV 2021) and SalGradNet. Read `config`, `model`, then `conspicuity` and `adaptation`."""

from salstream.training.hd2s.config import (
    CONFIGS,
    DOMAINS,
    LEVELS,
    SIZE,
    WINDOW,
    WINDOW_FPS,
    Config,
)
from salstream.training.hd2s.model import Hd2s, Prediction
from salstream.training.s3d import load_kinetics, normalise

__all__ = [
    "CONFIGS",
    "DOMAINS",
    "LEVELS",
    "SIZE",
    "WINDOW",
    "WINDOW_FPS",
    "Config",
    "Hd2s",
    "Prediction",
    "load_kinetics",
    "normalise",
]

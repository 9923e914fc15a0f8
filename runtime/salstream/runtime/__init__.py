"""Frames in, saliency maps out: a small runtime for exported saliency models.

    from salstream.runtime import SaliencyModel

    model = SaliencyModel.open("unisal-dhf1k")
    for result in model.stream("video.mp4"):
        result.saliency

Read `spec`, `predictor`, `pipeline`, `sources`, `results` and `sinks`, in that order.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from salstream.runtime.errors import SalstreamError, UsageError
    from salstream.runtime.model import SaliencyModel
    from salstream.runtime.pipeline import Stream
    from salstream.runtime.predictor import Predictor
    from salstream.runtime.results import Result
    from salstream.runtime.spec import GraphSpec

__all__ = [
    "GraphSpec",
    "Predictor",
    "Result",
    "SaliencyModel",
    "SalstreamError",
    "Stream",
    "UsageError",
]

_MODULES: Final = {
    "GraphSpec": "spec",
    "Predictor": "predictor",
    "Result": "results",
    "SaliencyModel": "model",
    "SalstreamError": "errors",
    "Stream": "pipeline",
    "UsageError": "errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: `salstream doctor` must run without OpenCV."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

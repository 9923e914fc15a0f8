"""Frames in, saliency maps out: a small runtime for exported saliency models.

    from salstream.runtime import SaliencyModel

    model = SaliencyModel.open("unisal-dhf1k")
    for result in model.stream("video.mp4"):
        result.saliency

Read `spec`, `predictor`, `pipeline`, `sources`, `results` and `sinks`, in that order.
"""

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

"""The cameras' figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from salstream.runtime.live.camera import Camera, State, Status

_QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


class CameraFigures(Collector):
    """Reads every camera's status when it is asked."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self._cameras = cameras

    def collect(self) -> Iterable[Metric]:
        """Return all metrics of this moment."""
        statuses = [camera.status() for camera in self._cameras]

        def counter(name: str, what: str, value: Callable[[Status], int]) -> Metric:
            family = CounterMetricFamily(f"salstream_{name}", what, labels=["camera"])
            for status in statuses:
                family.add_metric([status.name], value(status))
            return family

        yield counter(
            "frames", "Frames that came, the dropped ones among them.", lambda s: s.frames
        )
        yield counter("maps", "Maps made.", lambda s: s.maps)
        yield counter(
            "dropped_frames", "Frames that came faster than the model.", lambda s: s.dropped
        )
        yield counter(
            "reconnects", "Times that frames came again after a failure.", lambda s: s.reconnects
        )

        rate = GaugeMetricFamily(
            "salstream_fps", "Maps per second over the last five seconds.", labels=["camera"]
        )
        state = GaugeMetricFamily(
            "salstream_state", "1 for the state that a camera is in.", labels=["camera", "state"]
        )
        latency = Metric(
            "salstream_latency_seconds", "From capture to map, of the latest 1,000.", "summary"
        )
        for status in statuses:
            rate.add_metric([status.name], status.fps)
            for each in State:
                state.add_metric([status.name, each.value], each == status.state)
            for name, value in status.latency_ms.items():
                labels = {"camera": status.name, "quantile": _QUANTILES[name]}
                latency.add_sample("salstream_latency_seconds", labels, value / 1000)
        yield from (rate, state, latency)


def registry(cameras: Sequence[Camera]) -> CollectorRegistry:
    """Return a registry that knows these cameras and nothing else."""
    own = CollectorRegistry()
    own.register(CameraFigures(cameras))
    return own

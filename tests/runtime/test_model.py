"""The front door on every kind of source."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from clips import clip, numbered_clip
from salstream.runtime import SaliencyModel, UsageError
from salstream.runtime.model import bundled_models
from salstream.runtime.sources import open_source


@pytest.fixture(scope="module")
def model() -> SaliencyModel:
    return SaliencyModel.open("unisal-dhf1k")


def test_a_path_a_folder_and_an_iterable_give_the_same_maps(
    model: SaliencyModel, tmp_path: Path
) -> None:
    assert model.path == bundled_models()["unisal-dhf1k"]
    assert (model.spec.model, model.spec.license) == ("unisal", "Apache-2.0")
    video = clip("carphone_pristine.mp4")
    with open_source(video) as source:
        frames = [frame.image for frame, _ in zip(source, range(12), strict=False)]
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    of_video = list(model.stream(video, limit=12, phases=3))
    of_folder = list(model.stream(tmp_path, phases=3))
    of_frames = list(model.stream(iter(frames), phases=3))
    for index, (a, b, c) in enumerate(zip(of_video, of_folder, of_frames, strict=True)):
        assert a.index == b.index == c.index == index
        np.testing.assert_array_equal(a.map, b.map)
        np.testing.assert_array_equal(a.map, c.map)
        assert a.saliency.shape == a.frame.shape[:2] == frames[0].shape[:2]
        assert a.saliency.dtype == np.float32
        assert 0 <= a.saliency.min() <= a.saliency.max() <= 1
        assert a.overlay().shape == a.frame.shape
    assert of_video[11].time == pytest.approx(11 / 30, abs=0.02)


def test_phases_follow_the_source(model: SaliencyModel, tmp_path: Path) -> None:
    for fps, phases in ((30, 5), (24, 4), (60, 10)):
        video = numbered_clip(tmp_path / f"{fps}.mp4", 3, fps=fps)
        with model.stream(video) as stream:
            assert stream.predictor.phases == phases


def test_the_recurrent_state_matters_and_is_kept_per_phase(model: SaliencyModel) -> None:
    with open_source(clip("bikes.mp4")) as source:
        frames = [frame.image for frame, _ in zip(source, range(6), strict=False)]

    def last(*chosen: int, phases: int) -> np.ndarray:
        predictor = model.predictor(phases=phases)
        return [r.map for n in chosen for r in predictor.push(frames[n])][-1]

    np.testing.assert_array_equal(last(0, 1, 2, 3, 4, 5, phases=5), last(0, 5, phases=1))
    assert np.abs(last(0, 5, phases=1) - last(5, phases=1)).max() > 0.01


def test_a_network_camera(model: SaliencyModel, tmp_path: Path) -> None:
    """An HTTP camera on this machine that sends a real clip at its own rate."""
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", _CAMERA, str(clip("carphone_pristine.mp4")), str(port)]
    )
    try:
        results = []
        for _ in range(100):
            try:
                stream = model.stream(f"http://127.0.0.1:{port}/")
                break
            except Exception:
                time.sleep(0.1)
        else:
            pytest.fail("the camera did not come up")
        with stream:
            assert stream.source.live
            for result in stream:
                results.append(result)
                if len(results) == 20:
                    break
    finally:
        server.kill()
        server.wait()
    indices = [result.index for result in results]
    assert indices == sorted(set(indices))
    assert len(results) == 20
    with open_source(clip("carphone_pristine.mp4")) as source:
        size = next(iter(source)).image.shape[:2]
    assert {result.saliency.shape for result in results} == {size}


_CAMERA = """
import http.server, sys, time, av, cv2

class Camera(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with av.open(sys.argv[1]) as container:
            for frame in container.decode(video=0):
                jpeg = cv2.imencode(".jpg", frame.to_ndarray(format="bgr24"))[1].tobytes()
                head = f"--frame\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: {len(jpeg)}\\r\\n\\r\\n"
                self.wfile.write(head.encode() + jpeg + b"\\r\\n")
                time.sleep(1 / 30)
    def log_message(self, *_): pass

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Camera)
server.handle_error = lambda *_: None
for _ in range(10):
    server.handle_request()
"""  # noqa: E501


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_unknown_models_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'nonesuch'.*unisal-dhf1k"):
        SaliencyModel.open("nonesuch")
    with pytest.raises(UsageError, match=r"expected an \.onnx file"):
        SaliencyModel.open(__file__)

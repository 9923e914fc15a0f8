"""One set of cases for both runtimes: the same frames through Python and C++, the same maps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from clips import clip
from cpp import tiny
from cpp.native import SAME_LIBRARY, Native, NativeError, NativePredictor, NativeResult
from reference import fill_module
from salstream.runtime import Predictor, Result, SaliencyModel, UsageError
from salstream.runtime.cli import load_commands
from salstream.runtime.overlay import to_8_bits
from salstream.runtime.preprocess import placement, prepare
from salstream.runtime.sources import Frame, open_source
from salstream.training import networks

Image = NDArray[np.uint8]
COUNTS = (1, 15, 16, 31, 100)
STARTS = ("reverse", "repeat", "skip")


@pytest.fixture(scope="module")
def frames() -> list[Image]:
    """The first frames of a real clip, 272 x 640."""
    with open_source(clip("bikes.mp4")) as source:
        return [frame.image for frame, _ in zip(source, range(100), strict=False)]


def stream(predictor: Predictor | NativePredictor, images: Sequence[Image]) -> list[Any]:
    return [result for image in images for result in predictor.push(image)] + predictor.flush()


def assert_equal(
    actual: Sequence[NativeResult], expected: Sequence[Result], *, at_frame_size: bool = False
) -> None:
    assert [result.index for result in actual] == [result.index for result in expected]
    for ours, theirs in zip(actual, expected, strict=True):
        wanted = theirs.saliency if at_frame_size else theirs.map
        np.testing.assert_allclose(ours.map, wanted, rtol=0, atol=1e-6)
        assert (ours.conspicuity is None) == (theirs.conspicuity is None)
        if ours.conspicuity is not None and theirs.conspicuity is not None:
            np.testing.assert_allclose(ours.conspicuity, theirs.conspicuity, rtol=0, atol=1e-6)


TINY: dict[str, dict[str, Any]] = {
    "window": {"window": 16, "levels": 4, "window_fps": 10.0},
    "recurrent": {"recurrent": True, "phases": 5, "state_fps": 6.0},
    "ahead": {"window": 5, "map_frame": 2, "recurrent": True, "phases": 5, "fit": "letterbox",
              "map_size": (4, 5)},
    "single": {},
    "small window": {"window": 3},
}  # fmt: skip


@pytest.mark.parametrize("case", TINY)
def test_every_rule_of_a_stream(
    case: str, native: Native, frames: list[Image], tmp_path: Path
) -> None:
    """Every start policy, lengths around the window, phases, strides and frame rates."""
    path = tiny.save(tmp_path / "tiny.onnx", **TINY[case])
    python = SaliencyModel.open(path, backend=SAME_LIBRARY, threads=1)
    model = native.open(path, threads=1)
    images = [np.ascontiguousarray(frame[::8, ::8]) for frame in frames]
    tried = 0
    for start in (None, *STARTS):
        for options in ({}, {"stride": 3}, {"phases": 2}, {"fps": 24.0}, {"fps": 1.0}):
            arguments: dict[str, Any] = {"start": start, **options}
            try:
                expected = python.predictor(**arguments)
            except UsageError:
                with pytest.raises(NativeError) as refused:
                    model.predictor(**arguments)
                assert refused.value.status == "invalid_argument"
                continue
            actual = model.predictor(**arguments)
            assert actual.info.phases == expected.phases
            assert actual.info.stride == expected.stride
            for count in (*COUNTS, 2, 3, 4, 5, 30):  # the same stream again after each flush
                assert_equal(stream(actual, images[:count]), stream(expected, images[:count]))
                assert actual.skipped == expected.skipped
                tried += 1
            actual.free()
    assert tried >= 100
    model.close()


def test_a_frame_of_another_size_is_a_cut(
    native: Native, frames: list[Image], tmp_path: Path
) -> None:
    for facts in TINY.values():
        path = tiny.save(tmp_path / "tiny.onnx", **facts)
        images = [*frames[:7], *(frame[::2, ::2].copy() for frame in frames[7:30]), frames[30]]
        expected = stream(SaliencyModel.open(path, backend=SAME_LIBRARY).predictor(), images)
        model = native.open(path)
        assert_equal(stream(model.predictor(), images), expected)
        at_frame_size = stream(model.predictor(map_size=0), images)
        assert [result.map.shape for result in at_frame_size] == [i.shape[:2] for i in images]
        model.close()


def test_numbers_and_times_are_the_callers(native: Native, tmp_path: Path) -> None:
    model = native.open(tiny.save(tmp_path / "tiny.onnx", window=2))
    predictor = model.predictor()
    image = np.zeros((8, 10, 3), np.uint8)
    results = predictor.push(image, has_index=1, index=40, has_time=1, time_s=2.5)
    results += predictor.push(image) + predictor.push(image, has_index=1, index=50)
    assert [(r.index, r.time) for r in results] == [(40, 2.5), (41, None), (50, None)]


def test_reset_forgets(native: Native, frames: list[Image], tmp_path: Path) -> None:
    for facts in TINY.values():
        model = native.open(tiny.save(tmp_path / "tiny.onnx", **facts))
        predictor = model.predictor()
        whole = stream(predictor, frames[:20])
        for frame in frames[30:49]:
            predictor.push(frame)
        predictor.reset()
        again = stream(predictor, frames[:20])
        assert [result.index for result in again] == list(range(20))
        for one, other in zip(whole, again, strict=True):
            assert (one.map == other.map).all()
        model.close()


@pytest.mark.parametrize("fps", [None, 30.0, 24.0])
def test_unisal(fps: float | None, native: Native, frames: list[Image]) -> None:
    """The bundled model: recurrent, as many phases as the frame rate asks for."""
    python = SaliencyModel.open("unisal-dhf1k", backend=SAME_LIBRARY)
    model = native.open(python.path)
    assert (model.info.model, model.info.license) == (b"unisal", b"Apache-2.0")
    images = frames[:24]
    expected = stream(python.predictor(fps=fps), images)
    assert_equal(stream(model.predictor(fps=fps), images), expected)
    at_frame_size = stream(model.predictor(fps=fps, map_size=0), images)
    assert_equal(at_frame_size, expected, at_frame_size=True)
    as_bytes = stream(model.predictor(fps=fps, map_size=0, map_type=1), images)
    for ours, theirs in zip(as_bytes, expected, strict=True):
        difference = np.abs(ours.map.astype(int) - to_8_bits(theirs.saliency))
        assert ours.map.dtype == np.uint8
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3  # where 255 times the map lies between two numbers
    model.close()


def test_four_threads_share_a_model(native: Native, frames: list[Image]) -> None:
    """Each stream says what it says alone."""
    model = native.open(SaliencyModel.open("unisal-dhf1k", backend=SAME_LIBRARY).path, threads=1)
    parts = [frames[start : start + 10] for start in (0, 20, 40, 60)]
    alone = [stream(model.predictor(), part) for part in parts]
    together: dict[int, list[NativeResult]] = {}

    def work(number: int) -> None:
        together[number] = stream(model.predictor(), parts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        for one, other in zip(alone[number], together[number], strict=True):
            assert (one.map == other.map).all()


@pytest.fixture(scope="module")
def hd2s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HD2S with made-up weights, small for the time's sake."""
    folder = tmp_path_factory.mktemp("hd2s")
    state = networks.get("hd2s").build().state_dict()
    torch.save(fill_module().fill(state, 0), folder / "hd2s.pth")
    arguments = ["export", folder / "hd2s.pth", "--model", "hd2s", "--conspicuity"]
    arguments += ["--size", "32x64", "-o", folder / "hd2s.onnx"]
    done = CliRunner().invoke(load_commands(), [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return folder / "hd2s.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_hd2s(start: Any, hd2s: Path, native: Native, frames: list[Image]) -> None:
    """A window of 16 frames, clips shorter and longer than it."""
    python = SaliencyModel.open(hd2s, backend=SAME_LIBRARY, threads=1)
    model = native.open(hd2s, threads=1)
    for count in COUNTS:
        expected = stream(python.predictor(start=start), frames[:count])
        assert len(expected) == (max(0, count - 15) if start == "skip" else count)
        assert_equal(stream(model.predictor(start=start), frames[:count]), expected)
    model.close()


# Frames at the network's size, as the graph was given them.

SIZES = [(8, 10), (24, 40), (33, 17), (1, 1), (96, 129)]


@pytest.fixture(scope="module")
def echoes(
    native: Native, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[int, int], str], tuple[NativePredictor, Any]]:
    """Streams of graphs that give back the frames that they are given, by size and fit."""
    folder = tmp_path_factory.mktemp("echo")
    made: dict[tuple[tuple[int, int], str], tuple[NativePredictor, Any]] = {}

    def echo(size: tuple[int, int], fit: str) -> tuple[NativePredictor, Any]:
        if (size, fit) not in made:
            path = tiny.echo(folder / f"{size[0]}x{size[1]}-{fit}.onnx", size, fit)
            spec = SaliencyModel.open(path, backend=SAME_LIBRARY).spec
            made[size, fit] = native.open(path, threads=1).predictor(map_size=0), spec
        return made[size, fit]

    return echo


def given_frame(predictor: NativePredictor, image: Image, form: str = "bgr") -> Image:
    """Return the frame at the network's size, uint8 RGB."""
    (result,) = predictor.push(image, form)
    assert result.conspicuity is not None
    return np.rint(result.conspicuity.transpose(1, 2, 0) * 255).astype(np.uint8)


@settings(max_examples=400, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.sampled_from(SIZES),
    fit=st.sampled_from(["stretch", "letterbox"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_frames_equal_pythons_bit_for_bit(
    height: int,
    width: int,
    size: tuple[int, int],
    fit: str,
    seed: int,
    echoes: Callable[[tuple[int, int], str], tuple[NativePredictor, Any]],
) -> None:
    predictor, spec = echoes(size, fit)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert (given_frame(predictor, image) == prepare(Frame(0, None, image), spec)).all()


@pytest.mark.parametrize("height", [1080, 1081, 720, 224, 448])
def test_large_frames_equal_pythons_bit_for_bit(
    height: int, echoes: Callable[[tuple[int, int], str], tuple[NativePredictor, Any]]
) -> None:
    predictor, spec = echoes((224, 384), "stretch")
    width = {224: 384, 448: 768}.get(height, height * 16 // 9)
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 2), np.uint8)
    assert (given_frame(predictor, image) == prepare(Frame(0, None, image), spec)).all()


def pixels(form: str, bgr: Image) -> tuple[Image, Image]:
    """Return a picture in another format, and what OpenCV makes of it in BGR."""
    if form == "rgb":
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), bgr  # type: ignore[return-value]
    if form == "bgra":
        alpha = np.random.default_rng(1).integers(0, 256, (*bgr.shape[:2], 1), np.uint8)
        return np.concatenate([bgr, alpha], axis=2), bgr
    if form == "gray":
        grey = np.ascontiguousarray(bgr[..., 0])
        return grey, np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)
    if form == "nv12":
        planes = np.random.default_rng(2).integers(
            0, 256, (bgr.shape[0] * 3 // 2, bgr.shape[1]), np.uint8
        )
        return planes, np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12), np.uint8)
    return bgr, bgr


@pytest.mark.parametrize("form", ["bgr", "rgb", "bgra", "nv12", "gray"])
def test_every_format_and_pitch(
    form: str, echoes: Callable[[tuple[int, int], str], tuple[NativePredictor, Any]]
) -> None:
    rng = np.random.default_rng(0)
    for size in SIZES:
        predictor, spec = echoes(size, "stretch")
        for height, width in ((270, 320), (66, 90), (12, 14), (2, 2), (32, 80), *((size,) * 1)):
            if form == "nv12" and (height % 2 or width % 2):
                continue
            image, bgr = pixels(form, rng.integers(0, 256, (height, width, 3), np.uint8))
            expected = prepare(Frame(0, None, bgr), spec)
            assert (given_frame(predictor, image, form) == expected).all()
            padded = np.zeros((image.shape[0], image.shape[1] + 5, *image.shape[2:]), np.uint8)
            padded[:, : image.shape[1]] = image
            view = padded[:, : image.shape[1]]
            assert (given_frame(predictor, view, form) == expected).all()


def test_chroma_somewhere_else(
    echoes: Callable[[tuple[int, int], str], tuple[NativePredictor, Any]],
) -> None:
    """NV12 whose planes are apart, each with a pitch of its own, as decoders give it."""
    predictor, spec = echoes((24, 40), "stretch")
    planes, bgr = pixels("nv12", np.zeros((60, 80, 3), np.uint8))
    chroma = np.zeros((30, 96), np.uint8)
    chroma[:, :80] = planes[60:]
    (result,) = predictor.push(
        planes, "nv12", chroma=chroma.ctypes.data, chroma_pitch=chroma.strides[0]
    )
    assert result.conspicuity is not None
    actual = np.rint(result.conspicuity.transpose(1, 2, 0) * 255).astype(np.uint8)
    assert (actual == prepare(Frame(0, None, bgr), spec)).all()


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    size=st.sampled_from(SIZES),
    fit=st.sampled_from(["stretch", "letterbox"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_maps_at_the_frames_size_equal_pythons(
    height: int,
    width: int,
    size: tuple[int, int],
    fit: str,
    seed: int,
    echoes: Callable[[tuple[int, int], str], tuple[NativePredictor, Any]],
) -> None:
    predictor, spec = echoes(size, fit)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    (result,) = predictor.push(image)
    assert result.conspicuity is not None
    letterbox = spec.size if fit == "letterbox" else None
    expected = Result(0, None, image, result.conspicuity.mean(axis=0), letterbox=letterbox)
    # OpenCV rounds positions to float where it does not use IPP, and IPP where a side is 1
    # pixel: that is 1.5e-5 of a steep map.
    shown = placement((height, width), size)[2:] if fit == "letterbox" else size
    precise = cv2.ipp.getIppVersion() and cv2.ipp.useIPP() and min(shown) > 1
    tolerance = 1e-6 if precise else 3e-5
    np.testing.assert_allclose(result.map, expected.saliency, rtol=0, atol=tolerance)

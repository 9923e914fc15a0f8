"""Whatever is wrong: a status and a sentence, nothing printed, never a crash."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cpp import tiny
from cpp.native import SAME_LIBRARY, Native, NativeError
from salstream.runtime import SaliencyModel, SalstreamError
from salstream.runtime.spec import GraphSpec

UNISAL = SaliencyModel.open("unisal-dhf1k", backend=SAME_LIBRARY).path


def refusal(native: Native, path: Path, **options: Any) -> NativeError:
    with pytest.raises(NativeError) as refused:
        native.open(path, **options)
    text = refused.value.text
    assert "\n" not in text
    assert len(text) < 500
    return refused.value


def test_missing_and_damaged_models(
    native: Native, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = UNISAL.read_bytes()
    rng = np.random.default_rng(0)
    flipped = bytearray(whole)
    for place in rng.integers(0, 4000, 200):
        flipped[place] ^= 0xFF
    contents = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "noise": rng.bytes(10_000),
        "text": b"this is no model\n" * 100,
        "zeros": bytes(4096),
        "flipped": bytes(flipped),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        error = refusal(native, path)
        assert error.status == "model_damaged", (name, error)
        assert path.name in error.text
    assert refusal(native, tmp_path / "nowhere.onnx").status == "file_unreadable"
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    assert refusal(native, folder).status == "file_unreadable"
    assert refusal(native, tmp_path / "model.pth").status == "invalid_argument"
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("schema", ["0", "2", "99", "one", ""])
def test_older_and_newer_schemas(schema: str, native: Native, tmp_path: Path) -> None:
    facts = GraphSpec(model="tiny", domain="test", height=8, width=10).to_metadata()
    path = tiny.save(tmp_path / "m.onnx", metadata={**facts, "salstream.schema": schema})
    error = refusal(native, path)
    assert error.status == "schema_unknown"
    assert "schema version" in error.text
    assert "export it again" in error.text


def test_what_python_refuses_is_refused(native: Native, tmp_path: Path) -> None:
    """Metadata that are damaged one entry at a time."""
    facts = GraphSpec(model="tiny", domain="test", height=8, width=10).to_metadata()
    changes: list[dict[str, str | None]] = [
        {"schema": None}, {"model": None}, {"height": None}, {"width": "ten"}, {"height": "-8"},
        {"height": "8.5"}, {"window": "0"}, {"map_frame": "1"}, {"map_frame": "-1"},
        {"phases": "0"}, {"state_fps": "0"}, {"state_fps": "nan"}, {"state_fps": "six"},
        {"window_fps": "0"}, {"window_fps": "nan"},
        {"resize": "lanczos"}, {"fit": "crop"}, {"verification": "{"}, {"height": "9"},
        {"window": "2", "map_frame": "1"}, {"smoothing_sigma": "wide"},
    ]  # fmt: skip
    for change in changes:
        metadata = dict(facts)
        for name, value in change.items():
            metadata.pop(f"salstream.{name}", None)
            if value is not None:
                metadata[f"salstream.{name}"] = value
        path = tiny.save(tmp_path / "m.onnx", metadata=metadata)
        with pytest.raises(SalstreamError):
            SaliencyModel.open(path, backend=SAME_LIBRARY)
        assert refusal(native, path).status == "model_damaged", change


def test_tensors_that_the_metadata_do_not_promise(native: Native, tmp_path: Path) -> None:
    def changed(change: Any) -> NativeError:
        path = tiny.save(tmp_path / "m.onnx", recurrent=True)
        model = onnx.load(path)
        change(model.graph)
        onnx.save(model, path)
        return refusal(native, path)

    def rename(graph: Any, old: str, new: str) -> None:
        for node in graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    names[place] = new if name == old else name
        for value in (*graph.input, *graph.output):
            value.name = new if value.name == old else value.name

    for old, new in (
        ("frames", "images"), ("saliency", "map"), ("state_sum", "hidden"),
        ("state_sum_next", "next"),
    ):  # fmt: skip
        assert changed(lambda graph, o=old, n=new: rename(graph, o, n)).status == "model_damaged"


def test_a_map_that_is_not_finite(native: Native, tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "m.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "weights":
            values = np.frombuffer(tensor.raw_data, np.float32).copy()
            values[0] = np.nan
            tensor.raw_data = values.tobytes()
    onnx.save(model, path)
    predictor = native.open(path).predictor()
    frame = np.zeros((8, 10, 3), np.uint8)
    with pytest.raises(NativeError, match="not finite") as refused:
        predictor.push(frame)
    assert refused.value.status == "inference_failed"
    with pytest.raises(NativeError, match="reset it"):
        predictor.push(frame)


def test_the_inference_library_is_missing(native: Native, tmp_path: Path) -> None:
    nothing = str(tmp_path / "libonnxruntime.so").encode()
    error = refusal(native, UNISAL, library=nothing)
    assert error.status == "library_missing"
    assert "SALSTREAM_ONNXRUNTIME" in error.text
    error = refusal(native, UNISAL, provider=1)
    assert error.status == "library_missing"
    assert "onnxruntime-cuda" in error.text


def test_a_closed_model_and_frames_after_the_end(native: Native, tmp_path: Path) -> None:
    model = native.open(tiny.save(tmp_path / "m.onnx", window=4))
    predictor = model.predictor()
    frame = np.zeros((8, 10, 3), np.uint8)
    predictor.push(frame)
    native.check(native.lib.sal_stream_flush(predictor.handle))
    with pytest.raises(NativeError, match="flushed") as refused:
        predictor.push(frame)
    assert refused.value.status == "invalid_state"
    predictor.reset()
    predictor.push(frame)
    model.close()
    for call in (lambda: predictor.push(frame), predictor.reset, predictor.take):
        with pytest.raises(NativeError, match="closed") as refused:
            call()
        assert refused.value.status == "model_closed"
    predictor.free()


def test_null_pointers_everywhere(native: Native) -> None:
    lib, null = native.lib, ctypes.c_void_p()
    for status in (
        lib.sal_model_open(null, null, null),
        lib.sal_model_info_get(null, null),
        lib.sal_stream_new(null, null, null),
        lib.sal_stream_push(null, null),
        lib.sal_stream_next(null, null),
        lib.sal_stream_flush(null),
        lib.sal_stream_reset(null),
        lib.sal_stream_info_get(null, null),
    ):
        with pytest.raises(NativeError, match="null pointer") as refused:
            native.check(status)
        assert refused.value.status == "invalid_argument"
    lib.sal_stream_free(null)
    lib.sal_model_close(null)

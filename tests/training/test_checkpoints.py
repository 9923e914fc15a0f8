from __future__ import annotations

import argparse
import hashlib
import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from salstream.runtime.errors import SalstreamError, UsageError
from salstream.training.checkpoints import load_state_dict, metadata_of, save_state_dict, sha256_of

STATE = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.ones(3)}
PICKLED = pickle.dumps({"weights": [1, 2, 3]}, protocol=2)


def save_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def save_safetensors(content: Any, path: Path) -> None:
    pytest.importorskip("safetensors.torch").save_file(content, path)


def assert_same(state: dict[str, torch.Tensor]) -> None:
    # safetensors sorts its entries by itself, so the order is not compared.
    assert set(state) == set(STATE)
    for key, tensor in STATE.items():
        torch.testing.assert_close(state[key], tensor, rtol=0, atol=0)
        assert state[key].device.type == "cpu"


def refusal(path: Path, expected: type[SalstreamError] = SalstreamError) -> str:
    """Return the message of loading ``path``, after checking that it is one sentence."""
    with pytest.raises(expected) as error:
        load_state_dict(path)
    message = str(error.value)
    assert str(path) in message
    for foreign in ("\n", "Traceback", "weights_only", "Error"):
        assert foreign not in message
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
@pytest.mark.parametrize("file_name", ["x.pth", "x.safetensors", "x"])
def test_a_state_dict_is_read(
    tmp_path: Path, save: Callable[[object, Path], None], file_name: str
) -> None:
    save(STATE, tmp_path / file_name)
    assert_same(load_state_dict(tmp_path / file_name))


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        ({"state_dict": STATE, "epoch": 3}, ["'state_dict'"]),
        ({"model": STATE, "optimizer": {"state": {}, "param_groups": []}}, ["'model'"]),
        ({"model_state_dict": STATE, "loss": 0.5}, ["'model_state_dict'"]),
        ({"model": {"state_dict": STATE}}, ["'model'", "'state_dict'"]),
        ({"module." + key: value for key, value in STATE.items()}, ["'module.'"]),
        (
            {"model": {"module." + key: value for key, value in STATE.items()}},
            ["'model'", "'module.'"],
        ),
    ],
)
def test_a_training_checkpoint_is_unwrapped_and_said(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    wrapped: dict[str, object],
    said: list[str],
) -> None:
    caplog.set_level(logging.INFO, logger="salstream")
    torch.save(wrapped, tmp_path / "last.ckpt")
    assert_same(load_state_dict(tmp_path / "last.ckpt"))
    assert len(caplog.records) == len(said)
    for record, word in zip(caplog.records, said, strict=True):
        assert word in record.message


def test_names_that_only_look_wrapped_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="salstream")
    state = {"model": torch.ones(1), "module.a": torch.ones(2)}
    torch.save(state, tmp_path / "x.pth")
    assert list(load_state_dict(tmp_path / "x.pth")) == ["model", "module.a"]
    assert caplog.records == []


def test_entries_that_are_no_tensors_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content: dict[Any, Any] = {**STATE, "epoch": 3, 5: torch.ones(1)}
    torch.save(content, tmp_path / "x.pth")
    assert_same(load_state_dict(tmp_path / "x.pth"))
    assert "epoch, 5" in caplog.text


class Malicious:
    """A pickle of this runs a command when it is loaded without care."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"echo ran > {self.trace}",)


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_pickle])
def test_code_in_a_checkpoint_does_not_run(
    tmp_path: Path, save: Callable[[object, Path], None]
) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    save({"extra": Malicious(trace), **STATE}, path)
    message = refusal(path)
    assert f"would run {os.system.__module__}.system" in message
    assert not trace.exists()

    # The same file does run it when it is loaded without care: the test above can fail.
    with path.open("rb") as file:
        if save is save_pickle:
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    ],
)
def test_more_than_tensors_is_refused_by_name(tmp_path: Path, content: object, named: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    message = refusal(tmp_path / "x.pth")
    assert message.startswith("FILE holds more than tensors and was not loaded")
    assert f"would run {named};" in message


@pytest.mark.parametrize("save", [save_zip, save_legacy])
@pytest.mark.parametrize("left", [0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused(
    tmp_path: Path, save: Callable[[object, Path], None], left: float
) -> None:
    path = tmp_path / "x.pth"
    save({f"layer{i}": torch.ones(100) for i in range(50)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    assert "damaged, cut short" in refusal(path)


def test_a_safetensors_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(STATE, path)
    path.write_bytes(path.read_bytes()[:-4])
    assert refusal(path) == (
        "FILE is a safetensors file that is damaged or cut short; fetch it again"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,loss\n1,0.5\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        PICKLED,
        pickle.dumps([1, 2, 3], protocol=5),
        np.random.default_rng(0).bytes(5000),
        b"settings{like a safetensors header}",
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, content: bytes
) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    assert refusal(tmp_path / "x.pth").startswith("FILE is not a checkpoint")
    assert recwarn.list == []


def test_an_onnx_graph_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [value], [other])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "x.onnx")
    assert refusal(tmp_path / "x.onnx").startswith("FILE is not a checkpoint")


def test_another_zip_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    assert "of another kind" in refusal(tmp_path / "x.npz")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    script = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))  # type: ignore[no-untyped-call]
    script.save(tmp_path / "x.pt")
    assert "TorchScript" in refusal(tmp_path / "x.pt")


BEGINNINGS = (b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(beginning=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=200))
@example(beginning=b"\x02\x00\x00\x00\x00\x00\x00\x00", rest=b"{}")  # no tensors, safetensors
@example(beginning=b"\x09\x00\x00\x00\x00\x00\x00\x00", rest=b"{")
def test_any_bytes_are_refused_in_one_sentence(
    tmp_path: Path, beginning: bytes, rest: bytes
) -> None:
    (tmp_path / "x.pth").write_bytes(beginning + rest)
    refusal(tmp_path / "x.pth")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), legacy=st.booleans())
def test_any_cut_is_refused_in_one_sentence(
    tmp_path: Path, data: st.DataObject, legacy: bool
) -> None:
    path = tmp_path / "x.pth"
    (save_legacy if legacy else save_zip)(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refusal(path)


def test_a_dict_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    assert "without tensors" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({}, "none"),
        ({"epoch": 1}, "epoch"),
        ({"state_dict": {"a": 1, "b": 2, "c": 3, "d": 4}}, "a, b, c and 1 more"),
        ({"net": STATE, "epoch": 1}, "net, epoch"),
    ],
)
def test_a_dict_without_tensors_is_refused(
    tmp_path: Path, content: dict[str, object], keys: str
) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert refusal(tmp_path / "x.pth") == (
        f"FILE holds a dict without tensors (its keys: {keys}); expected tensors by name, "
        "on top or under state_dict, model_state_dict, model"
    )


def test_a_bare_tensor_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "x.pth")
    assert refusal(tmp_path / "x.pth").startswith("FILE holds a Tensor, expected a dict")


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none.pth", UsageError)
    assert message == "expected a checkpoint file at FILE, found nothing; check the path"
    assert "found a folder" in refusal(tmp_path, UsageError)


def test_safetensors_come_back_with_their_metadata(tmp_path: Path) -> None:
    state = {"b.weight": torch.randn(3, 4).T, "a.bias": torch.arange(3)}
    path = tmp_path / "new" / "x.safetensors"
    save_state_dict(state, path, {"license": "MIT"})
    loaded = load_state_dict(path)
    assert metadata_of(path) == {"license": "MIT"}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]
    save_zip(state, tmp_path / "x.pth")
    assert metadata_of(tmp_path / "x.pth") == {}
    with pytest.raises(SalstreamError, match="cannot write"):
        save_state_dict(state, path / "below-a-file.safetensors", {})


def test_sha256_of(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()

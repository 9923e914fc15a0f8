"""Checkpoints of networks that were compiled, wrapped, averaged, or saved beside NumPy's values."""

from __future__ import annotations

import copy
import json
import logging
import os
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typer.testing import CliRunner

from salstream.runtime.cli import load_commands
from salstream.runtime.errors import SalstreamError
from salstream.training import checkpoints, networks
from salstream.training.checkpoints import PREFIXES, load_state_dict

State = dict[str, Tensor]
LAYOUT = networks.get("hd2s-net1").layout()


class Small(nn.Module):
    """A part with a running statistic, which averages often lack."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave three networks, as laying out all of them takes seconds."""
    kept = {name: networks.get(name) for name in ("hd2s", "hd2s-net1", "hd2s-da")}
    monkeypatch.setattr(networks, "NETWORKS", kept)


def network_state(value: float = 0.0) -> State:
    """Return a state dict of a real network's layout that takes no memory."""
    return {name: torch.tensor(value).expand(shape) for name, shape in LAYOUT.items()}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_equal(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value)


@pytest.mark.slow
def test_names_of_really_wrapped_networks(tmp_path: Path) -> None:
    small = Small()
    plain = copy.deepcopy(small.state_dict())
    compiled_part = copy.deepcopy(small)
    compiled_part.first = torch.compile(compiled_part.first)  # type: ignore[assignment]
    wrapped: dict[str, nn.Module] = {
        "compiled": torch.compile(small),  # type: ignore[dict-item]
        "parallel": nn.DataParallel(small),
        "compiled in parallel": nn.DataParallel(torch.compile(small)),  # type: ignore[type-var]
        "averaged": AveragedModel(small),
        "averaged in parallel": nn.DataParallel(AveragedModel(nn.DataParallel(small))),
        "a part": compiled_part,
    }
    for kind, module in wrapped.items():
        state = module.state_dict()
        assert state.keys() != plain.keys(), kind
        assert_equal(load_state_dict(saved(state, tmp_path / "x.pth")), plain)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    around=st.lists(st.sampled_from([*PREFIXES, "_orig_mod"]), max_size=4),
    part=st.sampled_from(["", "first", "norm"]),
    under=st.lists(st.sampled_from(["state_dict", "model", "model_state_dict"]), max_size=2),
)
def test_any_nesting_of_prefixes_comes_off(
    tmp_path: Path, around: list[str], part: str, under: list[str]
) -> None:
    plain = Small().state_dict()
    prefix = "".join(f"{name}." for name in around)
    content: Any = {
        prefix + (name.replace(part, f"{part}._orig_mod", 1) if part else name): value
        for name, value in plain.items()
    }
    for key in under:
        content = {key: content, "epoch": 3}
    assert_equal(load_state_dict(saved(content, tmp_path / "x.pth")), plain)


@pytest.mark.parametrize("name", ["first", "weights", "modules", "ema2", "my_model"])
def test_a_part_of_a_network_is_no_prefix(tmp_path: Path, name: str) -> None:
    state = {f"{name}.{key}": value for key, value in Small().state_dict().items()}
    assert_equal(load_state_dict(saved(state, tmp_path / "x.pth")), state)


def test_a_compiled_part_beside_itself_stays_as_it_is(tmp_path: Path) -> None:
    state = {"a.weight": torch.zeros(1), "a._orig_mod.weight": torch.ones(1)}
    assert_equal(load_state_dict(saved(state, tmp_path / "x.pth")), state)


@pytest.mark.slow
def test_no_network_has_a_part_that_counts_as_a_wrapper() -> None:
    parts = {
        part
        for network in networks.NETWORKS.values()
        for name in network.layout()
        for part in name.split(".")
    }
    assert not parts & {*PREFIXES, "_orig_mod"}


@pytest.mark.parametrize(
    ("content", "value", "said"),
    [
        ({"model": 1, "ema": 2}, 2, "'ema' is used"),
        ({"state_dict": 1, "state_dict_ema": 2}, 2, "'state_dict_ema' is used"),
        ({"model": 1, "ema": {"shadow": 2, "decay": 0.99}}, 2, "'shadow' is used"),
        ({"ema": {"module": 2}, "epoch": 1}, 2, "'ema' is used"),
        ({"averaged_model": 2}, 2, "'averaged_model' is used"),
        ({"model": 1, "ema": {"decay": 0.9}}, 1, "'ema' is no average of the weights"),
        ({"model": 1, "epoch": 2}, 1, "'model' is used"),
    ],
)
def test_an_average_is_preferred_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any, value: int, said: str
) -> None:
    caplog.set_level(logging.INFO, logger="salstream")

    def filled(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: filled(inner) for key, inner in item.items()}
        return {"conv.weight": torch.full((2,), item)} if isinstance(item, int) else item

    state = load_state_dict(saved(filled({**content, "epoch": 0.5}), tmp_path / "x.pth"))
    assert state["conv.weight"].tolist() == [value, value]
    assert said in caplog.text
    assert ("running average" in caplog.text) == (value == 2)


def test_an_average_without_statistics_has_those_of_the_weights(tmp_path: Path) -> None:
    trained = {k: torch.full(v.shape, 1.0) for k, v in Small().state_dict().items()}
    average = {f"module.{k}": torch.full(v.shape, 2.0) for k, v in Small().named_parameters()}
    state = load_state_dict(saved({"model": trained, "ema": average}, tmp_path / "x.pth"))
    assert state.keys() == trained.keys()
    assert {k: v.flatten()[0].item() for k, v in state.items()} == {
        k: 2.0 if f"module.{k}" in average else 1.0 for k in trained
    }


@pytest.mark.parametrize("beside", [{}, {"loss.weight": 1}, {"n_averaged": 1, "step": 2}])
@pytest.mark.parametrize(
    ("prefix", "averaged"),
    [
        ("net.", None),
        ("model.", "ema_model."),
        ("", "ema_model."),
        ("online_model.", "ema_model."),
        ("model.", "ema.module."),
        ("network.", "averaged_model.module."),
    ],
)
@pytest.mark.usefixtures("few")
def test_a_network_is_found_among_other_modules(
    caplog: pytest.LogCaptureFixture, prefix: str, averaged: str | None, beside: dict[str, int]
) -> None:
    state = {prefix + name: value for name, value in network_state(1).items()}
    if averaged is not None:
        state |= {averaged + name: value for name, value in network_state(2).items()}
    state |= {name: torch.tensor(value) for name, value in beside.items()}
    found = networks.match(state)
    assert (found.network.name, found.complete) == ("hd2s-net1", True)
    assert {value.flatten()[0].item() for value in found.state.values()} == {2 if averaged else 1}
    assert ("running average" in caplog.text) == bool(averaged)
    for name in beside:
        assert name in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "model."]
)
def test_inspect_knows_a_wrapped_network(prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: torch.zeros(()).expand(shape) for name, shape in LAYOUT.items()}
    path = saved({"state_dict": state, "best": np.float64(0.5)}, tmp_path / "x.ckpt")
    done = CliRunner().invoke(load_commands(), ["weights", "inspect", str(path), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["complete"], facts["faults"]) == ("hd2s-net1", True, "")


@pytest.mark.usefixtures("few")
def test_wrapped_parts_of_a_network_are_found() -> None:
    inner = {
        name.replace(".", ".module.", 1) if name.startswith("conv_t2") else name: value
        for name, value in network_state().items()
    }
    assert inner.keys() != LAYOUT.keys()
    assert networks.match(inner).complete
    assert networks.load(inner, "hd2s-net1").state_dict().keys() == LAYOUT.keys()


@pytest.mark.usefixtures("few")
def test_what_belongs_to_the_network_is_not_left_out() -> None:
    """HD2S-DA is HD2S with more: a prefix makes it no HD2S."""
    layout = networks.get("hd2s-da").layout()
    state = {f"model.{k}": torch.zeros(()).expand(v) for k, v in layout.items()}
    state["loss.weight"] = torch.zeros(1)
    assert networks.match(state).network.name == "hd2s-da"
    with pytest.raises(SalstreamError, match=r"does not fit hd2s: .* left over"):
        networks.load(state, "hd2s")


@pytest.mark.usefixtures("few")
def test_an_incomplete_network_with_a_prefix_is_told_as_one() -> None:
    state = {f"model.{name}": value for name, value in network_state().items()}
    gone = next(iter(state))
    del state[gone]
    state["loss.weight"] = torch.zeros(1)
    found = networks.match(state)
    assert found.missing == [gone.removeprefix("model.")]
    assert found.left_over == ["loss.weight"]


HARMLESS: dict[str, Any] = {
    "scalar": np.float64(0.5),
    "float32": np.float32(0.5),
    "int": np.int64(3),
    "bool": np.bool_(True),
    "array": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.ones((2, 3))),
    "empty": np.zeros((0, 3)),
    "strings": np.array(["a", "b"]),
    "objects": np.array([{"a": 1}, None], object),
    "records": np.zeros(2, [("a", "f4"), ("b", "O")]),
    "dtype": np.dtype("float16"),
    "type": np.float32,
    "date": np.datetime64("2020-01-01"),
    "generator": np.random.RandomState(0).get_state(),
    "lists": defaultdict(list, {"a": [1]}),
    "counts": defaultdict(int, {"a": 1}),
    "nested": defaultdict(dict, {"a": OrderedDict(b=np.float64(1))}),
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_values_of_numpy_are_passed_over(tmp_path: Path, kind: str, zipped: bool) -> None:
    content = {"state_dict": Small().state_dict(), "best": HARMLESS[kind], "epoch": 3}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert_equal(load_state_dict(tmp_path / "x.pth"), Small().state_dict() | content["state_dict"])


def test_values_that_numpy_1_wrote_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    content: dict[str, Any] = {"state_dict": Small().state_dict(), "best": np.float64(0.5)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    assert b"numpy._core.multiarray" in written
    path.write_bytes(written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_equal(load_state_dict(path), content["state_dict"])


def test_an_average_in_a_defaultdict_is_read(tmp_path: Path) -> None:
    state = defaultdict(list, Small().state_dict())
    assert_equal(load_state_dict(saved({"model": state}, tmp_path / "x.pth")), dict(state))


class Calls:
    """A pickle of this calls something when it is loaded without care."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments
        self.state: object = None

    def __reduce__(self) -> tuple[object, ...]:
        return self.call if self.state is None else (*self.call, self.state)


def evil(trace: Path) -> dict[str, Any]:
    run = Calls(os.system, f"echo ran > {trace}")
    hidden = np.empty(1, object)
    hidden[0] = run
    factory: Any = defaultdict(list)
    factory["a"] = run
    return {
        "object array": hidden,
        "record": np.array([(run,)], [("a", object)]),
        "defaultdict": factory,
        "dtype": Calls(np.dtype, run),
        "array": Calls(np.ndarray, run),
        "eval": Calls(eval, f"open({str(trace)!r}, 'w')"),
        "attribute": Calls(getattr, "", "join"),
        "load": Calls(np.load, str(trace)),
        "frombuffer": Calls(np.frombuffer, b"12345678"),
        "partial": Calls(defaultdict, run),
    }


@pytest.mark.parametrize("kind", evil(Path()))
def test_code_among_numpys_values_does_not_run(tmp_path: Path, kind: str) -> None:
    trace = tmp_path / "trace"
    path = saved({"state_dict": Small().state_dict(), "extra": evil(trace)[kind]}, tmp_path / "x")
    with pytest.raises(SalstreamError, match="holds more than tensors and was not loaded"):
        load_state_dict(path)
    assert not trace.exists()


def test_a_dtype_that_denies_its_objects_makes_no_pointers(tmp_path: Path) -> None:
    """With NumPy's own constructors the bytes of this file would become Python objects."""
    dtype = Calls(np.dtype, "V8")
    forged = {"a": (np.dtype(object), 0)}
    dtype.state = (3, "|", None, ("a",), forged, 8, 1, 1)  # counts references, no list of objects
    array = Calls(np.ndarray, (1,), dtype)
    path = saved({"state_dict": Small().state_dict(), "extra": array}, tmp_path / "x.pth")
    assert load_state_dict(path).keys() == Small().state_dict().keys()
    with torch.serialization.safe_globals([*checkpoints._HARMLESS]):
        made = torch.load(path, weights_only=True)["extra"]
    assert type(made).__module__ == checkpoints.__name__

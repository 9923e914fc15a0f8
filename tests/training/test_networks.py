"""Which network a checkpoint belongs to, and what keeps a nearly right one from fitting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from reference import reference
from salstream.runtime import SalstreamError, UsageError
from salstream.runtime.cli import load_commands
from salstream.training import networks
from salstream.training.checkpoints import load_state_dict, metadata_of


def zeros(name: str) -> dict[str, Tensor]:
    """Return a state dict of the right layout that takes no memory."""
    layout = networks.get(name).layout()
    return {entry: torch.zeros(()).expand(shape) for entry, shape in layout.items()}


def weights(*arguments: str | Path) -> Result:
    return CliRunner().invoke(load_commands(), ["weights", *map(str, arguments)])


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_is_recognised(name: str) -> None:
    found = networks.match(zeros(name))
    assert found.complete
    assert name in (found.network.name, *found.also)
    # These differ in their training alone.
    for alike in ({"hd2s-da", "salgradnet"}, {"hd2s", "hd2s-net1234"}):
        if name in alike:
            assert {found.network.name, *found.also} == alike


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("hd2s", "hd2s"),
        ("hd2s_da", "hd2s-da"),
        ("hd2s_dsl", "hd2s-dsl"),
        ("unisal", "unisal"),
        ("esan", "esan"),
        ("s3d_kinetics400", "s3d"),
    ],
)
def test_published_layouts_are_recognised(published: str, name: str) -> None:
    layout = json.loads(reference("checkpoint_layouts.json").read_text())[published]
    state = {entry: torch.zeros(()).expand(shape) for entry, shape in layout.items()}
    found = networks.match(state)
    assert (found.network.name, found.complete) == (name, True)


def torchvision_name(name: str) -> str:
    """Return torchvision's name of an entry of the Kinetics-400 file."""
    for ours, theirs in (
        ("fc.0.", "classifier.1."),
        ("base.", "features."),
        ("conv_s.", "0.0."),
        ("bn_s.", "0.1."),
        ("conv_t.", "1.0."),
        ("bn_t.", "1.1."),
        ("conv.", "0."),
        ("bn.", "1."),
        ("branch0.0.", "branch0."),
    ):
        name = name.replace(ours, theirs)
    return name


def test_torchvisions_s3d_gets_the_published_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = {
        name: torch.randint(100, value.shape)
        for name, value in networks.get("s3d").build().state_dict().items()
    }
    theirs = {torchvision_name(name): value for name, value in ours.items()}
    assert "features.5.branch0.0.weight" in theirs
    assert not set(theirs) & set(ours)
    torch.save(theirs, tmp_path / "s3d.pth")
    out = tmp_path / "s3d.safetensors"
    done = weights("import", tmp_path / "s3d.pth", "-o", out)
    assert done.exit_code == 0, done.output
    loaded = load_state_dict(out)
    assert loaded.keys() == ours.keys()
    assert all(torch.equal(loaded[name], ours[name]) for name in ours)


def test_a_nearly_right_file_is_refused_by_name(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in zeros("hd2s-net1").items()}
    del state["conv_t2_1.conv.weight"]
    state["decoder2.last_conv2.bias"] = torch.zeros(7)
    state["surplus"] = torch.zeros(1)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "x.pth")
    done = weights("import", tmp_path / "x.pth", "-o", tmp_path / "x.safetensors")
    assert isinstance(done.exception, SalstreamError)
    for words in (
        "nearly a checkpoint of hd2s-net1",
        "1 missing (conv_t2_1.conv.weight)",
        "1 left over (surplus)",
        "1 misshapen (decoder2.last_conv2.bias (7,) instead of (1,))",
    ):
        assert words in str(done.exception)
    assert not (tmp_path / "x.safetensors").exists()
    facts = json.loads(weights("inspect", tmp_path / "x.pth", "--json").stdout)
    assert (facts["model"], facts["complete"]) == ("hd2s-net1", False)


def test_import_keeps_what_is_known_of_the_file(unisal_checkpoint: Path, tmp_path: Path) -> None:
    facts = json.loads(weights("inspect", unisal_checkpoint, "--json").stdout)
    assert (facts["model"], facts["published_as"]) == ("unisal", "unisal")
    assert (facts["license"], facts["entries"]) == ("Apache-2.0", 835)
    assert facts["domains"] == ["dhf1k", "hollywood", "ucfsports", "salicon"]
    out = tmp_path / "unisal.safetensors"
    assert weights("import", unisal_checkpoint, "-o", out).exit_code == 0
    assert metadata_of(out)["sha256"] == facts["sha256"]
    again = json.loads(weights("inspect", out, "--json").stdout)
    assert (again["model"], again["license"], again["complete"]) == ("unisal", "Apache-2.0", True)
    assert again["published_as"] == "unisal"
    shown = weights("inspect", out).stdout
    assert "Apache-2.0" in shown


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name, message in (
        ("other.pth", "belongs to none of the networks"),
        ("text.pth", "is not a checkpoint"),
        ("missing.pth", "found nothing"),
    ):
        done = weights("inspect", tmp_path / name)
        assert isinstance(done.exception, SalstreamError)
        assert message in str(done.exception)
        assert name in str(done.exception)
    done = weights("import", tmp_path / "other.pth", "-o", tmp_path / "x.pth")
    assert isinstance(done.exception, UsageError)


def test_loading_into_the_wrong_network_says_which_is_right(unisal_checkpoint: Path) -> None:
    state = load_state_dict(unisal_checkpoint)
    with pytest.raises(SalstreamError, match="it is a checkpoint of unisal"):
        networks.load(state, "esan")
    with pytest.raises(UsageError, match="unknown model 'sam'"):
        networks.load(state, "sam")
    assert not networks.load(state, "unisal").training


def test_hd2s_da_for_another_size_comes_without_its_classifiers() -> None:
    state = {k: torch.zeros(v) for k, v in networks.get("hd2s-da").layout().items()}
    name = "domainClassifier5.domainClassifier.0.weight"
    state[name] = torch.zeros(len(state[name]), 7)
    assert networks.match(state).complete
    network = networks.load(state, "hd2s-da")
    assert not any("Classifier" in entry for entry in network.state_dict())
    entries = networks.get("hd2s").layout()
    base = {k: v for k, v in state.items() if k in entries}
    with pytest.raises(SalstreamError, match=r"does not fit hd2s-da: .* missing"):
        networks.load(base, "hd2s-da")


def test_unwrapping_is_said(unisal_checkpoint: Path, tmp_path: Path) -> None:
    state = load_state_dict(unisal_checkpoint)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "training.pth")
    program = Path(sys.executable).with_name("salstream")
    command = [str(program), "weights", "inspect", str(tmp_path / "training.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "its 'state_dict' is used" in done.stderr

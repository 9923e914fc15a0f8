"""What Python refuses in a sidecar or in a graph's metadata, C++ refuses, and the other way round.

Both read the same files. Of metadata, C++ refuses more, as a stranger's file must not ask for all
memory: numbers beyond its bounds, and those that only Python's parsers take.
"""

from __future__ import annotations

import copy
import enum
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cpp.toolchain import Builds, run
from salstream.runtime.backends.tensorrt import _check_fit
from salstream.runtime.errors import SalstreamError
from salstream.runtime.sidecar import Sidecar, TensorFacts
from salstream.runtime.spec import GraphSpec

Judge = Callable[[dict[str, str]], dict[str, str]]


@pytest.fixture(scope="module")
def judge(builds: Builds, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Return a function that says what C++ says of files, by name."""
    program = builds.release() / "tests" / "judge"
    folder = tmp_path_factory.mktemp("judge")

    def judged(files: dict[str, str]) -> dict[str, str]:
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8", newline="")
        lines = run(program, *files, cwd=folder).stdout.splitlines()
        return dict(zip(files, lines, strict=True))

    return judged


def whole(**changes: Any) -> Sidecar:
    spec = GraphSpec(model="tiny", domain="test", height=8, width=10)
    tensors = (("frames", True, "uint8", (1, 8, 10, 3)), ("saliency", False, "float32", (8, 10)))
    facts: dict[str, Any] = {
        "engine_sha256": "ab", "graph_sha256": "cd", "graph": "Søren 😀 \\ \"g\".onnx\x7f",
        "flavour": "tensorrt", "version": "10.9.0.34", "gpu": None,
        "compute_capabilities": ("8.6",), "precision": "fp32", "batch": (1, 1, 4),
        "options": {"workspace": None, "shares": [1.5, 1e-05, 1e16, 123456789.0, -0.0, 2**70]},
        "metadata": spec.to_metadata(),
        "tensors": tuple(
            TensorFacts(name=name, is_input=is_input, dtype=dtype, shape=shape)
            for name, is_input, dtype, shape in tensors
        ),
    }  # fmt: skip
    return Sidecar(**{**facts, **changes})


def signed(content: dict[str, Any]) -> str:
    """Return a sidecar's text with the checksum that belongs to it."""
    content = {name: value for name, value in content.items() if name != "checksum"}
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum}, indent=1) + "\n"


def python_says(text: str) -> str:
    """As judge.cpp says it."""
    try:
        sidecar = Sidecar.from_json(text)
    except (KeyError, TypeError, ValueError):
        return "no"
    words: list[Any] = ["yes", sidecar.batch[0]]
    words += [int(fits(sidecar, capability)) for capability in ((7, 5), (8, 0), (8, 6), (12, 0))]
    for tensor in sorted(sidecar.tensors, key=lambda one: one.name):
        words += [tensor.name, int(tensor.is_input), tensor.dtype, *tensor.shape]
    return " ".join(map(str, words))


def fits(sidecar: Sidecar, capability: tuple[int, int]) -> bool:
    known = enum.Enum("known", ["SM75", "SM80", "SM86", "SM120"])
    library: Any = SimpleNamespace(__version__=sidecar.version, ComputeCapability=known)
    gpu: Any = SimpleNamespace(name="a GPU", compute_capability=capability)
    try:
        _check_fit(Path("x.engine"), sidecar, library, gpu)
    except SalstreamError:
        return False
    return True


def assert_same(files: dict[str, str], judge: Judge) -> int:
    """Compare the verdicts; return how many files were taken."""
    verdicts = judge(files)
    taken = 0
    for name, text in files.items():
        ours, theirs = verdicts[name], python_says(text)
        assert (ours if ours.startswith("yes") else ours[:2]) == theirs, (name, ours, text)
        taken += ours.startswith("yes")
    return taken


def test_sidecars_that_salstream_writes(judge: Judge) -> None:
    rtx = "tensorrt-rtx"
    sidecars = [
        whole(), whole(flavour=rtx, compute_capabilities=()), whole(compute_capabilities=()),
        whole(flavour=rtx, compute_capabilities=("7.5", "12.0")), whole(batch=(2, 3, 3)),
        whole(gpu="NVIDIA A4000", compute_capabilities=("8.0", "8.6")), whole(options={}),
    ]  # fmt: skip
    files = {f"{number}.sidecar": one.to_json() for number, one in enumerate(sidecars)}
    assert assert_same(files, judge) == len(files)


KINDS: list[Any] = [
    None, True, 0, 1, -1, 1.0, 2**31, "1", "tensorrt-rtx", "other", [], {}, [1, 2, 3], [1, 1], [1],
    [3, 2, 1], [0, 1, 1], [True, 1, 1], [1.0, 1, 1], [1, 1, 2**31], ["8.6", 7], ["1"], [2**31],
    {"a": 1}, {"a": "1"}, [{}], [["frames", True, "uint8", [1]]],
]  # fmt: skip


def test_sidecars_that_were_changed(judge: Judge) -> None:
    """Every entry left out, added, moved or of another kind, with the checksum to it."""
    content = json.loads(whole().to_json())
    texts = []
    for name in content:
        others = {key: value for key, value in content.items() if key != name}
        texts += [signed(others), signed({**others, name: content[name]})]  # now it is the last
        for value in KINDS:
            texts.append(signed({**content, name: value}))
    for name in ("name", "is_input", "dtype", "shape"):
        for value in KINDS:
            changed = copy.deepcopy(content)
            changed["tensors"][0][name] = value
            texts.append(signed(changed))
        for other in ({name: 1}, {**content["tensors"][0], "more": 1}):
            texts.append(signed({**content, "tensors": [other]}))
    texts.append(signed({**content, "tensors": content["tensors"] * 2}))
    texts.append(signed({**content, "more": 1}))
    taken = assert_same({f"{n}.sidecar": text for n, text in enumerate(texts)}, judge)
    assert 0 < taken < len(texts) / 4


def test_sidecars_with_other_bytes(judge: Judge) -> None:
    """Nothing but what Python would write again passes, byte by byte."""
    text = whole().to_json()
    texts = [
        text + " ", text[:-1], " " + text, text.replace(": ", ":", 1), text.replace("\n", "\r\n"),
        text.replace("1e+16", "1e16"), text.replace("1.5", "1.50"), text.replace("-0.0", "-0"),
        text.replace('"batch"', '"gpu": null,\n "batch"'), text.replace("null", "nul"),
        text.replace('"workspace": null', '"workspace": null,\n  "workspace": null'), "[]", "1", "",
        text.replace('"schema": 1', '"schema": true'), text.replace('"schema": 1', '"schema": 1.0'),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = list(text)
        place = int(rng.integers(len(text)))
        changed[place] = chr(rng.integers(32, 127))
        if "".join(changed) != text:
            texts.append("".join(changed))
    assert assert_same({f"{n}.sidecar": text for n, text in enumerate(texts)}, judge) == 0


VALUES = [
    "", " ", "0", "1", "2", "8", "10", "16", "-1", "+1", " 1", "1 ", "1_0", "007", "1.0", "1.5",
    "1e1", "6.", ".5", "-0", "0x8", "nan", "NaN", "inf", "Infinity", "-Infinity", "1e999",
    "99999999999999999999", "ten", "pyramid", "lanczos", "stretch", "letterbox", "crop", "{", "{}",
    "[1]", "[", "1 2", '{"a": NaN}', '"x"', "null", "nul", "\u0663", "\u00e9",
]  # fmt: skip


def test_metadata(judge: Judge) -> None:
    """What C++ takes, Python takes, with the same facts; plain values both take or refuse."""
    entries = GraphSpec(
        model="tiny", domain="test", height=8, width=10, window=3, map_frame=1, phases=5,
        state_fps=6.0, window_fps=15.0, smoothing_sigma=2.0,
        verification={"max_abs": 1e-5}, calibration={"a": 1},
    ).to_metadata()  # fmt: skip
    rng = np.random.default_rng(1)
    changed = [entries]
    for name in entries:
        changed.append({key: value for key, value in entries.items() if key != name})
        changed += [{**entries, name: value} for value in VALUES]
    for _ in range(400):
        names = rng.choice(sorted(entries), 2, replace=False)
        changed.append({**entries, **{name: str(rng.choice(VALUES)) for name in names}})
    files = {f"{n}.metadata": json.dumps(metadata) for n, metadata in enumerate(changed)}
    taken = stricter = 0
    for metadata, verdict in zip(changed, judge(files).values(), strict=True):
        try:
            spec = GraphSpec.from_metadata(metadata)
        except SalstreamError:
            assert verdict.startswith("no "), (metadata, verdict)
            continue
        if verdict.startswith("no "):
            stricter += 1
            odd = {"+1", " 1", "1 ", "1_0", "6.", ".5", "inf", "Infinity", "nan", "\u0663"}
            odd |= {"99999999999999999999", "007", "1e999"}
            assert odd & set(metadata.values()), (metadata, verdict)
            continue
        taken += 1
        facts = [spec.height, spec.width, spec.window, spec.map_frame, spec.phases]
        facts += [spec.phases_at(30), spec.stride_at(30), int(spec.fit == "letterbox")]
        assert verdict == " ".join(["yes", *map(str, facts)]), metadata
    assert taken > 200
    assert stricter < 250

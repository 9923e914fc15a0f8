"""The program as users run it: outputs, summaries, and one sentence for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest

from clips import clip, numbered_clip
from salstream.runtime import GraphSpec, SaliencyModel
from salstream.runtime.overlay import to_8_bits

PROGRAM = Path(sys.executable).with_name("salstream")


def salstream(
    *arguments: str | Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Assert one sentence on standard error, no traceback, the right exit code."""
    assert done.returncode == code, done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1, done.stderr
    for word in words:
        assert word in sentences[0]
    assert "Traceback" not in done.stderr + done.stdout


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    summary = json.loads(done.stdout)
    assert isinstance(summary, dict)
    return summary


def map_names(count: int) -> list[str]:
    return [f"{index:06d}.png" for index in range(count)]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("count", [1, 2, 15, 16, 31])
def test_a_clip_gives_one_map_per_frame(tmp_path: Path, count: int) -> None:
    video = numbered_clip(tmp_path / "clip.mp4", count, size=(60, 90))
    done = salstream("run", video, "--maps", tmp_path / "maps", "--json")
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path / "maps") == map_names(count)
    for path in (tmp_path / "maps").iterdir():
        saliency = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert saliency is not None
        assert saliency.shape == (60, 90)
        assert saliency.dtype == np.uint8
    summary = summary_of(done)
    assert {summary["frames"], summary["maps"]} == {count}
    assert (summary["skipped"], summary["dropped"]) == (0, 0)
    assert summary["backend"] in ("openvino-cpu", "onnxruntime-cpu", "onnxruntime-cuda")
    stages = summary["latency_ms"]
    assert isinstance(stages, dict)
    assert set(stages) == {
        "decode", "preprocess", "infer", "postprocess", "write", "end_to_end"
    }  # fmt: skip
    assert all(set(values) == {"p50", "p95", "p99"} for values in stages.values())


@pytest.mark.slow
def test_a_real_clip_with_every_output(tmp_path: Path) -> None:
    done = salstream(
        "run", clip("bikes.mp4"), "--maps", tmp_path / "maps", "--save", tmp_path / "o.mp4"
    )
    assert done.returncode == 0, done.stderr
    assert "250 frames in, 250 maps out, 0 skipped, 0 dropped, 0 damaged" in done.stdout
    assert "end to end" in done.stdout
    assert names_in(tmp_path / "maps") == map_names(250)
    with av.open(tmp_path / "o.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 250
    # The files hold what the Python interface gives.
    stream = SaliencyModel.open("unisal-dhf1k").stream(clip("bikes.mp4"), limit=30)
    for result in stream:
        written = cv2.imread(str(tmp_path / "maps" / f"{result.index:06d}.png"), 0)
        assert written is not None
        difference = np.abs(written.astype(int) - to_8_bits(result.saliency))
        assert difference.max() <= 1


def test_a_folder_of_images_and_npy_maps(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2, 10):
        image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"frame{number}.png"), image)
    done = salstream(
        "run", tmp_path / "in", "--maps", tmp_path / "out", "--format", "npy", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path / "out") == ["frame1.npy", "frame10.npy", "frame2.npy"]
    saliency = np.load(tmp_path / "out" / "frame2.npy")
    assert (saliency.shape, saliency.dtype) == ((40, 50), np.float32)


def test_limit_and_raw_frames_through_pipes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
    done = subprocess.run(
        [PROGRAM, "run", "-", "--raw-size", "32x48", "--save", "-", "--limit", "7"],
        input=frames.tobytes(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 7 * 32 * 48 * 3
    assert b"7 frames in, 7 maps out" in done.stderr


def test_demo_writes_a_video_and_a_picture(tmp_path: Path) -> None:
    video = numbered_clip(tmp_path / "clip.mp4", 12, size=(60, 90))
    done = salstream("demo", video, "-o", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path / "demo") == ["frame-and-map.png", "overlay.mp4"]
    assert str(tmp_path / "demo" / "overlay.mp4") in done.stdout
    picture = cv2.imread(str(tmp_path / "demo" / "frame-and-map.png"))
    assert picture is not None
    assert picture.shape == (60, 180, 3)


def test_info_and_doctor_speak_to_people_and_programs() -> None:
    facts = json.loads(salstream("info", "unisal-dhf1k", "--json").stdout)
    assert (facts["model"], facts["domain"]) == ("unisal", "dhf1k")
    assert (facts["height"], facts["width"], facts["phases"]) == (224, 384, 5)
    assert facts["license"] == "Apache-2.0"
    assert facts["verification"]["max_abs"] < 1e-4
    assert "Apache-2.0" in salstream("info", "unisal-dhf1k").stdout

    report = salstream("doctor", "--json")
    assert report.returncode == 0
    assert json.loads(report.stdout)["ok"] is True
    shown = salstream("doctor").stdout
    for finding in json.loads(report.stdout)["findings"]:
        assert finding["name"] in shown
        assert finding["remedy"] in shown


@pytest.mark.parametrize("command", ["run", "demo", "info", "doctor", "export", "weights"])
def test_every_command_explains_itself(command: str) -> None:
    done = salstream(command, "--help")
    assert done.returncode == 0
    assert command == "weights" or f"Example: salstream {command}" in done.stdout


def test_bad_sources(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video\n" * 100)
    (tmp_path / "empty").mkdir()
    whole = numbered_clip(tmp_path / "whole.mp4", 30).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])

    refused(salstream("run", tmp_path / "missing.mp4"), 2, "missing.mp4 does not exist")
    refused(salstream("run", text), 1, "text.mp4", "no video")
    refused(salstream("run", tmp_path / "headless.mp4"), 1, "headless.mp4 cannot be opened")
    refused(salstream("run", tmp_path / "empty"), 2, "no images")
    refused(salstream("run", "gopher://camera"), 2, "gopher://camera", "rtsp://")
    refused(salstream("run", "7"), 1, "camera 7 cannot be opened", "check that it is plugged in")
    refused(
        salstream("run", "rtsp://admin:secret@127.0.0.1:9/live", "--reconnect", "0"),
        1,
        "rtsp://admin:***@127.0.0.1",
    )


def test_a_truncated_video_keeps_its_maps_and_its_overlay(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    video = numbered_clip(tmp_path / "v.mp4", 90, container_options=options)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    done = salstream(
        "run", video, "--maps", tmp_path / "maps", "--save", tmp_path / "o.mp4", "--json"
    )
    refused(done, 1, "ended after", "of 90 frames")
    maps = summary_of(done)["maps"]
    assert isinstance(maps, int)
    assert 10 < maps < 90
    assert names_in(tmp_path / "maps") == map_names(maps)
    with av.open(tmp_path / "o.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == maps


def test_frames_that_change_size_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        size = (40, 50) if number < 3 else (60, 80)
        image = np.full((*size, 3), 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), image)
    outputs = ("--maps", tmp_path / "maps", "--save", tmp_path / "o.mp4")
    done = salstream("run", tmp_path / "in", "--pictures", "video", *outputs)
    assert done.returncode == 0
    assert "frame 3 has another size (60x80 after 40x50)" in done.stderr
    assert "Traceback" not in done.stderr
    shapes = [
        cv2.imread(str(tmp_path / "maps" / f"{number}.png"), 0).shape  # type: ignore[union-attr]
        for number in range(6)
    ]
    assert shapes == [(40, 50)] * 3 + [(60, 80)] * 3


def test_bad_models_and_options(tmp_path: Path) -> None:
    video = numbered_clip(tmp_path / "v.mp4", 3)
    bundled = SaliencyModel.open("unisal-dhf1k").path.read_bytes()
    (tmp_path / "damaged.onnx").write_bytes(bundled[: len(bundled) // 2])
    (tmp_path / "noise.onnx").write_bytes(b"\x00\x01noise" * 100)
    (tmp_path / "weights.pth").write_bytes(b"PK")
    other = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Abs", ["x"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.save(other, tmp_path / "other.onnx")
    promises = GraphSpec(model="x", domain="", height=9, width=9).to_metadata()
    onnx.helper.set_model_props(other, promises)
    onnx.save(other, tmp_path / "pretends.onnx")

    refused(salstream("run", video, "--model", "nonesuch"), 2, "nonesuch", "unisal-dhf1k")
    for name in ("damaged.onnx", "noise.onnx"):
        refused(salstream("run", video, "--model", tmp_path / name), 1, name, "damaged")
    refused(salstream("info", tmp_path / "other.onnx"), 1, "other.onnx", "no salstream metadata")
    refused(salstream("run", video, "--model", tmp_path / "pretends.onnx"), 1, "pretends.onnx")
    refused(salstream("info", tmp_path / "weights.pth"), 2, "weights.pth", ".onnx")
    refused(salstream("run", video, "--backend", "abacus"), 2, "abacus", "onnxruntime")
    refused(salstream("run", video, "--start", "sideways"), 2, "sideways", "reverse")
    refused(salstream("run", video, "--format", "gif"), 2, "gif", "png")
    refused(salstream("run", video, "--save", tmp_path / "o.gif"), 2, "o.gif", ".mp4")
    refused(salstream("run", video, "--save", "-", "--json"), 2, "standard output")
    refused(salstream("run", video, "--raw-size", "big"), 2, "big", "HEIGHTxWIDTH")
    for value in ("0.5", "7"):  # of what?
        refused(salstream("run", video, "--threshold", value), 2, "--jsonl or --serve")
    served = salstream("run", video, "--serve", "127.0.0.1:0", "--threshold", "7")
    refused(served, 2, "at most at 1, got 7")
    assert "The page is at" not in served.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "v.mp4", "--nope", "--log-json"], ("No such option", "--nope")),
        (["run", "--log-json", "v.mp4", "--opacity", "7"], ("--opacity", "1")),
        (["run", "--log-json", "v.mp4", "--limit", "few"], ("--limit", "integer")),
        (["run", "v.mp4", "--log-json", "--save"], ("--save", "argument")),
        (["rum", "v.mp4", "--log-json"], ("No such command", "'run'")),
        (["--log-json", "run", "v.mp4"], ("No such option", "--log-json")),
        (["run", "missing.mp4", "--log-json"], ("missing.mp4",)),
        (["run", "v.mp4", "--log-json", "--threshold", "0.5"], ("--jsonl or --serve",)),
    ],
)
def test_a_program_reads_what_is_wrong(arguments: list[str], words: tuple[str, ...]) -> None:
    done = salstream(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    line = json.loads(done.stderr)  # one, and nothing else
    assert line["level"] == "error"
    for word in words:
        assert word in line["message"]


def test_people_read_what_is_wrong(tmp_path: Path) -> None:
    """A source may be named like the option, after --."""
    for arguments in (("--nope",), ("--opacity", "7"), ("--nope", "--", "--log-json")):
        done = salstream("run", "v.mp4", *arguments)
        assert done.returncode == 2
        assert "Usage: salstream run" in done.stderr
        assert arguments[0] in done.stderr
    assert salstream("run", "--log-json", "--help").returncode == 0
    video = numbered_clip(tmp_path / "v.mp4", 3)
    done = salstream("run", video, "--log-json", "--json")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_inference_library_names_the_command(tmp_path: Path) -> None:
    video = numbered_clip(tmp_path / "v.mp4", 3)
    hidden = "import sys\n\nsys.modules['onnxruntime'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    done = salstream("run", video, "--backend", "onnxruntime", PYTHONPATH=str(tmp_path))
    refused(done, 1, "ONNX Runtime is not installed", "pip install 'salstream[cpu]'")


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    video = numbered_clip(tmp_path / "v.mp4", 3)
    (tmp_path / "file").touch()
    refused(salstream("run", video, "--maps", tmp_path / "file" / "maps"), 1, "cannot write maps")
    refused(salstream("run", video, "--save", tmp_path / "file" / "o.mp4"), 1, "cannot write")


def test_the_source_is_never_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    video = numbered_clip(folder / "overlay.mp4", 3)
    image = folder / "000000.png"
    cv2.imwrite(str(image), np.zeros((20, 30, 3), np.uint8))
    before = video.read_bytes(), image.read_bytes()
    for arguments in (
        ("run", video, "--save", video),
        ("run", folder, "--maps", folder),
        ("run", image, "--maps", folder),
        ("demo", video, "-o", folder),
    ):
        refused(salstream(*arguments), 2, "would be written over")
    assert (video.read_bytes(), image.read_bytes()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """A limit on the size of files makes writing fail like a full disk does."""
    video = numbered_clip(tmp_path / "v.mp4", 60, size=(240, 320))
    shell = 'ulimit -f "$1"; shift; exec "$@"'
    for limit, option, name in ((8, "--save", "o.mp4"), (100, "--maps", "maps")):
        format_ = ["--format", "npy"] if option == "--maps" else []
        command = [PROGRAM, "run", video, option, tmp_path / name, *format_]
        done = subprocess.run(
            ["bash", "-c", shell, "bash", str(limit), *map(str, command)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        refused(done, 1, "cannot write", "File too large")
    assert list((tmp_path / "maps").glob("*.part")) == []
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [PROGRAM, "run", video, "--save", "-"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=120,
                check=False,
            )
        done.stdout = ""
        refused(done, 1, "No space left")


def test_a_window_shows_every_frame(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    video = numbered_clip(tmp_path / "v.mp4", 5)
    done = salstream("run", video, "--show", "--json", SDL_VIDEODRIVER="dummy")
    assert done.returncode == 0, done.stderr
    assert summary_of(done)["maps"] == 5


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_whole_files(tmp_path: Path, number: signal.Signals) -> None:
    video = numbered_clip(tmp_path / "v.mp4", 3000, size=(120, 160))
    maps = tmp_path / "maps"
    command: list[str | Path] = [
        PROGRAM,
        "run",
        video,
        "--maps",
        maps,
        "--save",
        tmp_path / "o.mp4",
    ]
    # Tests that were started in the background ignore SIGINT, and so would what they start.
    before = signal.signal(number, signal.SIG_DFL)
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    signal.signal(number, before)
    with run:
        deadline = time.monotonic() + 60
        while not (maps / "000020.png").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(number)
        _, said = run.communicate(timeout=30)
    assert run.returncode == 128 + number
    assert b"Traceback" not in said
    assert b"Interrupted: what was written so far is complete." in said
    written = names_in(maps)
    assert 20 < len(written) < 3000
    assert written == map_names(len(written))
    with av.open(tmp_path / "o.mp4") as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert len(written) - 1 <= frames <= len(written)

"""What a run over cameras keeps up for long: latency, memory, and a fair share for each camera.

    python benchmarks/live.py latency [--seconds 300]   a camera of 60 fps, a model of 10
    python benchmarks/live.py share [--rounds 5]        four cameras against one
    python benchmarks/live.py soak [--seconds 1800]     memory and descriptors, servers that die

The cameras are ffmpeg, sending H.264 over TCP on 127.0.0.1; it has to be installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime import GraphSpec, SaliencyModel
from salstream.runtime.backends import Backend, Output
from salstream.runtime.live.camera import Camera
from salstream.runtime.live.fleet import Fleet
from salstream.runtime.live.points import JsonLines
from salstream.runtime.live.run import share_memory
from salstream.runtime.live.source import Reconnect
from salstream.runtime.segments import Segments
from salstream.runtime.sinks import Sink

SIZE: Final = "640x360"
FFMPEG: Final = shutil.which("ffmpeg") or "ffmpeg"


class Slow(Backend):
    """Takes its time and no processor: windows of 16 frames, 10 maps per second."""

    name = "slow"
    recurrent = False
    conspicuity = False

    def __init__(self, seconds: float) -> None:
        self.spec = GraphSpec(
            model="slow", domain="", height=96, width=160, window=16, map_frame=15
        )
        self._seconds = seconds

    def run(self, frames: NDArray[np.uint8], state: Any) -> Output:
        """Return the brightness of the newest frame."""
        time.sleep(self._seconds)
        return Output(frames[:, -1].mean(axis=3, dtype=np.float32) / 255, None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("latency").add_argument("--seconds", type=float, default=300)
    share = kinds.add_parser("share")
    share.add_argument("--seconds", type=float, default=10)
    share.add_argument("--rounds", type=int, default=5)
    soak = kinds.add_parser("soak")
    soak.add_argument("--seconds", type=float, default=1800)
    soak.add_argument("--kill-every", type=float, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.kind == "latency":
            latency(Path(folder), arguments.seconds)
        elif arguments.kind == "share":
            compare_shares(Path(folder), arguments.seconds, arguments.rounds)
        else:
            soak_test(Path(folder), arguments.seconds, arguments.kill_every)


def latency(folder: Path, seconds: float) -> None:
    """Print the latency from capture to map, by fifths of the time."""
    model = SaliencyModel(Path("slow"), Slow(0.1))
    with Server(folder, fps=60) as server:
        fleet = Fleet(model, {"camera": server.url})
        with fleet:
            _wait_for_maps(fleet)
            for fifth in range(1, 6):
                before = len(_latencies(fleet))
                time.sleep(seconds / 5)
                values = _latencies(fleet)[before:]
                half, almost, most = np.percentile(values, (50, 99, 100))
                print(
                    f"{fifth}/5: {len(values)} maps, capture to map p50 {half:.0f} ms, "
                    f"p99 {almost:.0f} ms, max {most:.0f} ms",
                    flush=True,
                )
            status = fleet.cameras[0].status()
    print(f"{status.frames} frames, {status.maps} maps, {status.dropped} dropped")


def compare_shares(folder: Path, seconds: float, rounds: int) -> None:
    """Print what one camera of 120 fps and four of 30 get, in turns.

    The four are also served as one batch. What a map costs a core says more than maps per second
    where other programs run.
    """
    model = SaliencyModel.open("unisal-dhf1k")
    kinds = {"one": 1, "four": 1, "four, in batches": 4}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    spreads = []
    with ExitStack() as stack:
        one = {"one": stack.enter_context(Server(folder, fps=120)).url}
        four = {f"c{n}": stack.enter_context(Server(folder, fps=30)).url for n in range(4)}
        for number in range(rounds):
            for kind, batch in kinds.items():
                shares, cpu_s = _maps(model, one if kind == "one" else four, seconds, batch)
                rates[kind].append(sum(shares) / seconds)
                costs[kind].append(1000 * cpu_s / sum(shares))
                if kind == "four":
                    spreads.append(max(shares) / min(shares) - 1)
                print(
                    f"round {number + 1}, {kind}: {rates[kind][-1]:.1f} maps per second, "
                    f"{costs[kind][-1]:.1f} ms of a core for each, {shares}",
                    flush=True,
                )
    for kind in kinds:
        maps = statistics.median(a / b for a, b in zip(rates[kind], rates["one"], strict=True))
        work = statistics.median(a / b for a, b in zip(costs[kind], costs["one"], strict=True))
        print(f"{kind}: {maps:.3f} of one's maps per second, {work:.3f} of its work for each")
    print(f"largest spread of the shares {max(spreads):.1%}")


def soak_test(folder: Path, seconds: float, kill_every: float) -> None:
    """Print memory and descriptors while servers are killed and come back."""
    share_memory()  # as `salstream run` does
    model = SaliencyModel.open("unisal-dhf1k", backend="onnxruntime:cpu", threads=1)

    def sinks(camera: Camera) -> list[Sink]:
        lines = JsonLines(folder / "points.jsonl", camera.name)
        return [lines, Segments(folder / f"{camera.name}.mp4", 20, keep_gb=0.005)]

    with Server(folder, fps=5) as door, Server(folder, fps=5) as yard:
        urls = {"door": door.url, "yard": yard.url}
        fleet = Fleet(model, urls, sinks=sinks, reconnect=Reconnect(longest_pause_s=2), timeout_s=3)
        with fleet:
            begin = time.monotonic()
            first, most, killed = 0.0, 0.0, 0
            descriptors: list[int] = []
            while (passed := time.monotonic() - begin) < seconds:
                time.sleep(5)
                if passed // kill_every > killed:
                    killed += 1
                    (door, yard)[killed % 2].kill()
                if passed < 60:
                    continue
                most = max(most, _megabytes())
                first = first or _megabytes()
                descriptors.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
                if passed % 60 < 5:
                    print(
                        f"{passed:5.0f} s: {_megabytes():.1f} MB, {descriptors[-1]} descriptors, "
                        f"{threading.active_count()} threads, "
                        f"{[(c.name, str(c.state), c.reconnects) for c in fleet.cameras]}",
                        flush=True,
                    )
    print(
        f"{killed} kills; memory {first:.1f} MB after a minute, {most:.1f} MB at most "
        f"({most - first:+.1f}); descriptors {min(descriptors)} to {max(descriptors)}"
    )


class Server:
    """A camera: ffmpeg, started again whenever it ends."""

    def __init__(self, folder: Path, fps: int) -> None:
        clip = folder / f"clip{fps}.ts"
        if not clip.exists():
            pattern = f"testsrc2=size={SIZE}:rate={fps}:duration=20"
            make = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", pattern, "-pix_fmt", "yuv420p"]
            encode = ["-c:v", "libx264", "-preset", "superfast", "-bf", "0", "-g", str(fps)]
            subprocess.run([*make, *encode, str(clip)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        send = [FFMPEG, "-v", "quiet", "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy"]
        self._command = [*send, "-f", "mpegts", f"{self.url}?listen=1"]
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def kill(self) -> None:
        """End the connection; the next one is awaited at once."""
        if self._process is not None:
            self._process.kill()

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
            self._process.wait()

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.kill()
        self._thread.join()


@contextmanager
def _streaming(model: SaliencyModel, urls: dict[str, str], batch: int) -> Iterator[Fleet]:
    again = Reconnect(first_pause_s=0.1, longest_pause_s=0.5)
    with Fleet(model, urls, reconnect=again, batch=batch) as fleet:
        _wait_for_maps(fleet)
        yield fleet


def _maps(
    model: SaliencyModel, urls: dict[str, str], seconds: float, batch: int
) -> tuple[list[int], float]:
    """Return how many maps each camera got, and the seconds of a core that it took."""
    with _streaming(model, urls, batch) as fleet:
        time.sleep(3)  # what was sent while connecting comes in a burst
        before = [camera.status().maps for camera in fleet.cameras]
        begin = time.process_time()
        time.sleep(seconds)
        cpu_s = time.process_time() - begin
        after = [camera.status().maps for camera in fleet.cameras]
    return [end - begin for begin, end in zip(before, after, strict=True)], cpu_s


def _wait_for_maps(fleet: Fleet) -> None:
    while not all(camera.status().maps > 5 for camera in fleet.cameras):
        time.sleep(0.05)


def _latencies(fleet: Fleet) -> NDArray[np.float64]:
    return fleet.members[0].timings.all_of("capture_to_map")


def _megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()

"""Milliseconds of bare graphs, interleaved, in ONNX Runtime and in OpenVINO.

    python benchmarks/graphs.py GRAPH.onnx... [--rounds 20]

Ratios are medians over rounds to the first graph in the same library.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino

THREADS = 2
# The threads of the library before go on spinning for a while, and would take a core.
PAUSE_S = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graphs", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    runs = {
        (library, path.stem): make(path)
        for library, make in (("ONNX Runtime", _onnxruntime), ("OpenVINO", _openvino))
        for path in arguments.graphs
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for number in range(-2, arguments.rounds):
        for key, run in runs.items():
            time.sleep(PAUSE_S)
            begin = time.perf_counter()
            run()
            if number >= 0:  # the first rounds warm up
                times[key].append(1000 * (time.perf_counter() - begin))
    print("| library | graph | median ms | ratio |\n|---|---|---|---|")
    for (library, graph), values in times.items():
        first = times[library, arguments.graphs[0].stem]
        ratio = statistics.median(a / b for a, b in zip(values, first, strict=True))
        print(f"| {library} | {graph} | {statistics.median(values):.1f} | {ratio:.3f} |")


def _inputs(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(0, 256, (1, *shape), dtype=np.uint8)
        if name == "frames"
        else np.zeros((1, *shape), np.float32)
        for name, shape in shapes.items()
    }


def _onnxruntime(path: Path) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = _inputs({item.name: item.shape[1:] for item in session.get_inputs()})
    return lambda: session.run(None, inputs)


def _openvino(path: Path) -> Callable[[], object]:
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    request = compiled.create_infer_request()
    shapes = {
        port.any_name: [length.get_length() for length in list(port.partial_shape)[1:]]
        for port in compiled.inputs
    }
    inputs = _inputs(shapes)
    return lambda: request.infer(inputs)


if __name__ == "__main__":
    main()

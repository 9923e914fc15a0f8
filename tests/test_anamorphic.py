"""A letterbox model meets the same geometry wherever frames are prepared for it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import trees
from graphs import SIZE, small_graph
from salstream.calibration.budget import cut_segments
from salstream.calibration.graphs import Graph
from salstream.calibration.windows import draw
from salstream.export.bench_cli import _frames
from salstream.export.graph import given_frames
from salstream.runtime import SaliencyModel
from salstream.runtime.preprocess import prepare
from salstream.runtime.sources import open_source
from salstream.training.clips import Geometry
from salstream.training.data.packed import open_packed
from salstream.training.data.prepare import Options, prepare_dataset

# 720x576 whose pixels are 64:45 is shown as 16:9: in 32x48 it fills the width, and 27 of 32 rows.
# With square pixels it would be 5:4, and fill the height and 40 of 48 columns.
ROWS, COLUMNS = slice(2, 29), slice(0, 48)


def write_wide(path: Path, frames: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 720, 576, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for number in range(frames):
            image = np.full((576, 720, 3), 120 + 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wide(tmp_path_factory.mktemp("wide") / "wide.mp4")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_graph(tmp_path_factory.mktemp("graph") / "small.onnx", fit="letterbox")


def assert_placed(image: NDArray[np.uint8]) -> None:
    """The frame lies where a player shows it, and what is around it is black."""
    assert image.shape == (*SIZE, 3)
    inner = image[ROWS, COLUMNS]
    assert inner.min() > 100
    assert np.count_nonzero(image) == inner.size


def test_what_the_runtime_gives_to_a_model(wide: Path, graph: Path) -> None:
    model = SaliencyModel.open(graph, backend="onnxruntime:cpu")
    with open_source(wide) as source:
        assert_placed(prepare(next(iter(source)), model.spec))


def test_calibration_windows_and_segments(wide: Path, graph: Path, tmp_path: Path) -> None:
    opened = Graph(graph)
    windows = draw(opened, [wide], 3, tmp_path / "windows")
    assert len(windows) == 3
    for index in range(3):
        assert_placed(windows.inputs(index)["frames"][0, 0])
    (segment,) = cut_segments(opened, [wide], 4)
    for image in segment.frames:
        assert_placed(image)


def test_frames_that_exports_are_checked_with(wide: Path, graph: Path) -> None:
    model = SaliencyModel.open(graph, backend="onnxruntime:cpu")
    frames, _ = given_frames(str(wide), model.spec, 2)
    for image in frames:
        assert_placed(image)


def test_frames_that_are_measured_with(wide: Path, graph: Path) -> None:
    model = SaliencyModel.open(graph, backend="onnxruntime:cpu")
    for frame in _frames(wide, 2):
        assert_placed(prepare(frame, model.spec))


def test_packed_frames_maps_and_fixations(tmp_path: Path) -> None:
    """A fixation in a corner of the frame lies in the corner of what is shown of it."""
    root = tmp_path / "raw"
    for name in "abcde":
        write_wide(root / "videos" / f"{name}.avi", 2)
    rows = [
        (name, who, 0, 500.0, x, y)
        for name in "abcde"
        for who, (x, y) in enumerate([(1, 1), (718, 574)])
    ]
    trees.table(
        root / "fixations.csv", ("video", "subject", "start_ms", "duration_ms", "x", "y"), rows
    )
    prepare_dataset("remega", root, tmp_path / "packed", Options(size=SIZE, fit="letterbox"))
    video = open_packed(tmp_path / "packed").videos("all")[0]
    assert video.pixel_aspect == pytest.approx(64 / 45)
    assert_placed(video.frames[0])
    assert video.maps is not None
    density = video.maps[0]
    assert not density[: ROWS.start].any()
    assert not density[ROWS.stop :].any()
    assert density[2, 0] > 200
    assert density[28, 47] > 200
    geometry = Geometry(SIZE, SIZE, letterbox=True)
    assert np.argwhere(geometry.placed(video, 0)).tolist() == [[2, 0], [28, 47]]


def test_density_is_round_as_it_is_shown() -> None:
    """As many rows as columns, where the frame is shown with square pixels."""
    from salstream.training.data.recordings import gaussian_density

    centre = np.array([[288, 360]])
    density = gaussian_density(centre, (576, 720), (180, 320), 0.05, 64 / 45)
    rows, columns = (np.count_nonzero(density.max(axis) > 0.5) for axis in (1, 0))
    assert abs(rows - columns) <= 1
    assert rows > 15

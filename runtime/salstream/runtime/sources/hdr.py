"""From HDR to SDR: what a table of colours does to pictures in PQ or HLG.

The signal is decoded to light (BT.2100; HLG for its nominal display of 1000 cd/m²). Light up to
half of HDR's diffuse white (203 cd/m², BT.2408) stays as it is; above, an extended Reinhard
shoulder, x (1 + x / m²) / (1 + x), leads 1000 cd/m² to SDR's white. The curve maps the brightest
of the three components, and the other two keep their ratio to it. The primaries become those of
BT.709, where the most saturated colours lose saturation at constant luminance, and SDR's gamma of
2.4 (BT.1886) encodes the result.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import av
import av.filter
import numpy as np
from av.filter.context import FilterContext
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError

# Transfer characteristics and primaries by their numbers in H.273.
PQ: Final = 16
HLG: Final = 18
TRANSFERS: Final = {PQ: "PQ", HLG: "HLG"}
_BT709: Final = 1
_BT2020: Final = 9
# x and y of red, green and blue; white is D65 in all
_CHROMATICITIES: Final = {
    _BT709: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # P3
}
_D65: Final = (0.3127, 0.3290)

_PEAK: Final = 1000.0  # cd/m²
_WHITE: Final = 203.0
_HLG_GAMMA: Final = 1.2  # of a display of 1000 cd/m²
_SDR_GAMMA: Final = 2.4
# From here on colours lose saturation; at 1, a component would be 0. A hard limit at 1 would
# merge colours, and between the points of the table it would show.
_SATURATED: Final = 0.85

_GRID: Final = 33  # points of the table along each axis; what lies between is interpolated

_Array = NDArray[np.float64]


def to_sdr(signal: _Array, transfer: int, primaries: int) -> _Array:
    """Convert colours from HDR to SDR.

    Args:
        signal: (…, 3) RGB of 0 to 1, encoded with ``transfer``.
        transfer: ``PQ`` or ``HLG``.
        primaries: Their number in H.273; an unknown one counts as BT.2020.

    Returns:
        (…, 3) RGB of 0 to 1, BT.709 with a gamma of 2.4.
    """
    to_xyz = _to_xyz(primaries if primaries in _CHROMATICITIES else _BT2020)
    light = _pq_to_light(signal) if transfer == PQ else _hlg_to_light(signal, to_xyz[1])
    brightest = light.max(-1, keepdims=True)
    light = light * (_roll_off(brightest) / np.maximum(brightest, 1e-9))

    light = light @ (np.linalg.inv(_to_xyz(_BT709)) @ to_xyz).T / _WHITE
    luminance = light @ _to_xyz(_BT709)[1][:, None]
    colour = light - luminance
    saturation = -colour.min(-1, keepdims=True) / np.maximum(luminance, 1e-9)
    excess = np.maximum(saturation - _SATURATED, 0) / (1 - _SATURATED)
    kept = np.minimum(saturation, _SATURATED) + (1 - _SATURATED) * excess / (1 + excess)
    colour = colour * (kept / np.maximum(saturation, 1e-9))
    brightest = colour.max(-1, keepdims=True)
    light = luminance + colour * np.minimum(1, (1 - luminance) / np.maximum(brightest, 1e-9))
    return np.asarray(np.clip(light, 0, 1) ** (1 / _SDR_GAMMA))


def add_table(graph: av.filter.Graph, transfer: int, primaries: int) -> FilterContext:
    """Add the filter that does what ``to_sdr`` does to the RGB pictures of a graph.

    Raises:
        SalstreamError: The table cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="salstream-") as folder:
            # the filter reads its table from a file, when it is added
            path = Path(folder) / "sdr.cube"
            path.write_bytes(_table(transfer, primaries))
            return graph.add("lut3d", file=str(path))
    except OSError as error:
        if isinstance(error, av.FFmpegError):
            raise
        raise SalstreamError(
            "HDR needs a temporary folder: set TMPDIR to one that can be written to"
        ) from error


@cache
def _table(transfer: int, primaries: int) -> bytes:
    axis = np.linspace(0, 1, _GRID)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = to_sdr(np.stack([red, green, blue], -1), transfer, primaries).reshape(-1, 3)
    lines = [f"{red:.5f} {green:.5f} {blue:.5f}\n" for red, green, blue in colours.tolist()]
    return "".join([f"LUT_3D_SIZE {_GRID}\n", *lines]).encode()


def _pq_to_light(signal: _Array) -> _Array:
    """Convert to cd/m² by the PQ EOTF."""
    power = signal ** (32 / 2523)
    base = np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)
    return np.asarray(10000 * base ** (16384 / 2610))


def _hlg_to_light(signal: _Array, luma: _Array) -> _Array:
    """Convert to cd/m² by HLG's inverse OETF and its OOTF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ luma[:, None]
    return np.asarray(_PEAK * luminance ** (_HLG_GAMMA - 1) * scene)


def _roll_off(light: _Array) -> _Array:
    """Map 0 to the peak to 0 to white, in cd/m²: unchanged up to half of white."""
    knee = _WHITE / 2
    beyond = np.clip(light - knee, 0, _PEAK - knee) / knee
    most = (_PEAK - knee) / knee
    return np.asarray(
        np.minimum(light, knee) + knee * beyond * (1 + beyond / most**2) / (1 + beyond)
    )


def _to_xyz(primaries: int) -> _Array:
    """Return the matrix from linear RGB to XYZ; its second row gives the luminance."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]]).T
    x, y = _D65
    white = np.array([x / y, 1, (1 - x - y) / y])
    return np.asarray(columns * np.linalg.solve(columns, white))

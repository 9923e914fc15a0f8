"""MATLAB files of either version, as plain dictionaries, lists and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError

_MAPS: Final = ("I", "fixLocs")
_SMALLEST: Final = 8  # height and width of a map: lists of points are narrower


def load_mat(path: Path) -> dict[str, Any]:
    """Read a ``.mat`` file: version 7.2 and older through SciPy, 7.3 (HDF5) through h5py.

    Structs become dictionaries, cell arrays lists, vectors and scalars lose their axes of
    length 1, as in SciPy's ``simplify_cells``.

    Raises:
        SalstreamError: It cannot be read, or a library is not installed.
    """
    try:
        import h5py
        import scipy.io
    except ImportError as error:
        raise SalstreamError(
            f"{path} needs SciPy and h5py; install them with: pip install 'salstream[training]'"
        ) from error
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return {name: _plain(file, value) for name, value in _members(file)}
        found = scipy.io.loadmat(path, simplify_cells=True)
    except Exception as error:  # either library raises almost any type on a damaged file
        raise SalstreamError(f"{path} cannot be read: it is damaged, or not a .mat file") from error
    return {name: value for name, value in found.items() if not name.startswith("__")}


def map_in(path: Path) -> NDArray[Any]:
    """Return the map that a ``.mat`` file holds.

    It is called ``I`` (SALICON's first release, DHF1K, DIEM) or ``fixLocs`` (MIT1003, CAT2000),
    or else the largest matrix of numbers is taken.

    Raises:
        SalstreamError: It cannot be read, or holds none.
    """
    values = load_mat(path)
    matrices = {
        name: np.asarray(value.todense() if hasattr(value, "todense") else value)
        for name, value in values.items()
    }
    maps = {
        name: matrix
        for name, matrix in matrices.items()
        if matrix.ndim == 2 and matrix.dtype.kind in "buif" and min(matrix.shape) >= _SMALLEST
    }
    if not maps:
        held = ", ".join(f"{name} {m.dtype} {m.shape}" for name, m in list(matrices.items())[:3])
        raise SalstreamError(
            f"{path} holds no map: expected a matrix of numbers, one for each pixel, such as I or "
            f"fixLocs; it has {held or 'nothing'}"
        )
    named = next((maps[name] for name in _MAPS if name in maps), None)
    return max(maps.values(), key=lambda matrix: matrix.size) if named is None else named


def _members(group: Any) -> list[tuple[str, Any]]:
    return [(name, group[name]) for name in group if not name.startswith("#")]


def _plain(file: Any, value: Any) -> Any:
    import h5py

    if isinstance(value, h5py.Group):
        members = _members(value)
        # A field of a struct array is a list of references, like a cell array without its name.
        if members and all(
            isinstance(m, h5py.Dataset) and m.dtype == h5py.ref_dtype
            and "MATLAB_class" not in m.attrs
            for _, m in members
        ):  # fmt: skip
            columns = [[_plain(file, file[r]) for r in m[()].T.ravel()] for _, m in members]
            names = [name for name, _ in members]
            return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return {name: _plain(file, member) for name, member in members}
    if value.attrs.get("MATLAB_empty", 0):
        return np.zeros(0)
    values = np.asarray(value[()])
    if value.attrs.get("MATLAB_class") == b"char":
        return "".join(map(chr, values.ravel()))
    if values.dtype == h5py.ref_dtype:
        cells = [_plain(file, file[reference]) for reference in values.T.ravel()]
        return cells if len(cells) != 1 else cells[0]
    simple = np.squeeze(values.T)  # HDF5 has the axes the other way round
    return simple if simple.ndim else simple.item()

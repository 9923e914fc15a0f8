"""MATLAB files of either version, as plain dictionaries, lists and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from salstream.runtime.errors import SalstreamError


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
    """Return the map that a ``.mat`` file holds: the largest matrix of numbers in it.

    Raises:
        SalstreamError: It cannot be read, or holds none.
    """
    matrices = [
        np.asarray(value.todense() if hasattr(value, "todense") else value)
        for value in load_mat(path).values()
    ]
    matrices = [m for m in matrices if m.ndim == 2 and m.dtype.kind in "buif"]
    if not matrices:
        raise SalstreamError(f"{path} holds no map: expected a matrix of numbers")
    return max(matrices, key=lambda matrix: matrix.size)


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

"""Large arrays in .npz files, written and read in slices, so that saving does not copy the arrays."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
import zipfile

import numpy as np

SLICE_BYTES = 1_000_000


class ArrayFile:
    """An uncompressed .npz file that `np.load` can read as well.

    Args:
        path: path of the file.
        mode: "w" to write, "r" to read.
    """

    def __init__(self, path: str, mode: str):
        self._zip = zipfile.ZipFile(path, mode, zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def write(self, name: str, *parts: np.ndarray) -> None:
        """Write arrays of equal dtype and trailing shape as one array, one after the other."""
        first = parts[0]
        header = {
            "descr": np.lib.format.dtype_to_descr(first.dtype),
            "fortran_order": False,
            "shape": (sum(len(part) for part in parts), *first.shape[1:]),
        }
        with self._zip.open(f"{name}.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_2_0(file, header)
            for part in parts:
                for rows in _slices(part):
                    file.write(np.ascontiguousarray(rows).tobytes())

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        with self._zip.open(f"{name}.npy") as file:
            return np.lib.format.read_array(file)

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape and dtype of an array without reading it."""
        with self._header(name) as (_, shape, dtype):
            return shape, dtype

    def read_into(self, name: str, *parts: np.ndarray) -> None:
        """Read an array into the rows of other arrays, one after the other.

        Raises:
            ValueError: if the number of rows, their shape, or their dtype do not match.
        """
        with self._header(name) as (file, shape, dtype):
            if (room := sum(map(len, parts))) != shape[0]:
                raise ValueError(f"{name} has {shape[0]:,} rows, not {room:,}")
            for part in parts:
                if part.shape[1:] != shape[1:] or part.dtype != dtype:
                    raise ValueError(f"{name} is {dtype} {shape[1:]}, not {part.dtype} {part.shape[1:]}")
                for rows in _slices(part):
                    rows[...] = np.frombuffer(file.read(rows.nbytes), dtype).reshape(rows.shape)

    @contextmanager
    def _header(self, name: str) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype]]:
        with self._zip.open(f"{name}.npy") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            yield file, shape, dtype


def _slices(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield views of successive rows, of at most `SLICE_BYTES` each."""
    step = max(1, SLICE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]

"""Arrays in .npz files, written and read in slices."""

from common import array_file
from common.array_file import ArrayFile
import numpy as np
import pytest

ARRAYS = {
    "floats": np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32),
    "bytes": np.random.default_rng(1).integers(256, size=(40, 5, 2)).astype(np.uint8),
    "flags": np.arange(9) % 2 == 0,
    "numbers": np.arange(11),
    "one": np.zeros((1, 2)),
    "none": np.zeros((0, 4), np.int64),
}


@pytest.fixture(params=[1, 100, 1_000_000])
def slices(request, monkeypatch):
    """Slices of one row, of some rows, and of all rows."""
    monkeypatch.setattr(array_file, "SLICE_BYTES", request.param)


@pytest.fixture
def path(tmp_path, slices):
    """A file that holds `ARRAYS`."""
    path = str(tmp_path / "arrays.npz")
    with ArrayFile(path, "w") as file:
        for name, array in ARRAYS.items():
            file.write(name, array)
    return path


def test_numpy_reads_the_file(path):
    with np.load(path) as file:
        assert list(file) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert file[name].dtype == array.dtype
            np.testing.assert_array_equal(file[name], array)


def test_it_reads_its_own_file(path):
    with ArrayFile(path, "r") as file:
        for name, array in ARRAYS.items():
            assert file.shape_and_dtype(name) == (array.shape, array.dtype)
            np.testing.assert_array_equal(file.read(name), array)
            rows = np.empty_like(array)
            file.read_into(name, rows)
            np.testing.assert_array_equal(rows, array)


def test_parts_become_one_array_and_one_array_fills_parts(slices, tmp_path):
    array, path = ARRAYS["floats"], str(tmp_path / "parts.npz")
    with ArrayFile(path, "w") as file:
        file.write("floats", array[500:], array[:500], array[:0])
        file.write("strided", array[::2], array[1::2])
    with np.load(path) as file:
        np.testing.assert_array_equal(file["floats"], np.roll(array, 200, axis=0))
        np.testing.assert_array_equal(file["strided"], np.concatenate([array[::2], array[1::2]]))
    ring = np.empty_like(array)
    with ArrayFile(path, "r") as file:
        file.read_into("floats", ring[500:], ring[:500])
    np.testing.assert_array_equal(ring, array)


@pytest.mark.parametrize("rows", [np.empty((700, 4), np.float32), np.empty((700, 3), np.float64)])
def test_rows_of_another_shape_or_dtype_are_refused(rows, path):
    with ArrayFile(path, "r") as file, pytest.raises(ValueError, match="floats is float32"):
        file.read_into("floats", rows)


@pytest.mark.parametrize("sizes", [(701,), (699,), (350, 349)])
def test_another_number_of_rows_is_refused(sizes, path):
    with ArrayFile(path, "r") as file, pytest.raises(ValueError, match="floats has 700 rows"):
        file.read_into("floats", *(np.empty((size, 3), np.float32) for size in sizes))

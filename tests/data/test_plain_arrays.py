import pickle

import numpy as np
import pytest

from recovar.data.plain_arrays import read_array
from recovar.errors import InputError

VALUES = np.arange(6.0).reshape(3, 2)


def write(path):
    if path.suffix == ".npy":
        np.save(path, VALUES)
    elif path.suffix == ".npz":
        np.savez(path, other=np.zeros(2), z=VALUES)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(VALUES))
    else:
        np.savetxt(path, VALUES)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pkl", ".txt"])
def test_an_array_is_read_from_every_format(tmp_path, suffix):
    path = tmp_path / f"array{suffix}"
    write(path)
    np.testing.assert_array_equal(read_array(path, ("embedding", "z")), VALUES)


def test_the_only_array_needs_no_name(tmp_path):
    np.savez(tmp_path / "one.npz", whatever=VALUES)
    np.testing.assert_array_equal(read_array(tmp_path / "one.npz"), VALUES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "no such file"),
        ("a.csv", b"1,2", "expected a file ending in .npy"),
        ("a.txt", b"one two", "does not hold an array of numbers"),
        ("a.txt", b"1 2\n3\n", "does not hold an array of numbers"),
        ("a.npy", b"nonsense", "no array that can be read"),
        ("a.npz", b"nonsense", "not an .npz file of plain arrays"),
        ("a.pkl", pickle.dumps(["a"]), "expected an array of numbers"),
        ("a.pkl", pickle.dumps([[1, 2], [3]]), "ragged"),
        ("a.pkl", pickle.dumps({"x": VALUES, "y": VALUES}), "one named z, found x, y"),
    ],
)
def test_what_is_no_array_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_array(path, ("z",))

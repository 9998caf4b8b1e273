"""One array of numbers in whatever file another program left it: .npy, .npz, .pkl or .txt."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from recovar.data import opened
from recovar.data.legacy import read_pickle
from recovar.data.numpy_files import read_npy, read_npz
from recovar.errors import InputError

SUFFIXES = (".npy", ".npz", ".pkl", ".txt")


def read_array(path: Path, names: Sequence[str] = ()) -> Shaped[np.ndarray, "..."]:
    """Read an array of real numbers.

    Args:
        path: The file; its suffix tells the format.
        names: In a file of several named arrays, the one to take, in order of preference.

    Raises:
        InputError: If the file is missing or damaged, holds no numbers, or several arrays of other
            names.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "z.txt"
        >>> np.savetxt(path, np.eye(2))
        >>> read_array(path).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    content = _read(path)
    if isinstance(content, Mapping):
        found = [name for name in names if name in content]
        if not found and len(content) != 1:
            raise InputError(
                f"{path}: expected one array, or one named {' or '.join(names) or 'in some way'}, "
                f"found {', '.join(map(str, content)) or 'none'}."
            )
        content = content[found[0]] if found else next(iter(content.values()))
    try:
        array = np.asarray(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected an array, found a ragged list.") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected an array of numbers, found type {array.dtype}.")
    return array


def _read(path: Path) -> object:
    match path.suffix:
        case ".npz":
            return read_npz(path)
        case ".npy":
            return read_npy(path, "an array")
        case ".pkl":
            return read_pickle(path)
        case ".txt":
            with opened(path, "an array") as file:
                lines = file.read().splitlines()
            try:
                return np.array([[float(word) for word in line.split()] for line in lines])
            except ValueError as error:
                raise InputError(f"{path} does not hold an array of numbers: {error}.") from error
    raise InputError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}.")

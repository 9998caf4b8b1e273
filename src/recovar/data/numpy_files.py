"""Plain arrays in `.npy` and `.npz` files of unknown origin.

Nothing is unpickled, and no memory is taken before the file is known to hold what it promises.
"""

import math
import os
import tokenize
import warnings
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from jaxtyping import Shaped

from recovar.data import opened, refuse_bomb
from recovar.errors import InputError

_DEFLATE_RATIO = 1032
"""How many times shorter deflate can make anything."""
_LONGEST_HEADER = 1 << 20
"""Bytes; tables of cryoSPARC with many classes exceed NumPy's own limit."""
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path, wanted: str) -> Shaped[np.ndarray, "..."]:
    """Read the array of a `.npy` file, whatever its suffix.

    Args:
        path: The file.
        wanted: What it should be, for messages, as in "a cryoSPARC table".

    Raises:
        InputError: If it is missing or damaged, or holds Python objects.
    """
    with opened(path, wanted) as file:
        try:
            return _array(file, os.fstat(file.fileno()).st_size)
        except (ValueError, EOFError) as error:
            raise InputError(
                f"Expected {wanted} at {path}, found no array that can be read: {error}. Copy or "
                "write it again."
            ) from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file.

    Raises:
        InputError: If it is missing or damaged, holds Python objects, or would unpack to far more
            than its own size.
    """
    with opened(path, "an .npz file") as file:
        try:
            with ZipFile(file) as archive:
                packed = os.fstat(file.fileno()).st_size
                refuse_bomb(path, packed, sum(entry.file_size for entry in archive.infolist()))
                _check_entries(archive, packed)
                arrays = {}
                for entry in archive.infolist():
                    with archive.open(entry) as member:
                        name = entry.filename.removesuffix(".npy")
                        arrays[name] = _array(cast(BufferedIOBase, member), entry.file_size)
                return arrays
        except InputError:
            raise
        except (ValueError, EOFError, BadZipFile, NotImplementedError, zlib.error) as error:
            raise InputError(
                f"{path} is not an .npz file of plain arrays: {error}. Copy or write it again."
            ) from error


def _check_entries(archive: ZipFile, packed: int) -> None:
    for entry in archive.infolist():
        if entry.file_size > _DEFLATE_RATIO * min(entry.compress_size, packed):
            raise ValueError(f"{entry.filename} cannot unpack to {entry.file_size} bytes")
        if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or entry.flag_bits & 1:
            raise ValueError(f"{entry.filename} is encrypted, or compressed in another way")


def _array(file: BufferedIOBase, size: int) -> np.ndarray:
    """Read the array that a file of `size` bytes holds.

    Raises:
        ValueError: If it is not one, or holds objects.
    """
    shape, fortran, dtype = _header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    count = math.prod(shape)
    length, left = count * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or length > left:
        raise ValueError(f"its header promises {length} bytes, {left} follow")
    raw = bytearray(length)
    if file.readinto(raw) != length:
        raise EOFError(f"its header promises {length} bytes, the file ends before")
    return np.ndarray(shape, dtype, raw, order="F" if fortran else "C")


def _header(file: BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is not known")
    try:
        with warnings.catch_warnings():  # of files that Python 2 wrote, and of odd literals
            warnings.simplefilter("ignore")
            return _HEADERS[version](file, max_header_size=_LONGEST_HEADER)
    except (
        SyntaxError,
        TypeError,
        LookupError,
        RecursionError,
        MemoryError,
        OverflowError,
        tokenize.TokenError,
    ) as error:
        raise ValueError(f"its header makes no sense ({error})") from error

"""Arrays and plain values out of pickles of unknown origin.

A pickle is a program. Here it can only call the few functions below, which stand for those of
NumPy and check what they are given; NumPy's own trust their arguments, and can be made to crash.
"""

import math
import pickle
import re
import struct
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from recovar.errors import InputError

UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    MemoryError,
    OverflowError,
    RecursionError,
    struct.error,
)
"""What a broken pickle can raise."""

_TYPES = re.compile(r"[<>=|]?(?:[biufcSU][0-9]{1,9}|O8?)")


class _Type:
    """Stands for `numpy.dtype`, of numbers, texts and objects."""

    def __init__(self, code: object, *_: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else str(code)
        if not _TYPES.fullmatch(text):
            raise pickle.UnpicklingError(f"values of the type {text[:40]!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose values are checked before they are taken."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        dtype, raw = _checked(raw, kind, shape)
        super().__setstate__((1, shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]


def _checked(raw: Any, kind: object, shape: Any) -> tuple[np.dtype, Any]:  # noqa: ANN401
    """Give a type, and the bytes or the list of objects of an array of it, which are all there."""
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError("an array without a type")
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    wanted = bytes | bytearray
    length = math.prod(shape)
    if kind.dtype.hasobject:
        wanted = list
    else:
        length *= kind.dtype.itemsize
    if not isinstance(raw, wanted) or min(shape, default=0) < 0 or len(raw) != length:
        raise pickle.UnpicklingError(f"an array of shape {shape} and type {kind.dtype} in parts")
    return kind.dtype, raw


def _from_bytes(raw: Any, kind: object, shape: Any, order: Any = "C") -> np.ndarray:  # noqa: ANN401
    """Stand for `_frombuffer`."""
    dtype, raw = _checked(raw, kind, shape)
    return np.ndarray(shape, dtype, bytearray(raw), order=order)


def _empty_array(kind: object, *_: object) -> _Array:
    """Stand for `_reconstruct`: what it gives is filled by `_Array.__setstate__`."""
    if kind != _NDARRAY:
        raise pickle.UnpicklingError(f"an array of the kind {kind!r}")
    return np.empty(0, np.int8).view(_Array)


def _scalar(kind: object, raw: object = b"") -> Any:  # noqa: ANN401
    """Stand for `scalar`."""
    return _from_bytes(raw, kind, (1,))[0]


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand for `_codecs.encode`, which old pickles use for bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


class _Function:
    """Something that a pickle may call, and not change."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a change of a function")


_NDARRAY = "numpy.ndarray"
_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Function(_Type),
    ("multiarray", "_reconstruct"): _Function(_empty_array),
    ("multiarray", "scalar"): _Function(_scalar),
    ("numeric", "_frombuffer"): _Function(_from_bytes),
}
_ENCODE = _Function(_latin1_bytes)


class _PlainUnpickler(pickle._Unpickler):
    """Builds arrays, numbers, texts, lists, tuples and dictionaries, and nothing else.

    This is the slower one, in Python: that in C takes as much memory as a file asks for.
    """

    def __init__(self, file: BufferedReader, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Admit what makes numpy arrays; refuse every other global by its name."""
        short = module
        for package in ("numpy.core.", "numpy._core."):
            short = short.removeprefix(package)
        if (short == "numpy" or short != module) and (short, name) in _ADMITTED:
            return _ADMITTED[short, name]
        if (module, name) == ("_codecs", "encode"):
            return _ENCODE
        raise InputError(
            f"{self._path} asks for {module}.{name}, which is not an array or a number, so it was "
            "not read and nothing was executed. Give plain numpy arrays, as .pkl or .npz."
        )

    def persistent_load(self, pid: object) -> object:
        """Refuse objects that are kept elsewhere."""
        raise InputError(
            f"{self._path} refers to objects outside it ({pid!r}), so it was not read."
        )


def load_plain(file: BufferedReader, path: Path) -> object:
    """Read what a pickle holds; `path` is for messages.

    Raises:
        InputError: If it asks for anything but arrays and plain values.
        Exception: One of `UNREADABLE`, if it is broken.
    """
    return _PlainUnpickler(file, path).load()

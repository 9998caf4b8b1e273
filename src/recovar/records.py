"""Arrays and frozen records to `.npz` files and back; files appear whole or not at all.

A record is a dataclass (`equinox.Module` is one) of arrays, plain values, other records, and
tuples, lists or dictionaries of these. Nothing is pickled: the file holds the arrays and one JSON
text that says where they belong, and the caller names the type that is rebuilt.
"""

import dataclasses
import json
import os
import types
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from recovar.errors import InputError

Record = TypeVar("Record")

PARTIAL = ".partial."
"""Start of the name of a file that is still being written."""

_STRUCTURE = "__structure__"


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` once it is safe on disk.

    The temporary file lies in the same directory and keeps the suffix. If the block raises,
    the temporary file is removed and a file that was at `path` stays as it was.

    Args:
        path: Final place of the file; missing directories are made.

    Yields:
        The path that the block must write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(PARTIAL + path.name)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_arrays(path: Path, /, **arrays: Any) -> None:  # noqa: ANN401
    """Write named arrays to an uncompressed `.npz` file, whole or not at all."""
    with write_whole(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file.

    Raises:
        InputError: If the file is missing or damaged, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"Expected a file at {path}, found none.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a readable .npz file of plain arrays: {error}") from error


def save_record(path: Path, record: object) -> None:
    """Write a record to an `.npz` file, whole or not at all.

    Args:
        path: File to write, ending in `.npz`.
        record: Dataclass instance; see the module's description for what it may hold.

    Raises:
        TypeError: If the record holds something that is not data, such as a function.
    """
    arrays: dict[str, Any] = {}
    structure = _take_apart(record, "record", arrays)
    save_arrays(path, **arrays, **{_STRUCTURE: json.dumps(structure)})


def load_record(path: Path, kind: type[Record] | Any) -> Record:  # noqa: ANN401
    """Read back what `save_record` wrote.

    Device arrays come back as device arrays, NumPy arrays as NumPy arrays.

    Args:
        path: File to read.
        kind: The record's type, which may be parametrized, as `Halves[Mean]` is; the types of
            records inside it are found from its annotations.

    Raises:
        InputError: If the file is missing, damaged, or holds another type of record.
    """
    arrays = load_arrays(path)
    if _STRUCTURE not in arrays:
        raise InputError(f"{path} holds arrays but no record; read it with `load_arrays`.")
    try:
        return _Builder(arrays).build(json.loads(str(arrays[_STRUCTURE])), kind, {})
    except (LookupError, TypeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} does not hold a {getattr(kind, '__name__', kind)} record: {error}"
        ) from error


def _take_apart(value: Any, place: str, arrays: dict[str, Any]) -> Any:  # noqa: ANN401
    """Put the arrays of `value` into `arrays`; return JSON that tells how to rebuild it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, jax.Array | np.ndarray):
        arrays[place] = value
        return {"array": place, "on_device": isinstance(value, jax.Array)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return {"record": type(value).__name__, "fields": _take_each(members, place, arrays)}
    if isinstance(value, tuple | list):
        parts = _take_each({str(i): part for i, part in enumerate(value)}, place, arrays)
        return {"tuple" if isinstance(value, tuple) else "list": list(parts.values())}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": _take_each(value, place, arrays)}
    raise TypeError(f"Cannot save {place}: a {type(value).__name__} is not an array or plain data.")


def _take_each(members: Mapping[str, Any], place: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: _take_apart(part, f"{place}.{name}", arrays) for name, part in members.items()}


@dataclasses.dataclass(frozen=True)
class _Builder:
    """Rebuilds values from their structure and the arrays of a file."""

    arrays: Mapping[str, np.ndarray]

    def build(self, structure: Any, hint: Any, bound: Mapping[Any, Any]) -> Any:  # noqa: ANN401
        """Rebuild one value; `bound` gives the types that stand for type variables in `hint`."""
        if not isinstance(structure, dict):
            return structure
        if "array" in structure:
            array = self.arrays[structure["array"]]
            return jnp.asarray(array) if structure["on_device"] else array
        if "record" in structure:
            return self._build_record(structure, hint, bound)
        if "dict" in structure:
            return {k: self.build(v, hint, bound) for k, v in structure["dict"].items()}
        if "tuple" in structure:
            return tuple(self.build(part, hint, bound) for part in structure["tuple"])
        return [self.build(part, hint, bound) for part in structure["list"]]

    def _build_record(self, structure: Any, hint: Any, bound: Mapping[Any, Any]) -> Any:  # noqa: ANN401
        name = structure["record"]
        candidates = list(_record_types(hint, bound))
        found = [(kind, inner) for kind, inner in candidates if kind.__name__ == name]
        if not found:
            names = ", ".join(kind.__name__ for kind, _ in candidates) or "no record"
            raise LookupError(f"expected {names}, found {name}")
        kind, inner = found[0]
        hints = get_type_hints(kind)
        members = structure["fields"].items()
        return kind(**{key: self.build(part, hints[key], inner) for key, part in members})


def _record_types(hint: Any, bound: Mapping[Any, Any]) -> Iterator[tuple[type, dict[Any, Any]]]:  # noqa: ANN401
    """Yield the record types that an annotation allows, with what their type variables mean."""
    if isinstance(hint, TypeVar):
        hint = bound.get(hint)
    origin = get_origin(hint)
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        arguments = [bound.get(argument, argument) for argument in get_args(hint)]
        yield origin, dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint, {}
    elif origin is not None or isinstance(hint, types.UnionType):
        for argument in get_args(hint):
            yield from _record_types(argument, bound)

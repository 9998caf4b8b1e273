"""Tables of cryoSPARC as they lie on disk: `.cs` and `.csg` files, and how they are joined."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, UInt64

from recovar.data import opened
from recovar.data.numpy_files import read_npy
from recovar.errors import InputError

logger = logging.getLogger(__name__)

MULTI = "alignments3D_multi"
"""The group of fields that has an axis of classes."""

_WANTED = ("ctf/df1_A", "blob/path", "blob/psize_A", "blob/shape")
_STREAM = b"\x94CSDAT"
_CLASS = re.compile(r"(alignments_class_?(\d+))/pose")
_METAFILE = re.compile(r"""metafile:\s*(?:'((?:[^']|'')*)'|"([^"]*)"|([^\s,}#]+))""")
_LONGEST_GROUP = 1 << 20


def read_cs(path: Path) -> np.ndarray:
    """Read the rows of a `.cs` file as a structured array.

    Raises:
        InputError: If the file is missing or is not a plain NumPy table.
    """
    with opened(path, "a cryoSPARC table") as file:
        if file.read(len(_STREAM)) == _STREAM:
            raise InputError(
                f"{path} is a .cs file in the compressed CSDAT format, which is not read. Load "
                "it with `Dataset.load` of cryosparc-tools and `save` it again in the NumPy "
                "format, or export the particles from cryoSPARC."
            )
    rows = read_npy(path, "a cryoSPARC table")
    if rows.dtype.names is None or rows.ndim != 1:
        raise InputError(
            f"{path}: expected a table with named fields, found an array of {rows.dtype}. Give "
            "the particles table of a cryoSPARC job."
        )
    return rows


def read_csg(path: Path) -> dict[str, Path]:
    """Read which table holds each group of fields, as `blob` or `alignments3D`.

    A `.csg` file is a text that cryoSPARC writes beside the tables of a group of results.

    Raises:
        InputError: If it names no tables.
    """
    with opened(path, "a cryoSPARC results group") as file:
        text = file.read(_LONGEST_GROUP).decode("utf-8", "replace")
    _, _, results = f"\n{text}".partition("\nresults:")
    found: dict[str, Path] = {}
    group = ""
    for line in results.splitlines()[1:]:
        if line[:1].strip():
            break
        key, _, value = line.strip().partition(":")
        if not value.strip() or value.strip().startswith("{"):
            group = key.strip("'\"")
        named = _METAFILE.search(line)
        if named and group:
            name = next(filter(None, named.groups()), "").replace("''", "'")
            found[group] = path.parent / name.removeprefix(">")
    if not found:
        raise InputError(
            f"{path}: expected a cryoSPARC results group, whose `results` name the metafile of "
            "each group of fields, found none. Export the particles again, or give the .cs file."
        )
    return found


def fields_of(rows: np.ndarray) -> tuple[str, ...]:
    """Name the fields of a structured array."""
    return rows.dtype.names or ()


@dataclass(frozen=True)
class Tables:
    """A table and what passes through beside it; the first that has a field wins."""

    path: Path
    main: np.ndarray
    passed: tuple[np.ndarray, ...] = ()
    """Rows in the order of `main`."""

    def __len__(self) -> int:
        """Count the particles."""
        return len(self.main)

    @property
    def each(self) -> tuple[np.ndarray, ...]:
        """The tables, the one that wins first."""
        return (self.main, *self.passed)

    def get(self, field: str) -> np.ndarray | None:
        """Take a field of the first table that has it."""
        for table in self.each:
            if field in fields_of(table):
                return table[field]
        return None

    def pose_groups(self) -> tuple[str, ...]:
        """Name the groups of fields that hold the poses, of the first table that has any.

        Poses of 2-D classes are not among them.
        """
        for table in self.each:
            for group in ("alignments3D", MULTI):
                if f"{group}/pose" in fields_of(table):
                    return (group,)
            matches = [match for match in map(_CLASS.fullmatch, fields_of(table)) if match]
            if matches:
                return tuple(m[1] for m in sorted(matches, key=lambda match: int(match[2])))
        return ()

    def numbers(self, field: str, tail: tuple[int, ...] = ()) -> Float64[np.ndarray, "..."] | None:
        """Take a field of real numbers, of the shape `tail` for each image."""
        values = self.get(field)
        return None if values is None else self.as_numbers(field, values, tail)

    def as_numbers(
        self, field: str, values: np.ndarray, tail: tuple[int, ...]
    ) -> Float64[np.ndarray, "..."]:
        """Make numbers of the values of a field, which must be numbers of this shape."""
        if values.dtype.kind not in "biuf" or values.shape[1:] != tail:
            self.refuse(field, f"{math.prod(tail)} numbers for each image")
        with np.errstate(invalid="ignore"):
            return values.astype(np.float64)

    def refuse(self, field: str, wanted: str) -> NoReturn:
        """Say that a field has another type or shape than is wanted."""
        values = self.get(field)
        found = "none" if values is None else f"{values.dtype} of shape {values.shape[1:]}"
        raise InputError(
            f"{self.path}: expected {wanted} in the field {field}, found {found}. Export the "
            "particles from cryoSPARC again."
        )


def uids_of(path: Path, rows: np.ndarray) -> UInt64[np.ndarray, " rows"]:
    """Give the uids of a table that is to be joined."""
    if "uid" not in fields_of(rows) or rows["uid"].dtype.kind not in "iu" or rows["uid"].ndim != 1:
        raise InputError(
            f"{path}: expected the field uid, whole numbers that tell the particles apart, to "
            "join tables by it. Give a table that cryoSPARC wrote."
        )
    return rows["uid"].astype(np.uint64)


def _joined(main: np.ndarray, other: np.ndarray, path: Path) -> np.ndarray | None:
    """Put the rows of `other` in the order of `main` by uid; None where it lacks some."""
    wanted, given = uids_of(path, main), uids_of(path, other)
    if not len(other):
        return None
    order = np.argsort(given, kind="stable")
    place = np.searchsorted(given, wanted, sorter=order)
    after = np.searchsorted(given, wanted, side="right", sorter=order)
    repeated = np.flatnonzero(after - place > 1)
    if repeated.size:
        raise InputError(
            f"{path}: expected each uid once, found {wanted[repeated[0]]} "
            f"{(after - place)[repeated[0]]} times. Remove duplicate particles in cryoSPARC."
        )
    rows = order[np.minimum(place, len(other) - 1)]
    return other[rows] if np.array_equal(given[rows], wanted) else None


def _checked_join(main: np.ndarray, main_path: Path, other: np.ndarray, path: Path) -> np.ndarray:
    joined = _joined(main, other, path)
    if joined is None:
        count = int((~np.isin(uids_of(main_path, main), uids_of(path, other))).sum())
        raise InputError(
            f"{path}: expected the uids of all {len(main)} particles of {main_path}, {count} are "
            "missing. Give the passthrough file of the same job."
        )
    return joined


def read_tables(path: Path, passthrough: Sequence[Path]) -> Tables:
    """Read a table or the tables of a results group, and join what passes through beside them.

    Raises:
        InputError: If one cannot be read, has no rows, or they do not belong together.
    """
    groups = read_csg(path) if path.suffix == ".csg" else {}
    if groups:
        main_path, main, passed = _grouped(path, groups)
    else:
        main_path, main, passed = path, read_cs(path), []
    if not len(main):
        raise InputError(
            f"{main_path} has no particles (zero rows). Give the table of a finished job."
        )
    others = [*passed, *((other, read_cs(other)) for other in passthrough)]
    if others:
        uids_of(main_path, main)
    joined = tuple(_checked_join(main, main_path, rows, other) for other, rows in others)
    tables = Tables(path, main, joined)
    return tables if groups else _discovered(tables)


def _grouped(
    group_path: Path, groups: Mapping[str, Path]
) -> tuple[Path, np.ndarray, list[tuple[Path, np.ndarray]]]:
    """Read the tables of a results group, of each the fields that it is named for.

    The one with the fewest rows is the main one: what passes through may have more.
    """
    tables = []
    for path in dict.fromkeys(groups.values()):
        named = {group for group, place in groups.items() if place == path}
        try:
            rows = read_cs(path)
        except InputError as error:
            raise InputError(
                f"{group_path}: its table of {', '.join(sorted(named))} cannot be read. {error}"
            ) from error
        names = [n for n in fields_of(rows) if n == "uid" or n.partition("/")[0] in named]
        tables.append((path, rows[names]))
    path, main = min(tables, key=lambda table: len(table[1]))
    return path, main, [table for table in tables if table[0] != path]


def _discovered(tables: Tables) -> Tables:
    """Use passthrough files beside a table that lacks poses, optics or images."""
    if "uid" not in fields_of(tables.main):
        return tables
    for path in sorted(tables.path.parent.glob("*passthrough*particles*.cs")):
        lacking = not tables.pose_groups() or any(tables.get(field) is None for field in _WANTED)
        if not lacking or path == tables.path:
            continue
        other = read_cs(path)
        joined = _joined(tables.main, other, path) if "uid" in fields_of(other) else None
        if joined is not None:
            logger.info("%s: fields that it lacks are taken from %s.", tables.path, path)
            tables = Tables(tables.path, tables.main, (*tables.passed, joined))
    return tables


def read_joined_cs(path: Path, passthrough: Sequence[Path] = ()) -> tuple[np.ndarray, ...]:
    """Read a `.cs` file and what passes through beside it, every particle in the same row of all.

    Where several have a field, that of the first is right.
    """
    return read_tables(path, passthrough).each

"""STAR files: blocks of columns of text, read and written."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast
from urllib.parse import unquote

import numpy as np
from gemmi import cif

from recovar.data import opened, written_whole
from recovar.errors import InputError

StarColumn: TypeAlias = Sequence[str] | np.ndarray

_ROWS = 1 << 15
"""Rows that are turned to text at a time."""

_QUOTES = frozenset("\"';")
_PART = 1 << 20
"""Bytes that are looked at together."""


@dataclass(frozen=True)
class StarTable:
    """One block of a STAR file: columns of text by label (without the underscore)."""

    name: str
    columns: Mapping[str, StarColumn]
    loop: bool = True
    """False for a block of single values."""

    def __contains__(self, label: str) -> bool:
        """Tell whether there is such a column."""
        return label in self.columns

    def __len__(self) -> int:
        """Count the rows."""
        if isinstance(self.columns, _GemmiColumns):
            return self.columns.rows
        return len(next(iter(self.columns.values()), ()))


class _GemmiColumns(Mapping[str, StarColumn]):
    """Columns of a block, taken out of the parsed file one by one: tables can have 10⁸ values."""

    def __init__(self, block: cif.Block, text: "_Text") -> None:
        items = list(block)
        loops = [item.loop for item in items if item.loop is not None]
        pairs = [cast(list[str], item.pair)[0] for item in items if item.pair is not None]
        self._block, self._text = block, text
        self._labels = [tag[1:] for tag in (loops[0].tags if loops else pairs)]
        self.loop = bool(loops)
        self.rows = loops[0].length() if loops else min(1, len(pairs))

    def __contains__(self, label: object) -> bool:
        return label in self._labels  # without taking the column out

    def __getitem__(self, label: str) -> list[str]:
        if label not in self._labels:
            raise KeyError(label)
        values = list(self._block.find_values("_" + label))
        if self._text.quoted:
            values = [cif.as_string(value) if value[0] in _QUOTES else value for value in values]
        if not self._text.ascii:
            values = [unquote(value, errors="surrogateescape") for value in values]
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)


@dataclass(frozen=True)
class _Text:
    """What a file holds, as known before it is parsed."""

    ascii: bool
    quoted: bool
    """Whether there are quotes, or lines that begin with a semicolon."""
    blank: bool


def _look_at(path: Path) -> _Text:
    plain, quoted, blank = True, False, True
    with opened(path, "a STAR file") as file:
        for part in iter(partial(file.read, _PART), b""):
            plain = plain and part.isascii()
            quoted = quoted or any(mark in part for mark in (b'"', b"'", b";"))
            blank = blank and not part.strip()
    return _Text(plain, quoted, blank)


def read_star(path: Path) -> tuple[StarTable, ...]:
    """Read all blocks of a STAR file.

    Raises:
        InputError: If the file is missing, empty, a git-LFS pointer, or not STAR.
    """
    text = _look_at(path)
    if text.blank:
        raise InputError(f"Expected a STAR file, but {path} is empty. Copy it again.")
    try:
        if text.ascii:
            document = cif.read_file(str(path), check_level=0)
        else:  # gemmi reads printable ASCII only
            raw = re.sub(rb"[\x80-\xff%]", lambda byte: b"%%%02X" % byte[0][0], path.read_bytes())
            document = cif.read_string(raw, check_level=0)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path} is not a STAR file that can be read: {error}. Correct that line."
        ) from error
    tables = []
    for block in document:
        columns = _GemmiColumns(block, text)
        tables.append(StarTable(block.name.strip(), columns, columns.loop))
    return tuple(tables)


def write_star(path: Path, tables: Sequence[StarTable]) -> None:
    """Write blocks as RELION does; numbers are written so that they read back unchanged."""
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for table in tables:
            file.write(f"\n# version 30001\n\ndata_{table.name}\n\n")
            if table.loop:
                file.write("loop_\n")
                file.writelines(f"_{label} #{i}\n" for i, label in enumerate(table.columns, 1))
            for start in range(0, len(table), _ROWS):
                part = slice(start, start + _ROWS)
                columns = [_texts(path, column[part]) for column in table.columns.values()]
                if table.loop:
                    file.writelines(" ".join(row) + "\n" for row in zip(*columns, strict=True))
                else:
                    pairs = zip(table.columns, columns, strict=True)
                    file.writelines(f"_{label} {column[0]}\n" for label, column in pairs)
            file.write("\n")


def _texts(path: Path, column: StarColumn) -> list[str]:
    if isinstance(column, np.ndarray) and column.dtype.kind in "iufb":
        return (column.astype(int) if column.dtype.kind == "b" else column).astype(str).tolist()
    return [_quoted(path, str(value)) for value in column]


_BARE = re.compile(r"(?!_|#|\$|\]|;|'|\"|(?:data_|save_|loop_|stop_|global_))\S+", re.IGNORECASE)


def _quoted(path: Path, value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    for quote in "\"'":
        if not re.search(quote + r"\s", value) and "\n" not in value and "\r" not in value:
            return quote + value + quote
    raise InputError(
        f"Cannot write {path}: the value {value!r} has line ends or both kinds of quotes, which "
        "STAR cannot hold. Rename it."
    )

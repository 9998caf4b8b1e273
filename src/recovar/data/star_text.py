"""STAR files as their own lines, so that rows are taken out without touching what they say."""

import io
import itertools
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int, Int64

from recovar.data.star_blocks import StarTable, read_star, write_star
from recovar.errors import InputError

logger = logging.getLogger(__name__)

Edits: TypeAlias = Mapping[str, Sequence[str] | None]
"""Values by label, one for each row that is kept; None takes the column away."""

_ESCAPE = "surrogateescape"
"""Bytes that are no UTF-8, as in names of files, stay as they are."""
_BLOCK = re.compile(rb"\s*data_(\S*)\s*(?:#.*)?", re.IGNORECASE | re.DOTALL)
_LOOP = re.compile(rb"\s*loop_\s*(?:#.*)?", re.IGNORECASE | re.DOTALL)
_LABEL = re.compile(rb"\s*_(\S+)\s*(?:#.*)?", re.DOTALL)
_NUMBER = re.compile(rb"#\d+")
_SPECIAL = re.compile(rb"[#'\";]")
_TOKEN = re.compile(
    rb"#[^\n]*|^;[\s\S]*?\n;|'(?:[^'\n]|'(?=\S))*'(?!\S)|\"(?:[^\"\n]|\"(?=\S))*\"(?!\S)|\S+",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """Where the first loop of a block lies in the bytes of a file."""

    labels: tuple[str, ...] = ()
    label_starts: tuple[int, ...] = ()
    """Where the line of every label starts, and last where the lines of labels end."""
    rows: Int64[np.ndarray, " boundaries"] | None = None
    """Where every row starts, and where the last one ends; comments go with the row below them."""


@dataclass(frozen=True)
class StarText:
    """A STAR file with its tables and the bytes that they were read from."""

    path: Path
    raw: bytes
    tables: tuple[StarTable, ...]
    blocks: tuple[Block, ...]
    """Of the same order as `tables`."""

    @property
    def particles(self) -> StarTable:
        """The table of images."""
        return self.tables[self._place_of_particles]

    @property
    def _place_of_particles(self) -> int:
        found = [place for place, table in enumerate(self.tables) if "rlnImageName" in table]
        if not found:
            names = ", ".join(f"data_{table.name}" for table in self.tables) or "none"
            raise InputError(
                f"{self.path}: expected a particle table with _rlnImageName, found only the blocks "
                f"{names}. Give a particles STAR file."
            )
        named = [place for place in found if self.tables[place].name == "particles"]
        return (named or found)[0]

    def numbers(self, label: str) -> Float64[np.ndarray, " images"]:
        """Give a column of the table of images as numbers."""
        return self._numbers(self.particles, label)

    def _numbers(self, table: StarTable, label: str) -> Float64[np.ndarray, " rows"]:
        try:
            return np.array(table.columns[label], np.float64)
        except ValueError as error:
            raise InputError(
                f"{self.path}, block data_{table.name}: expected numbers in _{label}: {error}."
            ) from error

    def row(self, number: int) -> bytes:
        """Give the text of a row of the table of images, line end included."""
        starts = self._rows(self.blocks[self._place_of_particles])
        return self.raw[starts[number] : starts[number + 1]]

    def select(self, rows: Int[np.ndarray, " chosen"], edits: Edits) -> Iterator[bytes]:
        """Give the file in pieces with these images only, in this order.

        What is not edited keeps its bytes. Of a table of optics the groups that no image is in are
        left out; other blocks stay.

        Args:
            rows: Rows of the table of images, from 0.
            edits: Columns of that table to replace, add or take away.
        """
        place = self._place_of_particles
        kept: dict[int, tuple[np.ndarray, Edits]] = {place: (rows, edits)}
        for other, table in enumerate(self.tables):
            if table.name == "optics" and "rlnOpticsGroup" in table and table.loop:
                kept[other] = (self._used_groups(table, rows), {})
        cursor = 0
        for number, (chosen, changes) in sorted(kept.items()):
            block = self.blocks[number]
            starts = self._rows(block)
            changes = {k: v for k, v in changes.items() if v is not None or k in block.labels}
            yield self.raw[cursor : block.label_starts[0]]
            yield self._labels(block, changes)
            yield self.raw[block.label_starts[-1] : starts[0]]
            yield self._body(block, chosen, changes)
            cursor = int(starts[-1])
        yield self.raw[cursor:]

    def _rows(self, block: Block) -> Int64[np.ndarray, " boundaries"]:
        if block.rows is None:
            raise InputError(
                f"{self.path}: expected a loop with one row per image, found single values. Write "
                "the file again as RELION does."
            )
        return block.rows

    def _used_groups(self, optics: StarTable, rows: np.ndarray) -> Int64[np.ndarray, " used"]:
        if "rlnOpticsGroup" not in self.particles:
            return np.arange(len(optics), dtype=np.int64)
        groups = self._numbers(self.particles, "rlnOpticsGroup")[rows]
        return np.flatnonzero(np.isin(self._numbers(optics, "rlnOpticsGroup"), groups))

    def _labels(self, block: Block, edits: Edits) -> bytes:
        starts = block.label_starts
        lines = [self.raw[a:b] for a, b in itertools.pairwise(starts)]
        kept = [
            line
            for label, line in zip(block.labels, lines, strict=True)
            if edits.get(label, "") is not None
        ]
        end, numbered = _line_end(lines[-1]), _NUMBER.search(lines[-1]) is not None
        for label in _added(block, edits):
            number = f" #{len(kept) + 1}" if numbered else ""
            kept.append(f"_{label}{number}".encode() + end)
        if len(kept) < len(lines) + len(_added(block, edits)):
            kept = [_NUMBER.sub(b"#%d" % i, line, count=1) for i, line in enumerate(kept, 1)]
        return b"".join(kept)

    def _body(self, block: Block, chosen: np.ndarray, edits: Edits) -> bytes:
        starts = self._rows(block).tolist()
        pieces = [self.raw[starts[row] : starts[row + 1]] for row in chosen.tolist()]
        end = _line_end(self.raw[block.label_starts[-2] : block.label_starts[-1]])
        pieces = [p if p.endswith(b"\n") else p + end for p in pieces[:-1]] + pieces[-1:]
        if not edits:
            return b"".join(pieces)
        added = [edits[label] or () for label in _added(block, edits)]
        changed = {
            block.labels.index(label): edits[label] for label in edits if label in block.labels
        }
        for k, piece in enumerate(pieces):
            texts = [values[k].encode(errors=_ESCAPE) for values in added]
            new = {
                at: None if v is None else v[k].encode(errors=_ESCAPE) for at, v in changed.items()
            }
            pieces[k] = _edited(piece, new, texts)
        return b"".join(pieces)


def _added(block: Block, edits: Edits) -> list[str]:
    return [label for label in edits if label not in block.labels]


def _line_end(line: bytes) -> bytes:
    return b"\r\n" if line.endswith(b"\r\n") else b"\n"


def _edited(row: bytes, new: Mapping[int, bytes | None], added: Sequence[bytes]) -> bytes:
    """Exchange values of a row by their place, take those out that become None, and add some."""
    spans = [match.span() for match in _TOKEN.finditer(row) if not match[0].startswith(b"#")]
    pieces, cursor = [], 0
    for place in sorted(new):
        start, end = spans[place]
        value = new[place]
        if value is None:
            pieces.append(row[cursor:start].rstrip(b" \t") if place else row[cursor:start])
        else:
            pieces += [row[cursor:start], value]
        cursor = end
    last = spans[-1][1]
    return b"".join([*pieces, row[cursor:last], *(b" " + text for text in added), row[last:]])


def read_star_text(path: Path) -> StarText:
    """Read a STAR file and find where its rows are.

    Rows that do not end where a line ends, which no program of this field writes, have no lines of
    their own; the file is then taken as this program would write it, with a warning.

    Raises:
        InputError: If the file cannot be read.
    """
    tables = read_star(path)
    found = _located(path, path.read_bytes(), tables)
    if found is not None:
        return found
    logger.warning(
        "%s does not have one row on each line, so its rows are written anew: values stay, spaces "
        "and comments do not.",
        path,
    )
    with tempfile.TemporaryDirectory() as directory:
        plain = Path(directory) / "plain.star"
        write_star(plain, tables)
        found = _located(path, plain.read_bytes(), read_star(plain))
    if found is None:
        raise InputError(f"{path}: its rows cannot be told apart. Write it with one row per line.")
    return found


def _located(path: Path, raw: bytes, tables: tuple[StarTable, ...]) -> StarText | None:
    """Find the rows of all tables; None where lines and tables disagree."""
    blocks = _find_blocks(raw)
    if blocks is None or len(blocks) != len(tables):
        return None
    for block, table in zip(blocks, tables, strict=True):
        count = 0 if block.rows is None else len(block.rows) - 1
        if table.loop and (block.labels != tuple(table.columns) or count != len(table)):
            return None
    return StarText(path, raw, tables, tuple(blocks))


def _find_blocks(raw: bytes) -> list[Block] | None:
    """Find the first loop of every block; None where a line holds more than a part of one."""
    blocks: list[Block] = []
    loop: _Loop | None = None
    start = 0
    for line in io.BytesIO(raw):
        end = start + len(line)
        if loop is None or loop.between_rows:
            head = line.lstrip()[:5].lower()
            if head.startswith((b"data_", b"loop_")):
                if loop is not None and blocks[-1].rows is None:
                    blocks[-1] = loop.block
                loop = _Loop() if head == b"loop_" else None
                if head == b"data_":
                    blocks.append(Block())
                if not blocks or not (_BLOCK if head == b"data_" else _LOOP).fullmatch(line):
                    return None
                start = end
                continue
        if loop is not None and not loop.take(line, start, end):
            return None
        start = end
    if loop is not None and blocks[-1].rows is None:
        blocks[-1] = loop.block
    return blocks


class _Loop:
    """A loop as its lines come by."""

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._starts: list[int] = []
        self._rows: list[int] = []
        self._values = 0
        self._in_text = False

    @property
    def between_rows(self) -> bool:
        return not self._values and not self._in_text

    @property
    def block(self) -> Block:
        labels, starts = tuple(self._labels), tuple(self._starts)
        rows = np.array(self._rows, np.int64) if self._rows else None
        return Block(labels, starts, rows)

    def take(self, line: bytes, start: int, end: int) -> bool:
        """Take a line; False where it is not as one row per line would have it."""
        if self.between_rows and line.lstrip()[:1] == b"_":
            label = _LABEL.fullmatch(line)
            if label is None or self._rows:
                return False
            self._labels.append(label[1].decode(errors=_ESCAPE))
            self._starts[-1:] = [start, end]
            return True
        count = self._count(line)
        if not self._rows and (count or self._in_text):
            self._rows.append(start)
        self._values += count
        if self._values > len(self._labels):
            return False
        if self._values and self._values == len(self._labels) and not self._in_text:
            self._rows.append(end)
            self._values = 0
        return True

    def _count(self, line: bytes) -> int:
        """Count the values that end in a line."""
        if line.startswith(b";"):
            self._in_text = not self._in_text
            return 0 if self._in_text else 1 + self._count(b" " + line[1:])
        if self._in_text:
            return 0
        if _SPECIAL.search(line) is None:
            return len(line.split())
        return sum(not match[0].startswith(b"#") for match in _TOKEN.finditer(line))

"""Images found again in files that may have changed, and some particles of cryoSPARC tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from recovar.data.cryosparc_tables import fields_of, read_cs, uids_of
from recovar.data.star import split_image_names
from recovar.errors import InputError

_STACKS = 2**40
"""More than the images of any stack."""


@dataclass(frozen=True)
class Match:
    """Where images are in a file."""

    rows: Int64[np.ndarray, " images"]
    """Row of every image, and −1 where it is not there."""
    repeated: Bool[np.ndarray, " images"]
    """Whether it is there more than once; the row is then that of the first."""


def match_identities(
    wanted: Shaped[np.ndarray, " images"], present: Shaped[np.ndarray, " rows"]
) -> Match:
    """Find images in a file by what they are called: numbers, uids or texts.

    Example:
        >>> found = match_identities(np.array([7, 5, 6]), np.array([5, 7, 5]))
        >>> found.rows.tolist(), found.repeated.tolist()
        ([1, 0, -1], [False, True, False])
    """
    order = np.argsort(present, kind="stable")
    first = np.searchsorted(present, wanted, "left", sorter=order)
    count = np.searchsorted(present, wanted, "right", sorter=order) - first
    rows = np.full(len(wanted), -1, np.int64)
    rows[count > 0] = order[first[count > 0]]
    return Match(rows, count > 1)


def number_names(
    path: Path, wanted: Sequence[str], present: Sequence[str]
) -> tuple[Int64[np.ndarray, " images"], Int64[np.ndarray, " rows"]]:
    """Give names of images numbers that are equal where the names mean the same.

    Zeros before the place of an image in its stack mean nothing: `1@a.mrcs` is `000001@a.mrcs`.

    Args:
        path: File that the names are from, for messages.
        wanted: Names such as `000001@a.mrcs`.
        present: More of them.
    """
    stacks, stack, place = split_image_names(path, wanted)
    others, other, other_place = split_image_names(path, present)
    known = {name: number for number, name in enumerate(stacks)}
    numbers = [known.setdefault(name, len(known)) for name in others]
    which = np.array(numbers, np.int64)[other]
    return stack.astype(np.int64) * _STACKS + place, which * _STACKS + other_place


def find_passthrough(path: Path, known: Sequence[Path] = ()) -> tuple[Path, ...]:
    """List the files beside a `.cs` file that hold further fields of all its particles.

    Args:
        path: The `.cs` file.
        known: Files that are known to do so; they come first.
    """
    rows = read_cs(path)
    uids, fields = uids_of(path, rows), set(fields_of(rows))
    found = []
    for other in (*known, *sorted(path.parent.glob("*passthrough*particles*.cs"))):
        more = read_cs(other)
        if "uid" not in fields_of(more) or fields.issuperset(fields_of(more)):
            continue
        if np.isin(uids, uids_of(other, more)).all():
            found.append(other)
            fields |= set(fields_of(more))
    return tuple(found)


def select_uids(path: Path, uids: Shaped[np.ndarray, " chosen"]) -> Shaped[np.ndarray, " chosen"]:
    """Take the rows of these uids, in this order and byte for byte, out of a `.cs` file.

    Raises:
        InputError: If the file lacks uids, or one of these, or has one twice.
    """
    rows = read_cs(path)
    found = match_identities(uids, uids_of(path, rows))
    wrong = np.flatnonzero((found.rows < 0) | found.repeated)
    if wrong.size:
        times = "more than once" if found.repeated[wrong[0]] else "nowhere"
        raise InputError(
            f"{path}: expected the particle with uid {uids[wrong[0]]} once, found it {times}. "
            "Give tables of the same job."
        )
    whole = np.ascontiguousarray(rows).view(f"V{rows.itemsize}")
    return whole[found.rows].view(rows.dtype)


def write_rows(path: Path, rows: Shaped[np.ndarray, " rows"]) -> None:
    """Write rows as a `.cs` file."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, rows, allow_pickle=False)


def describe_group(
    name: str, tables: Mapping[str, Shaped[np.ndarray, " rows"]], created: str
) -> str:
    """Write the text of a `.csg` file, which makes one group of particles of several tables.

    Args:
        name: Of the group.
        tables: Rows by name of their file, which lies beside the `.csg` file; the first that has
            a field says where it is.
        created: Date and time.

    Example:
        >>> rows = np.zeros(2, [("uid", "<u8"), ("blob/idx", "<u4")])
        >>> print(describe_group("some", {"some.cs": rows}, "2026-01-31 12:00:00.000000"))
        created: 2026-01-31 12:00:00.000000
        group:
          description: ''
          name: some
          title: some
          type: particle
        results:
          blob:
            metafile: '>some.cs'
            num_items: 2
            type: particle.blob
        version: v4.0.0
        <BLANKLINE>
    """
    places: dict[str, str] = {}
    for file, rows in tables.items():
        for field in fields_of(rows):
            group, slash, _ = field.partition("/")
            if slash:
                places.setdefault(group, file)
    lines = [
        f"created: {created}",
        "group:",
        "  description: ''",
        f"  name: {name}",
        f"  title: {name}",
        "  type: particle",
        "results:",
    ]
    for group, file in sorted(places.items()):
        quoted = file.replace("'", "''")
        lines += [
            f"  {group}:",
            f"    metafile: '>{quoted}'",
            f"    num_items: {len(tables[file])}",
            f"    type: particle.{_kind(group)}",
        ]
    return "\n".join([*lines, "version: v4.0.0", ""])


def _kind(group: str) -> str:
    """Name what a group of fields holds; poses of one of several classes are poses."""
    return "alignments3D" if group.startswith("alignments_class") else group

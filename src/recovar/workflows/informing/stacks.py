"""The image files that a table names: where they are, and whether they agree with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recovar.data import ImageTable
from recovar.data.locate import StackLocator
from recovar.data.mrc_header import MrcHeader, read_header
from recovar.errors import InputError
from recovar.workflows.informing.config import InfoConfig
from recovar.workflows.informing.images import Grey, sample_sections
from recovar.workflows.informing.report import Fact, count_of

_MOST_LOOKED_FOR = 2000
"""Stacks that are looked for; of more, some that are evenly spread."""
_MOST_OPENED = 16
"""Stacks whose headers and images are looked at."""
_SAMPLE = 64
"""Images that are looked at, of all stacks."""


@dataclass(frozen=True)
class Search:
    """Where image files are."""

    found: dict[int, Path]
    """Stack of the table to its file."""
    missing: tuple[int, ...]
    looked_for: int
    where: str
    """Where the first missing one was looked for."""


def look_for_stacks(table: ImageTable, config: InfoConfig) -> Search:
    """Look for the files of a table wherever the pipeline would."""
    locator = StackLocator(table.source, config.datadir, config.strip_prefix)
    count = min(len(table.stacks), _MOST_LOOKED_FOR)
    chosen = np.linspace(0, len(table.stacks) - 1, count).astype(int).tolist()
    places = {stack: locator.find(table.stacks[stack]) for stack in chosen}
    missing = tuple(stack for stack, place in places.items() if place is None)
    where = locator.describe_search(table.stacks[missing[0]]) if missing else ""
    found = {stack: place for stack, place in places.items() if place is not None}
    return Search(found, missing, count, where)


def stack_fact(table: ImageTable, search: Search) -> Fact:
    """Tell how many files there are, and how many of them were found."""
    total, found = len(table.stacks), len(search.found)
    text = f"{total:,} named, " + (
        f"{search.looked_for:,} of them looked for, " if search.looked_for < total else ""
    )
    text += "all found" if not search.missing else f"{found:,} found"
    value = {"named": total, "looked_for": search.looked_for, "found": found}
    return Fact("stacks", text, value)


@dataclass(frozen=True)
class Seen:
    """What stacks hold, as far as they were looked at."""

    sample: tuple[Grey, ...] = ()
    boxes: tuple[int, ...] = ()
    pixel_size: float | None = None
    doubts: tuple[str, ...] = ()


def look_at_images(table: ImageTable, search: Search) -> Seen:
    """Compare some headers with the table, and sample images of some stacks."""
    if not search.found:
        return Seen()
    wanted = np.zeros(len(table.stacks), np.int64)
    np.maximum.at(wanted, table.stack_index, table.slice_index + 1)
    places = np.linspace(0, len(search.found) - 1, min(len(search.found), _MOST_OPENED))
    chosen = [list(search.found.items())[place] for place in places.astype(int)]
    sample: list[Grey] = []
    doubts: list[str] = []
    headers: dict[int, MrcHeader] = {}
    for stack, path in chosen:
        try:
            header = read_header(path)
            sample += sample_sections(header, max(1, _SAMPLE // len(chosen)))
        except InputError as refusal:
            doubts.append(str(refusal))
            continue
        headers[stack] = header
        if wanted[stack] > header.sections_in_file:
            doubts.append(
                f"{path} holds {count_of(header.sections_in_file, 'image')}, the table asks for "
                f"image {wanted[stack]:,}."
            )
    doubts += [*_box_doubts(table, headers), *_pixel_size_doubts(table, headers)]
    sizes = [header.voxel_size for header in headers.values() if header.voxel_size is not None]
    boxes = tuple(sorted({header.shape[2] for header in headers.values()}))
    return Seen(tuple(sample), boxes, sizes[0] if sizes else None, tuple(doubts))


def _first_row(table: ImageTable, stack: int) -> int:
    return int(np.flatnonzero(table.stack_index == stack)[0])


def _box_doubts(table: ImageTable, headers: Mapping[int, MrcHeader]) -> Iterator[str]:
    """Compare the box that a table states with those of its stacks."""
    if table.box is None:
        return
    for stack, header in headers.items():
        box = table.box[_first_row(table, stack)]
        if header.shape[1:] != (box, box):
            yield (
                f"The table states images of {box} pixels, {header.path} has {header.shape[2]} × "
                f"{header.shape[1]}."
            )


def _pixel_size_doubts(table: ImageTable, headers: Mapping[int, MrcHeader]) -> Iterator[str]:
    """Compare pixel sizes; all headers of a data set usually are wrong alike."""
    if table.pixel_size is None:
        return
    stated = {stack: float(table.pixel_size[_first_row(table, stack)]) for stack in headers}
    wrong = [
        (stated[stack], header)
        for stack, header in headers.items()
        if header.voxel_size is not None
        and abs(header.voxel_size - stated[stack]) > 0.01 * stated[stack]
    ]
    if wrong:
        size, header = wrong[0]
        yield (
            f"The table states {size:.4g} Å per pixel, the header of {header.path} "
            f"{header.voxel_size:.4g} Å ({len(wrong)} of {len(headers)} stacks that were looked at "
            "differ so). That of the table counts."
        )

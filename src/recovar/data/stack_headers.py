"""What the headers of stacks say, compared with the table of images."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from recovar.data import ImageTable
from recovar.data.mrc import MrcHeader, read_header
from recovar.errors import InputError

logger = logging.getLogger(__name__)

_HEADERS_CHECKED = 256
"""Stacks whose headers are compared before the start; the rest are checked when read."""


def complete_boxes(
    table: ImageTable, stacks: Sequence[Path], source: Int64[np.ndarray, " images"]
) -> Int64[np.ndarray, " images"]:
    """Give the box of every image; files that state none have that of their first stack.

    Args:
        table: Boxes that are not stated are 0.
        stacks: Where the stacks of the table are.
        source: File that lists an image.
    """
    box = np.zeros(len(table), np.int64) if table.box is None else table.box.astype(np.int64)
    for each in np.unique(source[box == 0]):
        rows = np.flatnonzero((source == each) & (box == 0))
        box[rows] = _square(read_header(stacks[int(table.stack_index[rows[0]])]))
    return box


def _square(header: MrcHeader) -> int:
    _, rows, columns = header.shape
    if rows != columns:
        raise InputError(
            f"{header.path}: expected square images, found {columns} × {rows} pixels. Crop or pad "
            "them."
        )
    return columns


def check_headers(
    table: ImageTable,
    stacks: Sequence[Path],
    box: Int64[np.ndarray, " images"],
    listed_in: Callable[[int], Path],
) -> None:
    """Compare stacks with the table: their box, their number of images, their pixel size.

    Args:
        table: Whose `stack_index` is of `stacks`.
        stacks: Where they are.
        box: Of every image.
        listed_in: Gives the file that has a row.

    Raises:
        InputError: If a stack has images of another box, or too few.
    """
    used, first, of_images = np.unique(table.stack_index, return_index=True, return_inverse=True)
    mixed = np.flatnonzero(box != box[first][of_images.reshape(-1)])
    if mixed.size:
        row = int(mixed[0])
        raise InputError(
            f"{listed_in(row)} has images of {box[row]} pixels and of others in "
            f"{stacks[int(table.stack_index[row])]}, but a stack has one size. Give the particles "
            "file that was written with these images."
        )
    wanted = np.zeros(len(stacks), np.int64)
    np.maximum.at(wanted, table.stack_index, table.slice_index + 1)
    step = -(-len(used) // _HEADERS_CHECKED)
    warned = False
    for stack, row in zip(used[::step].tolist(), first[::step].tolist(), strict=True):
        header = read_header(stacks[stack])
        if _square(header) != box[row]:
            raise InputError(
                f"{listed_in(row)} has images of {box[row]} × {box[row]} pixels, "
                f"{header.path} has {header.shape[2]} × {header.shape[1]}. Give the particles file "
                "that was written with these images."
            )
        if wanted[stack] > header.sections_in_file:
            raise InputError(
                f"{header.path}: expected at least {wanted[stack]} images, as {listed_in(row)} "
                f"asks, found {header.sections_in_file}. Copy the stack again."
            )
        stated = np.nan if table.pixel_size is None else float(table.pixel_size[row])
        size = header.voxel_size
        if not warned and size is not None and abs(size - stated) > 0.01 * stated:
            warned = True
            logger.warning(
                "%s states %g Å per pixel, %s states %g Å; the latter is used.",
                header.path,
                size,
                listed_in(row),
                stated,
            )

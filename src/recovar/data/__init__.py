"""Files to records and back.

This module holds what every format shares: the table of images as a file states it, before any
image file has been looked for, how a file is opened, and how it is written whole or not at all.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64, Shaped

from recovar.core.ctf import Optics
from recovar.errors import InputError

Record = TypeVar("Record", bound=Any)


@dataclass(frozen=True)
class ImageTable:
    """One row per image, as a STAR or CS file states it; paths are as written there."""

    source: Path
    """The file it was read from."""
    stacks: tuple[str, ...]
    """Distinct names of image files, as written."""
    stack_index: Int32[np.ndarray, " images"]
    """Which of `stacks` an image lies in."""
    slice_index: Int64[np.ndarray, " images"]
    """Its place in that file, from 0."""
    identity: Shaped[np.ndarray, " images"]
    """`NNNNNN@path` as written, or the uid of cryoSPARC."""
    box: Int64[np.ndarray, " images"] | None = None
    """Image size in pixels."""
    pixel_size: Float64[np.ndarray, " images"] | None = None
    """Pixel size in Å."""
    rotations: Float64[np.ndarray, "images 3 3"] | None = None
    shifts: Float64[np.ndarray, "images 2"] | None = None
    """Shifts in Å."""
    optics: Optics | None = None
    half: Int8[np.ndarray, " images"] | None = None
    """Half set, 0 or 1."""
    particle: Int64[np.ndarray, " images"] | None = None
    """Which particle an image shows, where it is one of a tilt series."""
    dose: Float64[np.ndarray, " images"] | None = None
    """Electrons per Å² that a particle received before the image of a tilt series."""
    micrograph: Int64[np.ndarray, " images"] | None = None
    """Number of the micrograph that an image was cut from."""
    optics_group: Int64[np.ndarray, " images"] | None = None
    """Number of the group of images that one microscope took in one way."""
    premultiplied: bool = False
    """Whether the images were multiplied by their transfer function."""
    phase_flipped: bool = False
    """Whether the images were multiplied by the sign of their transfer function."""
    sign: int | None = None
    """Sign of the contrast, −1 where particles are dark and 1 where they are bright."""
    no_poses: str = ""
    """Why there are no poses."""
    no_optics: str = ""
    """Why there is no transfer function."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.stack_index)

    def select(self, rows: Int64[np.ndarray, " chosen"]) -> "ImageTable":
        """Keep these rows, in this order, and only the stacks that they use."""
        chosen = select_rows(self, rows)
        used, stack_index = np.unique(chosen.stack_index, return_inverse=True)
        stacks = tuple(self.stacks[stack] for stack in used)
        return replace(chosen, stacks=stacks, stack_index=stack_index.astype(np.int32))


def select_rows(record: Record, rows: Int64[np.ndarray, " chosen"]) -> Record:
    """Index every array of a frozen record, and its optics, by `rows`."""
    values: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(record)}
    chosen = {
        name: value[rows]
        for name, value in values.items()
        if isinstance(value, np.ndarray | Optics)
    }
    return replace(record, **chosen)


def number_groups(names: Sequence[str] | Shaped[np.ndarray, " images"]) -> np.ndarray:
    """Give equal names or numbers one number, from 0 in the order of their first appearance.

    Example:
        >>> number_groups(["b.mrc", "a.mrc", "b.mrc"]).tolist()
        [0, 1, 0]
    """
    values = names.tolist() if isinstance(names, np.ndarray) else names
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(each, len(numbers)) for each in values), np.int64)


def damping(values: Float64[np.ndarray, " images"]) -> Float64[np.ndarray, " images"]:
    """Take B-factors of images as files state them, and give those of exp(−B s²/4).

    RELION damps with positive values, and when it refines them finds some below 0; Warp and M
    write −4 times the dose for what damps, so that no value is above 0.

    Example:
        >>> damping(np.array([-12.0, 0.0])).tolist(), damping(np.array([-1.0, 8.0])).tolist()
        ([12.0, 0.0], [-1.0, 8.0])
    """
    return np.abs(values) if (values <= 0).all() else values


_POINTER = b"version https://git-lfs"


@contextmanager
def opened(path: Path, wanted: str) -> Iterator[BufferedReader]:
    """Open a file that a user named; whatever the system has against it becomes a sentence.

    Args:
        path: The file. Directories, pipes and devices are refused, so that no read can hang.
        wanted: What it should be, as in "a STAR file".

    Raises:
        InputError: If it is missing, not a file, a git-LFS pointer, or cannot be read to the end
            of the block.
    """
    try:
        if not path.is_file():
            raise InputError(f"Expected {wanted} at {path}, but {_why_no_file(path)}.")
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise InputError(
                    f"{path} is a git-LFS pointer, not {wanted}. Fetch the file itself with "
                    "`git lfs pull`."
                )
            file.seek(0)
            yield file
    except OSError as error:
        raise InputError(
            f"Expected {wanted} at {path}, but it cannot be read: {error.strerror or error}. Check "
            "the file, and that it may be read."
        ) from error


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "that is a directory"
    if path.exists():
        return "that is a pipe or a device, not a file"
    if path.is_symlink():
        return "that is a link that leads to no file"
    return "there is no such file"


_UNPACKED_FREELY = 1 << 30
"""Bytes that any compressed file may unpack to."""
_LARGEST_RATIO = 100
"""Beyond these bytes: how many times larger than the file its content may be."""


def refuse_bomb(path: Path, packed: int, unpacked: int) -> None:
    """Refuse a compressed file that would unpack to far more bytes than data do."""
    if unpacked > max(_UNPACKED_FREELY, _LARGEST_RATIO * packed):
        raise InputError(
            f"{path}: its {packed} bytes would unpack to {unpacked}, more than {_LARGEST_RATIO} "
            "times as many, which no data that we know do. Unpack it yourself if you trust it."
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what is written there becomes `path` when whole.

    The data reach the disk before the rename; nothing is left behind when the block fails.
    """
    if not path.parent.is_dir():
        raise InputError(f"Cannot write {path}: directory {path.parent} does not exist. Create it.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

"""Headers of MRC files.

They are read here rather than by a library, so that files with a zero machine stamp, of either
byte order or cut short can be used, and what is wrong with others can be said.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from recovar.data import opened
from recovar.data.foreign_files import guess_format
from recovar.errors import InputError

HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_REFUSED_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit floats",
    16: "RGB colours",
    101: "4-bit integers",
}
_IMOD_STAMP = 1146047817
_LARGEST_SIDE = 1 << 26

_FIELDS = np.dtype(
    {
        "names": [
            *("n", "mode", "start", "m", "cell", "axes", "space_group", "extended"),
            *("imod", "origin", "stamp"),
        ],
        "formats": ["3i4", "i4", "3i4", "3i4", "3f4", "3i4", "i4", "i4", "2i4", "3f4", "4u1"],
        "offsets": [0, 12, 16, 28, 40, 64, 88, 92, 152, 196, 212],
        "itemsize": HEADER_BYTES,
    }
)


@dataclass(frozen=True)
class MrcHeader:
    """What the header of an MRC file says, and how much of it the file holds."""

    path: Path
    shape: tuple[int, int, int]
    """Sections (z, or images), rows, columns, as promised."""
    dtype: np.dtype
    """Type of a value, with its byte order."""
    offset: int
    """Where the values begin, in bytes."""
    voxel_sizes: tuple[float, float, float]
    """Å along x y z, 0 where the header does not say; z of images means nothing."""
    axes: tuple[int, int, int]
    """Which of x y z (1 2 3) runs along columns, rows, sections."""
    sections_in_file: int
    """Whole sections that the file holds."""
    space_group: int
    """0 for images, 1 for a volume, 401 for several volumes; many programs write 0 for all."""
    origin: tuple[float, float, float]
    """x y z of the first voxel in Å, as the field of this name says."""
    start: tuple[int, int, int]
    """First column, row and section of the grid that is stored."""

    @property
    def truncated(self) -> bool:
        """Whether the file is shorter than it promises."""
        return self.sections_in_file < self.shape[0]

    @property
    def voxel_size(self) -> float | None:
        """Å; None where the header does not say, or differs between x and y by more than 1 %."""
        along_x, along_y, _ = self.voxel_sizes
        stated = along_x > 0 and abs(along_x - along_y) <= 0.01 * along_x
        return along_x if stated else None


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file.

    Raises:
        InputError: If the file is missing, is not MRC, or has a type of value that is not read.
    """
    with opened(path, "an MRC file") as file:
        return parse_header(path, file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size)


def parse_header(path: Path, raw: bytes, size: int) -> MrcHeader:
    """Read and check the header that a file of `size` bytes begins with; `path` is for messages.

    Raises:
        InputError: If it is not MRC, or has a type of value that is not read.
    """
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"{path}: expected an MRC header of {HEADER_BYTES} bytes, but the file has "
            f"{len(raw)}. {guess_format(raw, size)}"
        )
    fields, order = _ordered_fields(path, raw, size)
    dtype = np.dtype(_value_type(path, fields)).newbyteorder(order)
    nx, ny, nz = (int(side) for side in fields["n"])
    offset = HEADER_BYTES + int(fields["extended"])
    present = max(0, size - offset) // (nx * ny * dtype.itemsize)
    axes = tuple(int(axis) for axis in fields["axes"])
    return MrcHeader(
        path=path,
        shape=(nz, ny, nx),
        dtype=dtype,
        offset=offset,
        voxel_sizes=_voxel_sizes(fields),
        axes=(1, 2, 3) if not any(axes) else (axes[0], axes[1], axes[2]),
        sections_in_file=min(present, nz),
        space_group=int(fields["space_group"]),
        origin=tuple(fields["origin"].tolist()),
        start=tuple(fields["start"].tolist()),
    )


def _ordered_fields(path: Path, raw: bytes, size: int) -> tuple[np.void, Literal["<", ">"]]:
    """Decide the byte order: by the machine stamp, or by sense where it is missing or wrong.

    Sense is that sizes and mode are possible and that one section would fit in the file.
    """
    stamp = raw[_FIELDS.fields["stamp"][1]]  # type: ignore[index]
    orders: tuple[Literal["<", ">"], ...] = (">", "<") if stamp == 0x11 else ("<", ">")
    candidates = [np.frombuffer(raw, _FIELDS.newbyteorder(order))[0] for order in orders]
    for fields, order in zip(candidates, orders, strict=True):
        stamped = (order, stamp) in ((">", 0x11), ("<", 0x44))
        fits = np.prod(fields["n"][:2].astype(float)) <= size - HEADER_BYTES
        if _is_sane(fields) and (stamped or fits):
            return fields, order
    sides = " × ".join(str(side) for side in candidates[0]["n"])
    raise InputError(
        f"{path} is not an MRC file that can be read: its header says {sides} values of mode "
        f"{candidates[0]['mode']}. {guess_format(raw, size)}"
    )


def _is_sane(fields: np.void) -> bool:
    sides_fit = all(0 < side <= _LARGEST_SIDE for side in fields["n"])
    return bool(sides_fit and 0 <= fields["mode"] < 1024 and fields["extended"] >= 0)


def _value_type(path: Path, fields: np.void) -> str:
    mode = int(fields["mode"])
    stamp, flags = fields["imod"].tolist()
    if mode == 0 and stamp == _IMOD_STAMP and not flags & 1:
        return "u1"
    if mode in _MODES:
        return _MODES[mode]
    name = _REFUSED_MODES.get(mode, "unknown")
    raise InputError(
        f"{path}: expected values of mode 0 (int8), 1 (int16), 2 (float32), 6 (uint16) or 12 "
        f"(float16), found mode {mode} ({name}). Convert it to mode 2."
    )


def _voxel_sizes(fields: np.void) -> tuple[float, float, float]:
    """Å along x y z, 0 where the header does not say."""
    counts = fields["m"].astype(np.float64)
    if counts[2] == 1 and fields["n"][2] > 1:  # written as images
        counts[2] = 0
    with np.errstate(all="ignore"):
        sizes = fields["cell"].astype(np.float64) / counts
    x, y, z = np.where(np.isfinite(sizes) & (sizes > 0), sizes, 0.0).tolist()
    return x, y, z

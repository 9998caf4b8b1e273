"""Volumes and stacks of images in MRC files."""

import bz2
import gzip
import logging
import os
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Float32, Int, Num

from recovar.data import opened, refuse_bomb, written_whole
from recovar.data.mrc_header import HEADER_BYTES, MrcHeader, parse_header, read_header
from recovar.errors import InputError

logger = logging.getLogger(__name__)

_UNPACKED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
_KEPT_AT_ONCE = 256


@dataclass(frozen=True)
class Volume:
    """A map in real space."""

    values: Float32[np.ndarray, "z y x"]
    voxel_size: float | None
    """Å; None where the file does not say, or says that voxels are not cubes."""


def open_sections(header: MrcHeader) -> np.memmap:
    """Map the whole sections that the file holds into memory, (sections, rows, columns)."""
    shape = (header.sections_in_file, *header.shape[1:])
    if shape[0] == 0:
        raise InputError(
            f"{header.path}: the header promises {header.shape[0]} images, the file holds none. "
            "Copy it again."
        )
    return np.memmap(header.path, header.dtype, "r", offset=header.offset, shape=shape)


def read_sections(
    file: BufferedReader, header: MrcHeader, first: int, count: int
) -> Num[np.ndarray, "sections rows columns"]:
    """Read sections of an open file, in the type that they have there."""
    sections = np.empty((count, *header.shape[1:]), header.dtype)
    file.seek(header.offset + first * sections[0].nbytes)
    if file.readinto(sections.reshape(-1).view(np.uint8).data) < sections.nbytes:
        raise InputError(
            f"{header.path}: expected {header.sections_in_file} images, but the file ends before "
            f"image {first + count}. Copy it again."
        )
    return sections


def read_volume(path: Path) -> Volume:
    """Read a cubic volume of even size as float32, with z y x axes whatever the file's order.

    The file may be compressed by gzip or bzip2. Volumes are taken by their voxels: where the
    header says that they lie elsewhere than others is told, and not used.

    Raises:
        InputError: If it is not cubic, odd in size, cut short, or has values that are not finite.
    """
    header, stored = _read_stored(path)
    places = header.axes[::-1]
    order = [places.index(axis) for axis in (3, 2, 1)]
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(stored.transpose(order), np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite values, found NaN or infinity. Check the map.")
    _tell_of_place(header)
    return Volume(values, _cubic_voxel_size(header))


def _read_stored(path: Path) -> tuple[MrcHeader, np.ndarray]:
    """Read a header and its values, in the order of the file."""
    with opened(path, "an MRC file") as file:
        unpack = _UNPACKED.get(file.read(2))
        if unpack is None:
            header = read_header(path)
            _check_volume(header)
            return header, open_sections(header)
        packed = os.fstat(file.fileno()).st_size
        file.seek(0)
        try:
            with unpack(file) as stream:
                header = parse_header(path, stream.read(HEADER_BYTES), 1 << 62)
                _check_volume(header)
                count = int(np.prod(header.shape))
                length = header.offset - HEADER_BYTES + count * header.dtype.itemsize
                refuse_bomb(path, packed, length)
                raw = stream.read(length)
        except (EOFError, zlib.error) as error:
            raise InputError(f"{path} is damaged: {error}. Copy it again.") from error
    if len(raw) < length:
        raise InputError(
            f"{path}: expected {length} bytes after its header, as it promises, found {len(raw)}. "
            "Copy it again."
        )
    values = np.frombuffer(raw, header.dtype, count, header.offset - HEADER_BYTES)
    return header, values.reshape(header.shape)


def _check_volume(header: MrcHeader) -> None:
    path, sides = header.path, header.shape
    if len(set(sides)) > 1 or sides[0] % 2:
        raise InputError(
            f"{path}: expected a cubic volume with an even number of voxels along each side, "
            f"found {sides[2]} × {sides[1]} × {sides[0]} (x y z). Crop or pad it."
        )
    if header.truncated:
        raise InputError(
            f"{path}: expected {sides[0]} sections, as its header promises, found "
            f"{header.sections_in_file}. Copy it again."
        )
    if sorted(header.axes) != [1, 2, 3]:
        raise InputError(
            f"{path}: expected the axes 1, 2 and 3 in some order, found {header.axes} in the "
            "header. Write it again with the program that made it."
        )


def _cubic_voxel_size(header: MrcHeader) -> float | None:
    stated = [size for size in header.voxel_sizes if size]
    if stated and max(stated) > 1.01 * min(stated):
        logger.warning(
            "%s states voxels of %s Å (x y z), which are not cubes, so this is not used. Resample "
            "the map if it is so.",
            header.path,
            " × ".join(f"{size:.4g}" for size in header.voxel_sizes),
        )
        return None
    return header.voxel_size


def _tell_of_place(header: MrcHeader) -> None:
    """Warn of a volume that does not start, or have its middle, at the origin."""
    half = header.shape[0] // 2
    begins = set(header.start) in ({0}, {-half})
    middle = half * (header.voxel_size or 0)
    usual = any(np.allclose(header.origin, place, atol=1e-3) for place in (0, -middle, middle))
    if not (begins and usual):
        logger.warning(
            "%s: its header places it at %s Å with first voxel %s (x y z). This is not used: maps "
            "and masks are taken to lie on the same voxels.",
            header.path,
            ", ".join(f"{value:.4g}" for value in header.origin),
            ", ".join(str(value) for value in header.start),
        )


def write_volume(path: Path, values: Float[np.ndarray, "z y x"], voxel_size: float) -> None:
    """Write a volume as float32, whole or not at all."""
    values = np.ascontiguousarray(values, "<f4")
    with written_whole(path) as temporary, temporary.open("wb") as file:
        statistics = _Statistics()
        statistics.add(np.arange(len(values)), values, path)
        file.write(_header_bytes(values.shape, values.dtype, voxel_size, statistics, volume=True))
        file.write(values.data)


def write_stack(path: Path, images: Float[np.ndarray, "images y x"], pixel_size: float) -> None:
    """Write a stack of images, float16 as float16 and the rest as float32."""
    dtype = np.float16 if images.dtype == np.float16 else np.float32
    with StackWriter(path, pixel_size, dtype) as writer:
        writer.append(images)


class StackWriter:
    """Writes a stack in any order; the file appears under its name when the block ends well.

    The same images at the same places make the same file, whatever the order of writing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "three.mrcs"
        >>> with StackWriter(path, pixel_size=1.5) as writer:
        ...     writer.place(np.array([2, 0]), np.ones((2, 8, 8)))
        ...     writer.place(np.array([1]), np.zeros((1, 8, 8)))
        >>> read_header(path).shape
        (3, 8, 8)
    """

    def __init__(
        self,
        path: Path,
        pixel_size: float,
        dtype: type[np.float32 | np.float16] = np.float32,
        *,
        in_place: bool = False,
    ) -> None:
        """Prepare to write.

        Args:
            path: File to write.
            pixel_size: Å.
            dtype: Of the values in the file.
            in_place: Write under the name itself, and keep what was written if the block fails or
                the process dies: a later writer goes on with it. Only the end makes a header.
        """
        self._path = path
        self._pixel_size = pixel_size
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._in_place = in_place
        self._whole = nullcontext(path) if in_place else written_whole(path)
        self._statistics = _Statistics()
        self._file: BinaryIO | None = None

    def __enter__(self) -> "StackWriter":
        target = self._whole.__enter__()
        self._file = target.open("r+b" if self._in_place and target.exists() else "wb")
        return self

    def keep(self, count: int, box: int) -> None:
        """Count the first images, which a writer in place left in the file, as appended."""
        shape = (count, box, box)
        kept = np.memmap(self._path, self._dtype, "r", offset=HEADER_BYTES, shape=shape)
        for start in range(0, count, _KEPT_AT_ONCE):
            images = kept[start : start + _KEPT_AT_ONCE]
            self._statistics.add(start + np.arange(len(images)), images, self._path)

    def sync(self) -> None:
        """Wait until all images so far are on the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def append(self, images: Num[np.ndarray, "images y x"]) -> None:
        """Add images after the last one."""
        self.place(self._statistics.count + np.arange(len(images)), images)

    def place(
        self, rows: Int[np.ndarray, " images"], images: Num[np.ndarray, "images y x"]
    ) -> None:
        """Write images to their places, from 0; all must have one size and finite values."""
        if self._file is None:
            raise ValueError("A StackWriter takes images only inside its `with` block.")
        shape = self._statistics.shape
        if shape is not None and images.shape[1:] != shape:
            raise InputError(
                f"{self._path}: expected images of {shape} pixels like those before, "
                f"got {images.shape[1:]}. Write them to another stack."
            )
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(images, self._dtype)
        self._statistics.add(rows, stored, self._path)
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            if run.size:
                self._file.seek(HEADER_BYTES + int(rows[run[0]]) * stored[0].nbytes)
                self._file.write(stored[run[0] : run[-1] + 1].data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        missing = 0
        with self._file as file:
            self._file = None
            if kind is None:
                missing = self._statistics.missing
                file.seek(0)
                shape = (self._statistics.count, *(self._statistics.shape or (0, 0)))
                file.write(
                    _header_bytes(
                        shape, self._dtype, self._pixel_size, self._statistics, volume=False
                    )
                )
                file.flush()
                os.fsync(file.fileno())
        if missing:
            lack = ValueError(
                f"Expected every image up to the last to be written to {self._path} once, "
                f"{missing} were not."
            )
            self._whole.__exit__(type(lack), lack, None)
            raise lack
        self._whole.__exit__(kind, error, traceback)


class _Statistics:
    """Minimum, maximum, mean and deviation of sections that come in any order.

    They are kept for every section and summed in the order of the rows, so that the order of
    writing does not show.
    """

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._each: list[np.ndarray] = []
        self.count = 0
        """One more than the last row."""
        self.shape: tuple[int, ...] | None = None
        """Shape of a section."""

    def add(self, rows: np.ndarray, values: np.ndarray, path: Path) -> None:
        """Take note of sections.

        Raises:
            InputError: If a value is not finite.
        """
        if not values.size:
            return
        flat = values.reshape(len(values), -1)
        low, high = flat.min(1).astype(np.float64), flat.max(1).astype(np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise InputError(
                f"Cannot write {path}: expected values that are finite as {values.dtype.name}, "
                "found NaN or infinity. Nothing was written."
            )
        sums = [float(section.sum(dtype=np.float64)) for section in flat]
        squares = [float(np.square(section, dtype=np.float64).sum()) for section in flat]
        self._rows.append(np.array(rows))
        self._each.append(np.stack([low, high, sums, squares]))
        self.count = max(self.count, int(rows.max()) + 1)
        self.shape = values.shape[1:]

    @property
    def missing(self) -> int:
        """How many rows were not given, or given more than once."""
        given = np.bincount(np.concatenate([np.zeros(0, np.int64), *self._rows]))
        return int((given != 1).sum())

    def for_header(self) -> np.ndarray:
        """Minimum, maximum, mean and root mean square deviation."""
        if self.shape is None:
            return np.zeros(4)
        order = np.argsort(np.concatenate(self._rows))
        low, high, sums, squares = np.concatenate(self._each, axis=1)[:, order]
        pixels = len(order) * np.prod(self.shape)
        mean = sums.sum() / pixels
        variance = max(0.0, squares.sum() / pixels - mean**2)
        return np.array([low.min(), high.max(), mean, variance**0.5])


def _header_bytes(
    shape: tuple[int, ...],
    dtype: np.dtype,
    voxel_size: float,
    statistics: _Statistics,
    *,
    volume: bool,
) -> bytes:
    """Make the header of a little-endian MRC2014 file."""
    header = np.zeros(HEADER_BYTES // 4, "<i4")
    floats = header.view("<f4")
    nz, ny, nx = shape
    header[:4] = nx, ny, nz, 12 if dtype.itemsize == 2 else 2
    header[7:10] = nx, ny, nz if volume else 1
    floats[10:13] = header[7:10] * voxel_size
    floats[13:16] = 90.0
    header[16:19] = 1, 2, 3
    floats[[19, 20, 21, 54]] = statistics.for_header()
    header[22] = int(volume)
    header[27] = 20140
    raw = bytearray(header.tobytes())
    raw[208:216] = b"MAP \x44\x44\x00\x00"
    raw[220:224] = (1).to_bytes(4, "little")
    raw[224:304] = b"Written by recovar".ljust(80)
    return bytes(raw)

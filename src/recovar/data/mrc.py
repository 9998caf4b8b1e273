"""Volumes and stacks of images in MRC files.

Headers are read here rather than by a library, so that files with a zero machine stamp, of
either byte order or cut short can be used, and what is wrong with others can be said.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Num

from recovar.data import written_whole
from recovar.errors import InputError

HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_REFUSED_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit floats",
    16: "RGB colours",
    101: "4-bit integers",
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\x28\xb5": "zstandard", b"PK": "zip"}
_LARGEST_SIDE = 1 << 26
_KEPT_AT_ONCE = 256

_FIELDS = np.dtype(
    {
        "names": [
            *("n", "mode", "start", "m", "cell", "axes", "space_group", "extended"),
            *("origin", "stamp"),
        ],
        "formats": ["3i4", "i4", "3i4", "3i4", "3f4", "3i4", "i4", "i4", "3f4", "4u1"],
        "offsets": [0, 12, 16, 28, 40, 64, 88, 92, 196, 212],
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
    voxel_size: float | None
    """Å; None where the header does not say, or differs between x and y by more than 1 %."""
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


@dataclass(frozen=True)
class Volume:
    """A map in real space."""

    values: Float32[np.ndarray, "z y x"]
    voxel_size: float | None
    """Å; None where the file does not say."""


def read_header(path: Path) -> MrcHeader:
    """Read and check the header of an MRC file.

    Raises:
        InputError: If the file is missing, is not MRC, or has a type of value that is not read.
    """
    if not path.is_file():
        raise InputError(f"Expected an MRC file at {path}, but there is no such file.")
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"{path}: expected an MRC header of {HEADER_BYTES} bytes, but the file has "
            f"{len(raw)}. Copy it again."
        )
    fields, order = _ordered_fields(path, raw)
    dtype = np.dtype(_mode_type(path, int(fields["mode"]))).newbyteorder(order)
    nx, ny, nz = (int(side) for side in fields["n"])
    offset = HEADER_BYTES + int(fields["extended"])
    present = max(0, path.stat().st_size - offset) // (nx * ny * dtype.itemsize)
    axes = tuple(int(axis) for axis in fields["axes"])
    return MrcHeader(
        path=path,
        shape=(nz, ny, nx),
        dtype=dtype,
        offset=offset,
        voxel_size=_voxel_size(fields),
        axes=(1, 2, 3) if not any(axes) else (axes[0], axes[1], axes[2]),
        sections_in_file=min(present, nz),
        space_group=int(fields["space_group"]),
        origin=tuple(fields["origin"].tolist()),
        start=tuple(fields["start"].tolist()),
    )


def _ordered_fields(path: Path, raw: bytes) -> tuple[np.void, Literal["<", ">"]]:
    """Decide the byte order: by the machine stamp, or by sense where there is none.

    Sense is that sizes and mode are possible and that one section would fit in the file.
    """
    little, big = (np.frombuffer(raw, _FIELDS.newbyteorder(order))[0] for order in ("<", ">"))
    stamp = little["stamp"][0]
    if stamp == 0x11:
        candidates: list[tuple[np.void, Literal["<", ">"]]] = [(big, ">")]
    elif stamp == 0x44:
        candidates = [(little, "<")]
    else:
        candidates = [(little, "<"), (big, ">")]
    values_in_file = path.stat().st_size - HEADER_BYTES
    for fields, order in candidates:
        fits = len(candidates) == 1 or np.prod(fields["n"][:2].astype(float)) <= values_in_file
        if _is_sane(fields) and fits:
            return fields, order
    sides = " × ".join(str(side) for side in candidates[0][0]["n"])
    raise InputError(
        f"{path} is not an MRC file that can be read: its header says {sides} values of mode "
        f"{candidates[0][0]['mode']}. {_guess(raw)}"
    )


def _is_sane(fields: np.void) -> bool:
    sides_fit = all(0 < side <= _LARGEST_SIDE for side in fields["n"])
    return bool(sides_fit and 0 <= fields["mode"] < 1024 and fields["extended"] >= 0)


def _guess(raw: bytes) -> str:
    """Say what a file that is not MRC may be."""
    for magic, name in _COMPRESSED.items():
        if raw.startswith(magic):
            return f"It looks compressed ({name}); decompress it first."
    if raw.startswith(b"version https://git-lfs"):
        return "It is a git-LFS pointer; fetch the file itself with `git lfs pull`."
    for order in ("<", ">"):
        sections, rows = np.frombuffer(raw[:8], order + "f4")
        whole = sections == np.rint(sections) and rows == np.rint(rows)
        if whole and 0 < abs(sections) < 100_000 and 0 < rows < 100_000:
            return "It looks like a SPIDER file; convert it to MRC."
    return "Copy it again, or convert it to MRC."


def _mode_type(path: Path, mode: int) -> str:
    if mode in _MODES:
        return _MODES[mode]
    name = _REFUSED_MODES.get(mode, "unknown")
    raise InputError(
        f"{path}: expected values of mode 0 (int8), 1 (int16), 2 (float32), 6 (uint16) or 12 "
        f"(float16), found mode {mode} ({name}). Convert it to mode 2."
    )


def _voxel_size(fields: np.void) -> float | None:
    """Å along x and y, which must agree; z of a stack means nothing."""
    if not all(fields["m"][:2] > 0) or not np.all(np.isfinite(fields["cell"][:2])):
        return None
    along_x, along_y = fields["cell"][:2].astype(np.float64) / fields["m"][:2]
    if along_x <= 0 or abs(along_x - along_y) > 0.01 * along_x:
        return None
    return float(along_x)


def open_sections(header: MrcHeader) -> np.memmap:
    """Map the whole sections that the file holds into memory, (sections, rows, columns)."""
    shape = (header.sections_in_file, *header.shape[1:])
    if shape[0] == 0:
        raise InputError(
            f"{header.path}: the header promises {header.shape[0]} images, the file holds none. "
            "Copy it again."
        )
    return np.memmap(header.path, header.dtype, "r", offset=header.offset, shape=shape)


def read_volume(path: Path) -> Volume:
    """Read a cubic volume of even size as float32, with z y x axes whatever the file's order.

    Raises:
        InputError: If it is not cubic, odd in size, cut short, or has values that are not finite.
    """
    header = read_header(path)
    sides = header.shape
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
    stored = header.axes[::-1]
    order = [stored.index(axis) for axis in (3, 2, 1)]
    values = np.ascontiguousarray(open_sections(header).transpose(order), np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite values, found NaN or infinity. Check the map.")
    return Volume(values, header.voxel_size)


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

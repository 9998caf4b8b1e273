"""The table of images, particles and half sets, read from any of the formats."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8, Int32, Int64, Shaped

from recovar.core.ctf import Optics
from recovar.data import ImageTable, select_rows
from recovar.data.cryosparc import read_cs_table
from recovar.data.legacy import (
    checked_indices,
    optics_from_ctf_rows,
    read_ctf_pickle,
    read_indices,
    read_poses_pickle,
)
from recovar.data.locate import StackLocator, locate_stacks
from recovar.data.mrc import MrcHeader, read_header
from recovar.data.star import read_star_table
from recovar.errors import InputError

logger = logging.getLogger(__name__)

_HEADERS_CHECKED = 256
"""Stacks whose headers are compared before the start; the rest are checked when read."""


@dataclass(frozen=True)
class Particles:
    """One row per image. Several rows may show one particle, as in a tilt series."""

    stacks: tuple[Path, ...]
    """Files that hold images."""
    stack_index: Int32[np.ndarray, " images"]
    """Which of `stacks` an image lies in."""
    slice_index: Int64[np.ndarray, " images"]
    """Its place in that file, from 0."""
    rotations: Float64[np.ndarray, "images 3 3"] | None
    shifts: Float64[np.ndarray, "images 2"] | None
    """Å, x y."""
    optics: Optics | None
    box: int
    pixel_size: float
    """Å."""
    particle: Int64[np.ndarray, " images"]
    """Which particle an image shows."""
    half: Int8[np.ndarray, " images"] | None
    """Half set that the file assigns, 0 or 1."""
    identity: Shaped[np.ndarray, " images"]
    """`NNNNNN@path` as written, or the uid of cryoSPARC: what exports go by."""
    sources: tuple[Path, ...]
    """Files that the table was read from."""
    source_row: Int64[np.ndarray, " images"]
    """Row of an image in the table of `sources[0]`, from 0."""
    premultiplied: bool = False
    """Whether images were multiplied by their transfer function."""
    sign: int | None = None
    """Sign of the contrast where stated: −1 where particles are dark, 1 where bright."""

    def __post_init__(self) -> None:
        count = len(self.stack_index)
        for name in (
            "slice_index",
            "rotations",
            "shifts",
            "optics",
            "particle",
            "half",
            "identity",
            "source_row",
        ):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise InputError(
                    f"Expected {count} rows of {name}, one per image, got {len(value)}."
                )
        if not count:
            raise InputError(f"No images are left of {self._source}. Select at least one.")
        if self.box % 2 or self.box < 2:
            raise InputError(
                f"Expected images with an even number of pixels along a side, found {self.box} in "
                f"{self._source}. Crop or pad them to an even size."
            )
        if not np.isfinite(self.pixel_size) or self.pixel_size <= 0:
            raise InputError(
                f"Expected a pixel size above 0 Å, got {self.pixel_size:g} for {self._source}."
            )
        self._check_values()

    def _check_values(self) -> None:
        if self.rotations is not None:
            self._refuse_rows(~_are_rotations(self.rotations), self.rotations, "a rotation")
        if self.shifts is not None:
            wrong = (~np.isfinite(self.shifts)).any(axis=1)
            self._refuse_rows(wrong, self.shifts, "a finite shift")
        if self.optics is not None:
            values = np.stack([np.asarray(v) for v in vars(self.optics).values()], axis=1)
            wrong = (~np.isfinite(values)).any(axis=1)
            self._refuse_rows(wrong, values, "finite parameters of the transfer function")

    def _refuse_rows(self, wrong: np.ndarray | np.bool, values: np.ndarray, wanted: str) -> None:
        bad = np.flatnonzero(wrong)
        if bad.size:
            row = bad[0]
            raise InputError(
                f"{self._source}, row {self.source_row[row] + 1} (image {self.identity[row]}): "
                f"expected {wanted}, found {np.asarray(values[row]).tolist()}. Correct the row or "
                f"leave it out; {bad.size} rows are so."
            )

    @property
    def _source(self) -> str:
        return str(self.sources[0]) if self.sources else "the table"

    def __len__(self) -> int:
        """Count the images."""
        return len(self.stack_index)

    def select(
        self, indices: Bool[np.ndarray, " images"] | Int[np.ndarray, " chosen"]
    ) -> "Particles":
        """Keep these images, in this order.

        Raises:
            InputError: If none is chosen, one twice, or one that does not exist.
        """
        return select_rows(self, checked_indices(np.asarray(indices), len(self), self._source))


def _are_rotations(rotations: Float64[np.ndarray, "images 3 3"]) -> np.ndarray:
    """Tell which matrices are proper rotations within 1e-3."""
    products = rotations @ rotations.swapaxes(1, 2)
    orthonormal = (np.abs(products - np.eye(3)) <= 1e-3).all(axis=(1, 2))
    return orthonormal & (np.linalg.det(np.where(np.isfinite(rotations), rotations, 0.0)) > 0)


def read_particles(
    path: Path,
    *,
    poses: Path | None = None,
    ctf: Path | None = None,
    datadir: Path | None = None,
    strip_prefix: str | None = None,
    passthrough: Sequence[Path] = (),
    ind: Path | np.ndarray | None = None,
    pixel_size: float | None = None,
) -> Particles:
    """Read particles with their poses and transfer functions, which must be there.

    Args:
        path: A .star, .cs or .csg file, a stack (.mrcs, .mrc), or a .txt with one stack per line.
        poses: Pickle or npz of poses that takes the place of those in `path`.
        ctf: The same for transfer functions; its pixel size is scaled to the box of the images.
        datadir: Directory that the names of image files are relative to.
        strip_prefix: Leading part to take off these names.
        passthrough: Further cryoSPARC tables of the same particles.
        ind: Images to keep: a file of indices or of a mask, or an array.
        pixel_size: Å, in place of what the files say. Shifts that a file states in Å stay.

    Raises:
        InputError: If something is missing or contradicts itself.
    """
    places = StackLocator(path, datadir, strip_prefix)
    loaded = _load(places, passthrough, ind, pixel_size)
    if ctf is not None:
        loaded = loaded.with_ctf_pickle(ctf, keep_pixel_size=pixel_size is not None)
    if poses is not None:
        loaded = loaded.with_poses_pickle(poses)
    if loaded.table.rotations is None:
        raise InputError(
            f"{path} has no poses: {loaded.table.no_poses}. Give them with --poses, or a file "
            "from a finished refinement."
        )
    if loaded.table.optics is None:
        raise InputError(
            f"{path} has no transfer functions: {loaded.table.no_optics}. Give them with --ctf."
        )
    return loaded.particles()


def read_image_list(
    path: Path,
    *,
    datadir: Path | None = None,
    strip_prefix: str | None = None,
    passthrough: Sequence[Path] = (),
    ind: Path | np.ndarray | None = None,
    pixel_size: float | None = None,
) -> Particles:
    """Read particles as `read_particles` does, but poses and transfer functions may be None."""
    places = StackLocator(path, datadir, strip_prefix)
    return _load(places, passthrough, ind, pixel_size).particles()


@dataclass(frozen=True)
class _Loaded:
    """A selected table, its stacks and box, before poses and optics are replaced."""

    table: ImageTable
    stacks: tuple[Path, ...]
    box: int
    rows: np.ndarray
    count: int
    """Images in the file, before the selection."""
    sources: tuple[Path, ...]

    @property
    def pixel_size(self) -> float:
        """The pixel size that all images share within 1 %."""
        values = self.table.pixel_size
        path = self.table.source
        if values is None:
            raise InputError(f"{path} states no pixel size. Give it with --pixel-size (Å).")
        if not (values > 0).all() or values.max() > 1.01 * values.min():
            found = ", ".join(f"{value:g}" for value in np.unique(values)[:5])
            raise InputError(
                f"{path}: expected one pixel size above 0 for all images, found {found} Å. "
                "Select one optics group with --ind, or scale the images to one pixel size."
            )
        return float(np.median(values))

    def with_ctf_pickle(self, path: Path, *, keep_pixel_size: bool) -> "_Loaded":
        """Take optics from a pickle, and the pixel size scaled from its box to this one."""
        logger.info("%s: transfer functions are taken from %s.", self.table.source, path)
        values = read_ctf_pickle(path, self.count)[self.rows]
        pixel_size = values[:, 0] * values[:, 1] / self.box
        before = self.table.pixel_size
        if keep_pixel_size and before is not None:
            pixel_size = before
        elif before is not None and abs(pixel_size[0] - before[0]) > 0.01 * before[0]:
            logger.warning(
                "%s states %g Å per pixel, %s states %g Å, scaled to %d pixels; this is used.",
                self.table.source,
                before[0],
                path,
                pixel_size[0],
                self.box,
            )
        table = replace(self.table, optics=optics_from_ctf_rows(values), pixel_size=pixel_size)
        return replace(self, table=table, sources=(*self.sources, path))

    def with_poses_pickle(self, path: Path) -> "_Loaded":
        """Take rotations and shifts from a pickle."""
        logger.info("%s: poses are taken from %s.", self.table.source, path)
        read = read_poses_pickle(path, self.count)
        shifts = read.shift_fractions[self.rows] * self.box * self.pixel_size
        table = replace(self.table, rotations=read.rotations[self.rows], shifts=shifts)
        return replace(self, table=table, sources=(*self.sources, path))

    def particles(self) -> Particles:
        """Check the files and build the table."""
        pixel_size = self.pixel_size
        _check_headers(self, pixel_size)
        table = self.table
        return Particles(
            stacks=self.stacks,
            stack_index=table.stack_index,
            slice_index=table.slice_index,
            rotations=table.rotations,
            shifts=table.shifts,
            optics=table.optics,
            box=self.box,
            pixel_size=pixel_size,
            particle=self.rows,
            half=table.half,
            identity=table.identity,
            sources=self.sources,
            source_row=self.rows,
            premultiplied=table.premultiplied,
            sign=table.sign,
        )


def _load(
    places: StackLocator,
    passthrough: Sequence[Path],
    ind: Path | np.ndarray | None,
    pixel_size: float | None,
) -> _Loaded:
    path = places.source
    table = _read_table(places, passthrough, pixel_size)
    if ind is None:
        rows = np.arange(len(table), dtype=np.int64)
    elif isinstance(ind, Path):
        rows = read_indices(ind, len(table))
    else:
        rows = checked_indices(ind, len(table), "ind")
    if not rows.size:
        raise InputError(f"No images of {path} are selected. Select at least one with --ind.")
    chosen = table.select(rows)
    stacks = locate_stacks(chosen.stacks, places)
    box = _common_box(chosen, stacks[0])
    return _Loaded(chosen, stacks, box, rows, len(table), (path, *passthrough))


def _read_table(
    places: StackLocator, passthrough: Sequence[Path], pixel_size: float | None
) -> ImageTable:
    path = places.source
    if passthrough and path.suffix not in (".cs", ".csg"):
        raise InputError(f"Passthrough files go with a .cs file, not with {path}. Leave them out.")
    match path.suffix:
        case ".star":
            given = {} if pixel_size is None else {"rlnImagePixelSize": pixel_size}
            return read_star_table(path, given)
        case ".cs" | ".csg":
            return read_cs_table(path, passthrough, pixel_size)
        case ".mrc" | ".mrcs":
            return _stacks_table(path, [str(path)], [read_header(path)], pixel_size)
        case ".txt":
            names = _listed_stacks(path)
            headers = [read_header(found) for found in locate_stacks(names, places)]
            return _stacks_table(path, names, headers, pixel_size)
    raise InputError(
        f"Expected particles in a .star, .cs, .csg, .mrcs, .mrc or .txt file, got {path}. Convert "
        "it."
    )


def _listed_stacks(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"Expected a list of stacks at {path}, but there is no such file.")
    lines = [line.strip() for line in path.read_text().splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError(f"{path}: expected one stack per line, found none. Add some.")
    return names


def _stacks_table(
    path: Path, names: Sequence[str], headers: Sequence[MrcHeader], pixel_size: float | None
) -> ImageTable:
    """List every image of stacks, one stack after the other."""
    counts = [header.sections_in_file for header in headers]
    stack_index = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    slice_index = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
    for header in headers:
        if header.truncated:
            logger.warning(
                "%s holds %d of the %d images that its header promises; those are used.",
                header.path,
                header.sections_in_file,
                header.shape[0],
            )
    sizes = [pixel_size or header.voxel_size for header in headers]
    known = [size for size in sizes if size is not None]
    pairs = zip(stack_index.tolist(), slice_index.tolist(), strict=True)
    return ImageTable(
        source=path,
        stacks=tuple(names),
        stack_index=stack_index,
        slice_index=slice_index,
        identity=np.array([f"{place + 1:06d}@{names[stack]}" for stack, place in pairs], np.str_),
        box=np.repeat([header.shape[2] for header in headers], counts).astype(np.int64),
        pixel_size=np.repeat(known, counts) if len(known) == len(sizes) else None,
        no_poses="a stack holds images only",
        no_optics="a stack holds images only",
    )


def _common_box(table: ImageTable, first: Path) -> int:
    """Find the box that all images share, which must be even and that of the first stack."""
    _, rows, columns = read_header(first).shape
    if rows != columns:
        raise InputError(
            f"{first}: expected square images, found {columns} × {rows} pixels. Crop or pad them."
        )
    stated = np.array([columns]) if table.box is None else np.unique(table.box)
    if len(stated) > 1:
        raise InputError(
            f"{table.source}: expected images of one size, found {', '.join(map(str, stated))} "
            "pixels. Select one of them with --ind, or scale the images to one size."
        )
    if stated[0] != columns:
        raise InputError(
            f"{table.source} states images of {stated[0]} pixels, {first} has {columns}. Give the "
            "particles file that was written with these images."
        )
    return columns


def _check_headers(loaded: _Loaded, pixel_size: float) -> None:
    """Compare stacks with the table: their box, their number of images, their pixel size."""
    table = loaded.table
    wanted = np.zeros(len(loaded.stacks), np.int64)
    np.maximum.at(wanted, table.stack_index, table.slice_index + 1)
    step = -(-len(wanted) // _HEADERS_CHECKED)
    warned = False
    for stack in range(0, len(wanted), step):
        header = read_header(loaded.stacks[stack])
        if header.shape[1:] != (loaded.box, loaded.box):
            raise InputError(
                f"{header.path}: expected images of {loaded.box} × {loaded.box} pixels like those "
                f"of {loaded.stacks[0]}, found {header.shape[2]} × {header.shape[1]}. Select "
                "images of one size."
            )
        if wanted[stack] > header.sections_in_file:
            raise InputError(
                f"{header.path}: expected at least {wanted[stack]} images, as {table.source} "
                f"asks, found {header.sections_in_file}. Copy the stack again."
            )
        size = header.voxel_size
        if not warned and size is not None and abs(size - pixel_size) > 0.01 * pixel_size:
            warned = True
            logger.warning(
                "%s states %g Å per pixel, %s states %g Å; the latter is used.",
                header.path,
                size,
                table.source,
                pixel_size,
            )


def assign_halves(particles: Particles, seed: int) -> Int8[np.ndarray, " images"]:
    """Give each image its half set: that of the file, or a random one per particle.

    All images of a particle are in one half. The result depends only on the particles and the
    seed, not on the order of the rows.
    """
    half = particles.half
    if half is not None and len(np.unique(half)) == 2:
        return half
    if half is not None:
        logger.warning("One of the half sets of the file is empty here; new ones are drawn.")
    distinct, which = np.unique(particles.particle, return_inverse=True)
    if len(distinct) < 2:
        raise InputError("Expected at least two particles, to make half sets of them, found one.")
    order = np.random.default_rng(seed).permutation(len(distinct))
    halves = np.ones(len(distinct), np.int8)
    halves[order[: len(distinct) // 2]] = 0
    return halves[which.reshape(-1)]


def table_of(particles: Particles, names: Sequence[str] | None = None) -> ImageTable:
    """Make the table that writers take; `names` replaces the paths of the stacks."""
    count = len(particles)
    return ImageTable(
        source=particles.sources[0] if particles.sources else Path(),
        stacks=tuple(str(path) for path in particles.stacks) if names is None else tuple(names),
        stack_index=particles.stack_index,
        slice_index=particles.slice_index,
        identity=particles.identity,
        box=np.full(count, particles.box, np.int64),
        pixel_size=np.full(count, particles.pixel_size),
        rotations=particles.rotations,
        shifts=particles.shifts,
        optics=particles.optics,
        half=particles.half,
        premultiplied=particles.premultiplied,
        sign=particles.sign,
    )

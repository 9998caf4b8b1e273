"""The table of images, particles and half sets, read from any of the formats."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8, Int32, Int64, Shaped

from recovar.core.ctf import Optics
from recovar.data import ImageTable, select_rows
from recovar.data.grids import ImageKind, KindOfImages, describe_kinds, find_common_grid
from recovar.data.legacy import (
    checked_indices,
    optics_from_ctf_rows,
    read_ctf_pickle,
    read_indices,
    read_poses_pickle,
)
from recovar.data.locate import StackLocator
from recovar.data.stack_headers import check_headers, complete_boxes
from recovar.data.tables import join_tables, locate_images, read_table, shown_particles
from recovar.errors import InputError

logger = logging.getLogger(__name__)


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
    """Row of an image in the tables of `sources`, one after the other, from 0."""
    source_sizes: tuple[int, ...] = ()
    """Rows in each of the first of `sources`, which list images; empty if all are in one."""
    dose: Float64[np.ndarray, " images"] | None = None
    """Electrons per Å² that a particle received before the image of a tilt series."""
    micrograph: Int64[np.ndarray, " images"] | None = None
    """Number of the micrograph that an image was cut from."""
    optics_group: Int64[np.ndarray, " images"] | None = None
    """Number of the group of images that one microscope took in one way."""
    premultiplied: bool = False
    """Whether images were multiplied by their transfer function."""
    phase_flipped: bool = False
    """Whether images were multiplied by the sign of their transfer function."""
    sign: int | None = None
    """Sign of the contrast where stated: −1 where particles are dark, 1 where bright."""
    kinds: tuple[ImageKind, ...] = ()
    """Boxes and pixel sizes in the files, where images are brought to one grid when read."""
    kind: KindOfImages | None = None
    """Which of `kinds` an image is of."""

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
            "dose",
            "micrograph",
            "optics_group",
            "kind",
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
            row = int(bad[0])
            raise InputError(
                f"{self._source_of(row)}, row {self.row_in_source[row] + 1} (image "
                f"{self.identity[row]}): expected {wanted}, found "
                f"{np.asarray(values[row]).tolist()}. Correct the row or leave it out; {bad.size} "
                "rows are so."
            )

    @property
    def _source(self) -> str:
        return str(self.sources[0]) if self.sources else "the table"

    def _source_of(self, row: int) -> str:
        return str(self.sources[self.source[row]]) if self.sources else "the table"

    @property
    def source(self) -> Int64[np.ndarray, " images"]:
        """Which of `sources` an image is listed in."""
        return np.searchsorted(np.cumsum(self.source_sizes[:-1]), self.source_row, side="right")

    @property
    def row_in_source(self) -> Int64[np.ndarray, " images"]:
        """Row of an image in the table of its own source, from 0."""
        starts = np.cumsum([0, *self.source_sizes[:-1]])
        return self.source_row - starts[self.source]

    @property
    def target(self) -> ImageKind:
        """Box and pixel size of the images as they are read."""
        return ImageKind(self.box, self.pixel_size)

    @property
    def kinds_in_files(self) -> tuple[ImageKind, ...]:
        """Boxes and pixel sizes of images as files hold them; the first where there is one."""
        return self.kinds or (self.target,)

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
    paths: Path | Sequence[Path],
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
        paths: A .star, .cs or .csg file, a stack (.mrcs, .mrc), or a .txt with one stack per line;
            or several of them, whose images follow one another.
        poses: Pickle or npz of poses that takes the place of those in `paths`.
        ctf: The same for transfer functions; its pixel size is scaled to the box of the images.
        datadir: Directory that the names of image files are relative to.
        strip_prefix: Leading part to take off these names.
        passthrough: Further cryoSPARC tables of the same particles.
        ind: Images to keep: a file of indices or of a mask, or an array.
        pixel_size: Å, in place of what the files say. Shifts that a file states in Å stay.

    Raises:
        InputError: If something is missing or contradicts itself.
    """
    locators = _locators(paths, datadir, strip_prefix)
    loaded = _load(locators, passthrough, ind, pixel_size)
    if ctf is not None:
        loaded = loaded.with_ctf_pickle(ctf, keep_pixel_size=pixel_size is not None)
    if poses is not None:
        loaded = loaded.with_poses_pickle(poses)
    if loaded.table.rotations is None:
        raise InputError(
            f"{loaded.name} has no poses: {loaded.table.no_poses}. Give them with --poses, or a "
            "file from a finished refinement."
        )
    if loaded.table.optics is None:
        raise InputError(
            f"{loaded.name} has no transfer functions: {loaded.table.no_optics}. Give them with "
            "--ctf."
        )
    return loaded.particles()


def read_image_list(
    paths: Path | Sequence[Path],
    *,
    datadir: Path | None = None,
    strip_prefix: str | None = None,
    passthrough: Sequence[Path] = (),
    ind: Path | np.ndarray | None = None,
    pixel_size: float | None = None,
) -> Particles:
    """Read particles as `read_particles` does, but poses and transfer functions may be None."""
    locators = _locators(paths, datadir, strip_prefix)
    return _load(locators, passthrough, ind, pixel_size).particles()


def _locators(
    paths: Path | Sequence[Path], datadir: Path | None, strip_prefix: str | None
) -> tuple[StackLocator, ...]:
    listed = (paths,) if isinstance(paths, Path) else tuple(paths)
    if not listed:
        raise InputError("Expected one or several files of particles, got none.")
    for path, count in Counter(path.absolute() for path in listed).items():
        if count > 1:
            raise InputError(f"{path} is given {count} times. Give every file once.")
    return tuple(StackLocator(path, datadir, strip_prefix) for path in listed)


@dataclass(frozen=True)
class _Loaded:
    """A selected table and its stacks, before poses and optics are replaced."""

    table: ImageTable
    stacks: tuple[Path, ...]
    box: Int64[np.ndarray, " images"]
    """As files hold the images."""
    rows: Int64[np.ndarray, " images"]
    """In all files, before the selection."""
    sizes: tuple[int, ...]
    """Images in each file, before the selection."""
    sources: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The files that list the images."""
        return ", ".join(str(path) for path in self.sources[: len(self.sizes)])

    @property
    def pixel_size(self) -> Float64[np.ndarray, " images"]:
        """Pixel size of every image as files hold it."""
        values = self.table.pixel_size
        if values is None:
            raise InputError(f"{self.name} states no pixel size. Give it with --pixel-size (Å).")
        wrong = values[~(np.isfinite(values) & (values > 0))]
        if wrong.size:
            raise InputError(
                f"{self.name}: expected pixel sizes above 0 Å, found {wrong[0]:g}. Give the right "
                "one with --pixel-size (Å)."
            )
        return values

    def with_ctf_pickle(self, path: Path, *, keep_pixel_size: bool) -> "_Loaded":
        """Take optics from a pickle, and the pixel size scaled from its box to these."""
        logger.info("%s: transfer functions are taken from %s.", self.name, path)
        values = read_ctf_pickle(path, sum(self.sizes))[self.rows]
        pixel_size = values[:, 0] * values[:, 1] / self.box
        before = self.table.pixel_size
        if keep_pixel_size and before is not None:
            pixel_size = before
        elif before is not None and abs(pixel_size[0] - before[0]) > 0.01 * before[0]:
            logger.warning(
                "%s states %g Å per pixel, %s states %g Å, scaled to %d pixels; this is used.",
                self.name,
                before[0],
                path,
                pixel_size[0],
                self.box[0],
            )
        table = replace(self.table, optics=optics_from_ctf_rows(values), pixel_size=pixel_size)
        return replace(self, table=table, sources=(*self.sources, path))

    def with_poses_pickle(self, path: Path) -> "_Loaded":
        """Take rotations and shifts from a pickle."""
        logger.info("%s: poses are taken from %s.", self.name, path)
        read = read_poses_pickle(path, sum(self.sizes))
        shifts = read.shift_fractions[self.rows] * (self.box * self.pixel_size)[:, None]
        table = replace(self.table, rotations=read.rotations[self.rows], shifts=shifts)
        return replace(self, table=table, sources=(*self.sources, path))

    def _listed_in(self, row: int) -> Path:
        ends = np.cumsum(self.sizes)
        return self.sources[int(np.searchsorted(ends, self.rows[row], side="right"))]

    def particles(self) -> Particles:
        """Check the files and build the table."""
        grid = find_common_grid(self.box, self.pixel_size)
        check_headers(self.table, self.stacks, self.box, self._listed_in)
        if grid.kinds:
            logger.info(
                "Images of %d kinds: %s. All are brought to %d px at %g Å.",
                len(grid.kinds),
                describe_kinds(grid),
                grid.target.box,
                grid.target.pixel_size,
            )
        table = self.table
        return Particles(
            stacks=self.stacks,
            stack_index=table.stack_index,
            slice_index=table.slice_index,
            rotations=table.rotations,
            shifts=table.shifts,
            optics=table.optics,
            box=grid.target.box,
            pixel_size=grid.target.pixel_size,
            particle=shown_particles(table, self.rows),
            half=table.half,
            identity=table.identity,
            sources=self.sources,
            source_row=self.rows,
            source_sizes=self.sizes,
            dose=table.dose,
            micrograph=table.micrograph,
            optics_group=table.optics_group,
            premultiplied=table.premultiplied,
            phase_flipped=table.phase_flipped,
            sign=table.sign,
            kinds=grid.kinds,
            kind=grid.kind,
        )


def _load(
    locators: Sequence[StackLocator],
    passthrough: Sequence[Path],
    ind: Path | np.ndarray | None,
    pixel_size: float | None,
) -> _Loaded:
    if passthrough and len(locators) > 1:
        raise InputError(
            "Passthrough files go with one .cs file, got several files of particles. Files named "
            "*passthrough*particles*.cs beside a .cs file are found without being named, and a "
            ".csg file names its own."
        )
    tables = [read_table(places, passthrough, pixel_size) for places in locators]
    sizes = tuple(len(table) for table in tables)
    table = join_tables(tables)
    rows = _chosen_rows(ind, table)
    chosen, stacks = locate_images(table, rows, [len(each.stacks) for each in tables], locators)
    source = np.searchsorted(np.cumsum(sizes[:-1]), rows, side="right")
    box = complete_boxes(chosen, stacks, source)
    sources = (*(places.source for places in locators), *passthrough)
    return _Loaded(chosen, stacks, box, rows, sizes, sources)


def _chosen_rows(ind: Path | np.ndarray | None, table: ImageTable) -> Int64[np.ndarray, " images"]:
    if ind is None:
        return np.arange(len(table), dtype=np.int64)
    if isinstance(ind, Path):
        rows = read_indices(ind, len(table))
    else:
        rows = checked_indices(ind, len(table), "ind")
    if not rows.size:
        raise InputError(
            f"No images of {table.source} are selected. Select at least one with --ind."
        )
    return rows


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
    """Make the table that writers take, of images as files hold them.

    Args:
        particles: What is written.
        names: In place of the paths of the stacks.
    """
    own = particles.kinds_in_files
    kind = np.zeros(len(particles), np.int16) if particles.kind is None else particles.kind
    alone = np.array_equal(particles.particle, particles.source_row)
    return ImageTable(
        source=particles.sources[0] if particles.sources else Path(),
        stacks=tuple(str(path) for path in particles.stacks) if names is None else tuple(names),
        stack_index=particles.stack_index,
        slice_index=particles.slice_index,
        identity=particles.identity,
        box=np.array([each.box for each in own])[kind],
        pixel_size=np.array([each.pixel_size for each in own])[kind],
        rotations=particles.rotations,
        shifts=particles.shifts,
        optics=particles.optics,
        half=particles.half,
        particle=None if alone else particles.particle,
        dose=particles.dose,
        premultiplied=particles.premultiplied,
        phase_flipped=particles.phase_flipped,
        sign=particles.sign,
    )

"""The image bank: blocks of centred Fourier images, read once per pass or kept in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.projection import centring_factors
from recovar.data.particles import Particles
from recovar.data.stack import stream
from recovar.errors import InputError

BLOCK_BYTES = 48 << 20

_LEAST_TRANSFER = 0.15
"""Premultiplied images say little where the transfer function is smaller than this."""


@dataclass(frozen=True)
class ImageBank:
    """All images of a data set, as a stream of `ImageBatch`.

    Images are visited in file order, whatever their order in the table; `ImageBatch.rows` says
    which they are. Where the whole bank fits in `memory` it is read and transformed once.
    """

    particles: Particles
    halves: Int[np.ndarray, " images"]
    """Half set of every image, 0 or 1."""
    memory: int
    """Bytes that kept blocks may take; 0 reads the files at every pass."""
    sign: float = 1.0
    """Multiplies the images: −1 where dense matter is bright after correction by the CTF."""
    block_bytes: int = BLOCK_BYTES
    """Bytes of one block of transformed images."""
    box: int | None = None
    """Shrink the images to this many pixels by cropping their transforms; None keeps them."""
    _kept: list[ImageBatch] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_geometry()

    def _check_geometry(self) -> tuple[Float[np.ndarray, "images 3 3"], Optics]:
        rotations, optics = self.particles.rotations, self.particles.optics
        if rotations is None or optics is None:
            raise InputError(
                "Expected poses and CTF parameters for every image, found none. "
                "Give them with --poses and --ctf."
            )
        return rotations, optics

    @property
    def grid(self) -> Grid:
        """Grid of the images and of volumes made from them."""
        grid = Grid(self.particles.box, self.particles.pixel_size)
        return grid if self.box is None else grid.cropped(self.box)

    @cached_property
    def disc(self) -> Disc:
        """Pixels of every batch."""
        return Disc(self.grid.size, self.grid.largest_radius)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.particles)

    @property
    def bytes_per_image(self) -> int:
        """Bytes of one transformed image: complex value and transfer function per pixel."""
        return 12 * len(self.disc)

    @property
    def fits(self) -> bool:
        """Whether the transformed images are kept between passes."""
        return len(self) * self.bytes_per_image <= self.memory

    @property
    def block_size(self) -> int:
        """Images per block."""
        widest = max(kind.box for kind in self.particles.kinds_in_files)
        read = 4 * widest**2 if self.grid.size < widest else 0
        largest = max(self.bytes_per_image, read)
        return int(np.clip(self.block_bytes // largest, 1, 4096))

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        """Visit all images once, in file order, leaving out the first `start`."""
        if self._kept:
            yield from _skip(self._kept, start)
            return
        order = np.lexsort((self.particles.slice_index, self.particles.stack_index))[start:]
        kept = []
        for rows, images in stream(self.particles, order, self.block_size):
            batch = self._transform(rows, images)
            if self.fits:
                kept.append(batch)
            yield batch
        if start == 0 and not self._kept:
            self._kept.extend(kept)

    def _transform(
        self, rows: Int[np.ndarray, " images"], images: Float[np.ndarray, "images y x"]
    ) -> ImageBatch:
        disc, size = self.disc, self.grid.size
        (rotations, optics), shifts = self._check_geometry(), self.particles.shifts
        values = disc.from_spectra(fourier.to_spectrum(images, dimensions=2))
        values *= np.float32((size / self.particles.box) ** 2)  # so that pixels keep their scale
        if shifts is not None:
            values *= centring_factors(shifts[rows], disc, self.grid.voxel_size)
        step = np.float32(1 / (size * self.grid.voxel_size))
        optics = optics[rows]
        transfer = transfer_function(optics, disc.x * step, disc.y * step)
        if self.particles.phase_flipped:
            transfer = np.abs(transfer)
        if self.particles.premultiplied:
            factor = flatten_premultiplied(transfer, np.asarray(optics.scale)[:, None])
            values, transfer = factor * values, factor * transfer**2
        return ImageBatch(
            disc,
            np.asarray(self.sign * values, np.complex64),
            transfer.astype(np.float32),
            rotations[rows].astype(np.float32),
            np.asarray(rows, np.int64),
            self.halves[rows],
        )


def flatten_premultiplied(
    transfer: Float[np.ndarray, "images pixels"], scale: Float[np.ndarray, "images 1"]
) -> Float[np.ndarray, "images pixels"]:
    """Find what makes the noise of premultiplied images stationary again, sign(C) / √(C² + ε).

    Such images are C² slice + C noise. Division by C would give the ordinary image, but it blows up
    what else they hold where C is tiny: rounding, and leaks from nearby frequencies by windows,
    interpolation and inexact defocus. Real tilt images have about 0.05 of the power at |C| = 1
    there. With the images and C² multiplied alike, the model of `ImageBatch` holds for any ε; only
    the variance of the noise depends on it. Over all phases of C, √ε ≈ 0.15 makes it 0.15 too low
    where nothing leaks, and 0.2 too high with those leaks.
    """
    least = np.where(scale == 0, 1, _LEAST_TRANSFER * scale) ** 2
    return np.copysign(1 / np.sqrt(transfer**2 + least), transfer)


def _skip(batches: Iterable[ImageBatch], start: int) -> Iterator[ImageBatch]:
    """Leave out the first images of a sequence of batches, and empty batches."""
    for batch in batches:
        if start < len(batch):
            yield batch.select(np.arange(start, len(batch))) if start else batch
        start = max(0, start - len(batch))

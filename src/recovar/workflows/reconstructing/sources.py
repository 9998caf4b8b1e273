"""What states are made from: the images of a run, or the same images at another size."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Selection
from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.grid import Grid
from recovar.core.noise_spectra import NoiseSpectra
from recovar.core.resampling import resample
from recovar.data.bank import ImageBank
from recovar.data.particles import Particles, read_particles
from recovar.data.stack import read_images
from recovar.errors import InputError
from recovar.noise import estimate_power
from recovar.workflows.finished import FinishedRun

logger = logging.getLogger(__name__)

_SAME_SIDE = 0.01
"""Relative difference up to which two boxes count as equally wide."""
_COMPARED = 16
"""Images of both sizes that are held against each other."""
_LEAST_CORRELATION = 0.8
"""Of an image and its smaller copy, on the frequencies that both have."""
_NOISE_IMAGES = 2_000
"""Images that the noise is measured on where a run has not done it."""


@dataclass(frozen=True)
class Source:
    """Images of a run at the size that states are wanted at, and what the run knows, there."""

    finished: FinishedRun
    particles: Particles
    grid: Grid

    @property
    def is_resized(self) -> bool:
        """Whether the images are not those that were analysed."""
        return self.grid.size != self.finished.grid.size

    def images(self, memory: int, block_bytes: int) -> ImageBank:
        """Open the stream of images.

        Args:
            memory: Bytes that images may take between passes.
            block_bytes: Bytes of one block of images.
        """
        return ImageBank(
            self.particles,
            self.finished.inputs.halves,
            memory,
            sign=self.finished.sign,
            block_bytes=block_bytes,
            box=self.grid.size,
        )

    def noise(self, executor: LocalExecutor) -> NoiseSpectra:
        """Give the noise of every image, with the power of images for that of another size.

        The noise only weighs shells and images against each other where images are averaged, so a
        profile that holds the signal as well costs hardly anything.
        """
        known = self.finished.noise()
        if not self.is_resized:
            return known
        images = self.images(0, 16 << 20)
        chosen = np.random.default_rng(0).permutation(len(images))[:_NOISE_IMAGES]
        some = Selection(images, np.sort(chosen))
        return known.with_shape(estimate_power(some, self.grid.size, executor))

    @cached_property
    def mask(self) -> Float[np.ndarray, "z y x"]:
        """Solvent mask."""
        return self._weights(self.finished.mask().mask)

    @cached_property
    def heterogeneity(self) -> Float[np.ndarray, "z y x"] | None:
        """Where molecules differ, 0 to 1, if that was learned."""
        learned = self.finished.components().heterogeneity
        return None if learned is None else self._weights(learned)

    def _weights(
        self, values: Float[np.ndarray, "z y x"]
    ) -> Float[np.ndarray, "new_z new_y new_x"]:
        values = values.astype(np.float32)
        if not self.is_resized:
            return values
        return np.clip(resample(values, self.finished.grid.voxel_size, self.grid), 0, 1)

    def components(self, count: int) -> Float[np.ndarray, "pcs z y x"]:
        """Give the first components; their projections keep the scale of pixels."""
        volumes = self.finished.components().principal.volumes[:count].astype(np.float32)
        if not self.is_resized or not len(volumes):
            return volumes if len(volumes) else np.zeros((0, *self.grid.volume_shape), np.float32)
        coarser = self.finished.grid.voxel_size
        scale = np.float32(self.grid.voxel_size / coarser)
        return np.stack([scale * resample(volume, coarser, self.grid) for volume in volumes])


def open_source(finished: FinishedRun, originals: Path | None) -> Source:
    """Find the images that states are made from.

    Args:
        finished: The run.
        originals: File of the same images at another size; None takes those that were analysed.

    Raises:
        InputError: If they are not the same images.
    """
    if originals is None:
        return Source(finished, finished.inputs.particles, finished.grid)
    config, rows = finished.config, finished.embedding(finished.zdims[0]).row
    particles = read_particles(
        (originals,),
        poses=config.poses,
        ctf=config.ctf,
        datadir=config.datadir,
        strip_prefix=config.strip_prefix,
    )
    if rows.max() >= len(particles):
        raise InputError(
            f"{originals}: expected at least the {rows.max() + 1} images that the run in "
            f"{finished.path} was made from, found {len(particles)}. Give the file that they were "
            "made smaller from."
        )
    particles = replace(particles.select(rows), half=None)
    grid, analysed = Grid(particles.box, particles.pixel_size), finished.grid
    sides = [each.size * each.voxel_size for each in (grid, analysed)]
    if abs(sides[0] / sides[1] - 1) > _SAME_SIDE:
        raise InputError(
            f"{originals}: expected images as wide as those of the run, {sides[1]:.4g} Å, found "
            f"{sides[0]:.4g} Å. Give the images that were made smaller, not cropped ones."
        )
    _compare(originals, particles, finished)
    logger.info(
        "States are made from %s, %d pixels of %.4g Å",
        originals,
        grid.size,
        grid.voxel_size,
    )
    return Source(finished, particles, grid)


def _compare(originals: Path, particles: Particles, finished: FinishedRun) -> None:
    """Hold some images of both sizes against each other."""
    analysed = finished.inputs.particles
    size = min(finished.grid.size, particles.box)
    rows = np.linspace(0, len(particles) - 1, min(_COMPARED, len(particles))).astype(np.int64)
    pairs = [
        fourier.to_volume(
            fourier.crop_spectrum(fourier.to_spectrum(read_images(each, rows), 2), size, 2), 2
        ).reshape(len(rows), -1)
        for each in (particles, analysed)
    ]
    centred = [images - images.mean(1, keepdims=True) for images in pairs]
    norms = np.prod([np.linalg.norm(images, axis=1) for images in centred], axis=0)
    similar = np.abs(np.sum(centred[0] * centred[1], axis=1)) / np.maximum(norms, 1e-30)
    if np.median(similar) < _LEAST_CORRELATION:
        raise InputError(
            f"{originals}: expected the images of the run in another size, found others: they "
            f"correlate by {np.median(similar):.2f} on the frequencies that both have. Rows must "
            "stand in the same order."
        )

"""A few images of a data set, small enough to try many readings on them."""

from math import ceil

import numpy as np
from jaxtyping import Int

from recovar.compute.progress import Progress
from recovar.conventions import Form, Reading, Sample
from recovar.core import fourier
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.data.particles import Particles, assign_halves
from recovar.data.stack import stream
from recovar.errors import InputError
from recovar.workflows.checking.alternatives import Stated

_RUNS = 8
"""Places in the table from which rows are taken."""
_BLOCK_PIXELS = 2**24
_LEAST_BOX = 16


def choose_rows(count: int, wanted: int) -> Int[np.ndarray, " chosen"]:
    """Choose rows that lie together in a few places, the same ones from either end of the table.

    So rows can be shifted against their images, or taken in reverse, without reading others.

    Example:
        >>> choose_rows(80, 16).tolist()
        [0, 1, 10, 11, 20, 21, 30, 31, 48, 49, 58, 59, 68, 69, 78, 79]
    """
    length = wanted // _RUNS
    if wanted >= count or not length:
        return np.arange(min(count, max(wanted, _RUNS)))
    starts = np.arange(_RUNS // 2) * (count // 2) // (_RUNS // 2)
    first = (starts[:, None] + np.arange(length)).ravel()
    return np.unique(np.concatenate([first, count - 1 - first]))


def sample_grid(particles: Particles, finest: float, largest: int) -> Grid:
    """Choose a grid on which shifts and transfer functions still matter, and work is quick.

    Args:
        particles: The images.
        finest: Least pixel size in Å.
        largest: Most pixels along a side.
    """
    width = particles.box * particles.pixel_size
    wanted = 2 * ceil(max(_LEAST_BOX, width / finest) / 2)
    return Grid(particles.box, particles.pixel_size).cropped(min(wanted, largest, particles.box))


def read_sample(
    particles: Particles, rows: Int[np.ndarray, " chosen"], grid: Grid, progress: Progress
) -> Sample:
    """Read images and keep their frequencies up to that of the grid.

    The mean of an image, which no reconstruction uses, is set to 0.
    """
    disc = Disc(grid.size, grid.largest_radius)
    chosen = particles.select(rows)
    values = np.empty((len(chosen), len(disc)), np.complex64)
    block = max(1, _BLOCK_PIXELS // particles.box**2)
    with progress.task("Images", len(chosen)) as advance:
        for read, images in stream(chosen, np.arange(len(chosen)), block):
            values[read] = disc.from_spectra(fourier.to_spectrum(images, dimensions=2))
            advance(len(read))
    values[:, 0] = 0
    if not np.any(values):
        raise InputError(
            f"{particles.stacks[0]}: expected images, found {len(chosen)} without any contrast. "
            "Copy or extract the stack again."
        )
    return Sample(grid, values, assign_halves(chosen, 0).astype(np.int64), chosen.particle)


def stated_reading(particles: Particles, rows: Int[np.ndarray, " chosen"], grid: Grid) -> Stated:
    """Take poses and transfer functions of some images as the files have them."""
    chosen = particles.select(rows)
    rotations, optics, shifts = chosen.rotations, chosen.optics, chosen.shifts
    if rotations is None or optics is None:
        raise InputError(
            "Expected poses and CTF parameters for every image, found none. Give them with "
            "--poses and --ctf."
        )
    reading = Reading(
        rotations,
        np.zeros((len(chosen), 2)) if shifts is None else shifts,
        optics,
        grid.voxel_size,
        np.arange(len(chosen)),
        _form(particles),
    )
    return Stated(reading, particles.pixel_size, particles.box)


def _form(particles: Particles) -> Form:
    if particles.premultiplied:
        return "premultiplied"
    return "flipped" if particles.phase_flipped else "plain"

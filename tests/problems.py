"""Small molecules with exact images, for tests that recover what is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from recovar.core.batch import ImageBatch
from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid


@dataclass(frozen=True)
class Molecule:
    """Gaussian blobs, whose maps and projections are known in closed form."""

    positions: np.ndarray
    """Centres x y z in voxels from the origin, one row per blob."""
    width: float = 1.2
    """Standard deviation in voxels."""

    def volume(self, size: int) -> np.ndarray:
        """Sample the density; every blob has a mass of one."""
        axis = np.arange(size) - size // 2
        lines = np.exp(-0.5 * ((axis - self.positions[..., None]) / self.width) ** 2)
        lines /= (2 * np.pi) ** 0.5 * self.width
        return np.einsum("az,ay,ax->zyx", lines[:, 2], lines[:, 1], lines[:, 0]).astype(np.float32)

    def project(self, rotations: np.ndarray, disc: Disc) -> np.ndarray:
        """Transform the line integrals along the viewing directions, on the pixels of a disc."""
        x, y = np.moveaxis(rotations[:, :2] @ self.positions.T, 1, 0)
        angles = x[..., None] * disc.x + y[..., None] * disc.y
        waves = np.exp(-2j * np.pi / disc.size * angles).sum(1)
        return waves * np.exp(-2 * (np.pi * self.width * disc.radii / disc.size) ** 2)


def random_molecule(seed: int, blobs: int = 12, spread: float = 3.0) -> Molecule:
    """Draw a cloud of blobs."""
    return Molecule(np.random.default_rng(seed).normal(scale=spread, size=(blobs, 3)))


@dataclass(frozen=True)
class ImageSource:
    """Images in memory, given in blocks."""

    images: ImageBatch
    block: int = 64

    def __len__(self) -> int:
        return len(self.images)

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        for first in range(start, len(self), self.block):
            yield self.images.select(np.arange(first, min(first + self.block, len(self))))


def random_noise(images: int, disc: Disc, variance, rng: np.random.Generator) -> np.ndarray:
    """Draw stationary noise with the given variance per shell of the unnormalized transform."""
    variance = np.broadcast_to(variance, disc.size // 2)[disc.shells]
    noise = rng.normal(size=(2, images, len(disc))) * np.sqrt(variance / 2)
    noise[0, :, 0] *= 2**0.5
    noise[1, :, 0] = 0
    return noise[0] + 1j * noise[1]


def observe(
    molecules: list[Molecule],
    grid: Grid,
    count: int,
    noise=0.0,
    contrast=1.0,
    seed: int = 0,
    defocus: tuple[float, float] | None = (8000.0, 20000.0),
) -> tuple[ImageSource, np.ndarray]:
    """Take images of molecules in turn: the first, the second, ..., the first again.

    Returns:
        The images, and which molecule each of them shows. Half sets alternate in pairs of rounds.
    """
    rng = np.random.default_rng(seed)
    disc = Disc(grid.size, grid.largest_radius)
    rotations = Rotation.random(count, rng=rng).as_matrix()
    states = np.arange(count) % len(molecules)
    transfer = np.ones((count, len(disc)))
    if defocus is not None:
        one = np.ones(count)
        u = rng.uniform(*defocus, size=count)
        optics = Optics(u, u, 0 * one, 300 * one, 2.7 * one, 0.1 * one, 0 * one, 0 * one, one)
        step = 1 / (grid.size * grid.voxel_size)
        transfer = transfer_function(optics, disc.x * step, disc.y * step)
    values = np.empty((count, len(disc)), complex)
    for state, molecule in enumerate(molecules):
        chosen = states == state
        values[chosen] = molecule.project(rotations[chosen], disc)
    values = values * transfer * np.broadcast_to(contrast, count)[:, None]
    values = values + random_noise(count, disc, noise, rng)
    batch = ImageBatch(
        disc,
        values.astype(np.complex64),
        transfer.astype(np.float32),
        rotations.astype(np.float32),
        np.arange(count),
        (np.arange(count) // len(molecules)) % 2,
    )
    return ImageSource(batch), states

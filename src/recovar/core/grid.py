"""The cubic grid that a volume and its images live on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from recovar.errors import InputError


@dataclass(frozen=True)
class Grid:
    """A cube of voxels; its images have the same size and pixel size.

    The real-space origin is at index size/2 on every axis. Fourier arrays are half-complex as
    `rfftn` leaves them: last axis halved, zero frequency in the corner, unnormalized.
    """

    size: int
    """Voxels along one side; even."""
    voxel_size: float
    """Side of a voxel in Å."""

    def __post_init__(self) -> None:
        if self.size < 4 or self.size % 2:
            raise InputError(
                f"Expected an even box of at least 4 pixels, got {self.size}. "
                "Crop or pad the images to an even size first."
            )
        if not self.voxel_size > 0:
            raise InputError(f"Expected a positive voxel size in Å, got {self.voxel_size}.")

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Shape of a volume, z y x."""
        return (self.size, self.size, self.size)

    @property
    def spectrum_shape(self) -> tuple[int, int, int]:
        """Shape of the half-complex transform of a volume."""
        return (self.size, self.size, self.size // 2 + 1)

    @property
    def largest_radius(self) -> int:
        """Largest frequency, in Fourier pixels, that has a distinct Friedel mate everywhere."""
        return self.size // 2 - 1

    @property
    def shells(self) -> int:
        """Number of shells 0 … size/2 − 1 that estimators use."""
        return self.size // 2

    def cropped(self, size: int) -> "Grid":
        """Give the grid of `size` voxels that covers the same cube: a Fourier crop."""
        return Grid(size, self.voxel_size * self.size / size)

    def at_radius(self, radius: int) -> "Grid":
        """Give the smallest grid that holds all frequencies up to `radius` Fourier pixels."""
        return self.cropped(min(self.size, max(8, 2 * (radius + 1))))

    def resolution(self, radius: float | int) -> float:
        """Convert a radius in Fourier pixels to a resolution in Å."""
        return self.size * self.voxel_size / radius


def frequencies(size: int) -> Int[np.ndarray, " n"]:
    """List the integer frequencies of a full axis, zero first."""
    return np.fft.fftfreq(size, 1 / size).astype(np.int32)


def volume_radii(size: int) -> Float[np.ndarray, "z y x"]:
    """Compute |k| in Fourier pixels for every stored coefficient of a half-complex volume."""
    k = frequencies(size).astype(np.float32) ** 2
    x = np.arange(size // 2 + 1, dtype=np.float32) ** 2
    return np.sqrt(k[:, None, None] + k[None, :, None] + x)


def image_radii(size: int) -> Float[np.ndarray, "y x"]:
    """Compute |k| in Fourier pixels for every stored coefficient of a half-complex image."""
    k = frequencies(size).astype(np.float32) ** 2
    return np.sqrt(k[:, None] + np.arange(size // 2 + 1, dtype=np.float32) ** 2)


def half_weights(size: int) -> Float[np.ndarray, " x"]:
    """Count how often a stored coefficient stands in the full spectrum, along the halved axis."""
    weights = np.full(size // 2 + 1, 2.0, np.float32)
    weights[[0, -1]] = 1.0
    return weights


def shell_average(values: Float[np.ndarray, "z y x"], size: int) -> Float[np.ndarray, " shells"]:
    """Average a real quantity on the points of a half-complex volume over spherical shells.

    Each stored coefficient stands for itself and, off the planes x = 0 and x = size/2, for its
    Friedel mate, so it is counted twice there.

    Returns:
        Mean on shells 0 … size/2 − 1, shell = round(|k|); corners are left out.

    Example:
        >>> shell_average(np.ones((8, 8, 5)), 8).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    shells = np.rint(volume_radii(size)).astype(np.int64).ravel()
    weights = np.broadcast_to(half_weights(size), values.shape).ravel().astype(np.float64)
    count = size // 2
    total = np.bincount(shells, weights * values.ravel(), minlength=count)[:count]
    return total / np.bincount(shells, weights, minlength=count)[:count]


def expand_shells(
    profile: Float[np.ndarray, " shells"], radii: Float[np.ndarray, "*points"]
) -> Float[np.ndarray, "*points"]:
    """Give every point the value of its shell; beyond the last shell the last value continues."""
    shells = np.minimum(np.rint(radii).astype(np.int64), len(profile) - 1)
    return np.asarray(profile)[shells]

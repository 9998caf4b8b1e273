"""Which Fourier coefficients are stored: a half disc of each image, a half ball of the volume.

Both keep one of every pair of Friedel mates where that is cheap. Estimators work on these flat
lists; the boundary to ordinary half-complex arrays is crossed here only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import isqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from recovar.core.grid import frequencies


@dataclass(frozen=True)
class Disc:
    """The pixels |k| ≤ radius of a half-complex image, one of every pair of Friedel mates.

    Pixels are sorted by |k|, so that the disc of a smaller radius is a prefix (`count`).
    """

    size: int
    """Side of the image in pixels."""
    radius: int
    """Largest |k| in Fourier pixels; at most size/2 − 1."""

    @cached_property
    def _coordinates(self) -> Int[np.ndarray, "2 pixels"]:
        y, x = np.meshgrid(frequencies(self.size), np.arange(self.size // 2 + 1), indexing="ij")
        square = x**2 + y**2
        keep = (square <= self.radius**2) & ((x > 0) | (y >= 0))
        order = np.lexsort((np.arctan2(y[keep], x[keep]), square[keep]))
        return np.stack([x[keep][order], y[keep][order]]).astype(np.int32)

    @property
    def x(self) -> Int[np.ndarray, " pixels"]:
        """Frequency along the columns, 0 … radius."""
        return self._coordinates[0]

    @property
    def y(self) -> Int[np.ndarray, " pixels"]:
        """Frequency along the rows, −radius … radius."""
        return self._coordinates[1]

    def __len__(self) -> int:
        """Count the pixels."""
        return self._coordinates.shape[1]

    @cached_property
    def radii(self) -> Float[np.ndarray, " pixels"]:
        """|k| of every pixel, ascending."""
        return np.hypot(self.x, self.y).astype(np.float32)

    @cached_property
    def shells(self) -> Int[np.ndarray, " pixels"]:
        """round(|k|) of every pixel."""
        return np.rint(self.radii).astype(np.int32)

    @cached_property
    def multiplicity(self) -> Float[np.ndarray, " pixels"]:
        """How often a pixel stands in the full spectrum: 2, and 1 at the origin."""
        weights = np.full(len(self), 2.0, np.float32)
        weights[0] = 1.0
        return weights

    def count(self, radius: float | int) -> int:
        """Count the leading pixels with |k| ≤ radius."""
        return int(np.searchsorted(self.radii, np.float32(radius), side="right"))

    def from_spectra(self, spectra: Any) -> Any:
        """Pick the disc from half-complex images (images, size, size/2 + 1)."""
        return spectra[..., self.y, self.x]

    def to_spectra(self, values: Any) -> Any:
        """Fill half-complex images from disc values (images, pixels), zero outside."""
        shape = (*values.shape[:-1], self.size, self.size // 2 + 1)
        column = (self.x == 0) & (self.y > 0)
        if isinstance(values, jax.Array):
            spectra = jnp.zeros(shape, values.dtype).at[..., self.y, self.x].set(values)
            return spectra.at[..., -self.y[column], 0].set(values[..., column].conj())
        spectra = np.zeros(shape, values.dtype)
        spectra[..., self.y, self.x] = values
        spectra[..., -self.y[column], 0] = values[..., column].conj()
        return spectra


@dataclass(frozen=True)
class Plane:
    """The voxels of a ball at one z."""

    z: int
    part: slice
    """Where they lie in the list of all voxels."""
    held: Bool[np.ndarray, "y x"]
    """Which cells of −reach ≤ y ≤ reach and 0 ≤ x < the length of the longest line they are."""


@dataclass(frozen=True)
class Ball:
    """The voxels of an oversampled half-complex volume that slices up to a radius can touch.

    Stored line by line: the line (z, y) holds x = 0 … its end, and starts at
    `offsets[z + reach, y + reach]`. A coefficient at x < 0 is the conjugate of its mate.
    """

    size: int
    """Side of the image in pixels."""
    radius: int
    """Largest |k| of the image pixels."""
    oversampling: int = 2
    """Voxels per Fourier pixel of the image."""
    band: tuple[int, int] | None = None
    """Only lines with first ≤ |z| < second are stored; others have the offset −1. Images can be
    added to a band, so that sums fit in memory, but slices need the whole ball."""

    @property
    def volume_size(self) -> int:
        """Side of the oversampled volume."""
        return self.size * self.oversampling

    @property
    def reach(self) -> int:
        """Largest |coordinate| of a stored voxel."""
        return self.radius * self.oversampling + 1

    @cached_property
    def lengths(self) -> Int[np.ndarray, "z y"]:
        """Count the voxels of every line."""
        limit = (self.radius * self.oversampling + 3**0.5) ** 2
        axis = np.arange(-self.reach, self.reach + 1)
        rest = np.floor(limit - axis[:, None] ** 2 - axis**2).astype(np.int64)
        ends = np.array([isqrt(v) + 1 if v >= 0 else 0 for v in rest.ravel()]).reshape(rest.shape)
        return np.minimum(ends, self.reach + 1) * self._in_band(axis)[:, None]

    def _in_band(self, z: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        first, last = self.band or (0, self.reach + 1)
        return (first <= np.abs(z)) & (np.abs(z) < last)

    @cached_property
    def offsets(self) -> Int[np.ndarray, "z y"]:
        """Index of the voxel x = 0 of every line."""
        lengths = self.lengths.ravel()
        offsets = (np.cumsum(lengths) - lengths).reshape(self.lengths.shape)
        offsets[~self._in_band(np.arange(-self.reach, self.reach + 1))] = -1
        return offsets

    @cached_property
    def _count(self) -> int:
        return int(self.lengths.sum())

    @property
    def whole(self) -> "Ball":
        """The ball that this is a band of."""
        return replace(self, band=None)

    @cached_property
    def places(self) -> Int[np.ndarray, " voxels"]:
        """Index of every voxel in the whole ball."""
        z, y, x = self.coordinates
        return self.whole.offsets[z + self.reach, y + self.reach] + x

    def bands(self, count: int) -> "list[Ball]":
        """Split the whole ball into at most `count` bands of similar numbers of voxels."""
        planes = self.whole.lengths.sum(1)[self.reach :].astype(float)
        planes[1:] *= 2
        done = np.cumsum(planes)
        cuts = np.searchsorted(done, done[-1] * np.arange(1, count) / count) + 1
        edges = np.unique([0, *cuts.tolist(), self.reach + 1]).tolist()
        return [replace(self, band=edge) for edge in pairwise(edges)]

    def __len__(self) -> int:
        """Count the voxels."""
        return self._count

    def planes(self) -> Iterator[Plane]:
        """Visit the voxels plane by plane, in their order, which takes little memory."""
        stop = 0
        for z, lengths in enumerate(self.lengths, -self.reach):
            start, stop = stop, stop + int(lengths.sum())
            if stop > start:
                yield Plane(z, slice(start, stop), np.arange(lengths.max()) < lengths[:, None])

    @cached_property
    def coordinates(self) -> Int[np.ndarray, "3 voxels"]:
        """Signed z, y, x of every voxel; `planes` takes less memory."""
        lengths = self.lengths.ravel()
        line = np.repeat(np.arange(lengths.size), lengths)
        x = np.arange(len(self)) - self.offsets.ravel()[line]
        z, y = np.divmod(line, self.lengths.shape[1])
        return np.stack([z - self.reach, y - self.reach, x]).astype(np.int32)

    @cached_property
    def radii(self) -> Float[np.ndarray, " voxels"]:
        """|k| of every voxel in Fourier pixels of the image."""
        square = np.arange(-self.reach, self.reach + 1, dtype=np.float32) ** 2
        radii = np.empty(len(self), np.float32)
        for plane in self.planes():
            x_square = square[self.reach : self.reach + plane.held.shape[1]]
            squares = (np.float32(plane.z**2) + square[:, None] + x_square)[plane.held]
            radii[plane.part] = np.sqrt(squares) / np.float32(self.oversampling)
        return radii

    @cached_property
    def weights(self) -> Float[np.ndarray, " voxels"]:
        """How often a voxel stands in the full spectrum: 1 at x = 0, else 2."""
        weights = np.full(len(self), 2, np.float32)
        weights[self._plane[0]] = 1
        return weights

    @cached_property
    def _plane(self) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Voxels at x = 0 and, for each, its Friedel mate."""
        stored = self.lengths > 0
        return self.offsets[stored], self.offsets[::-1, ::-1][stored]

    def fold(self, sums: Any, *, in_place: bool = False) -> Any:
        """Add to every voxel at x = 0 what its mate at −k received, once a sum is complete.

        A slice meets each Friedel pair of image pixels once; at x = 0 both members are stored.

        Args:
            sums: What images were added to, voxels first.
            in_place: Change a NumPy array instead of a copy of it.
        """
        voxels, mates = self._plane
        if isinstance(sums, jax.Array):
            return sums.at[voxels].add(sums[mates].conj())
        folded = sums if in_place else sums.copy()
        folded[voxels] += sums[mates].conj()
        return folded

    @cached_property
    def _cells(self) -> tuple[Int[np.ndarray, " n"], tuple[Int[np.ndarray, " n"], ...]]:
        """Voxels that the oversampled half-complex cube holds, and where it holds them."""
        inside = np.flatnonzero(np.abs(self.coordinates).max(0) < self.volume_size // 2)
        return inside, tuple(self.coordinates[:, inside])

    def from_cube(self, spectrum: Any) -> Any:
        """Pick the ball from an oversampled half-complex volume (z, y, x, …)."""
        inside, cells = self._cells
        if len(inside) == len(self):
            return spectrum[cells]
        shape = (len(self), *spectrum.shape[3:])
        if isinstance(spectrum, jax.Array):
            return jnp.zeros(shape, spectrum.dtype).at[inside].set(spectrum[cells])
        values = np.zeros(shape, spectrum.dtype)
        values[inside] = spectrum[cells]
        return values

    def to_cube(self, values: Any) -> Any:
        """Place ball values (voxels, …) in an oversampled half-complex volume, zero outside."""
        inside, cells = self._cells
        side = self.volume_size
        shape = (side, side, side // 2 + 1, *values.shape[1:])
        if isinstance(values, jax.Array):
            return jnp.zeros(shape, values.dtype).at[cells].set(values[inside])
        cube = np.zeros(shape, values.dtype)
        cube[cells] = values[inside]
        return cube

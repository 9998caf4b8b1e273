"""Regular grids over latent coordinates, with a margin so that blurs by Fourier transforms fit."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import fft

_PARALLEL = 100_000
"""Fewer numbers are not worth starting threads for."""


def _count_workers(size: int) -> int:
    return -1 if size > _PARALLEL else 1


@dataclass(frozen=True)
class LatentGrid:
    """A box of grid points, within a larger periodic one.

    What leaves the larger box at one end enters it at the other, so that margins must be as wide as
    kernels reach.
    """

    low: Float64[np.ndarray, " zdim"]
    """First point of the box along each coordinate."""
    high: Float64[np.ndarray, " zdim"]
    """Last point of the box."""
    points: tuple[int, ...]
    """Points of the box along each coordinate."""
    margin: tuple[int, ...]
    """Least number of further points on either side."""

    @cached_property
    def spacing(self) -> Float64[np.ndarray, " zdim"]:
        """Distance of points along each coordinate."""
        return (self.high - self.low) / (np.array(self.points) - 1)

    @property
    def axes(self) -> tuple[Float64[np.ndarray, "..."], ...]:
        """Places of the points of the box along each coordinate."""
        return tuple(
            np.linspace(low, high, count)
            for low, high, count in zip(self.low, self.high, self.points, strict=True)
        )

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Points of the larger box."""
        return tuple(
            int(fft.next_fast_len(count + 2 * margin, True) or 0)
            for count, margin in zip(self.points, self.margin, strict=True)
        )

    @cached_property
    def inner(self) -> tuple[slice, ...]:
        """Where the box is in the larger one."""
        return tuple(
            slice(margin, margin + count)
            for count, margin in zip(self.points, self.margin, strict=True)
        )

    def embed(self, inside: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Put values on the box into the larger one, with zeros around them."""
        whole = np.zeros(self.shape, inside.dtype)
        whole[self.inner] = inside
        return whole

    def quadratic(
        self, matrix: Float[np.ndarray, "zdim zdim"], precision: np.dtype
    ) -> Float[np.ndarray, "..."]:
        """Compute kᵀMk for the angular frequencies k of the larger box, half-complex."""
        last = len(self.shape) - 1
        frequencies = np.meshgrid(
            *(
                2 * np.pi * (fft.rfftfreq if axis == last else fft.fftfreq)(count, spacing)
                for axis, (count, spacing) in enumerate(zip(self.shape, self.spacing, strict=True))
            ),
            indexing="ij",
            sparse=True,
        )
        total = np.zeros((*self.shape[:-1], self.shape[-1] // 2 + 1), precision)
        for row, column in product(range(last + 1), repeat=2):
            total += (matrix[row, column] * frequencies[row] * frequencies[column]).astype(
                precision
            )
        return total

    def gaussian(
        self, covariance: Float[np.ndarray, "zdim zdim"], precision: np.dtype
    ) -> Float[np.ndarray, "..."]:
        """Compute the Fourier transform of a centred normal distribution, half-complex."""
        exponent = self.quadratic(covariance, precision)
        exponent *= -0.5
        return np.exp(exponent, out=exponent)

    def transform(self, values: Float[np.ndarray, "..."]) -> np.ndarray:
        """Transform values on the larger box; axes before its own are kept."""
        axes = range(-len(self.shape), 0)
        return np.asarray(fft.rfftn(values, axes=axes, workers=_count_workers(values.size)))

    def invert(self, spectrum: np.ndarray) -> Float[np.ndarray, "..."]:
        """Undo `transform`."""
        axes, workers = range(-len(self.shape), 0), _count_workers(spectrum.size)
        return np.asarray(fft.irfftn(spectrum, self.shape, axes=axes, workers=workers))

    def locate(self, places: Float[np.ndarray, "images zdim"]) -> "Shares":
        """Share each place among the 2^zdim points around it, so that its mean stays."""
        scaled = (places - self.low) / self.spacing + np.array(self.margin)
        inside = np.asarray(((scaled >= 0) & (scaled <= np.array(self.shape) - 1)).all(1))
        below = np.minimum(scaled[inside].astype(np.int64), np.array(self.shape) - 2)
        rest = scaled[inside] - below
        corners = np.array(list(product((0, 1), repeat=len(self.shape))))
        around = np.moveaxis(below[:, None] + corners, -1, 0)
        weights = np.prod(np.where(corners, rest[:, None], 1 - rest[:, None]), axis=-1)
        cells = np.asarray(np.ravel_multi_index(tuple(around), self.shape))
        return Shares(self.shape, inside, cells, weights)


@dataclass(frozen=True)
class Shares:
    """How places are shared among points of a grid."""

    shape: tuple[int, ...]
    """Of the grid."""
    inside: Bool[np.ndarray, " images"]
    """Places on the grid; only these are shared out."""
    cells: Int[np.ndarray, "kept corners"]
    """Numbers of points."""
    weights: Float[np.ndarray, "kept corners"]
    """Shares of points, which sum to 1."""

    def count(
        self,
        classes: Int[np.ndarray, " images"],
        number: int,
        weights: Float[np.ndarray, " images"],
    ) -> Float64[np.ndarray, "..."]:
        """Add up shares at every point.

        Args:
            classes: Class of every place, from 0.
            number: How many classes there are.
            weights: How often each place counts.

        Returns:
            Counts at all points, the first axis for classes.
        """
        size = int(np.prod(self.shape))
        flat = self.cells + size * classes[self.inside, None]
        amounts = self.weights * weights[self.inside, None]
        counts = np.bincount(flat.ravel(), amounts.ravel(), number * size)
        return counts.reshape(number, *self.shape)

"""Which way to read poses, shifts and transfer functions do the images themselves support.

Under every reading two half-maps are reconstructed, and each predicts the images of the other
half. A reading that is right predicts images better than one that is not; what it gains per image
gives odds between readings, and their uncertainty.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Complex, Float, Int

from recovar.core.batch import ImageBatch
from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import Grid
from recovar.core.halves import Halves
from recovar.core.projection import centring_factors
from recovar.core.slicing import Operators
from recovar.core.volumes import to_ball
from recovar.data.bank import flatten_premultiplied
from recovar.homogeneous import correlate, fold_means, mean_statistic

Form = Literal["plain", "flipped", "premultiplied", "corrected"]
"""What was done to images before: nothing, the phases of their transfer functions flipped, a
multiplication by these, or a full correction so that none is left."""

_BLOCK = 512
"""Images that are handled at once."""


@dataclass(frozen=True)
class Sample:
    """Some images of a data set, as they are in the files: neither centred nor corrected.

    The zero frequency is not used.
    """

    grid: Grid
    values: Complex[np.ndarray, "images pixels"]
    """Fourier coefficients on `disc`, unnormalized."""
    halves: Int[np.ndarray, " images"]
    """Half set of every row of the table, 0 or 1."""
    particle: Int[np.ndarray, " images"]
    """Which particle a row of the table belongs to; images of one are not independent."""

    @cached_property
    def disc(self) -> Disc:
        """Pixels of every image."""
        return Disc(self.grid.size, self.grid.largest_radius)

    @cached_property
    def power(self) -> Float[np.ndarray, " shells"]:
        """Mean power of the images, signal and noise; the zero frequency has that of shell 1."""
        power = _shells(np.abs(self.values) ** 2, self.disc).mean(0) / self.counts
        power[0] = power[1]
        return np.maximum(power, 1e-12 * power.max())

    @cached_property
    def counts(self) -> Int[np.ndarray, " shells"]:
        """Pixels of every shell."""
        return np.bincount(self.disc.shells)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.values)


@dataclass(frozen=True)
class Reading:
    """One way to understand what files say about images."""

    rotations: Float[np.ndarray, "images 3 3"]
    """Rows are the image axes in the frame of the molecule."""
    shifts: Float[np.ndarray, "images 2"]
    """Å, x y, that centre the images."""
    optics: Optics
    pixel_size: float
    """Å of the images of the sample."""
    order: Int[np.ndarray, " images"]
    """Image of the sample that every row of the table belongs to."""
    form: Form = "plain"

    def select(self, rows: Int[np.ndarray, " chosen"] | slice) -> "Reading":
        """Keep some rows of the table."""
        return replace(
            self,
            rotations=self.rotations[rows],
            shifts=self.shifts[rows],
            optics=self.optics[rows],
            order=self.order[rows],
        )

    def says_the_same(self, other: "Reading") -> bool:
        """Tell whether two readings differ by nothing that images could show."""
        same = self.form == other.form and self.pixel_size == other.pixel_size
        pairs = [
            (self.rotations, other.rotations, 1e-4),
            (self.shifts, other.shifts, 1e-3 * self.pixel_size),
            (self.order, other.order, 0),
        ]
        if self.form != "corrected":
            pairs += [(a, b, 0) for a, b in zip(_optics(self), _optics(other), strict=True)]
        return same and all(np.allclose(a, b, rtol=1e-6, atol=most) for a, b, most in pairs)


def _optics(reading: Reading) -> list[np.ndarray]:
    return [np.asarray(field) for field in vars(reading.optics).values()]


@dataclass(frozen=True)
class Evidence:
    """What the images say about a reading."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    """Maps of the two half sets, each shrunk by what the correlation of both implies."""
    curve: Float[np.ndarray, " shells"]
    """Correlation of the half-maps."""
    likelihood: Float[np.ndarray, " images"]
    """Log-likelihood of every image, predicted by the half-map that it is not in."""
    baseline: Float[np.ndarray, " images"]
    """The same where nothing is predicted."""

    @property
    def volume(self) -> Float[np.ndarray, "z y x"]:
        """Mean of the two half-maps."""
        return 0.5 * (self.halves.first + self.halves.second)


@dataclass(frozen=True)
class Odds:
    """How much better one reading is than another."""

    ratio: float
    """Decimal logarithm of the likelihood ratio over all images."""
    deviations: float
    """Mean gain of a particle over its standard error."""

    @property
    def log10(self) -> float:
        """Decimal logarithm of the odds that may be claimed.

        Likelihoods of images take the noise for known and the molecule for rigid. So odds are no
        larger than those of a normal mean as many standard errors away from 0 as is seen.
        """
        bound = 0.5 * self.deviations**2 / np.log(10)
        return float(np.sign(self.ratio) * min(abs(self.ratio), bound))


def compare(gains: Float[np.ndarray, " images"], particle: Int[np.ndarray, " images"]) -> Odds:
    """Sum differences of log-likelihoods, with the spread between particles.

    Args:
        gains: Log-likelihood of every image under one reading, less that under another.
        particle: Which particle an image shows.

    Example:
        >>> odds = compare(np.array([2.0, 3.0, 2.0, 3.0]), np.arange(4))
        >>> round(odds.ratio, 2), round(odds.deviations, 2)
        (4.34, 8.66)
    """
    _, which = np.unique(particle, return_inverse=True)
    each = np.bincount(which.reshape(-1), gains)
    total, count = float(each.sum()), len(each)
    spread = float(each.std(ddof=1)) if count > 1 else np.inf
    deviations = total / (spread * count**0.5) if spread > 0 else 0.0
    return Odds(float(total / np.log(10)), deviations)


def weigh(sample: Sample, reading: Reading, operators: Operators) -> Evidence:
    """Reconstruct both halves as a reading says, and predict every image by the other half.

    Predictions are scaled shell by shell as fits best, so that how far maps were shrunk does not
    count: it changes the likelihoods of all images alike, which their spread could not show.

    Args:
        sample: Images.
        reading: What is believed about them.
        operators: Implementation of slicing and backprojection.
    """
    ball = Ball(sample.grid.size, sample.grid.largest_radius)
    statistic = mean_statistic(sample.power, ball, operators)
    batches = list(_batches(sample, reading))
    sums = statistic.zeros()
    for batch, _ in batches:
        sums = statistic.add(sums, batch)
    folded = next(fold_means(sums, ball))
    curve = correlate(folded.halves())
    halves = folded.halves(folded.prior(curve))
    spectra = halves.map(lambda half: to_ball(half, ball)[:, None])
    parts = [_predict(batch, logarithms, spectra, ball, operators) for batch, logarithms in batches]
    cross, square, power, logarithms = (np.concatenate(part) for part in zip(*parts, strict=True))
    total = square.sum(0)
    scale = np.divide(cross.sum(0), total, out=np.zeros_like(total), where=total > 0)
    scale = np.maximum(scale, 0)
    residual = power - 2 * scale * cross + scale**2 * square
    shells = slice(1, None)
    return Evidence(
        halves,
        curve,
        _likelihood(residual[:, shells], sample.counts[shells]) + logarithms,
        _likelihood(power[:, shells], sample.counts[shells]) + logarithms,
    )


def _batches(
    sample: Sample, reading: Reading
) -> Iterator[tuple[ImageBatch, Float[np.ndarray, " images"]]]:
    """Centre images and give them their transfer functions, with what makes densities comparable.

    A factor on the images changes the density of their likelihood by its logarithm.
    """
    disc = sample.disc
    for start in range(0, len(sample), _BLOCK):
        rows = slice(start, start + _BLOCK)
        part = reading.select(rows)
        values = sample.values[part.order]
        values = values * centring_factors(part.shifts, disc, part.pixel_size)
        transfer, factor = _transfer(part, disc)
        logarithms = np.zeros(len(values))
        if factor is not None:
            values *= factor
            logarithms = 2 * np.log(np.abs(factor[:, 1:])).sum(1, dtype=np.float64)
        yield (
            ImageBatch(
                disc,
                values,
                transfer,
                part.rotations.astype(np.float32),
                np.arange(start, start + len(values)),
                sample.halves[rows],
            ),
            logarithms,
        )


def _transfer(
    reading: Reading, disc: Disc
) -> tuple[Float[np.ndarray, "images pixels"], Float[np.ndarray, "images pixels"] | None]:
    """Evaluate what multiplies slices, and a factor on images that makes noise stationary."""
    optics = Optics(*(field.astype(np.float32) for field in _optics(reading)))
    if reading.form == "corrected":
        return np.ones((len(optics), len(disc)), np.float32), None
    step = np.float32(1 / (disc.size * reading.pixel_size))
    transfer = transfer_function(optics, disc.x * step, disc.y * step)
    if reading.form == "flipped":
        return np.abs(transfer), None
    if reading.form == "premultiplied":
        factor = flatten_premultiplied(transfer, np.asarray(optics.scale)[:, None]).astype(
            np.float32
        )
        return factor * transfer**2, factor
    return transfer, None


def _predict(
    batch: ImageBatch,
    logarithms: Float[np.ndarray, " images"],
    spectra: Halves[Complex[np.ndarray, "voxels 1"]],
    ball: Ball,
    operators: Operators,
) -> tuple[np.ndarray, ...]:
    """Sum products of images and predictions over shells, and squares of both."""
    predicted = np.zeros_like(batch.values)
    for half, spectrum in enumerate((spectra.second, spectra.first)):
        rows = np.flatnonzero(batch.halves == half)
        if rows.size:
            slices = operators.slice_volumes(spectrum, batch.rotations[rows], batch.disc, ball)
            predicted[rows] = batch.transfer[rows] * np.asarray(slices)[..., 0]
    products = (
        np.real(predicted.conj() * batch.values),
        np.abs(predicted) ** 2,
        np.abs(batch.values) ** 2,
    )
    return *(_shells(each, batch.disc) for each in products), logarithms


def _shells(
    values: Float[np.ndarray, "images pixels"], disc: Disc
) -> Float[np.ndarray, "images shells"]:
    starts = np.searchsorted(disc.shells, np.arange(disc.radius + 1))
    return np.add.reduceat(values, starts, axis=1, dtype=np.float64)


def _likelihood(
    squares: Float[np.ndarray, "images shells"], counts: Int[np.ndarray, " shells"]
) -> Float[np.ndarray, " images"]:
    """Evaluate Gaussian log-likelihoods whose variance per shell is the one that fits best."""
    variance = np.maximum(squares.mean(0) / counts, np.finfo(np.float64).tiny)
    return -(squares / variance).sum(1) - float((counts * np.log(variance)).sum())

"""The maximization step: volumes that explain the images best, given the moments of the latents.

Two priors keep noise out of the components: one per shell, from how well the half sets agree, and
one in real space that learns where the molecule varies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Complex, Float, Inexact, Int

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.halves import Halves
from recovar.core.solve_numba import solve_packed
from recovar.core.volumes import from_ball
from recovar.expectation import LatentMoments, Model, Moments
from recovar.regularization import fsc, relevance, signal_to_noise

_HALF_RIDGE, _RIDGE = 1e-4, 1e-6
_LEAST_CURVATURE = 1e-3
"""What is known of a voxel is raised by this share of its shell's average."""
Collect = Callable[[Ball], Moments]
"""Sums the moments of all images on a ball or a band of it."""


@dataclass(frozen=True)
class Regions:
    """Which part of the molecule each component is of."""

    parts: Float[np.ndarray, "regions z y x"]
    """Share of each voxel that the components of a region may change, 0 to 1."""
    members: Int[np.ndarray, " pcs"]
    """Region of every component, ascending."""

    def blocks(self) -> list[slice]:
        """Give the components of each region."""
        return blocks_of(self.members)


def blocks_of(members: Int[np.ndarray, " pcs"]) -> list[slice]:
    """Give the places of each region in a list of regions that ascends from 0.

    Example:
        >>> blocks_of(np.array([0, 0, 1]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    ends = np.cumsum(np.bincount(members)).tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@dataclass(frozen=True)
class Update:
    """New volumes, and what they were made with."""

    volumes: Float[np.ndarray, "channels z y x"]
    """Mean and components, before they are made orthogonal."""
    weight: Float[np.ndarray, "z y x"]
    """Real-space weight of the components, 0 to 1."""
    latents: LatentMoments
    """Moments of the coordinates and contrasts that they explain the images with."""
    members: Int[np.ndarray, " pcs"]
    """Region of every component, ascending."""


@dataclass(frozen=True)
class Maximizer:
    """How new volumes are made at one radius."""

    ball: Ball
    mask: Float[np.ndarray, "z y x"]
    """Where density may be, on the grid of this radius."""
    bands: int
    """Parts that the sums are made in, to bound the memory; changes nothing else."""
    regions: Regions | None = None
    """What each component may change; all of them everything if not given."""

    def maximize(self, collect: Collect, strength: float, shrinkage: float) -> Update:
        """Solve for mean and components, and shrink the components where nothing varies.

        Args:
            collect: Sums moments over the images; called once per band, or twice if there are
                several bands and a prior.
            strength: Of the signal that half sets share, as the ratio of box to molecule; 0
                leaves out the prior per shell.
            shrinkage: Multiple of the noise floor that real-space variance must exceed.
        """
        bands = self.ball.bands(self.bands) if self.bands > 1 else [self.ball]
        prior = None

        gather = _folding(collect)
        if strength > 0:
            moments, halves = self._solve(bands, gather, self._solve_halves)
            prior = self._prior(moments.latents, halves, strength)
            if len(bands) == 1:
                gather = _kept(moments)
            del moments, halves
        moments, solved = self._solve(
            bands, gather, lambda moments, band: [self._solve_whole(moments, band, prior)]
        )
        latents = moments.latents
        del moments
        volumes = self._maps(solved[0])
        regions = self._regions(len(volumes) - 1)
        weights = [
            self._confine(volumes[0], volumes[1:][block], part, shrinkage)
            for block, part in zip(regions.blocks(), regions.parts, strict=True)
        ]
        return Update(volumes, np.max(weights, axis=0), latents, regions.members)

    def _confine(
        self,
        mean: Float[np.ndarray, "z y x"],
        components: Float[np.ndarray, "pcs z y x"],
        part: Float[np.ndarray, "z y x"],
        shrinkage: float,
    ) -> Float[np.ndarray, "z y x"]:
        """Take out, in place, what is noise or out of the region, and give the weight.

        Noise is judged in all of the molecule: a region may vary everywhere.
        """
        weight = part
        if shrinkage > 0:
            variance = (components**2).sum(0)
            weight = relevance(variance, mean, self.mask, shrinkage) * part
        components *= weight
        return weight

    def _regions(self, pcs: int) -> Regions:
        if self.regions is not None:
            return self.regions
        return Regions(np.ones_like(self.mask)[None], np.zeros(pcs, np.int64))

    def maximize_halves(
        self, collect: Collect, strength: float
    ) -> Halves[Float[np.ndarray, "channels z y x"]]:
        """Solve for mean and components of each half set by itself, with the same prior.

        Args:
            collect: Sums moments over the images; called once per band, or twice if there are
                several bands.
            strength: Of the signal that half sets share, as the ratio of box to molecule.
        """
        bands = self.ball.bands(self.bands) if self.bands > 1 else [self.ball]
        gather = _folding(collect)
        moments, halves = self._solve(bands, gather, self._solve_halves)
        prior = self._prior(moments.latents, halves, strength)
        if len(bands) == 1:
            gather = _kept(moments)
        del moments, halves
        _, solved = self._solve(
            bands, gather, lambda moments, band: self._solve_halves(moments, band, prior)
        )
        return Halves(self._maps(solved[0]), self._maps(solved[1]))

    def _solve(
        self, bands: list[Ball], gather: Collect, solve: Callable[[Moments, Ball], list[np.ndarray]]
    ) -> tuple[Moments, list[Complex[np.ndarray, "voxels channels"]]]:
        """Solve band by band, and put the parts together; keeps the sums of the last band."""
        moments = gather(bands[0])
        pieces = [solve(moments, bands[0])]
        for band in bands[1:]:
            del moments  # makes room
            moments = gather(band)
            pieces.append(solve(moments, band))
        return moments, self._assemble(bands, pieces)

    def _average(self, latents: LatentMoments) -> Float[np.ndarray, "shells channels"]:
        """Average what one half set knows of each volume over the voxels of a shell."""
        counts = np.bincount(self._shells(self.ball), self.ball.weights)
        return 0.5 * latents.power / counts[:, None]

    def _shells(self, ball: Ball) -> np.ndarray:
        return np.minimum(np.rint(ball.radii).astype(np.int64), ball.radius)

    def _solve_halves(
        self,
        moments: Moments,
        band: Ball,
        prior: Float[np.ndarray, "shells channels"] | None = None,
    ) -> list[Complex[np.ndarray, "voxels channels"]]:
        total = _LEAST_CURVATURE * self._average(moments.latents)
        if prior is not None:
            total = total + prior
        floor = total[self._shells(band)].astype(np.float32)
        return [
            solve_packed(np.asarray(curvature), np.asarray(response), floor, _HALF_RIDGE)
            for curvature, response in zip(moments.curvature, moments.response, strict=True)
        ]

    def _solve_whole(
        self, moments: Moments, band: Ball, prior: Float[np.ndarray, "shells channels"] | None
    ) -> Complex[np.ndarray, "voxels channels"]:
        total = _LEAST_CURVATURE * self._average(moments.latents)
        if prior is not None:
            total = total + prior
        return solve_packed(
            _added(*moments.curvature),
            _added(*moments.response),
            total[self._shells(band)].astype(np.float32),
            _RIDGE,
        )

    def _assemble(
        self, bands: list[Ball], pieces: list[list[np.ndarray]]
    ) -> list[Complex[np.ndarray, "voxels channels"]]:
        """Put what was solved band by band together on the whole ball."""
        if len(bands) == 1:
            return pieces[0]
        shape = (len(self.ball), pieces[0][0].shape[1])
        whole = [np.empty(shape, np.complex64) for _ in pieces[0]]
        for band, parts in zip(bands, pieces, strict=True):
            for target, part in zip(whole, parts, strict=True):
                target[band.places] = part
        return whole

    def _maps(
        self, solution: Complex[np.ndarray, "voxels channels"]
    ) -> Float[np.ndarray, "channels z y x"]:
        return np.stack([from_ball(column, self.ball) * self.mask for column in solution.T])

    def _prior(
        self,
        latents: LatentMoments,
        halves: list[Complex[np.ndarray, "voxels channels"]],
        strength: float,
    ) -> Float[np.ndarray, "shells channels"]:
        """Compute the inverse variance of each component by shell; the mean needs no prior."""
        average = self._average(latents)
        prior = np.zeros_like(average)
        regions = self._regions(average.shape[1] - 1)
        for k, region in enumerate(regions.members, 1):
            mask = self.mask * regions.parts[region]
            maps = [from_ball(half[:, k], self.ball) * mask for half in halves]
            curve = fsc(*(fourier.to_spectrum(volume) for volume in maps))
            ratio = strength * signal_to_noise(curve[: self.ball.radius + 1])
            prior[:, k] = average[:, k] / ratio
        return prior


def _folding(collect: Collect) -> Collect:
    return lambda band: _folded(collect(band), band)


def _kept(moments: Moments) -> Collect:
    """Give sums that are there already."""
    return lambda _band: moments


def _folded(moments: Moments, ball: Ball) -> Moments:
    return Moments(
        tuple(ball.fold(part, in_place=True) for part in moments.curvature),
        tuple(ball.fold(part, in_place=True) for part in moments.response),
        moments.latents,
    )


def _added(
    first: Inexact[np.ndarray | jax.Array, "voxels n"],
    second: Inexact[np.ndarray | jax.Array, "voxels n"],
) -> Inexact[np.ndarray, "voxels n"]:
    """Add the half sets, in the memory of the first where that can be written."""
    if isinstance(first, np.ndarray):
        return np.add(first, second, out=first)
    return np.asarray(first + second)


def orthogonalize(update: Update) -> Model:
    """Make components orthogonal with unit-variance coordinates, and the mean contrast 1.

    Those of different regions are not mixed: the prior takes their coordinates as independent.
    """
    volumes, latents = update.volumes, update.latents
    count, contrasts, squares, variances = latents.contrast
    explained = latents.explained / count
    total = explained + latents.unsure / count
    pcs = len(total)
    flat = volumes[1:].reshape(pcs, -1)
    turn = np.zeros((pcs, pcs))
    for block in blocks_of(update.members):
        turn[block, block] = _gauge(flat[block], total[block, block])
    back = np.linalg.inv(turn)
    scale = float(contrasts / count)
    spread = float(np.sqrt(max(squares / count - scale**2, 0) + variances / count)) / scale
    components = (turn.T.astype(np.float32) @ flat).reshape(volumes[1:].shape)
    return Model(
        scale * np.concatenate([volumes[:1], components]),
        spread,
        np.diag(back @ explained @ back.T),
    )


def _gauge(
    flat: Float[np.ndarray, "pcs voxels"], total: Float[np.ndarray, "pcs pcs"]
) -> Float[np.ndarray, "pcs pcs"]:
    """Find the mixture that makes components orthogonal and their coordinates of unit variance."""
    pcs = len(total)
    root = np.linalg.cholesky(total + 1e-9 * np.trace(total) / pcs * np.eye(pcs))
    gram = root.T @ (flat @ flat.T).astype(np.float64) @ root
    return root @ np.linalg.eigh(gram)[1][:, ::-1]


def bytes_of_sums(ball: Ball, pcs: int) -> int:
    """Predict the memory of the sums of both half sets and of the solutions."""
    channels = pcs + 1
    pairs = channels * (channels + 1) // 2
    return 2 * len(ball) * (4 * pairs + 24 * channels)

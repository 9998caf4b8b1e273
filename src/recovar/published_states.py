"""Volumes at latent points, by the published rule.

Images are binned by their distance to the point, bins become kernels of growing width, and the
width is chosen in every window and shell by cross-validation.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from recovar.compute.accumulate import Images, Statistic, together
from recovar.compute.executors import Checkpoint, LocalExecutor
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.halves import Halves
from recovar.core.noise_spectra import ImageNoise
from recovar.core.slicing import Operators
from recovar.homogeneous import FoldedSums, MeanSums, mean_statistic, weights_on_grid
from recovar.latent_weights import LatentPosterior
from recovar.local_choice import Chosen, choose_locally

_BLOCK = 4096
"""Images handled at once; bounds the memory."""
_LEAST_SHARE = 1e-6
"""Directions that an image determines less than this share of its best are left out."""
_LEAST_IMAGES = 100
"""Images of the first half set in the first bin."""
_FAR = 0.95
"""Images of the first half set that lie in bins."""
_CHANNELS = 8
"""Bins that are summed together; with both half sets they fill the vectors of the fast path."""


def sampling_distances(
    posterior: LatentPosterior, points: Float[np.ndarray, "states zdim"]
) -> Float[np.ndarray, "images states"]:
    """Measure squared distances in units of how far estimates scatter about the truth.

    An image whose posterior covariance is S has the information G = S⁻¹ − Λ⁻¹; over its noise, its
    posterior mean has the covariance S G S. With s for the eigenvalues of Λ^(−½) S Λ^(−½), the
    inverse of this has s⁻¹ (1 − s)⁻¹ in the same basis.

    Args:
        posterior: Where the images lie; its variances are Λ.
        points: Latent points.

    Raises:
        InputError: If the points do not fit the posterior.

    Source: Gilles & Singer 2025, the precision that its embeddings are saved with. Directions
    that an image says next to nothing about are left out, there by the eigenvalues of G.
    """
    posterior.check(points)
    scale = np.sqrt(np.maximum(posterior.variances, np.finfo(np.float64).tiny))
    distances = np.empty((len(posterior), len(points)))
    for start in range(0, len(posterior), _BLOCK):
        block = slice(start, start + _BLOCK)
        unsure = posterior.covariances[block] / (scale[:, None] * scale)
        shares, basis = np.linalg.eigh(unsure)
        shares = np.clip(shares, _LEAST_SHARE, 1)
        known = 1 / shares - 1
        kept = known > _LEAST_SHARE * known.max(axis=1, keepdims=True)
        precision = np.divide(1, shares * (1 - shares), out=np.zeros_like(known), where=kept)
        apart = (points.T[None] - posterior.means[block][:, :, None]) / scale[:, None]
        turned = basis.transpose(0, 2, 1) @ apart
        distances[block] = np.einsum("nk,nks->ns", precision, turned**2)
    return distances


@dataclass(frozen=True)
class Bins:
    """Images around points, by distance."""

    edges: Float[np.ndarray, "bins states"]
    """Largest distance in every bin."""
    members: Int[np.ndarray, "images states"]
    """Bin of every image; the number of bins for those in none."""

    def __len__(self) -> int:
        """Count the bins of a point."""
        return len(self.edges)

    def nearest(self, state: int) -> int:
        """Count the images in the first bin of a point."""
        return int(np.count_nonzero(self.members[:, state] == 0))


def bin_images(
    distances: Float[np.ndarray, "images states"],
    halves: Int[np.ndarray, " images"],
    count: int,
) -> Bins:
    """Bin images so that the roots of the bins' edges are evenly spaced.

    The first bin ends at the image of the first half set that is the 100th in distance, the last
    one at the 95th percentile of this half set. What lies further out is in no bin, although the
    widest kernels would reach it: to let it count takes half as many bins more, and gained nothing
    that could be measured.

    Args:
        distances: Squared distances of all images to all points.
        halves: Half set of every image.
        count: Number of bins.

    Source: Gilles & Singer 2025.
    """
    first = np.sort(distances[halves == 0], axis=0)
    nearest = first[min(_LEAST_IMAGES, len(first)) - 1] * (1 + 1e-8)
    furthest = np.maximum(np.quantile(first, _FAR, axis=0), nearest)
    edges = np.linspace(np.sqrt(nearest), np.sqrt(furthest), count) ** 2
    edges[0] = nearest
    members = [np.searchsorted(*pair) for pair in zip(edges.T, distances.T, strict=True)]
    return Bins(edges, np.stack(members, axis=1))


BinSums = tuple[MeanSums, ...]
"""A few bins each: all of the first point, then all of the second."""


@dataclass(frozen=True)
class Binned:
    """What is to be summed."""

    ball: Ball
    """Where sums lie; sets the frequencies that are used."""
    noise: ImageNoise
    """Of every image."""
    contrast: Float[np.ndarray, " images"]
    """Factor on every image's signal, by row."""
    bins: Bins
    operators: Operators
    """Implementation of the backprojection."""

    def statistic(self) -> Statistic[BinSums]:
        """Sum all bins of all points; every image is in one bin of a point at most."""
        states = self.bins.members.shape[1]
        return together(*(self._sum(s, part) for s in range(states) for part in self.parts))

    @property
    def parts(self) -> list[np.ndarray]:
        """Bins of a point that are summed together."""
        bins = len(self.bins)
        return np.array_split(np.arange(bins), -(-bins // _CHANNELS))

    def _sum(self, state: int, bins: Int[np.ndarray, " some"]) -> Statistic[MeanSums]:
        members = self.bins.members[:, state]
        weights = (members[:, None] == bins).astype(np.float32)
        every = mean_statistic(self.noise, self.ball, self.operators, self.contrast, weights)
        wanted = weights.any(axis=1)

        def add(sums: MeanSums, batch: ImageBatch) -> MeanSums:
            chosen = np.flatnonzero(wanted[batch.rows])
            return every.add(sums, batch.select(chosen)) if len(chosen) else sums

        return Statistic(every.zeros, add)


def sum_bins(
    images: Images,
    binned: Binned,
    executor: LocalExecutor,
    checkpoint: Checkpoint | None = None,
) -> BinSums:
    """Sum over all images, in one pass.

    Args:
        images: All images.
        binned: What to sum.
        executor: Who runs the pass.
        checkpoint: Where to keep partial sums.
    """
    return executor.accumulate("States", binned.statistic(), images, checkpoint)


def choose_states(
    sums: BinSums, binned: Binned, mask: Float[np.ndarray, "z y x"]
) -> Iterator[Chosen]:
    """Turn complete sums into half-maps, one point after the other.

    Args:
        sums: Complete.
        binned: What was summed.
        mask: Where the width of kernels is chosen; elsewhere it is the largest one.

    Source: Gilles & Singer 2025. Other than there, the sums that make the half-maps, on a grid
    twice as fine as the images', also make what is chosen from; there images are summed again.
    """
    parts = len(binned.parts)
    for state in range(binned.bins.members.shape[1]):
        own = sums[state * parts : (state + 1) * parts]
        yield _choose(own, binned.bins.edges[:, state], binned.ball, mask)


def _choose(
    sums: BinSums,
    edges: Float[np.ndarray, " bins"],
    ball: Ball,
    mask: Float[np.ndarray, "z y x"],
) -> Chosen:
    kernels = _widen(sums, edges, ball)
    narrowest = next(kernels)
    known = Halves(*(weights_on_grid(each, ball) for each in narrowest.weights.T))
    first, second = np.empty((2, len(edges), *mask.shape), np.float32)
    for level, kernel in enumerate(itertools.chain([narrowest], kernels)):
        first[level], second[level] = kernel.halves()
    return choose_locally(Halves(first, second), known, mask)


def _widen(sums: BinSums, edges: Float[np.ndarray, " bins"], ball: Ball) -> Iterator[FoldedSums]:
    """Make the first bin, and then a kernel for every further edge h, of all bins.

    Bins of edge e count 1 − e / 2h where that is positive, so what has to be kept is the sum of
    the bins up to there, and the same weighted by e.
    """
    bins = _visit(sums)
    relative = np.divide(edges, edges[-1], out=np.ones(len(edges)), where=edges[-1] > 0)
    near = [part.copy() for part in next(bins)]
    far = [np.float32(relative[0]) * part for part in near]
    values, weights = map(ball.fold, near)
    yield FoldedSums(values, weights, ball)
    taken = 1
    for width in relative[1:]:
        while taken < len(edges) and relative[taken] < 2 * width:
            for each, more, part in zip(near, far, next(bins), strict=True):
                each += part
                more += np.float32(relative[taken]) * part
            taken += 1
        values, weights = (
            ball.fold(each - more / np.float32(2 * width), in_place=True)
            for each, more in zip(near, far, strict=True)
        )
        yield FoldedSums(values, weights, ball)


def _visit(sums: BinSums) -> Iterator[list[np.ndarray]]:
    """Give values and weights of one bin after the other, of both half sets."""
    for some in sums:
        count = some.values.shape[1] // 2
        for channel in range(count):
            yield [np.asarray(part)[:, channel::count] for part in (some.values, some.weights)]


def bytes_of_bins(ball: Ball, bins: int) -> int:
    """Predict the memory of the sums over all images for one point."""
    return 2 * 12 * len(ball) * bins


def bytes_of_choice(size: int, bins: int) -> int:
    """Predict the memory that a choice among maps of `size` voxels along a side takes."""
    return 4 * 6 * size**3 * bins

"""The covariance of latent coordinates along given components, by maximum likelihood.

Priors that keep noise out of components make them too small, and with them the variances that were
fitted along. Here the components stay as they are and only variances are fitted, to the inner
products that a pass over the images has stored.
"""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from recovar.core.linalg import eigh_descending
from recovar.posterior import ImageStatistics, infer
from recovar.self_influence import ShellProducts

_BLOCK = 2048
"""Images handled at once; bounds the memory."""
_FIRST, _MOST = 4096, 50_000
"""Images that the first iterations and all others are done with."""
_ITERATIONS = 25, 5
"""Most iterations with either."""
_CHANGE = 1e-2
"""Relative change of the covariance where to stop."""
_LARGEST_STEP = 4.0
"""Factor that a variance changes by in one iteration at most."""
_LEAST_DETERMINED = 0.05
"""Steps are not lengthened further where images say still less."""
_LEAST_CONFIRMED = 0.05
"""Share of a coordinate's variance that images must determine, once relieved of their own noise."""
_ROUNDS = 12
"""Most times that variances are fitted to images relieved of their own noise."""
_MOST_OWN = 0.4
"""Share of what images say of a coordinate that may be their own noise."""
_SETTLED = 0.01
"""Change of the share of a coordinate that images determine, where to stop."""
_LEAST_SHARE = 1e-6
"""Variances are at least this share of the largest one."""
_LEAST_SD, _MOST_SD = 0.01, 0.5
"""Bounds of the spread of contrasts."""


@dataclass(frozen=True)
class LatentCovariance:
    """How coordinates and contrasts vary among molecules."""

    covariance: Float[np.ndarray, "pcs pcs"]
    """Of the coordinates along the components that images were compared with."""
    contrast_sd: float
    """Spread of contrasts about 1; 0 where contrast is not estimated."""

    def axes(
        self, regions: Int[np.ndarray, " pcs"] | None = None
    ) -> tuple[Float[np.ndarray, "pcs pcs"], Float[np.ndarray, " pcs"]]:
        """Give principal axes, as columns in terms of the components, and the variances along them.

        Args:
            regions: Region of every component, ascending; axes do not mix regions, and variances
                descend within each. One region if not given.
        """
        pcs = len(self.covariance)
        turn, variances = np.zeros((pcs, pcs)), np.zeros(pcs)
        members = np.zeros(pcs, np.int64) if regions is None else regions
        for region in np.unique(members):
            own = np.flatnonzero(members == region)
            values, vectors = eigh_descending(self.covariance[np.ix_(own, own)])
            turn[np.ix_(own, own)] = vectors
            variances[own] = np.maximum(values, _LEAST_SHARE * values[0])
        return turn, variances


def estimate_latent_covariance(
    statistics: ImageStatistics,
    eigenvalues: Float[np.ndarray, " pcs"],
    contrast_sd: float = 0.0,
    regions: Int[np.ndarray, " pcs"] | None = None,
) -> LatentCovariance:
    """Fit the covariance of coordinates, and the spread of contrasts, to images.

    Args:
        statistics: Inner products with mean and components, whitened.
        eigenvalues: First guess of the variances of the coordinates.
        contrast_sd: First guess of the spread of contrasts about 1; 0 takes every contrast as 1.
        regions: Region of every component; coordinates of different regions are independent.

    Source: y = a·A(μ + U z) + n with z ~ N(0, Γ) and a ~ N(1, s²). Scoring in coordinates of unit
    variance: the score of Γ is that of expectation maximization, E[zzᵀ] − 1, and its information
    the products of the shares that images determine. Many images are thinned out evenly.
    """
    largest = max(float(eigenvalues.max()), float(np.finfo(np.float32).tiny))
    scale = np.sqrt(np.maximum(eigenvalues, _LEAST_SHARE * largest))
    together = np.ones((len(scale), len(scale)), bool)
    if regions is not None:
        together = regions[:, None] == regions
    root, spread = np.eye(len(scale)), contrast_sd
    for most, iterations in zip((_FIRST, _MOST), _ITERATIONS, strict=True):
        count = len(statistics.gram)
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
        scaled = statistics.rows(chosen).scaled(scale)
        for _ in range(iterations):
            sums = _sum_moments(scaled, root, spread)
            step = together * (sums.second / len(chosen) - np.eye(len(root))) * sums.gain
            root = root @ _bounded_root(np.eye(len(root)) + step) @ sums.axes(together)
            if spread > 0:
                square = sums.contrast / len(chosen)
                spread = float(np.clip(np.sqrt(square), _LEAST_SD, _MOST_SD))
            if np.abs(step).max() < _CHANGE:
                break
    root = scale[:, None] * root
    return LatentCovariance(root @ root.T, spread)


@dataclass(frozen=True)
class _Sums:
    """Sums over images, of coordinates of unit prior variance."""

    second: Float[np.ndarray, "pcs pcs"]
    """Second moments given each image."""
    unsure: Float[np.ndarray, "pcs pcs"]
    """Posterior covariances."""
    determined: Float[np.ndarray, "pcs pcs"]
    """Products of the shares of two coordinates' variances that an image determines."""
    contrast: float
    """Squares of contrasts about 1 given each image."""
    count: int

    @property
    def gain(self) -> Float[np.ndarray, "pcs pcs"]:
        """How much longer a step is than one of expectation maximization."""
        return 1 / np.maximum(self.determined / self.count, _LEAST_DETERMINED)

    def axes(self, together: Bool[np.ndarray, "pcs pcs"]) -> Float[np.ndarray, "pcs pcs"]:
        """Give axes along which coordinates are known independently of each other, on average."""
        axes = np.zeros(self.unsure.shape)
        for own in np.unique(together, axis=0):
            axes[np.ix_(own, own)] = np.linalg.eigh(self.unsure[np.ix_(own, own)])[1]
        return axes


def _sum_moments(
    statistics: ImageStatistics, root: Float[np.ndarray, "pcs pcs"], contrast_sd: float
) -> _Sums:
    """Infer coordinates along the columns of `root`, and sum their moments."""
    second, unsure, determined = (np.zeros(root.shape) for _ in range(3))
    squares, count = 0.0, len(statistics.gram)
    for start in range(0, count, _BLOCK):
        block = statistics.rows(slice(start, start + _BLOCK)).turned(root)
        found = infer(block, contrast_sd or None)
        spread = found.covariances.sum(0)
        shares = np.clip(1 - np.einsum("nkk->nk", found.covariances), 0, 1)
        second += found.means.T @ found.means + spread
        unsure += spread
        determined += shares.T @ shares
        squares += float(np.sum((found.contrast - 1) ** 2 + found.contrast_variance))
    return _Sums(second, unsure, determined, squares, count)


def _bounded_root(factor: Float[np.ndarray, "pcs pcs"]) -> Float[np.ndarray, "pcs pcs"]:
    """Give the symmetric root of what the covariance is multiplied by, kept within bounds."""
    values, vectors = np.linalg.eigh(factor)
    return vectors * np.sqrt(np.clip(values, 1 / _LARGEST_STEP, _LARGEST_STEP)) @ vectors.T


class Observed(eqx.Module):
    """Images beside components that were fitted to them."""

    statistics: ImageStatistics
    """Inner products with mean and components, whitened."""
    transfer: Float[np.ndarray, "images shells"]
    """Squared transfer function over noise, summed over every shell of the plane."""
    fitted: int
    """Images that components were fitted to: these, and others like them."""

    def thinned(self, most: int) -> "Observed":
        """Keep so many images, evenly."""
        count = len(self.transfer)
        chosen = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
        return Observed(self.statistics.rows(chosen), self.transfer[chosen], self.fitted)


@dataclass(frozen=True)
class Axes:
    """Principal axes in terms of given components, region by region, and variances along them."""

    turn: Float[np.ndarray, "pcs pcs"]
    """Axes as columns."""
    variances: Float[np.ndarray, " pcs"]
    """Along each; they descend within a region."""
    confirmed: Bool[np.ndarray, " pcs"]
    """Whether images say more of the coordinate than what they find of themselves."""


def fit_axes(
    observed: Observed,
    products: ShellProducts,
    eigenvalues: Float[np.ndarray, " pcs"],
    regions: Int[np.ndarray, " pcs"],
    contrast_sd: float = 0.0,
) -> Axes:
    """Fit variances along components that were themselves fitted to the images.

    Axes along which nothing is left once images are relieved of their own noise keep the variance
    that they had; it was shrunk as noise is. The others get what makes the images most likely.

    Args:
        observed: Images beside the components.
        products: Of the components.
        eigenvalues: Variances of the coordinates that they were fitted with.
        regions: Region of every component, ascending.
        contrast_sd: Spread of contrasts about 1; 0 takes every contrast as 1.
    """
    turn, confirmed = _confirm(
        observed.thinned(_FIRST), products, eigenvalues, regions, contrast_sd
    )
    variances = np.einsum("ka,k,ka->a", turn, eigenvalues, turn)
    if confirmed.any():
        plain = estimate_latent_covariance(
            observed.statistics.turned(turn[:, confirmed]),
            variances[confirmed],
            contrast_sd,
            regions[confirmed],
        )
        step, variances[confirmed] = plain.axes(regions[confirmed])
        turn[:, confirmed] = turn[:, confirmed] @ step
    order = np.lexsort((-variances, regions))
    return Axes(turn[:, order], variances[order], confirmed[order])


def _confirm(
    observed: Observed,
    products: ShellProducts,
    eigenvalues: Float[np.ndarray, " pcs"],
    regions: Int[np.ndarray, " pcs"],
    contrast_sd: float,
) -> tuple[Float[np.ndarray, "pcs pcs"], Bool[np.ndarray, " pcs"]]:
    """Find axes of images that are relieved of their own noise, and tell which are left."""
    turn, variances = np.eye(len(eigenvalues)), eigenvalues.astype(np.float64)
    relieved, share = observed.statistics, np.ones(len(variances))
    own = np.zeros(len(variances))
    for _ in range(_ROUNDS):
        moments = _coordinate_moments(relieved, variances, contrast_sd)
        moments *= observed.fitted / len(moments)
        influence = products.influence(turn, variances, observed.transfer, moments)
        relieved = _relieve(observed.statistics.turned(turn), influence)
        own = influence.sum(0) / np.einsum("nkk->k", relieved.gram)[1:]
        fitted = estimate_latent_covariance(relieved, variances, contrast_sd, regions)
        step, variances = fitted.axes(regions)
        turn, relieved = turn @ step, relieved.turned(step)
        before, share = share, _determined_share(relieved, variances, contrast_sd)
        if np.all((np.abs(share - before) < _SETTLED * share) | (share < _LEAST_CONFIRMED)):
            break
    return turn, (share >= _LEAST_CONFIRMED) & (own < _MOST_OWN)


def _relieve(
    statistics: ImageStatistics, influence: Float[np.ndarray, "images pcs"]
) -> ImageStatistics:
    """Make an image's own noise, which `response` holds in proportion to coordinates, harmless."""
    gram = statistics.gram.copy()
    own = np.arange(1, gram.shape[1])
    gram[:, own, own] += influence
    return ImageStatistics(gram, statistics.response)


def _coordinate_moments(
    statistics: ImageStatistics, variances: Float[np.ndarray, " pcs"], contrast_sd: float
) -> Float[np.ndarray, "images pcs"]:
    """Give second moments of coordinates over their variances, times those of contrasts."""
    found = infer(statistics.scaled(np.sqrt(variances)), contrast_sd or None)
    squares = found.means**2 + np.einsum("nkk->nk", found.covariances)
    return (found.contrast**2 + found.contrast_variance)[:, None] * squares


def _determined_share(
    statistics: ImageStatistics, variances: Float[np.ndarray, " pcs"], contrast_sd: float
) -> Float[np.ndarray, " pcs"]:
    found = infer(statistics.scaled(np.sqrt(variances)), contrast_sd or None)
    return 1 - np.einsum("nkk->k", found.covariances) / len(found.covariances)

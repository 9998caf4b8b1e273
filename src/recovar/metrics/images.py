"""How well what is estimated of single images, and of their noise, agrees with the truth."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score


@dataclass(frozen=True)
class ContrastScores:
    """Estimated contrasts against true ones, both divided by their means."""

    correlation: float
    """From −1 to 1, which is perfect; scale does not count."""
    error: float
    """Root mean square of the difference; 0 is perfect."""
    spread: float
    """Standard deviation of the estimated contrasts."""
    true_spread: float
    """Standard deviation of the true ones. Estimates that are drawn towards 1 spread less."""


def compare_contrasts(
    found: Float[np.ndarray, " images"], true: Float[np.ndarray, " images"]
) -> ContrastScores:
    """Compare estimated contrasts with true ones; their common scale is that of the mean map.

    Example:
        >>> compare_contrasts(np.array([1.0, 3.0]), np.array([0.5, 1.5]))
        ContrastScores(correlation=1.0, error=0.0, spread=0.5, true_spread=0.5)
    """
    found, true = found / found.mean(), true / true.mean()
    spreads = float(found.std()), float(true.std())
    together = float(np.mean((found - 1) * (true - 1)))
    correlation = together / (spreads[0] * spreads[1]) if min(spreads) > 0 else 0.0
    return ContrastScores(correlation, float(np.sqrt(np.mean((found - true) ** 2))), *spreads)


@dataclass(frozen=True)
class NoiseScores:
    """Ratios of estimated and true variances over the shells; 1 is perfect."""

    ratios: Float[np.ndarray, " shells"]
    """On shells 1, 2, …"""

    @property
    def median(self) -> float:
        """The one in the middle."""
        return float(np.median(self.ratios))

    @property
    def smallest(self) -> float:
        """The least."""
        return float(self.ratios.min())

    @property
    def largest(self) -> float:
        """The greatest."""
        return float(self.ratios.max())


def compare_noise(
    found: Float[np.ndarray, " shells"], true: Float[np.ndarray, " shells2"]
) -> NoiseScores:
    """Divide estimated variances of the noise by true ones, shell by shell from 1.

    Both are in the same unit, for images on the same scale. Shells that only one of them has are
    left out.

    Example:
        >>> compare_noise(np.array([9.0, 1.0, 3.0]), np.array([1.0, 2.0, 2.0, 2.0])).median
        1.0
    """
    count = min(len(found), len(true))
    return NoiseScores(found[1:count] / true[1:count])


def outlier_auc(
    scores: Float[np.ndarray, " images"], outliers: Bool[np.ndarray, " images"]
) -> float:
    """Give the chance that a true outlier has a higher score than a good image.

    The area under the curve of true against false positives: 1 is perfect, ½ is guessing. The
    threshold that a program uses does not count.

    Source: `Hanley & McNeil 1982`.

    Example:
        >>> outlier_auc(np.array([0.1, 0.4, 0.3, 0.9]), np.array([False, False, True, True]))
        0.75
    """
    return float(roc_auc_score(outliers, scores))


@dataclass(frozen=True)
class PosteriorScores:
    """Errors of coordinates in units of what the posterior says they are."""

    square: float
    """Mean of (z − ẑ)ᵀ C⁻¹ (z − ẑ) / zdim: 1 is right, above 1 too confident."""
    spreads: Float[np.ndarray, " zdim"]
    """Root mean square of each coordinate's error over its own standard deviation."""


def compare_posteriors(
    means: Float[np.ndarray, "images zdim"],
    covariances: Float[np.ndarray, "images zdim zdim"],
    true: Float[np.ndarray, "images zdim"],
) -> PosteriorScores:
    """Compare errors of latent coordinates with their posterior covariances.

    Where the posterior is right, zdim times the mean square follows χ² with zdim degrees of
    freedom, so its mean is 1.

    Args:
        means: Posterior means.
        covariances: Posterior covariances.
        true: True coordinates along the same components, on the same scale.

    Example:
        >>> true = np.array([[2.0], [0.0]])
        >>> found = compare_posteriors(np.zeros((2, 1)), np.full((2, 1, 1), 4.0), true)
        >>> found.square, round(float(found.spreads[0]), 4)  # (2²/4 + 0) / 2
        (0.5, 0.7071)
    """
    errors = (true - means).astype(np.float64)
    solved = np.linalg.solve(covariances.astype(np.float64), errors[..., None])[..., 0]
    variances = np.einsum("nkk->nk", covariances)
    return PosteriorScores(
        square=float(np.mean(np.sum(errors * solved, axis=1)) / errors.shape[1]),
        spreads=np.sqrt(np.mean(errors**2 / variances, axis=0)),
    )

"""Whether an image shows the molecule as the files say, or something else.

Junk is ice, another molecule, or one that is not where it is said to be. What such images show is
described by what the molecule shows from an unknown side: its projections have a mean and a
variance on every shell, and nothing else is known of them. Two likelihoods then decide.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, logit

from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.grid import shell_average
from recovar.posterior import ImageStatistics, Latents, log_likelihood

JUNK_SHARE = 0.05
"""Share of junk that is expected before an image is looked at."""
SUSPECT = 0.5
"""Images that are junk more probably than this are told of."""

_AMPLITUDES = (0.0, 0.6, 1.0, 1.4)
"""Strengths of what junk shows, over that of the molecule; 0 is ice."""


@dataclass(frozen=True)
class Stranger:
    """What a molecule shows from a side that is not known, shell by shell."""

    mean: Float[np.ndarray, " shells"]
    """Of coefficients of its projections."""
    variance: Float[np.ndarray, " shells"]
    """Of these coefficients, over all sides."""


def describe_stranger(volume: Float[np.ndarray, "z y x"]) -> Stranger:
    """Average slices of a map over all orientations.

    Example:
        >>> ball = np.zeros((8, 8, 8))
        >>> ball[4, 4, 4] = 2.0
        >>> found = describe_stranger(ball)
        >>> found.mean.round(6).tolist(), found.variance.round(6).tolist()
        ([2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0])
    """
    spectrum, size = fourier.to_spectrum(volume.astype(np.float64)), len(volume)
    mean = shell_average(spectrum.real, size)
    power = shell_average(np.abs(spectrum) ** 2, size)
    return Stranger(mean, np.maximum(power - mean**2, 0))


def strangeness(batch: ImageBatch, stranger: Stranger) -> Float[np.ndarray, " images"]:
    """Compute how much likelier images are as those of a stranger than as noise, as a logarithm.

    Coefficients are taken to be independent. That they are not, because a molecule is smaller than
    the box, makes strangers less likely than they are.

    Args:
        batch: Whitened images.
        stranger: What they may show, on the scale of the images.
    """
    shells, weights = batch.disc.shells, batch.disc.multiplicity
    shown = batch.transfer * stranger.mean[shells].astype(np.float32)
    spread = batch.transfer**2 * stranger.variance[shells].astype(np.float32)
    power, along = np.abs(batch.values) ** 2, np.real(batch.values) * shown
    each = np.zeros((len(_AMPLITUDES), len(batch)))
    for number, amplitude in enumerate(_AMPLITUDES[1:], 1):
        total = 1 + amplitude**2 * spread
        residual = power - 2 * amplitude * along + (amplitude * shown) ** 2
        each[number] = 0.5 * (power - residual / total - np.log(total)) @ weights
    most = each.max(0)
    return most + np.log(np.exp(each - most).mean(0))


def log_odds_of_junk(
    batch: ImageBatch,
    stranger: Stranger,
    statistics: ImageStatistics,
    latents: Latents,
) -> Float[np.ndarray, " images"]:
    """Compare the likelihoods of images as those of a stranger and as those of the molecule.

    Args:
        batch: Whitened images.
        stranger: What they may show instead.
        statistics: Of the same images, and components scaled so that z has unit prior variance.
        latents: What `infer` made of them.

    Returns:
        Logarithms of their ratios, above 0 where the stranger is likelier.
    """
    return strangeness(batch, stranger) - log_likelihood(statistics, latents)


def probability_of_junk(log_odds: Float[np.ndarray, " images"]) -> Float[np.ndarray, " images"]:
    """Turn log likelihoods of strangers over those of the molecule into probabilities.

    Example:
        >>> probability_of_junk(np.array([-1e4, 0.0, 1e4])).round(6).tolist()
        [0.0, 0.05, 1.0]
    """
    return expit(log_odds + logit(JUNK_SHARE))

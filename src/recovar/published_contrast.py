"""Contrasts as published: the most probable ones together with the coordinates, on a grid."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from recovar.embedding import Embedding, embed
from recovar.posterior import ImageStatistics

CONTRASTS = 0.04 * np.arange(1, 51)
"""All contrasts that there are."""
_BLOCK = 2048
"""Images handled at once; bounds the memory."""


def most_probable_contrasts(
    statistics: ImageStatistics, eigenvalues: Float[np.ndarray, " pcs"]
) -> Float[np.ndarray, " images"]:
    """Choose the contrast at which contrast and coordinates together explain an image best.

    Every contrast is as likely as others beforehand. As coordinates are not integrated out, the
    choice is drawn to low contrasts and large coordinates, the more so the more components.

    Args:
        statistics: Inner products with mean and components, whitened.
        eigenvalues: Variance of the coordinate along each component.

    Source: Gilles & Singer 2025; J(a) = a²f − 2ae − hᵀ(I + a²G)⁻¹h with h = a·b − a²·g, after G is
    diagonalized once per image.
    """
    scaled = statistics.scaled(np.sqrt(eigenvalues))
    chosen = [
        _search(scaled.gram[start : start + _BLOCK], scaled.response[start : start + _BLOCK])
        for start in range(0, len(scaled.gram), _BLOCK)
    ]
    return np.concatenate(chosen)


def _search(
    gram: Float[np.ndarray, "images channels channels"],
    response: Float[np.ndarray, "images channels"],
) -> Float[np.ndarray, " images"]:
    values, axes = np.linalg.eigh(gram[:, 1:, 1:].astype(np.float64))
    b = np.einsum("nkj,nk->nj", axes, response[:, 1:])
    g = np.einsum("nkj,nk->nj", axes, gram[:, 1:, 0])
    losses = np.empty((len(gram), len(CONTRASTS)))
    for place, a in enumerate(CONTRASTS):
        pull = a * b - a**2 * g
        explained = (pull**2 / (1 + a**2 * np.maximum(values, 0))).sum(1)
        losses[:, place] = a**2 * gram[:, 0, 0] - 2 * a * response[:, 0] - explained
    return CONTRASTS[losses.argmin(1)]


def embed_published(
    statistics: ImageStatistics, eigenvalues: Float[np.ndarray, " pcs"], zdim: int
) -> Embedding:
    """Embed all images along the first components, each at its most probable contrast.

    Args:
        statistics: Inner products with mean and components, whitened.
        eigenvalues: Variance of the coordinate along each component.
        zdim: Number of components to use.
    """
    leading = statistics.leading(zdim)
    contrast = most_probable_contrasts(leading, eigenvalues[:zdim])
    at_contrast = ImageStatistics(
        leading.gram * contrast[:, None, None] ** 2, leading.response * contrast[:, None]
    )
    found = embed(at_contrast, eigenvalues, zdim)
    return replace(found, contrast=contrast.astype(np.float32))

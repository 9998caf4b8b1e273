"""Parts of the molecule with coordinates of their own: what focus masks hold, and all the rest."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
from jaxtyping import Float

from recovar.embedding import Embedding
from recovar.pca import PrincipalComponents
from recovar.posterior import ImageStatistics, least_squares
from recovar.subspace import Region
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.mean import Homogeneous
from recovar.workflows.work import Work

_BLOCK = 4096
"""Images handled at once; bounds the memory."""
Embed = Callable[[ImageStatistics, Float[np.ndarray, " pcs"], int], Embedding]
"""Embeds images along the first of some components."""


def fitted_mask(work: Work, whole: Homogeneous) -> Float[np.ndarray, "z y x"]:
    """Give where density may be."""
    mask = whole.mask
    return np.ones_like(mask.mask) if work.config.solvent == "none" else mask.dilated


def choose_regions(work: Work, whole: Homogeneous) -> tuple[Region, ...]:
    """Give every focus mask, and what is outside of them, components of its own.

    There are none where no focus was asked for. What is outside is left out if nothing is there.
    """
    config = work.config
    parts = [np.clip(mask, 0, 1) for mask in work.inputs.focus]
    if config.use_complement_mask:
        rest = 1 - np.max(parts, axis=0)
        if (rest * fitted_mask(work, whole)).max() > 0.5:
            parts.append(rest)
    return tuple(
        Region(part.astype(np.float32), components)
        for part, components in zip(parts, config.fitted_by_region, strict=False)
    )


def name_regions(config: PipelineConfig) -> list[str]:
    """Give what the names of files of each region begin with, and then of what is outside."""
    further = [f"focus{number}_" for number in range(2, len(config.focus_mask) + 1)]
    return ["", *further, "complement_"]


def embed_region(
    statistics: ImageStatistics,
    regions: tuple[PrincipalComponents, ...],
    region: int,
    zdim: int,
    embed: Embed,
) -> Embedding:
    """Embed along the first components of a region, whatever other regions do.

    Coordinates of all regions are inferred together; those of the others are then left out, which
    integrates over them.

    Args:
        statistics: Inner products with the mean and the components of all regions, whitened.
        regions: Components of each.
        region: Its number, from 0.
        zdim: Number of components to use.
        embed: How to embed.
    """
    if len(regions) == 1:
        return embed(statistics, regions[0].eigenvalues, zdim)
    variances = np.concatenate([each.eigenvalues for each in regions])
    ends = np.cumsum([0, *(len(each.eigenvalues) for each in regions)])
    own = ends[region] + np.arange(zdim)
    others = np.r_[: ends[region], ends[region + 1] : ends[-1]]
    chosen = np.concatenate([own, others])
    channels = np.concatenate([[0], chosen + 1])
    parts = []
    for start in range(0, len(statistics.gram), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = ImageStatistics(
            statistics.gram[rows, channels[:, None], channels], statistics.response[rows, channels]
        )
        parts.append(_integrate(block, variances[chosen], zdim, embed))
    whole = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Embedding)
        if field.name != "eigenvalues" and getattr(parts[0], field.name) is not None
    }
    return replace(parts[0], **whole)


def _integrate(
    statistics: ImageStatistics, variances: Float[np.ndarray, " pcs"], zdim: int, embed: Embed
) -> Embedding:
    """Embed along all components, and keep the first coordinates.

    The prior of the others stays where these have none: what they may do is noise to them.
    """
    found = embed(statistics, variances, len(variances))
    scale = np.sqrt(variances)
    scaled = statistics.scaled(scale)
    gram, others = scaled.gram.astype(np.float64), np.arange(zdim + 1, len(variances) + 1)
    gram[:, others, others] += 1 / np.square(found.contrast[:, None].astype(np.float64))
    plain = least_squares(ImageStatistics(gram, scaled.response), found.contrast)
    own = scale[:zdim]
    return replace(
        found,
        coordinates=found.coordinates[:, :zdim],
        covariance=found.covariance[:, :zdim, :zdim],
        coordinates_noreg=(plain.means[:, :zdim] * own).astype(np.float32),
        covariance_noreg=(plain.covariances[:, :zdim, :zdim] * own[:, None] * own).astype(
            np.float32
        ),
        eigenvalues=variances[:zdim],
    )

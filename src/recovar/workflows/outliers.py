"""The stage of the pipeline that asks which images hardly show the molecule as the files say."""

import logging

import numpy as np
from jaxtyping import Float

from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.outliers import SUSPECT, describe_stranger, probability_of_junk, strangeness
from recovar.posterior import ImageStatistics, infer, log_likelihood
from recovar.records import save_arrays
from recovar.run import Stage
from recovar.workflows.components import Components
from recovar.workflows.mean import Homogeneous
from recovar.workflows.run_outliers import OUTLIERS, Outliers
from recovar.workflows.work import Work

logger = logging.getLogger(__name__)

_BLOCK = 2048
"""Images handled at once; bounds the memory."""


def find_outliers(
    work: Work, whole: Homogeneous, components: Components, statistics: ImageStatistics
) -> Outliers:
    """Run the stage, with inner products of images with the mean and the components."""
    return work.run.stage(
        "outliers",
        Outliers,
        lambda stage: _find(stage, work, whole, components, statistics),
        depends=["statistics", "subspace", "noise_spectra"],
    )


def _find(
    stage: Stage,
    work: Work,
    whole: Homogeneous,
    components: Components,
    statistics: ImageStatistics,
) -> Outliers:
    ball = Ball(work.inputs.grid.size, components.radius)
    stranger = describe_stranger(components.mean)

    def compare(batch: ImageBatch) -> Float[np.ndarray, " images"]:
        batch = batch.at_radius(ball.size, ball.radius).whitened(whole.spectra)
        return strangeness(batch, stranger)

    otherwise = work.executor.map_images("Outliers", compare, whole.images)
    log_odds = otherwise - _likelihood(components, statistics)
    found = Outliers(log_odds, probability_of_junk(log_odds))
    particles = work.inputs.particles
    with stage.write(str(OUTLIERS)) as partial:
        save_arrays(
            partial,
            log_odds=found.log_odds,
            probability=found.probability,
            identity=particles.identity,
            row=particles.source_row,
        )
    suspects = int((found.probability > SUSPECT).sum())
    logger.info(
        "%d of %d images (%.2g %%) are likelier ice, another molecule or one elsewhere than what "
        "the files say; %s has all odds",
        suspects,
        len(log_odds),
        100 * suspects / len(log_odds),
        OUTLIERS,
    )
    return found


def _likelihood(
    components: Components, statistics: ImageStatistics
) -> Float[np.ndarray, " images"]:
    """Compute the log likelihood of every image as the molecule, over that as noise."""
    scaled = statistics.scaled(np.sqrt(components.eigenvalues))
    spread = components.contrast_sd or None
    parts = []
    for start in range(0, len(scaled.gram), _BLOCK):
        block = scaled.rows(slice(start, start + _BLOCK))
        parts.append(log_likelihood(block, infer(block, spread)))
    return np.concatenate(parts)

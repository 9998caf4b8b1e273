"""Which rows of a STAR file are tilts of one particle."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from recovar.data.star_blocks import StarColumn
from recovar.errors import InputError

logger = logging.getLogger(__name__)

PARTICLE_NAME = "rlnTomoParticleName"
GROUPS = (PARTICLE_NAME, "rlnGroupName", "rlnGroupNumber")
"""Labels that tell particles, the best first; the last two may also mean micrographs."""
ANGLES = ("rlnTomoNominalStageTiltAngle", "rlnTomoYTilt")
"""Labels of the tilt of the stage, in degrees."""


@dataclass(frozen=True)
class TiltColumns:
    """What a file says that may tell tilts, one value per image; None where it says nothing."""

    label: str | None
    """Which of `GROUPS` there is."""
    names: StarColumn
    """Its values."""
    exposure: Float64[np.ndarray, " images"] | None = None
    """Electrons per Å² before the image."""
    b_factor: Float64[np.ndarray, " images"] | None = None
    """Å², as written."""
    angle: Float64[np.ndarray, " images"] | None = None
    """Tilt of the stage in radians."""


def find_particles(path: Path, columns: TiltColumns) -> Int64[np.ndarray, " images"] | None:
    """Tell which particle each tilt shows; None if rows are particles.

    RELION names groups of micrographs by the same label as others name particles of tilt series.
    Rows are tilts if a column can mean nothing else, or if images of one group differ in what a
    tilt series changes: the dose, which Warp and M write as B-factors of −4 times the dose, or the
    angle of the stage.

    Raises:
        InputError: If doses differ and no column tells the particles.
    """
    certain = columns.label == PARTICLE_NAME
    if columns.label is None:
        if columns.exposure is not None and np.ptp(columns.exposure) > 0:
            raise InputError(
                f"{path}: images differ in _rlnMicrographPreExposure, as tilts do, and no column "
                "tells which particle each shows. Add _rlnGroupName, or remove the doses if every "
                "row is a particle of its own."
            )
        return None
    marks = [mark for mark in (_dose(columns), columns.angle) if mark is not None]
    if not certain and not any(np.ptp(mark) > 0 for mark in marks):
        return None
    distinct, particle = np.unique(np.array(columns.names, dtype=np.str_), return_inverse=True)
    particle = particle.reshape(-1).astype(np.int64)
    if not certain and not any(_differs_within(mark, particle) for mark in marks):
        return None
    logger.info(
        "%s: %d images are tilts of %d particles, told by _%s.",
        path,
        len(particle),
        len(distinct),
        columns.label,
    )
    return particle


def _dose(columns: TiltColumns) -> Float64[np.ndarray, " images"] | None:
    if columns.exposure is not None:
        return columns.exposure
    b_factor = columns.b_factor
    return b_factor if b_factor is not None and (b_factor <= 0).all() else None


def _differs_within(
    values: Float64[np.ndarray, " images"], group: Int64[np.ndarray, " images"]
) -> bool:
    low = np.full(group.max() + 1, np.inf)
    high = -low
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return bool((high > low).any())

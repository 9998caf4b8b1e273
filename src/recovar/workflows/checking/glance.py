"""The cheap part of `check`, which every run starts with."""

from dataclasses import dataclass

import numpy as np

from recovar.compute.progress import Progress
from recovar.core.slicing_numba import NUMBA
from recovar.data.particles import Particles
from recovar.workflows.checking.config import LEAST_IMAGES
from recovar.workflows.checking.sample import (
    choose_rows,
    read_sample,
    sample_grid,
    stated_reading,
)
from recovar.workflows.checking.search import Found, find_reading

OVERWHELMING = 20.0
"""Decimal logarithm of the odds at which a run is not worth starting."""
_IMAGES, _FINEST, _LARGEST = 800, 6.0, 40
"""Images that are looked at, with pixels of at least so many Å, at most so many along a side."""
_ROUNDS = 2


@dataclass(frozen=True)
class Opinion:
    """What a quick look at the images says about the files."""

    value: str
    """A short answer, such as `as stated`."""
    why: str
    """What the answer rests on."""
    log10_odds: float
    """Of another reading against the one stated; 0 if none is better."""
    remedies: tuple[str, ...] = ()
    """What to do, where files are wrong."""

    @property
    def refutes(self) -> bool:
        """Whether what files say is beyond belief."""
        return self.log10_odds >= OVERWHELMING


def glance(particles: Particles, progress: Progress, seed: int) -> Opinion:
    """Try the mistakes that would cost a run everything on a few small images."""
    rows = choose_rows(len(particles), _IMAGES)
    if len(rows) < LEAST_IMAGES:
        return Opinion("not tested", f"{len(rows)} images are too few", 0.0)
    grid = sample_grid(particles, _FINEST, _LARGEST)
    sample = read_sample(particles, rows, grid, progress)
    stated = stated_reading(particles, rows, grid)
    found = find_reading(sample, stated, NUMBA, progress, seed, rounds=_ROUNDS, main_only=True)
    return _conclude(found, len(rows))


def _conclude(found: Found, images: int) -> Opinion:
    if not found.is_supported:
        why = f"{images} images do not predict each other better than in random order"
        return Opinion("not proven", why, 0.0)
    if not found.changes:
        return Opinion("as stated", f"{images} images agree with no other reading better", 0.0)
    value = "; and ".join(change.name for change in found.changes)
    odds = np.inf if found.against_stated is None else found.against_stated.log10
    why = f"{images} images prefer this with odds of 10^{odds:.0f}"
    remedies = tuple(change.remedy for change in found.changes)
    return Opinion(value, why, float(odds), remedies)

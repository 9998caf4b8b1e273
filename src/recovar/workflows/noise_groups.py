"""Which images share the spectrum of their noise."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from recovar.data.particles import Particles
from recovar.errors import InputError

_LEAST_IMAGES = 500
"""Of a group that gets a spectrum of its own: enough for 5 % on the first shell."""
_FEWEST = 50
"""The same, where groups were asked for."""


@dataclass(frozen=True)
class NoiseGroups:
    """Images whose noise has the same spectrum."""

    number: Int[np.ndarray, " images"]
    """Group of every image."""
    own: int
    """The first so many have a spectrum of their own; what follows takes that of all images."""
    why: str
    """What decided it; empty where there is nothing to decide."""


def choose_noise_groups(
    particles: Particles, asked: Literal["automatic", "optics", "all"]
) -> NoiseGroups:
    """Choose between a spectrum for every optics group and one for all images.

    Raises:
        InputError: If optics groups were asked for, and are too small.
    """
    number = number_groups(particles)
    counts = np.bincount(number)
    alike = np.zeros_like(number)
    if asked == "all" or len(counts) == 1:
        return NoiseGroups(alike, 0, "--noise-groups all asks for it" if asked == "all" else "")
    if asked == "optics" and counts.min() < _FEWEST:
        raise InputError(
            f"Expected at least {_FEWEST} images in every optics group for --noise-groups optics, "
            f"found {counts.min()} in the smallest of {len(counts)}. With --noise-groups automatic "
            "small groups share a spectrum."
        )
    own = counts >= (_FEWEST if asked == "optics" else _LEAST_IMAGES)
    why = f"{own.sum()} of {len(counts)} optics groups have {_LEAST_IMAGES} images or more"
    if asked == "optics":
        why = "--noise-groups optics asks for it"
    if own.sum() < 2:
        return NoiseGroups(alike, 0, why)
    renumbered = np.where(own, np.cumsum(own) - 1, own.sum())
    return NoiseGroups(renumbered[number], int(own.sum()), why)


def number_groups(particles: Particles) -> Int[np.ndarray, " images"]:
    """Number the images' optics groups from 0; those of other files or sizes are others."""
    zeros = np.zeros(len(particles), np.int64)
    kind = zeros if particles.kind is None else particles.kind
    optics = zeros if particles.optics_group is None else particles.optics_group
    keys = np.stack([particles.source, kind, optics], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)

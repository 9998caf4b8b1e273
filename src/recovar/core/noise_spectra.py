"""The noise of every image: spectra that groups of images share, each scaled for the image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from recovar.errors import InputError


@dataclass(frozen=True)
class NoiseSpectra:
    """Variances of the noise, by row of the image bank.

    The noise of image i has the variance scale[i] · profiles[group[i], shell].
    """

    profiles: Float[np.ndarray, "groups shells"]
    """Variance per shell of the unnormalized transform; the last shell continues. An infinite
    variance tells that nothing is to be learned from a shell."""
    group: Int[np.ndarray, " images"]
    """Which profile is that of an image."""
    scale: Float32[np.ndarray, " images"]
    """Factor on the profile's variances, 1 on average."""

    def __post_init__(self) -> None:
        wrong = ~(self.profiles > 0).all(axis=1)
        if wrong.any():
            raise InputError(
                f"Expected variances of the noise above 0 on all shells, found "
                f"{np.nanmin(self.profiles[wrong])} in group {int(np.argmax(wrong))}. Leave out "
                "images that are empty, or ask for --noise-model white."
            )

    @staticmethod
    def of_all(profile: Float[np.ndarray, " shells"], images: int) -> "NoiseSpectra":
        """Give all images the same spectrum."""
        return NoiseSpectra(
            np.asarray(profile, np.float64)[None],
            np.zeros(images, np.int64),
            np.ones(images, np.float32),
        )

    def with_shape(self, profile: Float[np.ndarray, " other_shells"]) -> "NoiseSpectra":
        """Take another profile for all groups; groups and images keep their levels.

        The level of a group is the median over the shells of its ratio to the mean of all images.
        Shells that count for nothing do so again.
        """
        counts = np.bincount(self.group, minlength=len(self.profiles))
        ignored = np.isinf(self.profiles).any(axis=0)
        finite = self.profiles[:, ~ignored]
        levels = np.median(finite / np.average(finite, axis=0, weights=counts), axis=1)
        variance = np.asarray(profile, np.float64).copy()
        variance[np.flatnonzero(ignored)] = np.inf
        scale = self.scale * levels[self.group].astype(np.float32)
        return NoiseSpectra(variance[None], np.zeros_like(self.group), scale)

    def without_shell(self, shell: int) -> "NoiseSpectra":
        """Let a shell count for nothing."""
        profiles = self.profiles.copy()
        profiles[:, shell] = np.inf
        return NoiseSpectra(profiles, self.group, self.scale)

    def inverse_deviations(
        self, rows: Int[np.ndarray, " some"], shells: Int[np.ndarray, " pixels"]
    ) -> Float32[np.ndarray, "some pixels"]:
        """Compute what whitens pixels of some images."""
        own = (1 / np.sqrt(self.scale[rows])).astype(np.float32)
        groups, which = np.unique(self.group[rows], return_inverse=True)
        inverse = inverse_deviation(self.profiles[groups], shells)
        if len(groups) == 1:
            return own[:, None] * inverse
        factors = inverse[which]
        factors *= own[:, None]
        return factors


def inverse_deviation(
    variance: Float[np.ndarray, "*groups shells"], shells: Int[np.ndarray, " pixels"]
) -> Float32[np.ndarray, "*groups pixels"]:
    """Compute what whitens pixels whose noise has this variance; the last shell continues."""
    inverse = (1 / np.sqrt(variance)).astype(np.float32)
    return inverse[..., np.minimum(shells, variance.shape[-1] - 1)]


ImageNoise = NoiseSpectra | Float[np.ndarray, " shells"]
"""Spectra of all images, or the variance per shell that they share; one value is white noise."""

"""A block of images with everything an estimator may ask of them."""

import equinox as eqx
import numpy as np
from jaxtyping import Complex, Float, Int

from recovar.core.frequencies import Disc
from recovar.core.noise_spectra import ImageNoise, NoiseSpectra, inverse_deviation


class ImageBatch(eqx.Module):
    """Images that share one disc of Fourier pixels: centred, with dense matter positive or not.

    The model is values = contrast · transfer · slice(volume) + noise.
    """

    disc: Disc = eqx.field(static=True)
    """Pixels of `values` and `transfer`."""
    values: Complex[np.ndarray, "images pixels"]
    """Centred images, unnormalized; shifts and data sign are already applied."""
    transfer: Float[np.ndarray, "images pixels"]
    """Transfer function of every image."""
    rotations: Float[np.ndarray, "images 3 3"]
    """Rows are the image axes in the frame of the molecule."""
    rows: Int[np.ndarray, " images"]
    """Which images of the bank these are; per-image results are stored by it."""
    halves: Int[np.ndarray, " images"]
    """Half set of every image, 0 or 1."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.rows)

    def at_radius(self, size: int, radius: int) -> "ImageBatch":
        """Keep the pixels |k| ≤ radius, as images of `size` pixels over the same side."""
        disc = Disc(size, radius)
        if disc == self.disc:
            return self
        count = len(disc)
        return ImageBatch(
            disc,
            self.values[:, :count],
            self.transfer[:, :count],
            self.rotations,
            self.rows,
            self.halves,
        )

    def whitened(self, noise: ImageNoise) -> "ImageBatch":
        """Divide images and transfer functions by the noise's standard deviation.

        Args:
            noise: Spectra by row, or one variance per shell of the unnormalized transform. Shells
                of infinite variance become 0.
        """
        shells = self.disc.shells
        if isinstance(noise, NoiseSpectra):
            inverse = noise.inverse_deviations(self.rows, shells)
        else:
            inverse = inverse_deviation(noise, shells)
        return ImageBatch(
            self.disc,
            self.values * inverse,
            self.transfer * inverse,
            self.rotations,
            self.rows,
            self.halves,
        )

    def transfer_power(self) -> Float[np.ndarray, "images shells"]:
        """Sum the squared transfer function of every image over each shell of the whole plane."""
        members = np.zeros((self.disc.radius + 1, len(self.disc)), np.float32)
        members[self.disc.shells, np.arange(len(self.disc))] = self.disc.multiplicity
        return self.transfer**2 @ members.T

    def select(self, keep: Int[np.ndarray, " kept"]) -> "ImageBatch":
        """Keep some of the images."""
        return ImageBatch(
            self.disc,
            self.values[keep],
            self.transfer[keep],
            self.rotations[keep],
            self.rows[keep],
            self.halves[keep],
        )

"""What images say of themselves by way of components that were fitted to them.

The noise of every image is part of the noise of the components, in proportion to its coordinates.
Compared with these components, the image finds its own noise again and takes it for signal. With
many images that is little for a component that is real; a component that is noise consists of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from recovar.core import fourier
from recovar.core.grid import half_weights, volume_radii

_BLUR = 2.0
"""Width in voxels of the field that tells where components are strong."""


@dataclass(frozen=True)
class ShellProducts:
    """Products of components with each other, shell by shell of the images' grid."""

    products: Float[np.ndarray, "shells pcs pcs"]
    """Averages over the voxels of a shell."""
    counts: Float[np.ndarray, " shells"]
    """Voxels of each shell."""
    support: Float[np.ndarray, " pcs"]
    """Share of the box that a component and others of its region lie in."""

    @staticmethod
    def of(
        volumes: Float[np.ndarray, "pcs z y x"],
        variances: Float[np.ndarray, " pcs"],
        regions: Int[np.ndarray, " pcs"],
        radius: int,
    ) -> "ShellProducts":
        """Measure components up to a radius.

        Args:
            volumes: The components.
            variances: Along each.
            regions: Region of each.
            radius: Largest frequency, in Fourier pixels.
        """
        shells = np.rint(volume_radii(volumes.shape[-1])).astype(np.int64)
        weights = np.broadcast_to(half_weights(volumes.shape[-1]), shells.shape)
        kept = np.flatnonzero(shells.ravel() <= radius)
        kept = kept[np.argsort(shells.ravel()[kept], kind="stable")]
        starts = np.searchsorted(shells.ravel()[kept], np.arange(radius + 2))
        spectra = np.stack([fourier.to_spectrum(volume).ravel()[kept] for volume in volumes])
        weights = weights.ravel()[kept]
        products = np.zeros((radius + 1, len(volumes), len(volumes)))
        counts = np.zeros(radius + 1)
        for shell in range(radius + 1):
            own = slice(starts[shell], starts[shell + 1])
            counts[shell] = weights[own].sum()
            product = (spectra[:, own] * weights[own]) @ spectra[:, own].conj().T
            products[shell] = np.real(product) / counts[shell]
        support = np.zeros(len(volumes))
        for region in np.unique(regions):
            members = np.flatnonzero(regions == region)
            field = np.einsum("k,kzyx->zyx", variances[members], volumes[members] ** 2)
            support[members] = _support(field)
        return ShellProducts(products, counts, support)

    def influence(
        self,
        axes: Float[np.ndarray, "pcs kept"],
        variances: Float[np.ndarray, " kept"],
        transfer: Float[np.ndarray, "images shells"],
        moments: Float[np.ndarray, "images kept"],
    ) -> Float[np.ndarray, "images kept"]:
        """Give the response of every image to its own noise, over its coordinate.

        Args:
            axes: Combinations of the components, as columns.
            variances: Along each.
            transfer: Squared transfer function over noise, summed over every shell of the plane.
            moments: Second moments of the coordinates over `variances`, times squared contrasts.

        Source: the error of a component at a voxel is known to be τ / (1 + τ D), with D what all
        images know of it and τ the variance that it has there, as far as the power of the
        component, τ² D / (1 + τ D), says it.
        """
        power = np.einsum("ka,skl,la->as", axes, self.products, axes)
        support = (axes**2).T @ self.support
        known = moments.T @ transfer / self.counts
        power = variances[:, None] * power / support[:, None]
        signal = 0.5 * (power + np.sqrt(power**2 + 4 * power / np.maximum(known, _TINY)))
        unsure = signal / (1 + signal * known) * support[:, None] / variances[:, None]
        return transfer @ unsure.T


_TINY = float(np.finfo(np.float64).tiny)


def _support(field: Float[np.ndarray, "z y x"]) -> float:
    """Give the share of the box that a field lies in: 1 / (N mean square) of its distribution."""
    blurred = ndimage.gaussian_filter(field.astype(np.float64), _BLUR)
    square = float(np.mean(blurred**2))
    return float(np.mean(blurred) ** 2 / square) if square > 0 else 1.0

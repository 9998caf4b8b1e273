"""The correlation of two half-maps in a mask, freed of what the mask adds."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from recovar.core import fourier
from recovar.core.grid import Grid, volume_radii
from recovar.core.halves import Halves
from recovar.regularization import fsc, resolution_at

_RANDOMIZED_BELOW = 0.8
"""Phases are randomized from the first shell on whose unmasked correlation is lower."""

_MARGIN = 2
"""Shells beyond that one in which a mask still carries true phases over."""


@dataclass(frozen=True)
class FscCurves:
    """Correlations of two half-maps on shells 0 … size/2 − 1."""

    corrected: Float[np.ndarray, " shells"]
    """Of the maps in the mask, less what the mask makes of noise: the one to judge by."""
    masked: Float[np.ndarray, " shells"]
    """Of the maps in the mask."""
    unmasked: Float[np.ndarray, " shells"]
    """Of the maps as they are, solvent included."""
    randomized: Float[np.ndarray, " shells"]
    """Of the maps in the mask after their phases were randomized from `start` on."""
    start: int
    """First shell whose phases were randomized; the number of shells if none was."""
    grid: Grid

    def resolution(self, threshold: float = 1 / 7) -> float:
        """Give the resolution in Å at which the corrected correlation falls below a threshold."""
        return resolution_at(self.corrected, threshold, self.grid)


def masked_fsc(
    halves: Halves[Float[np.ndarray, "z y x"]],
    mask: Float[np.ndarray, "z y x"],
    grid: Grid,
    seed: int = 0,
) -> FscCurves:
    """Correlate two half-maps in a mask, and measure how much of that the mask itself brings.

    A mask multiplies maps, so it mixes shells: what agrees at low frequency leaks outwards, the
    more the tighter the mask. Maps whose fine phases are random cannot agree there; what
    correlation they have in the mask is taken off, (masked − randomized) / (1 − randomized), from
    two shells beyond where phases are random.

    Args:
        halves: Maps of the two half sets, neither filtered nor masked.
        mask: Soft mask.
        grid: Their grid.
        seed: Of the random phases.

    Source: `Chen et al. 2013`; the shells at which it starts are those of RELION. Other than there,
    curves may fall below 0.
    """
    generator = np.random.default_rng(seed)
    spectra = halves.map(fourier.to_spectrum)
    unmasked = fsc(*spectra)
    below = np.flatnonzero(unmasked[1:] < _RANDOMIZED_BELOW) + 1
    start = int(below[0]) if below.size else grid.shells
    masked = fsc(*halves.map(lambda half: fourier.to_spectrum(half * mask)))
    random = spectra.map(lambda each: _randomize(each, start, generator))
    randomized = fsc(*random.map(lambda half: fourier.to_spectrum(half * mask)))
    corrected = masked.copy()
    beyond, rest = slice(start + _MARGIN, None), 1 - randomized[start + _MARGIN :]
    np.divide(masked[beyond] - randomized[beyond], rest, out=corrected[beyond], where=rest > 1e-6)
    return FscCurves(corrected, masked, unmasked, randomized, start, grid)


def _randomize(
    spectrum: Complex[np.ndarray, "z y half_x"], start: int, generator: np.random.Generator
) -> Float[np.ndarray, "z y x"]:
    """Give coefficients from a shell on the phases of white noise."""
    size = len(spectrum)
    noise = fourier.to_spectrum(generator.standard_normal((size,) * 3, np.float32))
    noise *= np.abs(spectrum) / np.maximum(np.abs(noise), np.finfo(np.float32).tiny)
    fine = np.rint(volume_radii(size)) >= start
    return fourier.to_volume(np.where(fine, noise, spectrum)).astype(np.float32)

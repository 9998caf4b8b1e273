"""Mix estimates of one volume, from narrow to wide kernels, in every region at every frequency.

A wide kernel has little noise and much bias, a narrow one the reverse. The step from a wider kernel
to a narrower one is kept as far as it holds signal, which the half sets tell: what both steps have
in common is signal. Kernels are nested, so the noise of a step is hardly correlated with the wider
estimate, and steps can be judged one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float
from scipy import ndimage

from recovar.core import fourier
from recovar.core.grid import volume_radii
from recovar.core.halves import Halves

_FIRST, _RATIO = 3.0, 1.45
"""Centre of the lowest band in Fourier pixels, and of each band over that of the one before."""
_WINDOW = 1.5
"""Standard deviation of the window that signal is measured in, in units of a band's 1 / |k|."""
_LEAST_WINDOW = 1.0
"""In voxels."""
_WIDER = 2.0
"""Width of the neighbourhood of a window, in windows."""
_TINY = float(np.finfo(np.float32).tiny)
_GRID = 3.0
"""Sides of a band's own grid over its upper end: products of two of its maps do not fold over."""


@dataclass(frozen=True)
class Mixed:
    """A volume that was put together from several estimates."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    """The same mixture of the estimates of each half set."""
    volume: Float[np.ndarray, "z y x"]
    """The best guess."""
    kept: Float[np.ndarray, "steps bands"]
    """Share of the power of every step, narrowest first, that was kept in every band."""


@dataclass(frozen=True)
class Band:
    """A range of frequencies with soft ends; all bands add up to 1."""

    size: int
    """Side of the grid that its maps are made on."""
    weights: Float[np.ndarray, "z y half_x"]
    """On that grid."""
    window: float
    """Standard deviation of the local window, in voxels of that grid."""
    samples: float
    """Number of independent products of two maps of noise that a window averages."""


def make_bands(size: int) -> list[Band]:
    """Divide the frequencies of a volume of `size` voxels along a side."""
    last = size / 2 - 1
    steps = round(np.log(max(last / _FIRST, 1)) / np.log(_RATIO))
    centres = np.geomspace(min(_FIRST, last), last, steps + 1)
    bands = []
    for number, centre in enumerate(centres):
        upper = centres[min(number + 1, steps)]
        half = scipy.fft.next_fast_len(int(np.ceil(_GRID * upper / 2))) or size
        side = min(size, 2 * half)
        radii = np.log(np.maximum(volume_radii(side), 0.5))
        weights = np.ones(radii.shape)
        if number > 0:
            weights *= _rise(radii, np.log(centres[number - 1]), np.log(centre))
        if number < steps:
            weights *= 1 - _rise(radii, np.log(centre), np.log(upper))
        window = max(_WINDOW * side / (2 * np.pi * centre), _LEAST_WINDOW)
        bands.append(
            Band(side, weights.astype(np.float32), window, _count_samples(weights, window))
        )
    return bands


def _count_samples(weights: Float[np.ndarray, "z y half_x"], window: float) -> float:
    """Divide the variance of a product of two maps of noise by that of its average in a window."""
    alike = fourier.to_volume(weights**2)
    alike = (alike / alike.max()) ** 2
    size = len(weights)
    distance = (np.arange(size) - size // 2) ** 2 / (4 * window**2)
    pairs = np.exp(-(distance[:, None, None] + distance[:, None] + distance))
    return float((4 * np.pi * window**2) ** 1.5 / np.sum(pairs * alike))


def _rise(
    values: Float[np.ndarray, "z y half_x"], start: float, end: float
) -> Float[np.ndarray, "z y half_x"]:
    return np.sin(0.5 * np.pi * np.clip((values - start) / (end - start), 0, 1)) ** 2


def mix_levels(
    levels: Sequence[Halves[Float[np.ndarray, "z y x"]]],
    base: Float[np.ndarray, "z y x"],
    mask: Float[np.ndarray, "z y x"],
    shares: tuple[float, float] = (0.5, 0.5),
) -> Mixed:
    """Mix estimates of one volume.

    Args:
        levels: Estimates of both half sets, narrowest kernel first.
        base: Best guess from the widest kernel, freed of noise.
        mask: Where estimates may differ, 0 to 1.
        shares: Of both half sets in the information.
    """
    bands = make_bands(len(base))
    volume, first, second = base, *levels[-1]
    kept = np.zeros((len(levels) - 1, len(bands)))
    for step in range(len(levels) - 2, -1, -1):
        pairs = zip(levels[step], levels[step + 1], strict=True)
        spectra = [fourier.to_spectrum(mask * (narrow - wide)) for narrow, wide in pairs]
        total = [np.zeros_like(spectrum) for spectrum in spectra]
        for number, band in enumerate(bands):
            kept[step, number] = _add_signal(total, spectra, band)
        gained = [mask * fourier.to_volume(spectrum) for spectrum in total]
        first, second = first + gained[0], second + gained[1]
        volume = volume + shares[0] * gained[0] + shares[1] * gained[1]
    return Mixed(Halves(first, second), volume, kept)


def _add_signal(
    total: list[Complex[np.ndarray, "z y half_x"]],
    spectra: list[Complex[np.ndarray, "z y half_x"]],
    band: Band,
) -> float:
    """Add what is signal of a band of both steps; return the share of the power that is kept."""
    maps = [
        fourier.to_volume(fourier.crop_spectrum(spectrum, band.size) * band.weights)
        for spectrum in spectra
    ]
    products, powers = maps[0] * maps[1], 0.5 * (maps[0] ** 2 + maps[1] ** 2)
    rate = max(float(products.sum()), 0) / max(float(powers.sum()), _TINY)
    for wider in (_WIDER, 1):  # from the whole map to neighbourhoods, and on to windows
        window = wider * band.window
        common = ndimage.gaussian_filter(products, window, truncate=3)
        power = ndimage.gaussian_filter(powers, window, truncate=3)
        signal = _pooled(common, power, rate, wider**3 * band.samples)
        rate = signal / np.maximum(power, _TINY)
    noise = 0.5 * np.maximum(power - signal, 0)
    share = (signal / np.maximum(signal + noise, _TINY)).astype(np.float32)
    for target, values in zip(total, maps, strict=True):
        target += fourier.pad_spectrum(fourier.to_spectrum(share * values), target.shape[0])
    return float(np.sum(share**2 * power) / max(float(power.sum()), _TINY))


def _pooled(
    common: Float[np.ndarray, "z y x"],
    power: Float[np.ndarray, "z y x"],
    rate: Float[np.ndarray, "z y x"] | float,
    samples: float,
) -> Float[np.ndarray, "z y x"]:
    """Pull the signal that windows show to the rate of their surroundings.

    Chance alone lets averages of products of two maps of noise scatter by power² / samples. Where
    windows differ from their surroundings no more than that, they have the same rate of signal.

    Source: shrinkage of many means towards a common one, Efron & Morris 1975.
    """
    apart = common - rate * power
    by_chance = float(np.square(power).sum()) / samples
    trusted = max(0.0, 1 - by_chance / max(float(np.square(apart).sum()), _TINY))
    return np.maximum(rate * power + trusted * apart, 0)

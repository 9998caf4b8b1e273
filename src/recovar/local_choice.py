"""Choose among estimates of one volume, window by window and shell by shell, by cross-validation.

Estimates of one half set are held against the noisiest, least biased one of the other: the error
of both differs from that against the truth by the same amount for all estimates.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int

from recovar.core import fourier
from recovar.core.grid import Grid, half_weights, volume_radii
from recovar.core.halves import Halves
from recovar.core.windows import Windows, average_windows

_LENGTHS = 20
"""Windows are a box over this apart, and as long in radius."""
_WIDE = 6
"""Sides of the cubes that windows are transformed in, in units of their radius."""
_BATCH = 2**22
"""Coefficients that are handled at once."""


@dataclass(frozen=True)
class Chosen:
    """A volume that was put together from several estimates."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    """The same choice among the estimates of each half set."""
    levels: Int[np.ndarray, "windows shells"]
    """Which estimate was chosen. Shell s lies at the frequency s over the side of a cube."""
    centres: Int[np.ndarray, "windows 3"]
    """Voxel in the middle of every window, z y x."""


def choose_locally(
    estimates: Halves[Float[np.ndarray, "levels z y x"]],
    weights: Halves[Float[np.ndarray, "z y half_x"]],
    mask: Float[np.ndarray, "z y x"],
) -> Chosen:
    """Choose among estimates of a volume.

    Every window, a ball, is transformed in a cube three times as wide. In every shell of it the
    estimate is taken that has the least error against the first one of the other half set, summed
    over both half sets and weighted by what these first ones know of a coefficient. The windows
    then give every voxel the mean of what they chose.

    Args:
        estimates: Of both half sets, narrowest kernel first.
        weights: Inverse variances of the coefficients of both first estimates, up to a factor.
        mask: Where to choose: at points of the lattice whose own cell holds voxels above 0.
            Elsewhere the last estimate stands, as it would where there is noise alone.

    Source: Gilles & Singer 2025. Other than there, windows away from the mask are left out, which
    takes a third of the time; the corners of a cube go with its last shell; weights that smoothing
    made negative are 0; and windows keep of what was put together what lies in their ball, and not
    what leaks out of it, which measured better.
    """
    size = len(mask)
    cubes = _make_cubes(max(1, round(size / _LENGTHS)))
    centres = _find_centres(mask, cubes.radius)
    known = weights.map(lambda each: cubes.smooth(each))
    margins = [(0, 0), *[(cubes.radius, cubes.radius)] * 3]
    padded = [np.pad(each, margins) for each in estimates]
    levels: list[np.ndarray] = []
    windows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    step = max(1, _BATCH // (len(estimates.first) * cubes.side**3))
    for start in range(0, len(centres), step):
        batch = centres[start : start + step]
        spectra = Halves(*(cubes.transform(each, batch) for each in padded))
        best = cubes.compare(spectra, known)
        levels.extend(best)
        for found, each in zip(windows, spectra, strict=True):
            found.extend(cubes.pick(each, best))
    halves = (
        _average(found, centres, cubes.ball, elsewhere[-1])
        for found, elsewhere in zip(windows, estimates, strict=True)
    )
    chosen = np.array(levels, np.int64).reshape(-1, cubes.radius * _WIDE // 2)
    return Chosen(Halves(*halves), chosen, centres)


def _find_centres(mask: Float[np.ndarray, "z y x"], radius: int) -> Int[np.ndarray, "windows 3"]:
    everywhere = (mask > 0).astype(np.float32)
    return Windows(*[float(radius)] * 3).centres(Grid(len(mask), 1.0), everywhere)


def _average(
    windows: list[Float[np.ndarray, "side side side"]],
    centres: Int[np.ndarray, "windows 3"],
    ball: Float[np.ndarray, "side side side"],
    elsewhere: Float[np.ndarray, "z y x"],
) -> Float[np.ndarray, "z y x"]:
    grid = Grid(len(elsewhere), 1.0)
    found = average_windows(windows, centres, ball, grid, np.nan)
    return np.where(np.isnan(found), elsewhere, found)


@dataclass(frozen=True)
class _Cubes:
    """How balls of a map are transformed."""

    radius: int
    """Of the balls, in voxels."""
    ball: Float[np.ndarray, "side side side"]
    """1 inside, in the smallest cube."""
    order: Int[np.ndarray, " points"]
    """Coefficients of a transformed cube, shell by shell."""
    starts: Int[np.ndarray, " shells"]
    """Where shells start in this order."""

    @property
    def side(self) -> int:
        """Of the cube that is transformed; beyond the ball it is empty."""
        return _WIDE * self.radius

    @property
    def shells(self) -> Int[np.ndarray, " points"]:
        """Shell of every coefficient."""
        ends = np.append(self.starts[1:], len(self.order))
        return np.repeat(np.arange(len(self.starts)), ends - self.starts)

    def smooth(self, weights: Float[np.ndarray, "z y half_x"]) -> Float[np.ndarray, " points"]:
        """Bring weights of coefficients of the map to those of a cube, with their multiplicity."""
        near = fourier.crop_volume(fourier.to_volume(weights), self.side)
        smooth = np.maximum(np.real(fourier.to_spectrum(near)), 0) * half_weights(self.side)
        return smooth.reshape(-1)[self.order].astype(np.float32)

    def transform(
        self,
        padded: Float[np.ndarray, "levels far_z far_y far_x"],
        centres: Int[np.ndarray, "windows 3"],
    ) -> Complex[np.ndarray, "levels windows points"]:
        """Transform balls around voxels."""
        small = (2 * self.radius,) * 3
        places = np.lib.stride_tricks.sliding_window_view(padded, small, (1, 2, 3))
        z, y, x = centres.T
        spectra = np.asarray(
            scipy.fft.rfft(places[:, z, y, x] * self.ball, self.side, axis=-1, workers=-1)
        )
        for axis in (-2, -3):
            spectra = np.asarray(scipy.fft.fft(spectra, self.side, axis=axis, workers=-1))
        return spectra.reshape(*spectra.shape[:2], -1)[..., self.order]

    def compare(
        self,
        spectra: Halves[Complex[np.ndarray, "levels windows points"]],
        weights: Halves[Float[np.ndarray, " points"]],
    ) -> Int[np.ndarray, "windows shells"]:
        """Find the estimates with the least error against the first one of the other half set."""
        pairs = zip((spectra.first, spectra.second), (spectra.second, spectra.first), strict=True)
        errors = 0
        for (target, estimates), known in zip(pairs, weights, strict=True):
            apart = estimates - target[0]
            squares = (np.real(apart) ** 2 + np.imag(apart) ** 2) * known
            errors = errors + np.add.reduceat(squares, self.starts, axis=2)
        return np.argmin(errors, axis=0)

    def pick(
        self,
        spectra: Complex[np.ndarray, "levels windows points"],
        best: Int[np.ndarray, "windows shells"],
    ) -> Float[np.ndarray, "windows side side side"]:
        """Put what was chosen back together, and keep what is around the ball."""
        where = best[None, :, self.shells]
        picked = np.empty((len(best), self.side**2 * (self.side // 2 + 1)), np.complex64)
        picked[:, self.order] = np.take_along_axis(spectra, where, axis=0)[0]
        values = picked.reshape(-1, self.side, self.side, self.side // 2 + 1)
        for axis in (1, 2):
            values = np.asarray(scipy.fft.ifft(values, axis=axis, workers=-1))
            values = np.take(values, np.arange(2 * self.radius), axis=axis)
        found = scipy.fft.irfft(values, self.side, axis=3, workers=-1)
        return np.asarray(found)[..., : 2 * self.radius]


def _make_cubes(radius: int) -> _Cubes:
    axis = np.arange(-radius, radius) ** 2
    ball = (axis[:, None, None] + axis[:, None] + axis < radius**2).astype(np.float32)
    side = _WIDE * radius
    shells = np.minimum(np.rint(volume_radii(side)).astype(np.int64), side // 2 - 1).ravel()
    order = np.argsort(shells, kind="stable")
    starts = np.searchsorted(shells[order], np.arange(side // 2))
    return _Cubes(radius, ball, order, starts)

"""How far a map can be trusted from place to place, and the map filtered accordingly.

Two half-maps are correlated shell by shell in soft windows on a lattice. A window of few voxels
has few independent Fourier coefficients, whose correlation scatters. So cubes are no larger than
the windows, which makes shells as thick as a window can tell apart, and correlations count only
where noise alone would hardly reach them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int

from recovar.core import fourier
from recovar.core.grid import Grid, half_weights, volume_radii
from recovar.core.halves import Halves
from recovar.core.windows import Windows, average_windows, cut_cubes, noise_limits
from recovar.errors import InputError

_LEAST_FSC = 1e-4
"""From the first shell with a lower correlation, a window's filter is 0."""

_LEAST_VOXELS = 3.0
"""Length of the smallest windows that are chosen unasked, in voxels."""

_LEAST_SIDE = 8
"""Of the cube around a window, in voxels; smaller ones have no shells to speak of."""

_MARGIN = 0.25
"""Cubes that are filtered are wider than those of their windows, by this share on every side."""


def windows_of_length(length: float) -> Windows:
    """Make windows of the published shape that are one length in Å apart.

    They are 1 up to half of it and reach 0 at one and a half.

    Source: Gilles & Singer 2025; with 25 Å, the local resolution of RELION.
    """
    return Windows(length, length / 2, length)


def single_map_windows(grid: Grid) -> Windows:
    """Choose windows for the map of all images: 25 Å, and at least 3 voxels."""
    return windows_of_length(max(25.0, _LEAST_VOXELS * grid.voxel_size))


def state_windows(grid: Grid) -> Windows:
    """Choose windows for states: a twentieth of the box, and at least 3 voxels.

    Smaller windows scatter more and tell density from solvent more sharply, and for the filter the
    second counts more. On half-maps of a known molecule in a box of 64, windows of 3 voxels left a
    smaller error than windows of 6, and much less than one filter for the whole map.

    Source: Gilles & Singer 2025, who have no least number.
    """
    return windows_of_length(max(grid.size / 20, _LEAST_VOXELS) * grid.voxel_size)


@dataclass(frozen=True)
class LocalResolution:
    """How well two half-maps agree, window by window."""

    map: Float[np.ndarray, "z y x"]
    """Resolution in Å: one over the mean, weighted by the windows, of the frequencies that they
    resolve. `worst` where there is no window."""
    resolutions: Float[np.ndarray, " windows"]
    """Resolution of every window in Å."""
    curves: Float[np.ndarray, "windows shells"]
    """Correlations on shells of the cube around a window: shell s lies at the frequency
    s / (side · voxel size), and there are side/2 of them."""
    limits: Float[np.ndarray, " shells"]
    """What correlations had to reach."""
    centres: Int[np.ndarray, "windows 3"]
    """Voxel in the middle of every window, z y x."""
    windows: Windows
    """Their shape."""
    grid: Grid
    """Grid of the map."""


def local_resolution(
    halves: Halves[Float[np.ndarray, "z y x"]],
    grid: Grid,
    windows: Windows,
    mask: Float[np.ndarray, "z y x"] | None = None,
    worst: float = 50.0,
    threshold: float = 1 / 7,
    false_positives: float = 0.05,
) -> LocalResolution:
    """Tell the resolution around every point of a map from its half-maps.

    Args:
        halves: Maps of the two half sets, neither filtered nor masked.
        grid: Their grid.
        windows: Where they are compared; see `state_windows` and `single_map_windows`.
        mask: Where the molecule is. It chooses windows and does not touch the maps.
        worst: Largest resolution in Å, that of a window in which nothing agrees.
        threshold: A window is resolved up to the first shell whose correlation is lower.
        false_positives: On shells of few independent coefficients the threshold is raised to the
            correlation that noise exceeds with this probability. One half never raises it.

    Raises:
        InputError: If windows have too few voxels, or none is in the mask.

    Source: Gilles & Singer 2025 for windows and their combination. Other than there, cubes are no
    larger than the windows, the mean under a window is taken off, and the threshold is raised.
    """
    window = windows.sample(grid)
    if len(window) < _LEAST_SIDE:
        raise InputError(
            f"Expected windows that reach at least {_LEAST_SIDE // 2} voxels of "
            f"{grid.voxel_size:g} Å, got {windows.reach:g} Å. Choose larger ones."
        )
    centres = windows.centres(grid, mask)
    if not len(centres):
        raise InputError(
            "Expected a mask with voxels above 0.5 to tell the local resolution in, found none."
        )
    curves = _correlate(halves, centres, window)
    limits = np.maximum(threshold, noise_limits(window, false_positives))
    resolutions = _first_crossings(curves - limits, grid, worst)
    frequencies = average_windows(1 / resolutions, centres, window, grid, 1 / worst)
    return LocalResolution(1 / frequencies, resolutions, curves, limits, centres, windows, grid)


def filter_locally(
    volume: Float[np.ndarray, "z y x"], local: LocalResolution, b_factor: float = 0.0
) -> Float[np.ndarray, "z y x"]:
    """Keep of a map what its half-maps agree on, window by window.

    Every window weighs shells by √(2 FSC / (1 + FSC)), the correlation with the truth, up to where
    the correlation first vanishes, and cuts what is finer than its resolution with a cosine of one
    shell of the map to both sides. Windows that resolve everything cut nothing.

    Args:
        volume: Mean of the half-maps that `local` is of, unfiltered.
        local: Correlations of the half-maps.
        b_factor: Sharpens the map first; see `sharpen`.

    Returns:
        Mean of the filtered maps, weighted by the windows; 0 where there is no window.

    Source: Gilles & Singer 2025; `Rosenthal & Henderson 2003` for the weights. Other than there,
    windows are filtered in cubes of three times their reach and not in the whole box, and the
    correlation is interpolated between shells.
    """
    if b_factor:
        volume = sharpen(volume, local.grid, b_factor)
    window = local.windows.sample(local.grid)
    cubes = _filtered_cubes(volume, local, len(window))
    return average_windows(cubes, local.centres, window, local.grid)


def sharpen(
    volume: Float[np.ndarray, "z y x"], grid: Grid, b_factor: float
) -> Float[np.ndarray, "z y x"]:
    """Multiply the amplitudes of a map by exp(B s² / 4), s in 1/Å.

    Positive B, in Å², sharpens and negative B blurs: B is the decay that is undone. RELION
    (`--adhoc_bfac`) and the sharpening of cryoSPARC count the other way; their −100 is 100 here.

    Example:
        >>> grid = Grid(8, 2.0)
        >>> volume = np.random.default_rng(0).normal(size=grid.volume_shape)
        >>> np.allclose(sharpen(sharpen(volume, grid, 80.0), grid, -80.0), volume)
        True
    """
    squares = (volume_radii(grid.size) / (grid.size * grid.voxel_size)) ** 2
    sharpened = fourier.to_spectrum(volume) * np.exp(0.25 * b_factor * squares)
    return fourier.to_volume(sharpened).astype(volume.dtype)


def _correlate(
    halves: Halves[Float[np.ndarray, "z y x"]],
    centres: Int[np.ndarray, "windows 3"],
    window: Float[np.ndarray, "side side side"],
) -> Float[np.ndarray, "windows shells"]:
    """Correlate two maps under every window; shell 0 is given the value of shell 1."""
    side = len(window)
    shells = np.rint(volume_radii(side)).ravel()
    order = np.argsort(shells, kind="stable")
    order = order[: np.count_nonzero(shells < side // 2)]
    starts = np.searchsorted(shells[order], np.arange(side // 2))
    weights = np.broadcast_to(half_weights(side), volume_radii(side).shape).ravel()[order]

    def over_shells(products: np.ndarray) -> np.ndarray:
        return np.add.reduceat(products * weights, starts, axis=1)

    curves = []
    cubes_of_halves = (cut_cubes(half - half.mean(), centres, side) for half in halves)
    for batch in zip(*cubes_of_halves, strict=True):
        first, second = (
            _transform(_centred(cubes, window)).reshape(len(cubes), -1)[:, order] for cubes in batch
        )
        cross = over_shells(np.real(first.conj() * second))
        powers = [over_shells(np.real(a) ** 2 + np.imag(a) ** 2) for a in (first, second)]
        norm = np.sqrt(powers[0]) * np.sqrt(powers[1])
        curves.append(np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0))
    result = np.concatenate(curves).astype(np.float64)
    result[:, 0] = result[:, 1]
    return result


def _centred(
    cubes: Float[np.ndarray, "batch side side side"],
    window: Float[np.ndarray, "side side side"],
) -> Float[np.ndarray, "batch side side side"]:
    """Take off the mean under the window: it would leak into all shells, and agree there."""
    means = np.einsum("bzyx,zyx->b", cubes, window / window.sum())
    return (cubes - means[:, None, None, None]) * window


def _transform(
    cubes: Float[np.ndarray, "batch side side side"],
) -> Complex[np.ndarray, "batch side side half_side"]:
    return np.asarray(scipy.fft.rfftn(cubes, axes=(1, 2, 3), workers=-1))


def _first_crossings(
    excess: Float[np.ndarray, "windows shells"], grid: Grid, worst: float
) -> Float[np.ndarray, " windows"]:
    """Give the resolution at which curves first fall below 0, interpolated between shells.

    A curve that is below at once has the worst one, and one that never falls the best of the grid.
    """
    below = excess[:, 1:] < 0
    shell = 1 + np.argmax(below, axis=1)
    rows, falls = np.arange(len(excess)), below.any(axis=1)
    before, after = excess[rows, shell - 1], excess[rows, shell]
    crosses = falls & (shell > 1)
    drop = np.divide(before, before - after, out=np.zeros_like(before), where=crosses)
    side = 2 * excess.shape[1] * grid.voxel_size
    found = np.where(crosses, side / np.maximum(shell - 1 + drop, 1), worst)
    return np.minimum(np.where(falls, found, grid.resolution(grid.largest_radius)), worst)


def _filtered_cubes(
    volume: Float[np.ndarray, "z y x"], local: LocalResolution, side: int
) -> Iterator[Float[np.ndarray, "side side side"]]:
    """Filter what is around every window, and keep the cube that holds it."""
    margin = ceil(_MARGIN * side)
    wide = side + 2 * margin
    squares = np.rint(volume_radii(wide) ** 2).astype(np.int64)
    radii = np.sqrt(np.arange(squares.max() + 1)) / wide
    kept = slice(margin, margin + side)
    done = 0
    for cubes in cut_cubes(volume, local.centres, wide):
        weights = _filters(local, slice(done, done + len(cubes)), radii)
        done += len(cubes)
        spectra = _transform(cubes)
        spectra *= weights[:, squares]
        filtered = np.asarray(scipy.fft.irfftn(spectra, axes=(1, 2, 3), workers=-1))
        yield from filtered[:, kept, kept, kept]


def _filters(
    local: LocalResolution, part: slice, frequency: Float[np.ndarray, " points"]
) -> Float[np.ndarray, "batch points"]:
    """Compute the filters of some windows at frequencies in cycles per voxel."""
    curves = np.where(np.cumsum(local.curves[part] < _LEAST_FSC, axis=1), 0, local.curves[part])
    gains = np.sqrt(2 * curves / (1 + curves))
    shells = curves.shape[1]
    position = np.minimum(2 * shells * frequency, shells - 1)
    lower = np.minimum(position.astype(np.int64), shells - 2)
    share = position - lower
    weights = gains[:, lower] * (1 - share) + gains[:, lower + 1] * share
    cut = local.grid.resolution(1) / local.resolutions[part, None]
    beyond = np.clip((local.grid.size * frequency - cut + 1) / 2, 0, 1)
    passed = np.where(cut < local.grid.largest_radius, 0.5 + 0.5 * np.cos(np.pi * beyond), 1)
    return (weights * passed).astype(np.float32)

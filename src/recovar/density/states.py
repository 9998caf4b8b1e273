"""Stable states: peaks of a density with the images that belong to them."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.cluster.hierarchy import fcluster, linkage

from recovar.density.deconvolution import Deconvolution
from recovar.density.record import Density

_CONFIDENCE = 0.97
"""Least share of replicates in which a state must be divided from the next one."""
_INTERVAL = 2.5, 97.5
_TOP = 0.01
_MOST_POINTS = 5000


@dataclass(frozen=True)
class StableState:
    """A peak of the density."""

    position: Float64[np.ndarray, " zdim"]
    population: float
    """Share of molecules in its basin."""
    interval: tuple[float, float] | None
    """95 % interval of the population."""
    confidence: float | None
    """Share of replicates in which the density falls between it and the next state."""


@dataclass(frozen=True)
class _Pass:
    """The highest point between two basins."""

    peaks: tuple[int, int]
    """Cells of the lower and of the higher peak."""
    cell: int
    confidence: float


def find_states(found: Deconvolution, confidence: float = _CONFIDENCE) -> tuple[StableState, ...]:
    """Find peaks that are divided from each other beyond doubt.

    Every point belongs to the peak that steepest ascent leads to. A peak is kept if the density is
    lower at the pass to the next one than at both peaks in enough of the replicates; otherwise
    its basin is made one with that behind the pass.

    Args:
        found: Density with its replicates.
        confidence: What share of the replicates is enough.

    Returns:
        States by population, the largest first.
    """
    values = found.density.values
    replicates = found.replicates.reshape(len(found.replicates), -1)
    basins = climb(values).ravel()
    divided: dict[int, float] = {}
    while True:
        passes = _find_passes(values, basins, replicates)
        if not passes:
            break
        weakest = min(passes, key=lambda each: (each.confidence, values.flat[each.peaks[0]]))
        if weakest.confidence >= confidence:
            divided = {each.peaks[0]: each.confidence for each in passes}
            break
        lower, higher = weakest.peaks
        basins = np.where(basins == lower, higher, basins)
    peaks = np.unique(basins)
    lowest = min(divided.values(), default=None)
    states, flat = [], values.ravel()
    totals = replicates.sum(1, dtype=np.float64)
    for peak in peaks:
        inside = basins == peak
        shares = replicates[:, inside].sum(1, dtype=np.float64) / totals
        low, high = np.percentile(shares, _INTERVAL)
        states.append(
            StableState(
                _place(found.density, int(peak)),
                float(flat[inside].sum(dtype=np.float64) / flat.sum(dtype=np.float64)),
                (float(low), float(high)),
                divided.get(int(peak), lowest),
            )
        )
    return tuple(sorted(states, key=lambda state: -state.population))


def climb(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Give the number of the cell that steepest ascent leads to, for every cell."""
    cells = np.arange(values.size).reshape(values.shape)
    best, target = values.copy(), cells.copy()
    for offset in product((-1, 0, 1), repeat=values.ndim):
        here, there = _overlap(offset)
        higher = values[there] > best[here]
        best[here] = np.where(higher, values[there], best[here])
        target[here] = np.where(higher, cells[there], target[here])
    flat = target.ravel()
    while True:
        further = flat[flat]
        if (further == flat).all():
            return flat.reshape(values.shape)
        flat = further


def _overlap(offset: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Give the cells that have a neighbour at an offset, and these neighbours."""
    here = tuple(slice(max(0, -step), -step if step > 0 else None) for step in offset)
    there = tuple(slice(max(0, step), step if step < 0 else None) for step in offset)
    return here, there


def _find_passes(
    values: Float[np.ndarray, "..."],
    basins: Int[np.ndarray, " cells"],
    replicates: Float[np.ndarray, "replicates cells"],
) -> list[_Pass]:
    """Find the highest pass of every basin but the highest to one with a higher peak."""
    cells = np.arange(values.size).reshape(values.shape)
    labels, flat = basins.reshape(values.shape), values.ravel()
    highest: dict[tuple[int, int], int] = {}
    for offset in product((-1, 0, 1), repeat=values.ndim):
        here, there = _overlap(offset)
        border = labels[here] != labels[there]
        one, other = cells[here][border], cells[there][border]
        lower = np.where(flat[one] < flat[other], one, other)
        for index in np.argsort(flat[lower]):
            pair = sorted((basins[one[index]], basins[other[index]]), key=lambda peak: flat[peak])
            key, cell = (int(pair[0]), int(pair[1])), int(lower[index])
            if key not in highest or flat[cell] > flat[highest[key]]:
                highest[key] = cell
    found: dict[int, _Pass] = {}
    for (low, high), cell in highest.items():
        if low in found and flat[found[low].cell] >= flat[cell]:
            continue
        between = replicates[:, cell]
        apart = (between < replicates[:, low]) & (between < replicates[:, high])
        found[low] = _Pass((low, high), cell, float(apart.mean()))
    return list(found.values())


def _place(density: Density, cell: int) -> Float64[np.ndarray, " zdim"]:
    index = np.unravel_index(cell, density.values.shape)
    return np.array([axis[i] for axis, i in zip(density.axes, index, strict=True)])


def find_published_states(density: Density, count: int) -> tuple[StableState, ...]:
    """Divide the grid points of the highest density into clusters, and take the peak of each.

    The points in the top 1 % are clustered by complete linkage; of more than 5,000 the highest.
    This gives as many states as are asked for, whether they are there or not.

    Args:
        density: On a grid.
        count: How many states.

    Source: `estimate_stable_states` of the published program.
    """
    values = density.values.ravel()
    number = min(max(int(_TOP * values.size), count + 1), _MOST_POINTS)
    cells = np.argsort(-values, kind="stable")[:number]
    places = np.stack(np.unravel_index(cells, density.values.shape), axis=1).astype(np.float64)
    labels = fcluster(linkage(places, "complete"), count, "maxclust")
    states = []
    for label in np.unique(labels):
        inside = cells[labels == label]
        share = float(values[inside].sum() * density.cell)
        states.append(StableState(_place(density, int(inside[0])), share, None, None))
    return tuple(sorted(states, key=lambda state: -state.population))

"""Volumes on one grid to volumes on another, by their waves."""

from math import ceil

import numpy as np
from jaxtyping import Float

from recovar.core.grid import Grid


def resample(
    volume: Float[np.ndarray, "z y x"], voxel_size: float, grid: Grid
) -> Float[np.ndarray, "new_z new_y new_x"]:
    """Sample a volume anew; both grids have their origins in one place.

    The volume is taken for the sum of those waves that fit into the box of the grid and are longer
    than two voxels of both, so any voxel sizes and boxes go together. Boxes of one side in Å make
    this a Fourier crop or pad. Values keep their meaning: what is flat stays as high as it was.

    Args:
        volume: Map; what lies beyond the box of the grid is cut off.
        voxel_size: Of the volume, in Å.
        grid: Where values are wanted.
    """
    side = grid.size * grid.voxel_size
    place = (np.arange(len(volume)) - len(volume) // 2) * voxel_size / side
    inside = (place >= -0.5) & (place < 0.5)
    values = volume[np.ix_(inside, inside, inside)].astype(np.float32)
    shortest = min(grid.largest_radius, ceil(side / (2 * voxel_size)) - 1)
    distance = (np.arange(grid.size) / grid.size - 0.5)[:, None] - place[inside]
    distance -= np.rint(distance)
    waves = 2 * shortest + 1
    mixing = waves * np.sinc(waves * distance) / np.sinc(distance) * voxel_size / side
    for _ in range(3):
        values = np.tensordot(values, mixing.astype(np.float32), (0, 1))
    return np.ascontiguousarray(values)

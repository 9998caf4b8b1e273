"""The density of a molecule's states over latent coordinates, as other parts of the code use it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from scipy.interpolate import RegularGridInterpolator

from recovar.errors import InputError
from recovar.records import load_arrays, save_arrays

_AXIS = "axis{}"


@dataclass(frozen=True)
class Density:
    """A density on a regular grid; the sum of its values times `cell` is 1."""

    axes: tuple[Float64[np.ndarray, "..."], ...]
    """Places of the grid points along each latent coordinate, ends included."""
    values: Float[np.ndarray, "..."]
    """Density at the grid points; array axis 0 is the first coordinate."""
    bands: Float[np.ndarray, "2 ..."] | None = None
    """Lower and upper ends of a 95 % band at every point, where uncertainty is known."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates."""
        return len(self.axes)

    @property
    def cell(self) -> float:
        """Volume that a grid point stands for."""
        return cell_volume(self.axes)

    def at(self, points: Float[np.ndarray, "points zdim"]) -> Float64[np.ndarray, " points"]:
        """Interpolate linearly at points, of which the first coordinates count; 0 off the grid."""
        interpolate = RegularGridInterpolator(
            self.axes, self.values.astype(np.float64), bounds_error=False, fill_value=0.0
        )
        return interpolate(points[:, : self.dimensions].astype(np.float64))

    def marginal(self, axes: tuple[int, ...]) -> "Density":
        """Integrate over all coordinates but `axes`, counted from 0; bands are lost."""
        return normalize(
            tuple(self.axes[axis] for axis in axes), sum_to(self.values, axes, self.dimensions)
        )


def cell_volume(axes: tuple[Float64[np.ndarray, "..."], ...]) -> float:
    """Give the volume that a point of a regular grid stands for."""
    return float(np.prod([axis[1] - axis[0] for axis in axes]))


def sum_to(
    values: Float[np.ndarray, "..."], axes: tuple[int, ...], dimensions: int
) -> Float[np.ndarray, "..."]:
    """Sum over all of the last `dimensions` axes but some, which are put in the order named."""
    first = values.ndim - dimensions
    others = tuple(first + axis for axis in range(dimensions) if axis not in axes)
    order = [first + sorted(axes).index(axis) for axis in axes]
    return values.sum(others).transpose(*range(first), *order)


def normalize(
    axes: tuple[Float64[np.ndarray, "..."], ...], values: Float[np.ndarray, "..."]
) -> Density:
    """Make a density of values that are right up to a factor."""
    return Density(axes, values / float(values.sum(dtype=np.float64) * cell_volume(axes)))


def write_density(path: Path, density: Density) -> None:
    """Write a density as plain arrays: density, axis0 …, bounds, and bands where it has them."""
    arrays = {_AXIS.format(number): axis for number, axis in enumerate(density.axes)}
    if density.bands is not None:
        arrays["bands"] = density.bands
    bounds = np.array([[axis[0], axis[-1]] for axis in density.axes])
    save_arrays(path, density=density.values, bounds=bounds, **arrays)


def read_density(path: Path) -> Density:
    """Read a density that `write_density` wrote.

    Raises:
        InputError: If the file is missing or damaged, or holds something else.
    """
    arrays = load_arrays(path)
    names = [_AXIS.format(number) for number in range(len(arrays))]
    axes = tuple(arrays[name].astype(np.float64) for name in names if name in arrays)
    values = arrays.get("density")
    if values is None or values.shape != tuple(len(axis) for axis in axes):
        raise InputError(
            f"Expected a density with its axes in {path}, found {', '.join(arrays) or 'nothing'}. "
            "Give density.npz of recovar density."
        )
    return Density(axes, values, arrays.get("bands"))

"""What the microscope looks at: things that have states, as volumes and as projections."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Complex, Float, Num

from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.kaiser_bessel_numba import (
    bytes_of_transform,
    slice_accurately,
    transform_for_slices,
)
from recovar.core.resampling import resample
from recovar.data.mrc import read_volume
from recovar.errors import InputError


@runtime_checkable
class Specimen(Protocol):
    """What the microscope looks at: something that has states."""

    def spectra(
        self,
        states: Num[np.ndarray, "images coordinates"],
        rotations: Float[np.ndarray, "images 3 3"],
        grid: Grid,
    ) -> Complex[np.ndarray, "images pixels"]:
        """Transform the projections, one state each, on the disc of `grid.largest_radius`."""
        ...

    def volume(self, state: Num[np.ndarray, " coordinates"], grid: Grid) -> np.ndarray:
        """Sample one state in real space (z y x)."""
        ...


@runtime_checkable
class Volumes(Protocol):
    """Volumes in a row, as an array holds them; others may make or read them when asked."""

    def __len__(self) -> int:
        """Count the volumes."""
        ...

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Give one volume (z y x)."""
        ...


@dataclass(frozen=True)
class MapFiles:
    """Volumes in MRC files, brought to one grid when they are read."""

    paths: Sequence[Path]
    grid: Grid

    def __len__(self) -> int:
        """Count the files."""
        return len(self.paths)

    def __getitem__(self, number: int, /) -> Float[np.ndarray, "z y x"]:
        """Read a file, and resample it if its box or voxel size differs from the grid's.

        Raises:
            InputError: If the file cannot be read, is not a cube of even size, or does not say
                how large its voxels are.
        """
        path, grid = self.paths[number], self.grid
        read = read_volume(path)
        if read.voxel_size is None:
            raise InputError(
                f"{path}: expected a header with one voxel size for x and y, found none. Write "
                "the cell's sides in Å into the header."
            )
        same_voxels = np.isclose(read.voxel_size, grid.voxel_size, rtol=1e-6, atol=0)
        if read.values.shape == grid.volume_shape and same_voxels:
            return read.values
        return resample(read.values, read.voxel_size, grid)


@dataclass(frozen=True)
class SampledStates:
    """States of another specimen as volumes, each computed when it is wanted.

    Where many images show few states this costs one volume per state, and slices of it, instead of
    one sum over atoms per image. The volumes are then the truth: atoms that are sharper than the
    voxels would ring on beyond the box, where volumes end. Slices differ from sums over 4000 atoms
    of B = 80 Å² by 4e-3 at 64 voxels of 3 Å, by 5e-4 at 128 of 1.5 Å, and by 1e-5 for B = 200 Å².
    """

    specimen: Specimen
    states: Num[np.ndarray, "volumes coordinates"]
    grid: Grid

    def __len__(self) -> int:
        """Count the states."""
        return len(self.states)

    def __getitem__(self, number: int, /) -> Float[np.ndarray, "z y x"]:
        """Compute one state."""
        return self.specimen.volume(self.states[number], self.grid)


@dataclass(frozen=True)
class VolumeSpecimen:
    """Volumes in a row; the one coordinate of a state is a place among them.

    State 2 is the third volume, and 2.25 a quarter of the way to the fourth. Slices are exact to
    five digits; see `core.kaiser_bessel_numba`. Images in the order of their states transform each
    volume once, however little memory there is.
    """

    volumes: Volumes
    memory: int = 5 * 2**27
    """Bytes for transforms that are kept in case they are wanted again, two of them for a box of
    256; one is always kept. No result depends on it."""

    def spectra(
        self,
        states: Num[np.ndarray, "images coordinates"],
        rotations: Float[np.ndarray, "images 3 3"],
        grid: Grid,
    ) -> Complex[np.ndarray, "images pixels"]:
        """Slice the volumes on both sides of each state, volume by volume, and mix the slices."""
        place = self._places(states)
        disc = _disc(grid)
        spectra = np.zeros((len(states), len(disc)), np.complex64)
        for number in np.unique([np.floor(place), np.ceil(place)]).astype(int).tolist():
            share = np.maximum(0.0, 1 - np.abs(place - number)).astype(np.float32)
            seen = np.flatnonzero(share)
            slices = slice_accurately(self._transform(number, grid), rotations[seen], disc)
            slices *= share[seen, None]
            spectra[seen] += slices
        return spectra

    def volume(self, state: Num[np.ndarray, " coordinates"], grid: Grid) -> np.ndarray:
        """Mix the volumes on both sides of a state."""
        place = self._places(state[None])[0]
        mixed = np.zeros(grid.volume_shape, np.float32)
        for number in {int(np.floor(place)), int(np.ceil(place))}:
            mixed += np.float32(1 - abs(place - number)) * self._volume(number, grid)
        return mixed

    def _places(self, states: Num[np.ndarray, "images coordinates"]) -> np.ndarray:
        place = states.astype(np.float64).reshape(len(states), -1)
        last = len(self.volumes) - 1
        if place.shape[1] != 1 or not ((place >= 0) & (place <= last)).all():
            raise InputError(
                f"Expected states of one coordinate between 0 and {last}, got {place.shape[1]} "
                f"coordinates from {place.min(initial=0):g} to {place.max(initial=0):g}."
            )
        return place[:, 0]

    def _volume(self, number: int, grid: Grid) -> np.ndarray:
        volume = self.volumes[number]
        if volume.shape != grid.volume_shape:
            raise InputError(
                f"Expected volumes in the box of the images, {grid.volume_shape}, got "
                f"{volume.shape} for volume {number}. Bring them to one grid first."
            )
        return volume

    def _transform(self, number: int, grid: Grid) -> Complex[np.ndarray, " voxels"]:
        """Take a transform from those that are kept, or make room for it and make it."""
        disc = _disc(grid)
        key = (number, disc)
        if key not in self._kept:
            while self._kept and self._bytes_kept() + bytes_of_transform(disc) > self.memory:
                self._kept.popitem(last=False)
            self._kept[key] = transform_for_slices(self._volume(number, grid), disc)
        self._kept.move_to_end(key)
        return self._kept[key]

    @cached_property
    def _kept(self) -> "OrderedDict[tuple[int, Disc], Complex[np.ndarray, ' voxels']]":
        """Transforms, the one that was used last at the end."""
        return OrderedDict()

    def _bytes_kept(self) -> int:
        return sum(transform.nbytes for transform in self._kept.values())


@lru_cache(maxsize=4)
def _disc(grid: Grid) -> Disc:
    """Give the disc of all pixels; it is kept because it knows its pixels only after a while."""
    return Disc(grid.size, grid.largest_radius)

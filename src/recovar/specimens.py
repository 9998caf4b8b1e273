"""What the microscope looks at: things that have states, as volumes and as projections."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Complex, Float, Num

from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import Grid
from recovar.core.slicing_numba import slice_volumes
from recovar.core.volumes import to_ball
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


@dataclass(frozen=True)
class VolumeSpecimen:
    """Volumes in a row; the one coordinate of a state is a place among them.

    State 2 is the third volume, and 2.25 a quarter of the way to the fourth. Slices are
    interpolated, with an error that falls with the square of `oversampling`.
    """

    volumes: Float[np.ndarray, "states z y x"]
    oversampling: int = 3
    """Voxels per Fourier pixel of the images."""

    def spectra(
        self,
        states: Num[np.ndarray, "images coordinates"],
        rotations: Float[np.ndarray, "images 3 3"],
        grid: Grid,
    ) -> Complex[np.ndarray, "images pixels"]:
        """Slice the volumes on both sides of each state, and mix the slices."""
        place = self._places(states)
        disc = Disc(grid.size, grid.largest_radius)
        spectra = np.zeros((len(states), len(disc)), np.complex64)
        for number, values in enumerate(self._transforms):
            share = np.maximum(0.0, 1 - np.abs(place - number)).astype(np.float32)
            seen = np.flatnonzero(share)
            slices = slice_volumes(values[:, None], rotations[seen], disc, self._ball)[..., 0]
            spectra[seen] += share[seen, None] * slices
        return spectra

    def volume(self, state: Num[np.ndarray, " coordinates"], grid: Grid) -> np.ndarray:
        """Mix the volumes on both sides of a state."""
        place = self._places(state[None])[0]
        share = np.maximum(0.0, 1 - np.abs(place - np.arange(len(self.volumes))))
        return np.tensordot(share, self.volumes, 1).astype(np.float32)

    def _places(self, states: Num[np.ndarray, "images coordinates"]) -> np.ndarray:
        place = states.astype(np.float64).reshape(len(states), -1)
        last = len(self.volumes) - 1
        if place.shape[1] != 1 or (place < 0).any() or (place > last).any():
            raise InputError(
                f"Expected states of one coordinate between 0 and {last}, got {place.shape[1]} "
                f"coordinates from {place.min(initial=0):g} to {place.max(initial=0):g}."
            )
        return place[:, 0]

    @cached_property
    def _ball(self) -> Ball:
        size = self.volumes.shape[-1]
        return Ball(size, size // 2 - 1, self.oversampling)

    @cached_property
    def _transforms(self) -> list[Complex[np.ndarray, " voxels"]]:
        return [to_ball(volume, self._ball) for volume in self.volumes]

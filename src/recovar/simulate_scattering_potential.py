"""Atoms to volumes and to images: sums of waves over the atoms, without interpolation.

Values are the electrostatic potential up to a constant: a volume sums to the atoms' scattering
amplitudes at zero angle, in Å.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import gemmi
import numpy as np
from jaxtyping import Complex, Float, Num
from threadpoolctl import threadpool_limits

from recovar.core import fourier
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.data.atoms import Atoms
from recovar.errors import InputError


def form_factor(element: str, frequency: Float[np.ndarray, "*points"]) -> np.ndarray:
    """Evaluate the scattering amplitude of a free atom for electrons, in Å.

    f(k) = Σ aⱼ exp(−bⱼ |k|²/4): the tables are made for sin θ/λ = |k|/2.

    Source: Peng et al., Acta Cryst. A 52 (1996) 257, table 1, which is table 4.3.2.2 of the
    International Tables C; valid up to |k| = 4/Å.

    Args:
        element: Chemical symbol.
        frequency: |k| in 1/Å.

    Raises:
        InputError: If the element is unknown or has no table.

    Example:
        >>> form_factor("C", np.zeros(1)).round(3).tolist()
        [2.509]
    """
    known = gemmi.Element(element)
    if known.c4322 is None or known.name.upper() != element.upper() or known.name == "X":
        raise InputError(
            f"Expected a chemical element from H to Cf, got {element!r}. Rename or remove the atom."
        )
    a, b = np.split(np.array(known.c4322.get_coefs()), 2)
    return np.exp(-0.25 * np.multiply.outer(np.asarray(frequency) ** 2, b)) @ a


def sum_waves(
    atoms: Atoms, frequencies: Float[np.ndarray, "points 3"]
) -> Complex[np.ndarray, " points"]:
    """Transform atoms at any frequencies (x y z, 1/Å), one wave at a time, in float64.

    The reference for the fast routes: Σ f(|k|) exp(−2πi k·r).
    """
    total = np.zeros(len(frequencies), np.complex128)
    lengths = np.linalg.norm(frequencies, axis=1)
    for element, positions in _by_element(atoms):
        waves = np.exp(-2j * np.pi * (frequencies @ positions.T)).sum(1)
        total += form_factor(element, lengths) * waves
    return total * np.exp(-0.25 * atoms.b_factor * lengths**2)


def generate_volume(atoms: Atoms, grid: Grid) -> Float[np.ndarray, "z y x"]:
    """Sample the potential on a grid, cut off sharply at the grid's largest frequencies."""
    radius, step = grid.largest_radius, 1 / (grid.size * grid.voxel_size)
    axis = np.fft.fftfreq(grid.size, 1 / grid.size) * step
    k = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis[: radius + 1] ** 2)
    spectrum = np.zeros(grid.spectrum_shape, np.complex64)
    inside = np.arange(-radius, radius + 1)
    for element, positions in _by_element(atoms):
        x, y, z = (_waves(step * along, radius) for along in positions.T)
        factor = form_factor(element, k).astype(np.float32)
        for row in inside:
            plane = (y * z[row + radius]) @ x[radius:].T
            spectrum[row, inside, : radius + 1] += factor[row, inside] * plane
    spectrum[..., : radius + 1] *= np.exp(-0.25 * atoms.b_factor * k**2).astype(np.float32)
    return fourier.to_volume(spectrum)


def generate_image(
    atoms: Atoms, rotation: Float[np.ndarray, "3 3"], disc: Disc, voxel_size: float
) -> Complex[np.ndarray, " pixels"]:
    """Transform the projection of the potential.

    Args:
        atoms: What is seen.
        rotation: Rows are the image axes in the frame of the molecule.
        disc: Pixels wanted.
        voxel_size: Pixel size in Å.
    """
    step = 1 / (disc.size * voxel_size)
    frequency = step * disc.radii.astype(np.float64)
    total = np.zeros(len(disc), np.complex64)
    for element, positions in _by_element(atoms):
        x, y = (_waves(step * along, disc.radius) for along in rotation[:2] @ positions.T)
        plane = y @ x[disc.radius :].T
        factor = form_factor(element, frequency).astype(np.float32)
        total += factor * plane[disc.y + disc.radius, disc.x]
    return total * np.exp(-0.25 * atoms.b_factor * frequency**2).astype(np.float32)


def _by_element(atoms: Atoms) -> list[tuple[str, np.ndarray]]:
    return [
        (str(element), atoms.positions[atoms.elements == element])
        for element in np.unique(atoms.elements)
    ]


def _waves(turns: Float[np.ndarray, " atoms"], radius: int) -> Complex[np.ndarray, "k atoms"]:
    """Compute exp(−2πi k·turns) for k = −radius … radius, as powers of the first."""
    step = np.exp(-2j * np.pi * turns)
    waves = np.empty((2 * radius + 1, len(turns)), np.complex64)
    power = np.ones_like(step)
    for k in range(radius + 1):
        waves[radius + k] = power
        waves[radius - k] = power.conj()
        power *= step
    return waves


@dataclass(frozen=True)
class AtomicSpecimen:
    """A molecule whose atoms move, come and go with its state."""

    atoms_at: Callable[[Num[np.ndarray, " coordinates"]], Atoms]
    """Gives the atoms in a state."""

    def spectra(
        self,
        states: Num[np.ndarray, "images coordinates"],
        rotations: Float[np.ndarray, "images 3 3"],
        grid: Grid,
    ) -> Complex[np.ndarray, "images pixels"]:
        """Transform the projections of the molecule, each image in its own state."""
        disc = Disc(grid.size, grid.largest_radius)

        def see(state: np.ndarray, rotation: np.ndarray) -> np.ndarray:
            return generate_image(self.atoms_at(state), rotation, disc, grid.voxel_size)

        # Every thread multiplies its own matrices: the sums then do not depend on their number.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(see, states, rotations)))

    def volume(self, state: Num[np.ndarray, " coordinates"], grid: Grid) -> np.ndarray:
        """Sample the molecule in one state."""
        with threadpool_limits(1, "blas"):
            return generate_volume(self.atoms_at(state), grid)

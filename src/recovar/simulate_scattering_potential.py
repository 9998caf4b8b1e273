"""Atoms to volumes and to images: sums of waves over the atoms, without interpolation.

Values are the electrostatic potential up to a constant: a volume sums to the atoms' scattering
amplitudes at zero angle, in Å. Atoms are free atoms: what bonds and charges change is left out.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float, Int, Num
from threadpoolctl import threadpool_limits

from recovar.core import fourier
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.scattering import excluded_solvent, form_factor
from recovar.data.atoms import SERVER, Atoms, find_structure, read_atoms
from recovar.errors import InputError

Device = Literal["numpy", "jax"]
"""What multiplies the matrices: the processor, or the device that JAX has chosen."""


@dataclass(frozen=True)
class _Library:
    """Arrays of one kind and how much of them is worked on at a time."""

    arrays: Any
    multiply: Callable[[Any, Any], Any]
    block: int
    """Atoms."""
    slab: int
    """Numbers in the larger factor of a product."""
    workers: int
    """Products at a time."""
    padded: bool
    """Whether blocks grow to the next power of two, so that few shapes are compiled."""


_LIBRARIES = {
    "numpy": _Library(np, np.matmul, 1024, 1 << 19, os.cpu_count() or 1, False),
    "jax": _Library(jnp, partial(jnp.matmul, precision="highest"), 8192, 1 << 26, 1, True),
}


def sum_waves(
    atoms: Atoms, frequencies: Float[np.ndarray, "points 3"], *, solvent: bool = False
) -> Complex[np.ndarray, " points"]:
    """Transform atoms at any frequencies (x y z, 1/Å), one wave at a time, in float64.

    The reference for the fast routes: Σ occupancy f(|k|) exp(−B |k|²/4 − 2πi k·r). With `solvent`,
    f is less by the amplitude of the ice whose place the atom takes (`excluded_solvent`), which
    is there as often as the atom and as smeared.

    Example:
        >>> atom = Atoms(np.zeros((1, 3)), np.array(["C"]), b_factor=100.0)
        >>> sum_waves(atom, np.array([[0.0, 0.0, 0.0], [0.0, 0.2, 0.0]])).real.round(3).tolist()
        [2.509, 0.787]
    """
    total = np.zeros(len(frequencies), np.complex128)
    lengths = np.linalg.norm(frequencies, axis=1)
    for element, part in _by_element(atoms):
        waves = np.zeros_like(total)
        own = np.zeros(len(part)) if part.b_factors is None else part.b_factors
        share = np.ones(len(part)) if part.occupancy is None else part.occupancy
        for position, b, weight in zip(part.positions, own, share, strict=True):
            waves += weight * np.exp(-2j * np.pi * (frequencies @ position) - 0.25 * b * lengths**2)
        total += _amplitude(element, lengths, atoms.b_factor, solvent) * waves
    return total


def generate_spectrum(
    atoms: Atoms, grid: Grid, *, solvent: bool = False, device: Device = "numpy"
) -> Complex[np.ndarray, "z y half"]:
    """Transform atoms on a grid: all |kₓ|, |k_y|, |k_z| up to the grid's largest radius.

    Equals `sum_waves` to 1e-6 of the largest value. Takes size³ multiplications for each atom,
    and besides the result the memory of one real volume, however many atoms there are.

    Args:
        atoms: What is seen, around the origin.
        grid: Frequencies wanted; the planes at −size/2 stay zero.
        solvent: Whether the atoms are in ice instead of in vacuum, as in `sum_waves`.
        device: Where the products of matrices are made. The result differs by rounding only.

    Returns:
        Half-complex unnormalized coefficients with the zero frequency in the corner.
    """
    radius, step = grid.largest_radius, 1 / (grid.size * grid.voxel_size)
    positive = np.arange(radius + 1)
    inside = np.concatenate([positive, -positive[:0:-1]])
    square = inside[:, None] ** 2 + positive**2
    lengths = step * np.sqrt(np.arange(3 * radius**2 + 1))
    spectrum = np.zeros(grid.spectrum_shape, np.complex64)
    for element, part in _by_element(atoms):
        amplitude = _amplitude(element, lengths, atoms.b_factor, solvent).astype(np.float32)
        for z, parts in enumerate(_sum_products(part, step, radius, _LIBRARIES[device])):
            real, imaginary = np.moveaxis(_unfold(np.moveaxis(parts, 0, 2)), 1, 0)
            factor = amplitude[z**2 + square]
            spectrum[z, inside, : radius + 1] += factor * (real + 1j * imaginary)
            if z:
                spectrum[-z, inside, : radius + 1] += factor * (real - 1j * imaginary)
    return spectrum


def generate_volume(
    atoms: Atoms, grid: Grid, *, solvent: bool = False, device: Device = "numpy"
) -> Float[np.ndarray, "z y x"]:
    """Sample the potential on a grid, cut off sharply at the grid's largest frequencies.

    Arguments are those of `generate_spectrum`.

    Example:
        >>> atom = Atoms(np.zeros((1, 3)), np.array(["C"]), b_factor=100.0)
        >>> volume = generate_volume(atom, Grid(8, 2.0))
        >>> np.unravel_index(volume.argmax(), volume.shape) == (4, 4, 4)
        True
    """
    return fourier.to_volume(generate_spectrum(atoms, grid, solvent=solvent, device=device))


def generate_image(
    atoms: Atoms,
    rotation: Float[np.ndarray, "3 3"],
    disc: Disc,
    voxel_size: float,
    *,
    solvent: bool = False,
    device: Device = "numpy",
) -> Complex[np.ndarray, " pixels"]:
    """Transform the projection of the potential.

    Args:
        atoms: What is seen.
        rotation: Rows are the image axes in the frame of the molecule.
        disc: Pixels wanted.
        voxel_size: Pixel size in Å.
        solvent: As in `generate_spectrum`.
        device: As in `generate_spectrum`.

    Example:
        >>> atoms = Atoms(np.array([[5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]]), np.array(["C", "C"]))
        >>> image = generate_image(atoms, np.eye(3), Disc(8, 3), 2.5)
        >>> bool(abs(image[0] - 2 * 2.509) < 1e-3)
        True
    """
    step, width = 1 / (disc.size * voxel_size), disc.radius + 1
    library = _LIBRARIES[device]
    square = disc.x.astype(np.int64) ** 2 + disc.y.astype(np.int64) ** 2
    lengths = step * np.sqrt(np.arange(disc.radius**2 + 1))
    total = np.zeros(len(disc), np.complex64)
    for element, part in _by_element(atoms):
        sums = library.arrays.zeros((2 * width, 2 * width), np.float32)
        for x, y in _waves(part, rotation[:2], step, disc.radius, library):
            sums += library.multiply(y.reshape(2 * width, -1), x.reshape(2 * width, -1).T)
        plane = _unfold(np.asarray(sums).view(np.complex64).reshape(width, 2, width))
        amplitude = _amplitude(element, lengths, atoms.b_factor, solvent).astype(np.float32)
        total += amplitude[square] * plane[disc.y, disc.x]
    return total


def _by_element(atoms: Atoms) -> list[tuple[str, Atoms]]:
    return [
        (str(element), atoms.select(atoms.elements == element))
        for element in np.unique(atoms.elements)
    ]


def _amplitude(
    element: str, frequency: Float[np.ndarray, " points"], b_factor: float, solvent: bool
) -> Float[np.ndarray, " points"]:
    amplitude = form_factor(element, frequency)
    if solvent:
        amplitude = amplitude - excluded_solvent(element, frequency)
    return amplitude * np.exp(-0.25 * b_factor * frequency**2)


def _waves(
    atoms: Atoms, axes: Float[np.ndarray, "axes 3"], step: float, radius: int, library: _Library
) -> Iterator[list[Any]]:
    """Compute exp(−2πi k·r) along axes for k = 0 … radius, block by block of the atoms.

    Own B-factors are in the waves, for exp(−B |k|²/4) is a product over the axes, and the
    occupancy in those of the first axis.

    Yields:
        For every axis real and imaginary parts (k 2 atoms), in float32.
    """
    arrays = library.arrays
    k = arrays.arange(radius + 1, dtype=np.int32)[:, None]
    last = (len(atoms) - 1) % library.block + 1
    margin = (1 << (last - 1).bit_length()) - last if library.padded else 0
    turns = np.pad(_count_turns(atoms, step * axes), ((0, 0), (0, margin)))
    share = np.ones(len(atoms)) if atoms.occupancy is None else atoms.occupancy
    share = np.pad(share.astype(np.float32), (0, margin))
    own = None if atoms.b_factors is None else np.pad(atoms.b_factors, (0, margin))
    for start in range(0, len(share), library.block):
        block = slice(start, start + library.block)
        damping = arrays.ones((1, 1, 1), np.float32)
        if own is not None:
            exponent = np.float32(-0.25 * step**2) * (k**2).astype(np.float32)
            damping = arrays.exp(exponent * arrays.asarray(own[block], np.float32))[:, None]
        weights = [damping * arrays.asarray(share[block])] + [damping] * (len(axes) - 1)
        yield [
            _wave(k, turn, weight, arrays)
            for turn, weight in zip(arrays.asarray(turns[:, block]), weights, strict=True)
        ]


def _wave(k: Any, turns: Any, weight: Any, arrays: Any) -> Any:  # noqa: ANN401
    # Whole turns fall off where the product leaves its 32 bits.
    angle = (k * turns).astype(np.float32) * np.float32(-2 * np.pi / 2**32)
    return weight * arrays.stack([arrays.cos(angle), arrays.sin(angle)], axis=1)


def _count_turns(
    atoms: Atoms, frequencies: Float[np.ndarray, "axes 3"]
) -> Int[np.ndarray, "axes atoms"]:
    """Evaluate k·r without whole turns, in units of 2⁻³² turns."""
    turns = frequencies @ atoms.positions.astype(np.float64).T
    return np.rint((turns - np.rint(turns)) * 2.0**32).astype(np.int64).astype(np.int32)


def _sum_products(
    atoms: Atoms, step: float, radius: int, library: _Library
) -> Iterator[Complex[np.ndarray, "2 k 2 k"]]:
    """Sum products of waves over the atoms of one element.

    Yields:
        For every z = 0 … radius the sums with the real and the imaginary parts of the waves along
        z (first axis) and along y (third axis), for y and x = 0 … radius.
    """
    width = radius + 1
    edges = [*range(0, width, max(1, library.slab // (4 * width * library.block))), width]
    slabs = [
        library.arrays.zeros((4 * width * (end - start), 2 * width), np.float32)
        for start, end in pairwise(edges)
    ]

    def add(slab: int, x: Any, y: Any, z: Any) -> None:  # noqa: ANN401
        along = z[edges[slab] : edges[slab + 1], :, None] * y
        slabs[slab] += library.multiply(along.reshape(len(slabs[slab]), -1), x.T)

    # Every thread multiplies its own matrices: the sums then do not depend on their number.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(library.workers) as pool:
        for waves in _waves(atoms, np.eye(3), step, radius, library):
            x, y = (wave.reshape(2 * width, -1) for wave in waves[:2])
            list(pool.map(partial(add, x=x, y=y, z=waves[2]), range(len(slabs))))
    for slab in slabs:
        yield from np.asarray(slab).view(np.complex64).reshape(-1, 2, width, 2, width)


def _unfold(parts: Complex[np.ndarray, "k 2 *rest"]) -> Complex[np.ndarray, "signed *rest"]:
    """Make sums with waves 0 … radius, −radius … −1 from those with their parts."""
    real, imaginary = parts[:, 0], 1j * parts[:, 1]
    return np.concatenate([real + imaginary, (real - imaginary)[:0:-1]])


@dataclass(frozen=True)
class AtomicSpecimen:
    """A molecule whose atoms move, come and go with its state."""

    atoms_at: Callable[[Num[np.ndarray, " coordinates"]], Atoms]
    """Gives the atoms in a state."""
    solvent: bool = False
    """Whether the molecule is in ice instead of in vacuum, as in `sum_waves`."""
    device: Device = "numpy"
    """Where the products of matrices are made."""

    def spectra(
        self,
        states: Num[np.ndarray, "images coordinates"],
        rotations: Float[np.ndarray, "images 3 3"],
        grid: Grid,
    ) -> Complex[np.ndarray, "images pixels"]:
        """Transform the projections of the molecule, each image in its own state."""
        disc = Disc(grid.size, grid.largest_radius)

        def see(state: np.ndarray, rotation: np.ndarray) -> np.ndarray:
            return generate_image(
                self.atoms_at(state),
                rotation,
                disc,
                grid.voxel_size,
                solvent=self.solvent,
                device=self.device,
            )

        # Every thread multiplies its own matrices: the sums then do not depend on their number.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(see, states, rotations)))

    def volume(self, state: Num[np.ndarray, " coordinates"], grid: Grid) -> np.ndarray:
        """Sample the molecule in one state."""
        atoms = self.atoms_at(state)
        return generate_volume(atoms, grid, solvent=self.solvent, device=self.device)


def generate_molecule_spectrum_from_pdb_id(
    molecule: str | Path,
    voxel_size: float | int,
    grid_size: int,
    *,
    assembly: str | None = None,
    solvent: bool = False,
    cache: Path | None = None,
    server: str = SERVER,
) -> Complex[np.ndarray, "z y half"]:
    """Transform a molecule of the Protein Data Bank, its bounding box centred in the volume.

    The spectrum is half-complex and unnormalized with the zero frequency in the corner;
    `core.fourier.to_volume` makes the map of it. B-factors and occupancies are those of the file;
    hydrogens and waters are left out.

    Args:
        molecule: Identifier such as 6VXX, which is looked for and fetched as `find_structure`
            says, or the path of a file that `read_atoms` reads.
        voxel_size: Å.
        grid_size: Voxels along one side.
        assembly: Name of the biological assembly; None takes the atoms as the file has them.
        solvent: As in `generate_spectrum`.
        cache: Where fetched structures are kept, as in `find_structure`.
        server: Where they are fetched from.

    Raises:
        InputError: If there is no such structure and none can be fetched, it cannot be read, or
            it does not fit into the volume.
    """
    atoms = read_atoms(find_structure(molecule, cache, server), assembly=assembly).centred()
    grid = Grid(grid_size, float(voxel_size))
    extent = 2 * float(np.abs(atoms.positions).max())
    if extent > grid_size * voxel_size:
        raise InputError(
            f"Expected {molecule} to fit into {grid_size} voxels of {voxel_size:g} Å, but it is "
            f"{extent:.0f} Å long. Take at least {int(np.ceil(extent / voxel_size))} voxels."
        )
    return generate_spectrum(atoms, grid, solvent=solvent)

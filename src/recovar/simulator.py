"""Volumes and molecules to data sets with known truth.

All random choices come from counters keyed by the seed, the kind of choice and, for noise, the
image. So image 7 is the same bits whatever the block it is made in and the images after it.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int, Num

from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid, expand_shells, image_radii
from recovar.core.poses import random_rotations
from recovar.data import ImageTable
from recovar.data.cryosparc import write_cs
from recovar.data.legacy import write_ctf_pickle, write_poses_pickle
from recovar.data.mrc import StackWriter, write_volume
from recovar.data.star import write_particles
from recovar.records import save_arrays
from recovar.specimens import Specimen

BLOCK = 256
"""Images that are made at a time; no result depends on it."""


class Choice(IntEnum):
    """What a stream of random numbers decides."""

    ROTATION = 0
    VIEW = 1
    PREFERENCE = 2
    SHIFT = 3
    DEFOCUS = 4
    CONTRAST = 5
    NOISE = 6
    STATE = 7
    SPECIMEN = 8


def random_stream(seed: int, choice: Choice, image: int = 0) -> np.random.Generator:
    """Start the stream of random numbers for one kind of choice, and for noise for one image."""
    return np.random.Generator(np.random.Philox(key=[seed, image], counter=[0, 0, 0, choice]))


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How the images of a data set differ from one another."""

    defocus: tuple[float, float] = (8_000.0, 25_000.0)
    """Å, from and to."""
    astigmatism: float = 150.0
    """Largest difference of a defocus from its mean over directions, in Å."""
    voltage: float = 300.0
    """kV."""
    spherical_aberration: float = 2.7
    """mm."""
    amplitude_contrast: float = 0.1
    shift: float = 5.0
    """Standard deviation along x and y, in Å."""
    contrast: float = 0.15
    """Standard deviation of the factor that multiplies an image's signal; its mean is 1."""
    preferred: float = 0.3
    """Share of images that are seen about along the y axis; the rest is seen from anywhere."""
    preferred_spread: float = 0.3
    """Spread of the preferred views in radians."""


@dataclass(frozen=True)
class Truth:
    """All that is known about simulated images."""

    states: Num[np.ndarray, "images coordinates"]
    """State of the specimen in every image."""
    rotations: Float[np.ndarray, "images 3 3"]
    shifts: Float[np.ndarray, "images 2"]
    """Offsets in Å that centre the images; the images carry the opposite."""
    optics: Optics
    contrast: Float[np.ndarray, " images"]
    """Factor of the signal."""
    noise: Float[np.ndarray, " shells"]
    """Variance of the unnormalized coefficients of the noise; the last value continues."""
    seed: int
    """Makes the noise."""
    amplitude: float = 1.0
    """Factor from the specimen's volumes to those that the images show."""


def draw_truth(
    states: Num[np.ndarray, "images coordinates"], grid: Grid, conditions: Conditions, seed: int
) -> Truth:
    """Draw poses, optics and contrast for images of given states; noise is as in `noise_shape`."""
    count = len(states)
    choices = random_stream(seed, Choice.DEFOCUS).random((count, 3))
    defocus = conditions.defocus[0] + np.ptp(conditions.defocus) * choices[:, 0]
    difference = conditions.astigmatism * choices[:, 1]
    contrast = random_stream(seed, Choice.CONTRAST).normal(1.0, conditions.contrast, count)
    shifts = random_stream(seed, Choice.SHIFT).normal(0.0, conditions.shift, (count, 2))
    return Truth(
        states=states,
        rotations=_draw_rotations(count, conditions, seed),
        shifts=shifts,
        optics=Optics(
            defocus_u=defocus + difference,
            defocus_v=defocus - difference,
            defocus_angle=np.pi * choices[:, 2],
            voltage=np.full(count, conditions.voltage),
            spherical_aberration=np.full(count, conditions.spherical_aberration),
            amplitude_contrast=np.full(count, conditions.amplitude_contrast),
            phase_shift=np.zeros(count),
            b_factor=np.zeros(count),
            scale=np.ones(count),
        ),
        contrast=np.maximum(0.1, contrast),
        noise=noise_shape(grid),
        seed=seed,
    )


def noise_shape(grid: Grid) -> Float[np.ndarray, " shells"]:
    """Make up coloured noise: flat, and up to three times as strong below 1/40 Å.

    Returns:
        Variance of the unnormalized coefficients, scaled so that pixels have a variance of 1.
    """
    frequency = np.arange(grid.shells) / (grid.size * grid.voxel_size)
    shape = 1 + 2 / (1 + (40 * frequency) ** 2)
    return shape / _pixel_variance(shape, grid.size)


def _pixel_variance(noise: Float[np.ndarray, " shells"], size: int) -> float:
    k = np.fft.fftfreq(size, 1 / size)
    return float(expand_shells(noise, np.hypot(k[:, None], k)).sum()) / size**4


def _draw_rotations(
    count: int, conditions: Conditions, seed: int
) -> Float[np.ndarray, "images 3 3"]:
    rotations = random_rotations(count, random_stream(seed, Choice.ROTATION))
    spread = random_stream(seed, Choice.VIEW).normal(0, conditions.preferred_spread, (count, 3))
    views = spread + np.array([0.0, 1.0, 0.0])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    across = rotations[:, 0] - (rotations[:, 0] * views).sum(1, keepdims=True) * views
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    preferred = np.stack([across, np.cross(views, across), views], axis=1)
    chosen = random_stream(seed, Choice.PREFERENCE).random(count) < conditions.preferred
    return np.where(chosen[:, None, None], preferred, rotations)


@dataclass(frozen=True)
class Simulation:
    """A data set that exists as a recipe: any of its images can be made at any time."""

    specimen: Specimen
    grid: Grid
    truth: Truth
    delocalized: bool = True
    """Whether the transfer function acts in a field of twice the box, so that what it carries out
    of an image is lost; else it comes in again at the other side."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.truth.states)

    def signals(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k y x"]:
        """Make images without noise."""
        truth = self.truth
        spectra = self.specimen.spectra(truth.states[rows], truth.rotations[rows], self.grid)
        spectra *= (truth.amplitude * truth.contrast[rows, None]).astype(np.float32)
        disc = Disc(self.grid.size, self.grid.largest_radius)
        return self._map(self._expose, rows, disc.to_spectra(spectra))

    def images(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k y x"]:
        """Make images with noise, as a detector would give them."""
        deviation = np.sqrt(expand_shells(self.truth.noise, image_radii(self.grid.size)))
        deviation = (deviation / self.grid.size).astype(np.float32)

        def degrade(row: int, signal: np.ndarray) -> np.ndarray:
            stream = random_stream(self.truth.seed, Choice.NOISE, row)
            white = stream.standard_normal(signal.shape, np.float32)
            return signal + scipy.fft.irfft2(np.asarray(scipy.fft.rfft2(white)) * deviation)

        return self._map(degrade, rows, self.signals(rows))

    def blocks(self) -> Iterator[Float[np.ndarray, "k y x"]]:
        """Make all images, block by block."""
        for start in range(0, len(self), BLOCK):
            yield self.images(np.arange(start, min(start + BLOCK, len(self))))

    def volume(self, state: Num[np.ndarray, " coordinates"]) -> Float[np.ndarray, "z y x"]:
        """Sample the specimen in one state, on the scale of the images."""
        volume = self.specimen.volume(state, self.grid)
        return (self.truth.amplitude * volume).astype(np.float32)

    def at_signal_to_noise(self, ratio: float, sample: int = 256) -> "Simulation":
        """Scale the specimen so that pixels have a given ratio of signal to noise variance.

        Args:
            ratio: Mean square of the signal over that of the noise, all pixels of the box.
            sample: The signal is measured on this many of the first images.
        """
        power = np.square(self.signals(np.arange(min(sample, len(self)))), dtype=np.float64).mean()
        wanted = ratio * _pixel_variance(self.truth.noise, self.grid.size)
        amplitude = self.truth.amplitude * (wanted / power) ** 0.5
        return replace(self, truth=replace(self.truth, amplitude=float(amplitude)))

    def _map(
        self,
        function: Callable[[int, np.ndarray], np.ndarray],
        rows: Int[np.ndarray, " k"],
        images: np.ndarray,
    ) -> Float[np.ndarray, "k y x"]:
        """Work on every image alone, so that no result depends on its neighbours in a block."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.stack(list(pool.map(function, rows.tolist(), images)))

    def _expose(
        self, row: int, spectrum: Complex[np.ndarray, "y half"]
    ) -> Float[np.ndarray, "y x"]:
        """Shift a projection and pass it through the microscope."""
        size = self.grid.size
        image = scipy.fft.fftshift(scipy.fft.irfft2(spectrum))
        margin = size // 2 if self.delocalized else 0
        field = size + 2 * margin
        y = scipy.fft.fftfreq(field, self.grid.voxel_size)[:, None]
        x = scipy.fft.rfftfreq(field, self.grid.voxel_size)
        optics, shift = self.truth.optics[np.array([row])], self.truth.shifts[row]
        transfer = transfer_function(optics, *np.broadcast_arrays(x, y))[0]
        carried = transfer * np.exp(2j * np.pi * (shift[0] * x + shift[1] * y))
        spread = np.asarray(scipy.fft.rfft2(np.pad(image, margin))) * carried.astype(np.complex64)
        inside = slice(margin, margin + size)
        return np.asarray(scipy.fft.irfft2(spread))[inside, inside]


def write_simulation(
    simulation: Simulation, directory: Path, states: Num[np.ndarray, "volumes coordinates"]
) -> None:
    """Write images with their poses and optics in all formats that are read, and the truth.

    Makes `particles.mrcs`, `particles.star`, `particles.cs`, `poses.pkl`, `ctf.pkl`, and in
    `truth/` the arrays of `Truth` with the volumes of some states.

    Args:
        simulation: What to write.
        directory: Where; it is made if it is missing.
        states: States whose volumes are written, on the scale of the images.
    """
    grid, truth = simulation.grid, simulation.truth
    (directory / "truth").mkdir(parents=True, exist_ok=True)
    with StackWriter(directory / "particles.mrcs", grid.voxel_size) as writer:
        for images in simulation.blocks():
            writer.append(images)
    table = _table(simulation, directory / "particles.star")
    write_particles(directory / "particles.star", table)
    write_cs(directory / "particles.cs", table, np.arange(1, len(table) + 1, dtype=np.uint64))
    fractions = truth.shifts / (grid.size * grid.voxel_size)
    write_poses_pickle(directory / "poses.pkl", truth.rotations, fractions)
    write_ctf_pickle(directory / "ctf.pkl", truth.optics, grid.size, grid.voxel_size)
    plain = {name: value for name, value in vars(truth).items() if name != "optics"}
    save_arrays(
        directory / "truth" / "truth.npz", **plain, **vars(truth.optics), volume_states=states
    )
    for number, state in enumerate(states):
        path = directory / "truth" / f"volume_{number:03d}.mrc"
        write_volume(path, simulation.volume(state), grid.voxel_size)


def _table(simulation: Simulation, source: Path) -> ImageTable:
    count, grid = len(simulation), simulation.grid
    return ImageTable(
        source=source,
        stacks=("particles.mrcs",),
        stack_index=np.zeros(count, np.int32),
        slice_index=np.arange(count),
        identity=np.arange(count),
        box=np.full(count, grid.size),
        pixel_size=np.full(count, grid.voxel_size),
        rotations=simulation.truth.rotations,
        shifts=simulation.truth.shifts,
        optics=simulation.truth.optics,
        sign=-1,
    )

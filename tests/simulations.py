"""A small simulation that tests share."""

from dataclasses import replace

import numpy as np

from recovar.acquisition import (
    Choice,
    Conditions,
    draw_truth,
    random_stream,
)
from recovar.core.ctf import Optics
from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.data.atoms import Atoms
from recovar.simulate_scattering_potential import AtomicSpecimen
from recovar.simulator import Simulation

GRID = Grid(16, 4.0)
DISC = Disc(16, 7)
IMAGES = 11
CONDITIONS = Conditions(defocus=(2_000.0, 6_000.0), shift=3.0)
POSITIONS = np.random.default_rng(0).normal(scale=8.0, size=(30, 3))


def atoms_at(state):
    """Two groups of atoms that move apart."""
    moved = POSITIONS + np.where(np.arange(30) < 15, 1.0, -1.0)[:, None] * state
    return Atoms(moved, np.full(30, "C"), 200.0)


SPECIMEN = AtomicSpecimen(atoms_at)


def flat_optics(images=IMAGES):
    """A microscope that transfers everything."""
    return Optics(*(np.full(images, v) for v in (0.0, 0.0, 0.0, 300.0, 0.0, -1.0, 0.0, 0.0, 1.0)))


def simulation(images=IMAGES, grid=GRID, seed=0, **changes):
    states = random_stream(seed, Choice.STATE).random((images, 1)) * 5
    return Simulation(SPECIMEN, grid, draw_truth(states, grid, CONDITIONS, seed), **changes)


def quiet(sim):
    return replace(sim, truth=replace(sim.truth, noise=0 * sim.truth.noise))


def everything(sim):
    return np.arange(len(sim))


def spectra_of(images):
    return DISC.from_spectra(to_spectrum(np.asarray(images, np.float64), 2))


def busy(images=IMAGES, **changes):
    """Images of every kind, with all that can differ between them."""
    conditions = replace(
        CONDITIONS, noise_scale=0.2, baseline=0.5, b_factor=(0.0, 100.0), empty=0.15, other=0.15,
        off_centre=0.15, neighbours=0.4, defocus_error=400.0, pose_error=0.1,
    )  # fmt: skip
    states = random_stream(0, Choice.STATE).random((images, 1)) * 5
    truth = draw_truth(states, GRID, conditions, 0, other_states=np.array([[-20.0], [20.0]]))
    return Simulation(SPECIMEN, GRID, truth, other=SPECIMEN, **changes)

"""A small data set of a molecule in two states, and what makes a run of it."""

from pathlib import Path

import numpy as np
from problems import Molecule

from recovar.acquisition import Conditions, draw_truth
from recovar.cli import main
from recovar.core.grid import Grid
from recovar.data_sets import TrueStates, write_simulation
from recovar.simulator import Simulation
from recovar.specimens import VolumeSpecimen

SIZE, COUNT = 20, 240
GRID = Grid(SIZE, 6.0)
QUICK = ("--mask", "sphere", "--zdim", "1,2")


def _volumes() -> np.ndarray:
    body = np.random.default_rng(1).normal(scale=1.6, size=(8, 3))
    arms = [np.array([[3.2, b, 0.0], [4.2, 1.3 * b, 0.4]]) for b in (-2.0, 2.0)]
    return np.stack([Molecule(np.concatenate([body, arm])).volume(SIZE) for arm in arms])


def write_two_states(directory: Path) -> None:
    """Simulate both states in turn, at a high signal-to-noise ratio."""
    states = (np.arange(COUNT) % 2)[:, None]
    truth = draw_truth(states, GRID, Conditions(contrast=0.1, preferred=0.0), 0)
    simulation = Simulation(VolumeSpecimen(_volumes()), GRID, truth).at_signal_to_noise(0.5)
    both = np.array([[0.0], [1.0]])
    write_simulation(simulation, directory, TrueStates(both, np.full(2, 0.5), both))


def call(data: Path, output: Path, *options: object) -> int:
    """Run the pipeline on the data set."""
    return main(["pipeline", f"{data}/particles.star", "-o", str(output), *map(str, options)])

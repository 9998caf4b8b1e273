from dataclasses import replace

import numpy as np
import pytest

from recovar.core.grid import Grid
from recovar.core.poses import random_rotations
from recovar.errors import InputError
from recovar.simulate_scattering_potential import AtomicSpecimen, Atoms
from recovar.specimens import VolumeSpecimen

GRID = Grid(16, 4.0)
POSITIONS = np.random.default_rng(0).normal(scale=8.0, size=(30, 3))


def atoms_at(state):
    """Two groups of atoms that move apart."""
    moved = POSITIONS + np.where(np.arange(30) < 15, 1.0, -1.0)[:, None] * state
    return Atoms(moved, np.full(30, "C"), 200.0)


def test_volumes_are_sliced_as_atoms_are_seen():
    # Trilinear slices at threefold oversampling, of atoms that reach to 0.4 of the box: 1.2 %.
    # Sharper atoms ring to the edge of the box, where a volume ends and atoms do not.
    specimen = AtomicSpecimen(lambda state: replace(atoms_at(state), b_factor=600.0))
    volumes = np.stack([specimen.volume(np.array([s]), GRID) for s in (0.0, 2.0)])
    rotations = random_rotations(20, np.random.default_rng(1))
    number = np.arange(20)[:, None] % 2
    found = VolumeSpecimen(volumes).spectra(number, rotations, GRID)
    expected = specimen.spectra(2.0 * number, rotations, GRID)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.02


def test_states_between_volumes_are_mixtures():
    volumes = np.random.default_rng(0).normal(size=(3, 16, 16, 16)).astype(np.float32)
    specimen = VolumeSpecimen(volumes)
    rotations = random_rotations(4, np.random.default_rng(1))
    mixed, *pure = (
        specimen.spectra(np.full((4, 1), state), rotations, GRID) for state in (1.25, 1, 2)
    )
    np.testing.assert_allclose(mixed, 0.75 * pure[0] + 0.25 * pure[1], atol=1e-3)
    between = specimen.volume(np.array([1.25]), GRID)
    np.testing.assert_allclose(between, 0.75 * volumes[1] + 0.25 * volumes[2], atol=1e-5)


@pytest.mark.parametrize("states", [[[2.5]], [[-0.1]], [[0.0, 1.0]]])
def test_states_beyond_the_volumes_are_refused(states):
    specimen = VolumeSpecimen(np.zeros((3, 16, 16, 16), np.float32))
    with pytest.raises(InputError, match="one coordinate between 0 and 2"):
        specimen.spectra(np.array(states), np.eye(3)[None], GRID)

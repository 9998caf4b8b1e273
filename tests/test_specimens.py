from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import Molecule

from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.kaiser_bessel_numba import bytes_of_transform
from recovar.core.poses import random_rotations
from recovar.data.mrc import write_volume
from recovar.errors import InputError
from recovar.simulate_scattering_potential import AtomicSpecimen, Atoms
from recovar.specimens import MapFiles, SampledStates, VolumeSpecimen

GRID = Grid(16, 4.0)
POSITIONS = np.random.default_rng(0).normal(scale=8.0, size=(30, 3))


def atoms_at(state):
    """Two groups of atoms that move apart."""
    moved = POSITIONS + np.where(np.arange(30) < 15, 1.0, -1.0)[:, None] * state
    return Atoms(moved, np.full(30, "C"), 200.0)


def noise(count, size=16):
    return np.random.default_rng(0).normal(size=(count, size, size, size)).astype(np.float32)


def turns(count):
    return random_rotations(count, np.random.default_rng(1))


class Counted:
    """Volumes that remember which of them were asked for."""

    def __init__(self, volumes):
        self.volumes, self.asked = volumes, []

    def __len__(self):
        return len(self.volumes)

    def __getitem__(self, number, /):
        self.asked.append(number)
        return self.volumes[number]


def test_volumes_are_sliced_as_atoms_are_seen():
    # Sharper atoms would ring to the edge of the box, where a volume ends and atoms do not.
    grid, states = Grid(32, 2.0), np.array([[0.0], [2.0]])
    specimen = AtomicSpecimen(lambda state: replace(atoms_at(state), b_factor=600.0))
    volumes = SampledStates(specimen, states, grid)
    number = np.arange(20)[:, None] % 2
    found = VolumeSpecimen(volumes).spectra(number, turns(20), grid)
    expected = specimen.spectra(states[number[:, 0]], turns(20), grid)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    np.testing.assert_array_equal(volumes[1], specimen.volume(states[1], grid))


def test_states_between_volumes_are_mixtures():
    volumes = noise(3)
    specimen = VolumeSpecimen(volumes)
    mixed, *pure = (
        specimen.spectra(np.full((4, 1), state), turns(4), GRID) for state in (1.25, 1, 2)
    )
    np.testing.assert_allclose(mixed, 0.75 * pure[0] + 0.25 * pure[1], atol=1e-3)
    between = specimen.volume(np.array([1.25]), GRID)
    np.testing.assert_allclose(between, 0.75 * volumes[1] + 0.25 * volumes[2], atol=1e-5)


@given(
    places=st.lists(st.sampled_from([0, 0.5, 1, 1.75, 2, 3]), min_size=1, max_size=9),
    memory=st.sampled_from([0, 200_000, 2**30]),
)
def test_images_do_not_depend_on_their_order_or_on_what_is_kept(places, memory):
    volumes, states = noise(4), np.array(places, np.float64)[:, None]
    rotations = turns(len(states))
    whole = VolumeSpecimen(volumes).spectra(states, rotations, GRID)
    frugal = VolumeSpecimen(volumes, memory)
    order = np.random.default_rng(len(places)).permutation(len(states))
    pieces = [frugal.spectra(states[[row]], rotations[[row]], GRID)[0] for row in order]
    np.testing.assert_array_equal(pieces, whole[order])


@pytest.mark.parametrize(("room", "again"), [(0.0, 5), (1.0, 5), (2.5, 5), (5.0, 0)])
def test_volumes_are_transformed_once_if_images_come_in_order(room, again):
    volumes = Counted(noise(5))
    one = bytes_of_transform(Disc(GRID.size, GRID.largest_radius))
    specimen = VolumeSpecimen(volumes, int(room * one))
    states = np.repeat(np.arange(5), 3)[:, None]
    for rows in np.split(np.arange(15), [1, 4, 8, 9]):
        specimen.spectra(states[rows], turns(len(rows)), GRID)
    assert volumes.asked == [0, 1, 2, 3, 4]
    specimen.spectra(states[::-1], turns(15), GRID)
    assert len(volumes.asked) == 5 + again


def test_maps_are_read_onto_the_grid_of_the_images(tmp_path):
    blob = Molecule(np.array([[1.0, -2.0, 0.5]]), width=1.8)
    small = Molecule(blob.positions / 1.25, width=1.8 / 1.25)
    write_volume(tmp_path / "one.mrc", blob.volume(16), 2.0)
    write_volume(tmp_path / "two.mrc", small.volume(20) / 1.25**3, 2.5)
    maps = MapFiles([tmp_path / "one.mrc", tmp_path / "two.mrc"], Grid(16, 2.0))
    assert len(maps) == 2
    np.testing.assert_array_equal(maps[0], blob.volume(16))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-3 * maps[0].max())


@pytest.mark.parametrize("shape", [(15, 15, 15), (16, 16, 14)])
def test_maps_that_are_no_even_cubes_are_refused(tmp_path, shape):
    write_volume(tmp_path / "odd.mrc", np.zeros(shape, np.float32), 2.0)
    with pytest.raises(InputError, match="cubic volume with an even number"):
        MapFiles([tmp_path / "odd.mrc"], GRID)[0]


@pytest.mark.parametrize("cell", [(0.0, 0.0, 0.0), (32.0, 40.0, 32.0)])
def test_maps_without_one_voxel_size_are_refused(tmp_path, cell):
    path = tmp_path / "map.mrc"
    write_volume(path, noise(1)[0], 2.0)
    raw = bytearray(path.read_bytes())
    raw[40:52] = np.array(cell, "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(InputError, match="one voxel size"):
        MapFiles([path], GRID)[0]


def test_volumes_in_another_box_than_the_images_are_refused():
    with pytest.raises(InputError, match=r"got \(12, 12, 12\) for volume 1"):
        VolumeSpecimen(noise(2, 12)).spectra(np.ones((1, 1)), turns(1), GRID)


@pytest.mark.parametrize("states", [[[2.5]], [[-0.1]], [[0.0, 1.0]], [[np.nan]]])
def test_states_beyond_the_volumes_are_refused(states):
    specimen = VolumeSpecimen(np.zeros((3, 16, 16, 16), np.float32))
    with pytest.raises(InputError, match="one coordinate between 0 and 2"):
        specimen.spectra(np.array(states), np.eye(3)[None], GRID)

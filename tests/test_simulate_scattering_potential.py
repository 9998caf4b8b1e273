import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid, frequencies
from recovar.core.poses import random_rotations
from recovar.errors import InputError
from recovar.invented_molecules import draw_hinged_states, invent_molecule
from recovar.simulate_scattering_potential import (
    AtomicSpecimen,
    Atoms,
    form_factor,
    generate_image,
    generate_volume,
    sum_waves,
)

GRID = Grid(16, 2.0)
DISC = Disc(16, 7)
seeds = st.integers(0, 2**16)


def random_atoms(seed, count=40, b_factor=30.0):
    generator = np.random.default_rng(seed)
    elements = generator.choice(["C", "N", "O", "Zn"], count)
    return Atoms(generator.normal(scale=5.0, size=(count, 3)), elements, b_factor)


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("element", "amplitude"),
    [("H", 0.529), ("C", 2.509), ("N", 2.2135), ("O", 1.983), ("P", 5.488), ("S", 5.160)],
)
def test_amplitudes_at_zero_angle_are_those_of_the_tables(element, amplitude):
    assert form_factor(element, np.zeros(1))[0] == pytest.approx(amplitude, abs=1e-3)


def test_tables_are_for_half_the_frequency():
    # Peng's five Gaussians for carbon, at sin θ/λ = 0.1 and thus |k| = 0.2/Å.
    a = np.array([0.0893, 0.2563, 0.7570, 1.0487, 0.3575])
    b = np.array([0.2465, 1.7100, 6.4094, 18.6113, 50.2523])
    assert form_factor("C", np.array([0.2]))[0] == pytest.approx((a * np.exp(-b * 0.01)).sum())


@pytest.mark.parametrize("element", ["X", "Cc", "Carbon", "", "Og"])
def test_what_is_not_in_the_tables_is_refused(element):
    with pytest.raises(InputError, match="from H to Cf"):
        form_factor(element, np.zeros(1))


def test_symbols_may_be_written_in_capitals():
    assert form_factor("ZN", np.zeros(1)) == form_factor("Zn", np.zeros(1))


@settings(max_examples=10)
@given(seed=seeds)
def test_images_equal_the_sum_of_all_waves(seed):
    atoms = random_atoms(seed)
    rotation = random_rotations(1, np.random.default_rng(seed))[0]
    plane = np.stack([DISC.x, DISC.y, 0 * DISC.x], axis=1) / (16 * 2.0)
    expected = sum_waves(atoms, plane @ rotation)
    found = generate_image(atoms, rotation, DISC, 2.0)
    assert found.dtype == np.complex64
    assert relative_error(found, expected) < 1e-6


@settings(max_examples=10)
@given(seed=seeds)
def test_volumes_equal_the_sum_of_all_waves(seed):
    atoms = random_atoms(seed)
    k = frequencies(16)
    z, y, x = np.meshgrid(k, k, np.arange(9), indexing="ij")
    inside = (np.abs([z, y, x]) < 8).all(0)
    points = np.stack([x[inside], y[inside], z[inside]], axis=1) / (16 * 2.0)
    found = to_spectrum(generate_volume(atoms, GRID))
    assert relative_error(found[inside], sum_waves(atoms, points)) < 3e-6
    assert relative_error(1 + found[~inside], 1) < 1e-4


def test_one_atom_is_a_gaussian_blob_at_its_place():
    position = np.array([[4.0, -6.0, 2.0]])
    volume = generate_volume(Atoms(position, np.array(["C"]), 400.0), GRID)
    z, y, x = np.unravel_index(volume.argmax(), volume.shape)
    np.testing.assert_allclose(2.0 * (np.array([x, y, z]) - 8), position[0])
    assert volume.sum() == pytest.approx(2.5088, rel=1e-5)
    assert volume.min() > -1e-3 * volume.max()


@settings(max_examples=10)
@given(seed=seeds)
def test_turning_the_atoms_turns_the_poses(seed):
    atoms = random_atoms(seed)
    turn, rotation = random_rotations(2, np.random.default_rng(seed))
    turned = Atoms(atoms.positions @ turn.T, atoms.elements, atoms.b_factor)
    found = generate_image(turned, rotation, DISC, 2.0)
    assert relative_error(found, generate_image(atoms, rotation @ turn, DISC, 2.0)) < 1e-6


def test_a_specimen_shows_each_image_its_own_state():
    molecule = invent_molecule(np.random.default_rng(0))
    generator = np.random.default_rng(1)
    states, rotations = draw_hinged_states(3, generator), random_rotations(3, generator)
    specimen = AtomicSpecimen(molecule.atoms_at)
    grid = Grid(16, 16.0)
    spectra = specimen.spectra(states, rotations, grid)
    for state, rotation, found in zip(states, rotations, spectra, strict=True):
        alone = generate_image(molecule.atoms_at(state), rotation, DISC, 16.0)
        assert relative_error(found, alone) < 1e-6
    found = specimen.volume(states[0], grid)
    assert relative_error(found, generate_volume(molecule.atoms_at(states[0]), grid)) < 1e-5

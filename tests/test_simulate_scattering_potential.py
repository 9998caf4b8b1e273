import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid, frequencies
from recovar.core.poses import random_rotations
from recovar.core.scattering import POINT, excluded_solvent
from recovar.errors import InputError
from recovar.invented_molecules import draw_hinged_states, invent_molecule
from recovar.simulate_scattering_potential import (
    AtomicSpecimen,
    Atoms,
    generate_image,
    generate_molecule_spectrum_from_pdb_id,
    generate_spectrum,
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


def varied_atoms(seed, elements=(*"HCNOSP", "Zn", POINT), count=50):
    """Mixed elements with B-factors and occupancies of their own."""
    generator = np.random.default_rng(seed)
    return Atoms(
        positions=generator.normal(scale=5.0, size=(count, 3)),
        elements=generator.choice(elements, count),
        b_factor=generator.uniform(0, 20),
        b_factors=generator.uniform(0, 120, count),
        occupancy=generator.uniform(0, 1, count),
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_reference_is_the_printed_table_wave_by_wave(seed):
    atoms = varied_atoms(seed, ("C", "O"))
    points = np.random.default_rng(seed).uniform(-0.25, 0.25, (30, 3))
    # Peng et al. (1996), table 1, in its own variable s = sin θ/λ = |k|/2.
    table = {
        "C": ("0.0893 0.2563 0.7570 1.0487 0.3575", "0.2465 1.7100 6.4094 18.6113 50.2523"),
        "O": ("0.0974 0.2921 0.6910 0.6990 0.2039", "0.2067 1.3815 4.6943 12.7105 32.4726"),
    }
    number, turn = np.longdouble, 8 * np.arctan(np.longdouble(1))
    expected = np.zeros(30, np.clongdouble)
    for row, k in enumerate(points.astype(number)):
        s_squared = (k @ k) / 4
        for i, place in enumerate(atoms.positions.astype(number)):
            amplitude = number(0)
            for a, b in zip(*(words.split() for words in table[atoms.elements[i]]), strict=True):
                amplitude += number(a) * np.exp(-number(b) * s_squared)
            b = number(atoms.b_factor) + number(atoms.b_factors[i])
            weight = number(atoms.occupancy[i]) * amplitude * np.exp(-b * s_squared)
            phase = turn * (k @ place)
            expected[row] += weight * (np.cos(phase) - 1j * np.sin(phase))
    assert relative_error(sum_waves(atoms, points), expected) < 1e-12


@pytest.mark.parametrize("solvent", [False, True])
@settings(max_examples=5)
@given(seed=seeds)
def test_images_equal_the_sum_of_all_waves(solvent, seed):
    atoms = varied_atoms(seed)
    rotation = random_rotations(1, np.random.default_rng(seed))[0]
    plane = np.stack([DISC.x, DISC.y, 0 * DISC.x], axis=1) / (16 * 2.0)
    expected = sum_waves(atoms, plane @ rotation, solvent=solvent)
    found = generate_image(atoms, rotation, DISC, 2.0, solvent=solvent)
    assert found.dtype == np.complex64
    assert relative_error(found, expected) < 1e-5


def volume_points():
    """Frequencies inside the cube of the largest radius, and which coefficients they are."""
    k = frequencies(16)
    z, y, x = np.meshgrid(k, k, np.arange(9), indexing="ij")
    inside = (np.abs([z, y, x]) < 8).all(0)
    return np.stack([x[inside], y[inside], z[inside]], axis=1) / (16 * 2.0), inside


@pytest.mark.parametrize("solvent", [False, True])
@settings(max_examples=5)
@given(seed=seeds)
def test_spectra_equal_the_sum_of_all_waves(solvent, seed):
    atoms = varied_atoms(seed)
    points, inside = volume_points()
    found = generate_spectrum(atoms, GRID, solvent=solvent)
    expected = sum_waves(atoms, points, solvent=solvent)
    assert relative_error(found[inside], expected) < 1e-5
    assert not found[~inside].any()


@pytest.mark.parametrize("device", ["numpy", "jax"])
def test_many_atoms_equal_the_sum_of_their_parts(device):
    atoms = varied_atoms(0, ("C", "O"), 20_000)
    parts = [atoms.select(np.arange(start, start + 500)) for start in range(0, 20_000, 500)]
    expected = sum(generate_spectrum(part, GRID).astype(np.complex128) for part in parts)
    found = generate_spectrum(atoms, GRID, device=device)
    assert relative_error(found, expected) < 3e-6


def test_images_made_on_the_device_are_the_same_within_rounding():
    atoms, rotation = varied_atoms(0), random_rotations(1, np.random.default_rng(0))[0]
    found = generate_image(atoms, rotation, DISC, 2.0, solvent=True, device="jax")
    expected = generate_image(atoms, rotation, DISC, 2.0, solvent=True)
    assert found.dtype == np.complex64
    assert relative_error(found, expected) < 1e-6


def test_volumes_are_the_inverse_transforms_of_spectra():
    atoms = varied_atoms(0)
    spectrum = generate_spectrum(atoms, GRID, solvent=True)
    found = to_spectrum(generate_volume(atoms, GRID, solvent=True))
    assert relative_error(found, spectrum) < 3e-6


def test_positions_in_single_precision_lose_no_more_than_their_own_digits():
    atoms = varied_atoms(0)
    single = atoms.at((atoms.positions + 500).astype(np.float32))
    exact = single.at(single.positions.astype(np.float64))
    np.testing.assert_array_equal(generate_spectrum(single, GRID), generate_spectrum(exact, GRID))
    points, inside = volume_points()
    assert relative_error(generate_spectrum(single, GRID)[inside], sum_waves(exact, points)) < 1e-5


def test_own_b_factors_that_are_alike_are_one_b_factor():
    atoms = replace(varied_atoms(0), b_factor=0.0, b_factors=np.full(50, 70.0))
    alike = replace(atoms, b_factor=70.0, b_factors=None)
    assert relative_error(generate_spectrum(atoms, GRID), generate_spectrum(alike, GRID)) < 1e-6


def test_halves_of_atoms_at_one_place_are_whole_ones():
    atoms = replace(varied_atoms(0), occupancy=None)
    halves = replace(atoms.select(np.repeat(np.arange(50), 2)), occupancy=np.full(100, 0.5))
    assert relative_error(generate_spectrum(halves, GRID), generate_spectrum(atoms, GRID)) < 1e-6


def test_solvent_takes_the_amplitude_of_ice_from_every_atom():
    atoms = replace(varied_atoms(0), b_factor=0.0, b_factors=None)
    zero = np.zeros((1, 3))
    shares = zip(atoms.elements, atoms.occupancy, strict=True)
    taken = sum(share * excluded_solvent(str(e), np.zeros(1))[0] for e, share in shares)
    lost = generate_volume(atoms, GRID).sum() - generate_volume(atoms, GRID, solvent=True).sum()
    assert lost == pytest.approx(taken, rel=1e-4)
    assert sum_waves(atoms, zero)[0] - sum_waves(atoms, zero, solvent=True)[0] == pytest.approx(
        taken
    )


def test_memory_does_not_grow_with_the_number_of_atoms():
    def peak(count):
        atoms = Atoms(np.zeros((count, 3)), np.full(count, "C"))
        tracemalloc.start()
        generate_spectrum(atoms, Grid(32, 2.0))
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    # Places and their turns are kept, in some 150 bytes an atom; waves would take 12 kB.
    assert peak(52_000) - peak(2_000) < 50_000 * 400


def test_nothing_gives_an_empty_volume():
    nothing = Atoms(np.zeros((0, 3)), np.array([], str))
    assert not generate_volume(nothing, GRID).any()
    assert not generate_image(nothing, np.eye(3), DISC, 2.0).any()


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


def test_an_image_is_the_same_bits_in_any_company():
    atoms = varied_atoms(0, count=3000)
    specimen = AtomicSpecimen(lambda state: atoms.at(atoms.positions + state), solvent=True)
    generator = np.random.default_rng(1)
    states, rotations = generator.normal(size=(5, 3)), random_rotations(5, generator)
    together = specimen.spectra(states, rotations, GRID)
    for row in range(5):
        alone = specimen.spectra(states[[row]], rotations[[row]], GRID)
        np.testing.assert_array_equal(alone[0], together[row])
    expected = generate_volume(specimen.atoms_at(states[0]), GRID, solvent=True)
    np.testing.assert_array_equal(specimen.volume(states[0], GRID), expected)


@pytest.fixture
def molecule(tmp_path):
    """A file with three atoms that its box is not centred on."""
    lines = "".join(
        f"ATOM  {i:5d}  C   ALA A{i:4d}    {x:8.3f}  20.000  30.000  1.00 50.00           C\n"
        for i, x in enumerate((10.0, 12.0, 18.0), 1)
    )
    (tmp_path / "1abc.pdb").write_text(lines)
    return tmp_path / "1abc.pdb"


def test_a_molecule_is_found_by_its_identifier_and_centred(molecule):
    found = generate_molecule_spectrum_from_pdb_id("1ABC", 2, 16, cache=molecule.parent)
    positions = np.array([[-4.0, 0, 0], [-2, 0, 0], [4, 0, 0]])
    expected = Atoms(positions, np.full(3, "C"), 50.0)
    assert relative_error(found, generate_spectrum(expected, GRID)) < 1e-6
    by_path = generate_molecule_spectrum_from_pdb_id(molecule, 2, 16)
    np.testing.assert_array_equal(by_path, found)


def test_a_molecule_larger_than_the_volume_is_refused(molecule):
    with pytest.raises(InputError, match=r"8 Å long\. Take at least 8 voxels"):
        generate_molecule_spectrum_from_pdb_id(molecule, 1, 4)

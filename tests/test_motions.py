import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recovar.core.poses import random_rotations
from recovar.data.atoms import Atoms
from recovar.errors import InputError
from recovar.motions import (
    Composition,
    Ensemble,
    Frames,
    Gallery,
    Hinge,
    Morph,
    NormalModes,
    compose_of_chains,
    find_normal_modes,
    superpose,
)

seeds = st.integers(0, 2**16)
AXIS = np.array([1.0, 2.0, -2.0])
POINT = np.array([3.0, 0.0, 1.0])
MOVING = np.arange(30) >= 18


def random_walk(seed, count=30):
    """Atoms in a chain with bonds of 3.8 Å."""
    steps = np.random.default_rng(seed).normal(size=(count, 3))
    return np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)


def molecule(seed=0, count=30, **named):
    return Atoms(random_walk(seed, count), np.full(count, "C"), **named)


def globule(seed, count=60):
    """Atoms at least 3 Å apart in a ball."""
    grid = np.stack(np.meshgrid(*3 * [np.arange(6.0)]), axis=-1).reshape(-1, 3)
    near = np.argsort(np.linalg.norm(grid - 2.5, axis=1))[:count]
    places = 5.0 * grid[near] + np.random.default_rng(seed).uniform(-1, 1, (count, 3))
    return Atoms(places, np.full(count, "C"))


def distances(positions):
    return np.linalg.norm(positions[:, None] - positions, axis=-1)


def state(*coordinates):
    return np.array(coordinates, np.float64)


def moved(motion, atoms, *coordinates):
    return motion.move(atoms, state(*coordinates)).positions


@given(seed=seeds, place=st.floats(-1, 1))
def test_a_hinge_turns_a_rigid_domain_about_its_axis(seed, place):
    atoms, hinge = molecule(seed), Hinge(MOVING, POINT, AXIS, 1.2)
    found = moved(hinge, atoms, place)
    np.testing.assert_array_equal(found[~MOVING], atoms.positions[~MOVING])
    np.testing.assert_allclose(
        distances(found[MOVING]), distances(atoms.positions[MOVING]), atol=1e-12
    )
    turn = Rotation.from_rotvec(1.2 * place * AXIS / 3)
    np.testing.assert_allclose(
        found[MOVING] - POINT, turn.apply(atoms.positions[MOVING] - POINT), atol=1e-11
    )
    np.testing.assert_allclose((found - atoms.positions) @ AXIS, 0, atol=1e-11)


def test_turns_are_right_handed():
    atoms = Atoms(np.array([[1.0, 0.0, 0.0]]), np.array(["C"]))
    hinge = Hinge(np.array([True]), np.zeros(3), np.array([0.0, 0.0, 5.0]), np.pi / 2)
    np.testing.assert_allclose(moved(hinge, atoms, 1.0), [[0.0, 1.0, 0.0]], atol=1e-15)


@given(seed=seeds, way=st.sampled_from(["linear", "angular"]))
def test_morphs_end_where_they_should(seed, way):
    atoms, morph = molecule(seed), Morph(random_walk(seed + 1), way)
    np.testing.assert_allclose(moved(morph, atoms, 0.0), atoms.positions, atol=1e-10)
    np.testing.assert_allclose(moved(morph, atoms, 1.0), morph.end, atol=1e-10)


@given(seed=seeds, share=st.floats(0, 1))
def test_an_angular_morph_moves_rigid_domains_along_their_screws(seed, share):
    generator = np.random.default_rng(seed)
    atoms = molecule(seed, chains=np.where(MOVING, "B", "A"))
    turns, shifts = random_rotations(2, generator), generator.normal(scale=9.0, size=(2, 3))
    end = atoms.positions.copy()
    for number, inside in enumerate([~MOVING, MOVING]):
        end[inside] = end[inside] @ turns[number].T + shifts[number]
    found = moved(Morph(end, "angular"), atoms, share)
    for inside in (~MOVING, MOVING):
        before = atoms.positions[inside]
        np.testing.assert_allclose(distances(found[inside]), distances(before), atol=1e-8)
        # Equal steps: the same screw leads from the start to here as from the end back.
        back = moved(Morph(before, "angular"), Atoms(end[inside], np.full(len(before), "C")), share)
        again = superpose(before, found[inside]), superpose(end[inside], back)
        np.testing.assert_allclose(again[0], again[1].T, atol=1e-7)


def test_an_angular_morph_keeps_bonds_where_a_linear_one_shortens_them():
    atoms = molecule(5)
    opened = Hinge(MOVING, atoms.positions[17], AXIS, np.pi / 2).move(atoms, state(1.0))
    bonds = {}
    for way in ("linear", "angular"):
        morph = Morph(opened.positions, way, domains=MOVING)
        between = moved(morph, atoms, 0.5)
        bonds[way] = np.linalg.norm(np.diff(between, axis=0), axis=1)
    # Halfway through 90° a linear morph scales what lies across the axis by cos 45° = 0.71.
    assert bonds["linear"].min() < 0.72 * 3.8
    np.testing.assert_allclose(bonds["angular"], 3.8, atol=1e-9)


def test_without_chains_and_labels_all_atoms_turn_together():
    atoms = molecule(1)
    turn = Rotation.from_rotvec([0.0, 0.0, 3.0])
    found = moved(Morph(turn.apply(atoms.positions), "angular"), atoms, 0.5)
    expected = Rotation.from_rotvec([0.0, 0.0, 1.5]).apply(atoms.positions)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(seed=seeds)
def test_superposition_finds_the_turn_and_never_a_mirror(seed):
    points = np.random.default_rng(seed).normal(size=(9, 3))
    turn = random_rotations(1, np.random.default_rng(seed))[0]
    np.testing.assert_allclose(superpose(points, points @ turn.T + 4.0), turn, atol=1e-9)
    assert np.linalg.det(superpose(points, -points)) == pytest.approx(1)


def test_frames_are_exact_and_joined_by_straight_lines():
    frames = np.random.default_rng(0).normal(size=(3, 30, 3)).astype(np.float32)
    motion, atoms = Frames(frames), molecule()
    for number in range(3):
        np.testing.assert_array_equal(moved(motion, atoms, number), frames[number])
    np.testing.assert_allclose(
        moved(motion, atoms, 1.25), 0.75 * frames[1] + 0.25 * frames[2], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(moved(Frames(frames[:1]), atoms, 0.0), frames[0])


@pytest.mark.parametrize("place", [-0.01, 2.01, np.nan])
def test_places_beyond_the_frames_are_refused(place):
    with pytest.raises(InputError, match="place from 0 to 2"):
        moved(Frames(np.zeros((3, 30, 3))), molecule(), place)


@given(seed=st.integers(0, 50))
def test_modes_are_orthogonal_to_each_other_and_to_rigid_motions(seed):
    atoms = globule(seed)
    modes = find_normal_modes(atoms, 5, cutoff=12.0, amplitude=2.0).modes
    flat = modes.reshape(5, -1)
    gram = flat @ flat.T / len(atoms)
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-6)
    assert gram[0, 0] == pytest.approx(4.0)
    assert (np.diff(np.diag(gram)) < 1e-6).all()
    np.testing.assert_allclose(modes.sum(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.cross(atoms.positions, modes).sum(1), 0, atol=1e-5)


def test_modes_stretch_springs_as_little_as_the_eigenvalues_say():
    # Energies from the springs themselves; thermal motion makes them alike for all modes.
    atoms = globule(3)
    modes = find_normal_modes(atoms, 6, cutoff=12.0).modes
    gaps = atoms.positions[:, None] - atoms.positions
    lengths = np.linalg.norm(gaps, axis=-1)
    joined = (lengths > 0) & (lengths < 12.0)
    directions = gaps / np.where(lengths > 0, lengths, 1)[..., None]
    stretch = ((modes[:, :, None] - modes[:, None]) * directions).sum(-1)
    energy = (stretch**2 * joined).sum((1, 2))
    np.testing.assert_allclose(energy, energy[0], rtol=1e-6)
    other = np.random.default_rng(0).normal(size=(60, 3))
    other *= (60 / (other**2).sum()) ** 0.5
    loose = ((other[:, None] - other) * directions).sum(-1)
    assert (loose**2 * joined).sum() > 3 * energy[0]


def test_atoms_follow_the_nodes_of_their_residues():
    atoms = globule(1)
    residues = np.repeat(atoms.positions, 3, axis=0)
    residues[1::3] += [1.2, 0.0, 0.0]
    residues[2::3] += [0.0, 1.0, 1.0]
    full = Atoms(residues, np.full(180, "C"), names=np.tile(["CA", "CB", "O"], 60))
    alone, together = find_normal_modes(atoms, 3).modes, find_normal_modes(full, 3).modes
    np.testing.assert_allclose(together[:, ::3], alone, atol=1e-7)
    apart = np.linalg.norm(together[:, 1::3] - together[:, ::3], axis=-1)
    assert np.median(apart) < 0.25 * np.median(np.linalg.norm(alone, axis=-1))


def test_fewer_nodes_give_about_the_same_softest_mode():
    bar = np.stack(np.meshgrid(np.arange(3), np.arange(5), np.arange(24)), axis=-1).reshape(-1, 3)
    atoms = Atoms(4.0 * np.random.default_rng(0).permutation(bar), np.full(360, "C"))
    fine, coarse = (find_normal_modes(atoms, 1, cutoff=10.0, nodes=n) for n in (360, 180))
    fine, coarse = fine.modes.ravel(), coarse.modes.ravel()
    cosine = fine @ coarse / np.linalg.norm(fine) / np.linalg.norm(coarse)
    assert abs(cosine) > 0.97


def test_modes_add_up_and_vanish_at_rest():
    atoms, modes = molecule(), np.random.default_rng(0).normal(size=(2, 30, 3))
    motion = NormalModes(modes)
    assert motion.dimensions == 2
    np.testing.assert_array_equal(moved(motion, atoms, 0.0, 0.0), atoms.positions)
    expected = atoms.positions + 2 * modes[0] - modes[1]
    np.testing.assert_allclose(moved(motion, atoms, 2.0, -1.0), expected)


def test_networks_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"falls apart at a cutoff of 2 Å"):
        find_normal_modes(globule(0), 3, cutoff=2.0)
    with pytest.raises(InputError, match="3 nodes have no more than 2 modes"):
        find_normal_modes(globule(0, 3), 3)
    with pytest.raises(InputError, match="0 nodes"):
        find_normal_modes(molecule(names=np.full(30, "O")), 1)


def test_compositions_take_chains_away():
    chains = np.repeat(["A", "B", "long"], 10)
    atoms = molecule(chains=chains, occupancy=np.linspace(0.1, 1, 30))
    composition = compose_of_chains(atoms, "A, B,long; A,long;B")
    ensemble = Ensemble(atoms, [composition])
    left = [ensemble.atoms_at(state(number)) for number in range(3)]
    assert [np.unique(part.chains).tolist() for part in left] == [
        ["A", "B", "long"],
        ["A", "long"],
        ["B"],
    ]
    np.testing.assert_array_equal(left[1].occupancy, atoms.occupancy[chains != "B"])
    assert len(composition.move(atoms, state(2))) == 30


@pytest.mark.parametrize("text", ["A;C", "A;", "A,,B"])
def test_chains_that_do_not_exist_are_refused_with_those_that_do(text):
    atoms = molecule(chains=np.repeat(["A", "B"], 15))
    with pytest.raises(InputError, match=r"There is no chain .*The chains are A, B\."):
        compose_of_chains(atoms, text)
    with pytest.raises(InputError, match="chains are without names"):
        compose_of_chains(molecule(), "A")


@pytest.mark.parametrize("number", [-1, 2, 0.5, np.nan])
def test_numbers_that_nothing_has_are_refused(number):
    with pytest.raises(InputError, match="number of a composition from 0 to 1"):
        moved(Composition(np.ones((2, 30), np.bool_)), molecule(), number)
    with pytest.raises(InputError, match="number of a molecule from 0 to 1"):
        Gallery([molecule(), molecule(1)]).atoms_at(state(number))


def test_an_ensemble_shares_its_state_among_its_motions_in_order():
    atoms = molecule()
    modes = NormalModes(np.random.default_rng(0).normal(size=(2, 30, 3)))
    hinge, absent = Hinge(MOVING, POINT, AXIS, 1.0), Composition(np.stack([MOVING, ~MOVING]))
    ensemble = Ensemble(atoms, [modes, hinge, absent])
    assert ensemble.dimensions == 4
    found = ensemble.atoms_at(state(0.5, -2.0, 0.7, 0))
    one_by_one = hinge.move(modes.move(atoms, state(0.5, -2.0)), state(0.7))
    np.testing.assert_array_equal(found.positions, one_by_one.positions[MOVING])
    rest = ensemble.atoms_at(state(0, 0, 0, 1))
    np.testing.assert_array_equal(rest.positions, atoms.positions[~MOVING])
    with pytest.raises(InputError, match=r"state of 4 coordinates.*got 3"):
        ensemble.atoms_at(state(0, 0, 0))


def test_a_gallery_shows_its_molecules():
    molecules = [molecule(1, 5), molecule(2, 7)]
    assert Gallery(molecules).atoms_at(state(1)) is molecules[1]
    with pytest.raises(InputError, match="state of 1 coordinates"):
        Gallery(molecules).atoms_at(state(1, 0))


def test_motions_of_another_molecule_are_refused():
    motions = [
        Hinge(MOVING, POINT, AXIS, 1.0),
        Morph(np.zeros((30, 3))),
        Frames(np.zeros((1, 30, 3))),
        NormalModes(np.zeros((1, 30, 3))),
        Composition(np.ones((1, 30), np.bool_)),
    ]
    for motion in motions:
        with pytest.raises(InputError, match="30 atoms that this motion is for, got 31"):
            motion.move(molecule(count=31), state(0.0))


@pytest.fixture(scope="module")
def kinase(shared):
    with np.load(shared / "data" / "adk_ensemble.npz") as arrays:
        atoms = Atoms(
            arrays["xyz"][0], arrays["element"], names=arrays["atom"], residues=arrays["resid"]
        )
        return Ensemble(atoms, [Frames(arrays["xyz"])])


def test_adenylate_kinase_opens(kinase):
    closed, opened = (kinase.atoms_at(state(place)) for place in (0, 97))
    carbons = closed.names == "CA"
    core = carbons & (closed.residues >= 68) & (closed.residues <= 117)
    moved_by = np.linalg.norm(opened.positions - closed.positions, axis=1)
    # What its README states: 7.7 Å between the ends, superposed on the core.
    assert np.sqrt((moved_by[carbons] ** 2).mean()) == pytest.approx(7.7, abs=0.2)
    assert np.sqrt((moved_by[core] ** 2).mean()) < 3


def test_soft_modes_of_adenylate_kinase_open_it(kinase):
    closed, opened = (kinase.atoms_at(state(place)) for place in (0, 97))
    carbons = closed.names == "CA"
    start, end = opened.positions[carbons].astype(float), closed.positions[carbons].astype(float)
    start, end = start - start.mean(0), end - end.mean(0)
    change = (end @ superpose(start, end) - start).ravel()
    modes = find_normal_modes(opened, 3).modes[:, carbons].reshape(3, -1)
    cosines = modes @ change / np.linalg.norm(modes, axis=1) / np.linalg.norm(change)
    # Tama & Sanejouand (2001) find an overlap above 0.6 with one mode of the open form.
    assert np.abs(cosines).max() > 0.6

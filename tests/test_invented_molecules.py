import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from recovar.errors import InputError
from recovar.invented_molecules import (
    draw_hinged_states,
    draw_spike_states,
    invent_antibody,
    invent_assembly,
    invent_complexes,
    invent_molecule,
    invent_spike,
    place_fab,
    turn_fab,
)


def state(*coordinates):
    return np.array(coordinates, np.float64)


def nearest(first, second):
    """Shortest distance between two groups of atoms."""
    return KDTree(first).query(second)[0].min()


def assert_rigid(before, after):
    some = np.random.default_rng(0).integers(len(before), size=(2, 500))
    lengths = [np.linalg.norm(np.subtract(*places[some]), axis=1) for places in (before, after)]
    np.testing.assert_allclose(*lengths, atol=1e-9)


@pytest.fixture(scope="module")
def antibody():
    return invent_antibody(np.random.default_rng(1))


@pytest.fixture(scope="module")
def assembly():
    return invent_assembly(np.random.default_rng(1))


@pytest.fixture(scope="module")
def complexes():
    return invent_complexes(np.random.default_rng(1), 30).molecules


@pytest.fixture(scope="module")
def spike():
    return invent_spike(np.random.default_rng(1))


def test_an_invented_molecule_is_connected_compact_and_the_same_every_time():
    molecule = invent_molecule(np.random.default_rng(3))
    for chain in (molecule.body, molecule.arm, molecule.domain):
        np.testing.assert_allclose(np.linalg.norm(np.diff(chain, axis=0), axis=1), 3.8)
    again = invent_molecule(np.random.default_rng(3))
    np.testing.assert_array_equal(again.arm, molecule.arm)
    for bend in (-1.0, 0.0, 1.0):
        atoms = molecule.atoms_at(np.array([bend, 1.0]))
        assert len(atoms) == 3000
        assert np.linalg.norm(atoms.positions, axis=1).max() < 130


def test_the_arm_turns_rigidly_and_the_domain_comes_and_goes():
    molecule = invent_molecule(np.random.default_rng(3))
    straight, bent, alone = (
        molecule.atoms_at(np.array(s)).positions for s in [(0.0, 1.0), (0.7, 1.0), (0.7, 0.0)]
    )
    np.testing.assert_array_equal(bent[:2000], straight[:2000])
    np.testing.assert_array_equal(alone, bent[:2600])
    before, after = straight[2000:2600], bent[2000:2600]
    assert np.linalg.norm(after - before, axis=1).max() > 10
    np.testing.assert_allclose(
        np.linalg.norm(after - molecule.hinge, axis=1),
        np.linalg.norm(before - molecule.hinge, axis=1),
    )
    cosine = np.cos(molecule.largest_bend * 0.7)
    flat = (before - molecule.hinge)[:, :2], (after - molecule.hinge)[:, :2]
    np.testing.assert_allclose((flat[0] * flat[1]).sum(1), cosine * (flat[0] ** 2).sum(1))


def test_drawn_states_are_within_range_and_do_not_depend_on_how_many_follow():
    states = draw_hinged_states(4000, np.random.default_rng(0))
    assert np.abs(states[:, 0]).max() <= 1
    assert set(states[:, 1]) == {0.0, 1.0}
    assert states[:, 1].mean() == pytest.approx(0.6, abs=0.03)
    np.testing.assert_array_equal(draw_hinged_states(7, np.random.default_rng(0)), states[:7])


def test_other_invented_molecules_are_the_same_every_time(antibody, assembly, complexes, spike):
    generators = (np.random.default_rng(1) for _ in range(4))
    again = [
        invent_antibody(next(generators)),
        invent_assembly(next(generators)).atoms,
        invent_complexes(next(generators), 30).molecules[-1],
        invent_spike(next(generators)).atoms,
    ]
    for found, expected in zip(
        again, [antibody, assembly.atoms, complexes[-1], spike.atoms], strict=True
    ):
        np.testing.assert_array_equal(found.positions, expected.positions)


def test_chains_are_joined_and_their_residues_keep_apart(antibody, assembly, complexes, spike):
    for atoms in (antibody, assembly.atoms, complexes[0], spike.atoms):
        bonds = np.linalg.norm(np.diff(atoms.positions, axis=0), axis=1)
        # All but the steps from one domain to the next, which are fewer than 2 %.
        assert np.abs(np.quantile(bonds, [0.01, 0.98]) - 3.8).max() < 0.8
        apart = KDTree(atoms.positions).query(atoms.positions, 2)[0][:, 1]
        assert np.quantile(apart, 0.05) > 2.5
        # As dense as protein: within 8 Å of a residue there are 2145 Å³, for 16 residues.
        crowd = KDTree(atoms.positions).query_ball_point(atoms.positions, 8.0, return_length=True)
        assert 10 < np.median(crowd) < 25


def test_an_antibody_has_the_shape_of_a_y(antibody):
    assert len(antibody) == 1280
    assert set(antibody.chains) == {"Fc", "Fab 1", "Fab 2", "linker 1", "linker 2"}
    assert 150 < np.ptp(antibody.positions, axis=0).max() < 190
    tips = [
        antibody.positions[antibody.chains == name].mean(0) for name in ("Fc", "Fab 1", "Fab 2")
    ]
    apart = [np.linalg.norm(tips[i] - tips[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    assert min(apart) > 60


def test_a_fab_turns_a_full_circle_without_touching_the_rest(antibody):
    ensemble = turn_fab(antibody)
    assert ensemble.dimensions == 1
    fab = antibody.chains == "Fab 1"
    others = ~fab & (antibody.chains != "linker 1")
    tips = []
    for place in np.linspace(0, 1, 12):
        found = ensemble.atoms_at(state(place)).positions
        np.testing.assert_array_equal(found[~fab], antibody.positions[~fab])
        assert_rigid(antibody.positions[fab], found[fab])
        assert nearest(found[others], found[fab]) > 8
        tips.append(found[fab][-1])
    np.testing.assert_allclose(tips[0], tips[-1], atol=1e-9)
    steps = np.linalg.norm(np.diff(tips, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])
    assert steps.sum() > 150


def test_a_loose_fab_hangs_anywhere_but_in_the_rest(antibody):
    ensemble = place_fab(antibody, np.random.default_rng(2), 60)
    fab, linker = antibody.chains == "Fab 1", antibody.chains == "linker 1"
    directions = []
    for number in range(60):
        found = ensemble.atoms_at(state(number)).positions
        np.testing.assert_array_equal(found[~fab & ~linker], antibody.positions[~fab & ~linker])
        assert_rigid(antibody.positions[fab], found[fab])
        assert nearest(found[~fab & ~linker], found[fab]) >= 5
        assert np.linalg.norm(np.diff(found[linker], axis=0), axis=1).max() < 6
        directions.append(found[fab].mean(0) - found[linker][-1])
    lengths = np.linalg.norm(directions, axis=1)
    assert 35 < lengths.min() <= lengths.max() < 55
    cosines = np.array(directions) @ directions[0] / lengths / lengths[0]
    assert cosines.min() < -0.5
    assert np.ptp(np.array(directions) / lengths[:, None], axis=0).min() > 1


def test_an_assembly_grows_from_a_core_by_one_segment_at_a_time(assembly):
    found = [assembly.atoms_at(state(number)) for number in range(16)]
    parts = [frozenset(np.unique(atoms.chains).tolist()) for atoms in found]
    assert parts[0] == {"core"}
    assert parts[9] == {"core", *"123456789"}
    assert len(set(parts)) == 16
    for part in set(parts) - {parts[0]}:
        assert any(part > other and len(part) == len(other) + 1 for other in parts)
    branches = parts[10:]
    assert not any(len(part) - 1 == max(map(int, part - {"core"})) for part in branches)
    assert len(found[0]) == 10_200
    assert len(found[9]) == 14_250
    assert 200 < np.ptp(found[9].positions, axis=0).max() < 260


def test_the_segments_of_an_assembly_are_compact_and_apart(assembly):
    atoms = assembly.atoms
    middles = []
    for name in "123456789":
        places = atoms.positions[atoms.chains == name]
        assert len(places) == 450
        middles.append(places.mean(0))
        assert np.linalg.norm(places - middles[-1], axis=1).max() < 70
    assert np.linalg.norm(middles, axis=1).min() > 50
    assert KDTree(middles).query(middles, 2)[0][:, 1].min() > 35


@pytest.mark.parametrize("compositions", [9, 513])
def test_compositions_that_an_assembly_cannot_have_are_refused(compositions):
    with pytest.raises(InputError, match=f"10 to 512 compositions, got {compositions}"):
        invent_assembly(np.random.default_rng(0), 9, compositions)


def test_complexes_are_compact_and_of_all_sizes(complexes):
    masses = np.array([0.11 * len(atoms) for atoms in complexes])
    assert 45 < masses.min() < 100
    assert 600 < masses.max() < 1100
    for atoms, mass in zip(complexes, masses, strict=True):
        radius = np.sqrt(np.square(atoms.positions - atoms.positions.mean(0)).sum(1).mean())
        # A solid ball of 1.21 Å³ per Da has a radius of gyration of 5.1 Å per cube root of kDa.
        assert 5.0 < radius / mass ** (1 / 3) < 14


def test_the_chains_of_a_complex_are_copies_of_one_another(complexes):
    copies = []
    for atoms in complexes:
        names = np.unique(atoms.chains)
        copies.append(len(names))
        first = atoms.positions[atoms.chains == names[0]]
        for name in names[1:]:
            other = atoms.positions[atoms.chains == name]
            assert_rigid(first, other)
            assert KDTree(first).query(other)[0].mean() > 6
    assert 1 in copies
    assert len(set(copies)) > 5


def test_a_spike_is_a_trimer_at_rest(spike):
    atoms = spike.atoms
    assert len(atoms) == 3390
    assert 150 < np.ptp(atoms.positions[:, 2]) < 190
    turn = Rotation.from_euler("z", 120, degrees=True)
    for part in ("core", "NTD", "RBD"):
        a, b, c = (atoms.positions[atoms.chains == f"{name} {part}"] for name in "ABC")
        np.testing.assert_allclose(turn.apply(a), b, atol=1e-9)
        np.testing.assert_allclose(turn.apply(b), c, atol=1e-9)


@pytest.mark.parametrize("opened", ["A", "B", "C"])
def test_receptor_binding_domains_stand_up_one_by_one(spike, opened):
    rest, place = spike.atoms, spike.dimensions - 3 + "ABC".index(opened)
    found = spike.atoms_at(np.eye(spike.dimensions)[place]).positions
    domain = rest.chains == f"{opened} RBD"
    np.testing.assert_allclose(found[~domain], rest.positions[~domain], atol=1e-12)
    assert_rigid(rest.positions[domain], found[domain])
    assert found[domain, 2].max() > rest.positions[domain, 2].max() + 10


def test_the_modes_of_a_spike_are_smooth_and_collective(spike):
    rest = spike.atoms.positions
    for place in range(4):
        moved = spike.atoms_at(np.eye(spike.dimensions)[place]).positions - rest
        size = np.sqrt(np.square(moved).sum(1).mean())
        assert 1.0 < size < 4.0
        near = KDTree(rest).query(rest, 2)[1][:, 1]
        assert np.median(np.linalg.norm(moved - moved[near], axis=1)) < 0.2 * size


def test_every_image_of_a_spike_has_a_conformation_of_its_own(spike):
    states = draw_spike_states(5000, np.random.default_rng(0))
    assert states.shape == (5000, spike.dimensions)
    assert len(np.unique(states, axis=0)) == 5000
    assert ((states[:, 4:] >= 0) & (states[:, 4:] <= 1)).all()
    step = np.abs(np.diff(states, axis=0)).mean(0)
    far = np.abs(states[2500:] - states[:2500]).mean(0)
    assert (step < 0.3 * far).all()
    np.testing.assert_array_equal(draw_spike_states(9, np.random.default_rng(0)), states[:9])

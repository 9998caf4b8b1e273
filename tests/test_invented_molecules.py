import numpy as np
import pytest

from recovar.invented_molecules import draw_hinged_states, invent_molecule


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

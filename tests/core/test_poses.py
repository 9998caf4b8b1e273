import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recovar.core.poses import (
    random_rotations,
    relion_euler_from_rotations,
    rotations_from_relion_euler,
    rotations_from_rotation_vectors,
)

seeds = st.integers(0, 2**16)


def turn_about(axis, angle):
    """The textbook matrix that turns vectors about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    return {
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def test_relion_euler_angles_give_the_reference_rotation():
    rotation = rotations_from_relion_euler(np.deg2rad([[37.0, 61.0, -118.0]]))[0]
    expected = [
        [0.349598, -0.842129, 0.410609],
        [0.624400, -0.117323, -0.772243],
        [0.698502, 0.526359, 0.484810],
    ]
    np.testing.assert_allclose(rotation, expected, atol=1e-6)


def test_rotation_vectors_give_the_reference_rotation():
    rotation = rotations_from_rotation_vectors(np.array([[0.3, -0.5, 0.8]]))[0]
    expected = [
        [0.590175, 0.606517, 0.532757],
        [-0.744660, 0.663851, 0.069155],
        [-0.311728, -0.437537, 0.843438],
    ]
    np.testing.assert_allclose(rotation, expected, atol=1e-6)


@given(rot=st.floats(-7, 7), tilt=st.floats(-7, 7), psi=st.floats(-7, 7))
def test_relion_rotations_are_turns_about_z_y_z_transposed(rot, tilt, psi):
    rotation = rotations_from_relion_euler(np.array([[rot, tilt, psi]]))[0]
    expected = (turn_about("z", rot) @ turn_about("y", tilt) @ turn_about("z", psi)).T
    np.testing.assert_allclose(rotation, expected, atol=1e-12)
    direction = [np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)]
    np.testing.assert_allclose(rotation[2], direction, atol=1e-12)


@given(seed=seeds)
def test_euler_angles_describe_the_rotation_they_came_from(seed):
    rotations = random_rotations(20, np.random.default_rng(seed))
    angles = relion_euler_from_rotations(rotations)
    assert ((angles[:, 1] >= 0) & (angles[:, 1] <= np.pi)).all()
    np.testing.assert_allclose(rotations_from_relion_euler(angles), rotations, atol=1e-12)


@given(rot=st.floats(-7, 7), psi=st.floats(-7, 7), tilt=st.sampled_from([0.0, np.pi, -np.pi]))
def test_euler_angles_survive_views_along_the_axis(rot, tilt, psi):
    rotations = rotations_from_relion_euler(np.array([[rot, tilt, psi]]))
    angles = relion_euler_from_rotations(rotations)
    assert angles[0, 2] == 0
    np.testing.assert_allclose(rotations_from_relion_euler(angles), rotations, atol=1e-12)


@given(rot=st.floats(-3, 3), psi=st.floats(-3, 3), small=st.floats(0, 1e-3), low=st.booleans())
def test_euler_angles_survive_views_almost_along_the_axis(rot, psi, small, low):
    tilt = small if low else np.pi - small
    rotations = rotations_from_relion_euler(np.array([[rot, tilt, psi]]))
    again = rotations_from_relion_euler(relion_euler_from_rotations(rotations))
    np.testing.assert_allclose(again, rotations, atol=1e-8)


@given(seed=seeds)
def test_rotation_vectors_give_the_transpose_of_a_turn_about_their_direction(seed):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(10, 3))
    rotations = rotations_from_rotation_vectors(vectors)
    assert np.isfinite(rotations).all()
    np.testing.assert_allclose(np.einsum("nij,nj->ni", rotations, vectors), vectors, atol=1e-12)
    expected = Rotation.from_rotvec(vectors).as_matrix().swapaxes(1, 2)
    np.testing.assert_allclose(rotations, expected, atol=1e-12)


def test_no_turn_is_the_identity():
    np.testing.assert_array_equal(rotations_from_rotation_vectors(np.zeros((1, 3)))[0], np.eye(3))


@given(seed=seeds)
def test_random_rotations_are_proper(seed):
    rotations = random_rotations(10, np.random.default_rng(seed))
    identity = np.broadcast_to(np.eye(3), (10, 3, 3))
    np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), identity, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)


def test_random_rotations_are_uniform():
    # Haar moments: E R = 0, E R_ij² = 1/3, angle density (1 − cos a)/π; 20,000 draws, 5 sd.
    rotations = random_rotations(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(rotations.mean(0), 0, atol=5 * 0.58 / 20_000**0.5)
    np.testing.assert_allclose((rotations**2).mean(0), 1 / 3, atol=5 * 0.3 / 20_000**0.5)
    cosine = np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1)
    quantiles = np.quantile(np.arccos(cosine), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(
        (quantiles - np.sin(quantiles)) / np.pi, [0.25, 0.5, 0.75], atol=0.02
    )

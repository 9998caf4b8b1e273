import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.fourier import to_spectrum, to_volume
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import image_radii
from recovar.core.poses import random_rotations

seeds = st.integers(0, 2**16)
half_sizes = st.integers(3, 10)


@given(half=half_sizes, radius=st.integers(1, 9))
def test_a_disc_and_its_mates_are_all_frequencies_up_to_the_radius_once(half, radius):
    disc = Disc(2 * half, min(radius, half - 1))
    stored = set(zip(disc.x.tolist(), disc.y.tolist(), strict=True))
    mates = {(-x, -y) for x, y in stored}
    assert len(stored) == len(disc)
    assert stored & mates == {(0, 0)}
    reach = range(-disc.radius, disc.radius + 1)
    full = {(x, y) for x in reach for y in reach if x * x + y * y <= disc.radius**2}
    assert stored | mates == full
    assert disc.multiplicity.sum() == len(full)


@given(half=half_sizes, small=st.integers(1, 9))
def test_a_smaller_disc_is_a_prefix_whatever_the_box(half, small):
    large = Disc(2 * half, half - 1)
    small = Disc(2 * min(half, small + 1), min(small, half - 1))
    count = large.count(small.radius)
    assert count == len(small)
    np.testing.assert_array_equal(large.x[:count], small.x)
    np.testing.assert_array_equal(large.y[:count], small.y)
    assert (np.diff(large.radii) >= 0).all()


def test_shells_of_a_disc_are_rounded_radii():
    disc = Disc(16, 7)
    np.testing.assert_allclose(disc.radii, np.hypot(disc.x, disc.y), rtol=1e-6)
    np.testing.assert_array_equal(disc.shells, np.rint(np.hypot(disc.x, disc.y)))


@given(seed=seeds, half=half_sizes)
def test_a_disc_holds_all_of_a_real_image_up_to_its_radius(seed, half):
    size = 2 * half
    disc = Disc(size, half - 1)
    spectra = to_spectrum(np.random.default_rng(seed).normal(size=(2, size, size)), 2)
    inside = spectra * (image_radii(size) <= disc.radius)
    filled = disc.to_spectra(disc.from_spectra(spectra))
    np.testing.assert_allclose(filled, inside, atol=1e-10)
    np.testing.assert_allclose(to_spectrum(to_volume(filled, 2), 2), filled, atol=1e-10)


def test_discs_of_jax_arrays_equal_those_of_numpy_arrays():
    disc = Disc(8, 3)
    images = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
    values = disc.from_spectra(to_spectrum(images, 2))
    np.testing.assert_allclose(disc.to_spectra(jnp.asarray(values)), disc.to_spectra(values))


balls = st.builds(
    lambda half, missing, u: Ball(2 * half, max(1, half - 1 - missing), u),
    st.integers(2, 8),
    st.integers(0, 3),
    st.integers(1, 2),
)


@given(ball=balls)
def test_voxels_of_a_ball_are_distinct_and_lie_where_offsets_say(ball):
    z, y, x = ball.coordinates
    assert len(np.unique(ball.coordinates, axis=1).T) == len(ball) == len(x)
    assert (x >= 0).all()
    places = ball.offsets[z + ball.reach, y + ball.reach] + x
    np.testing.assert_array_equal(places, np.arange(len(ball)))
    np.testing.assert_allclose(
        ball.radii, np.sqrt((ball.coordinates.astype(float) ** 2).sum(0)) / ball.oversampling, 1e-6
    )


@given(ball=balls, seed=seeds)
def test_a_ball_holds_every_voxel_that_a_slice_can_touch(ball, seed):
    disc = Disc(ball.size, ball.radius)
    plane = np.stack([disc.x, disc.y, np.zeros(len(disc))], axis=1)
    rotations = np.concatenate([random_rotations(5, np.random.default_rng(seed)), [np.eye(3)]])
    points = ball.oversampling * (plane @ rotations).astype(np.float32).reshape(-1, 3)
    points = np.where(points[:, :1] < 0, -points, points)
    stored = set(map(tuple, ball.coordinates.T.tolist()))
    for corner in np.ndindex(2, 2, 2):
        touched = (np.floor(points) + corner)[:, ::-1].astype(int)
        assert set(map(tuple, touched.tolist())) <= stored


@given(ball=balls)
def test_weights_of_a_ball_count_its_voxels_and_their_mates(ball):
    stored = set(map(tuple, ball.coordinates.T.tolist()))
    mates = {(-z, -y, -x) for z, y, x in stored}
    assert ball.weights.sum() == len(stored | mates)


@given(ball=balls, seed=seeds)
def test_folding_makes_a_sum_the_transform_of_a_real_volume(ball, seed):
    generator = np.random.default_rng(seed)
    sums = generator.normal(size=(len(ball), 2)) + 1j * generator.normal(size=(len(ball), 2))
    folded = ball.fold(sums)
    values = dict(zip(map(tuple, ball.coordinates.T.tolist()), range(len(ball)), strict=True))
    for (z, y, x), voxel in values.items():
        if x == 0:
            mate = values[-z, -y, 0]
            np.testing.assert_allclose(folded[voxel], sums[voxel] + sums[mate].conj())
            np.testing.assert_allclose(folded[voxel], folded[mate].conj())
        else:
            np.testing.assert_array_equal(folded[voxel], sums[voxel])


@given(ball=balls, seed=seeds)
def test_a_ball_goes_into_a_cube_and_back(ball, seed):
    values = np.random.default_rng(seed).normal(size=(len(ball), 2))
    cube = ball.to_cube(values)
    assert cube.shape[:3] == (ball.volume_size, ball.volume_size, ball.volume_size // 2 + 1)
    inside = np.abs(ball.coordinates).max(0) < ball.volume_size // 2
    np.testing.assert_array_equal(ball.from_cube(cube), values * inside[:, None])


@given(seed=seeds)
def test_a_cube_keeps_what_lies_in_the_ball(seed):
    ball = Ball(12, 3)
    spectrum = to_spectrum(np.random.default_rng(seed).normal(size=(24, 24, 24)))
    again = ball.to_cube(ball.from_cube(spectrum))
    kept = again != 0
    np.testing.assert_array_equal(again[kept], spectrum[kept])
    assert kept.sum() == len(ball)


@pytest.mark.parametrize("ball", [Ball(8, 3), Ball(12, 3), Ball(8, 3, 1)])
def test_cubes_of_jax_arrays_equal_those_of_numpy_arrays(ball):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(len(ball), 2)) + 1j * generator.normal(size=(len(ball), 2))
    values = values.astype(np.complex64)
    cube = ball.to_cube(values)
    np.testing.assert_array_equal(ball.to_cube(jnp.asarray(values)), cube)
    np.testing.assert_array_equal(ball.from_cube(jnp.asarray(cube)), ball.from_cube(cube))
    np.testing.assert_allclose(ball.fold(jnp.asarray(values)), ball.fold(values), rtol=1e-6)

"""Laws that tie the implementations of the waist to each other and to slow float64 loops."""

from dataclasses import dataclass

import jax.numpy as jnp
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.fourier import pad_volume, to_spectrum
from recovar.core.frequencies import Ball, Disc
from recovar.core.poses import random_rotations
from recovar.core.slicing import REFERENCE, gridding_correction
from recovar.core.slicing_numba import NUMBA

IMAGES, CHANNELS = 6, 3
seeds = st.integers(0, 2**16)
grids = st.sampled_from([(8, 3, 1), (8, 3, 2)])
implementations = pytest.mark.parametrize("operators", [REFERENCE, NUMBA], ids=["jax", "numba"])


@dataclass(frozen=True)
class Problem:
    """Random volumes, images, weights and rotations that fit together."""

    disc: Disc
    ball: Ball
    volumes: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    rotations: np.ndarray


def random_problem(seed, grid, real=False):
    generator = np.random.default_rng(seed)
    size, radius, oversampling = grid
    disc, ball = Disc(size, radius), Ball(size, radius, oversampling)

    def draw(*shape):
        parts = generator.normal(size=(2, *shape)).astype(np.float32)
        return parts[0] if real else parts[0] + 1j * parts[1]

    values = draw(IMAGES, len(disc))
    values[:, 0] = values[:, 0].real
    weights = generator.normal(size=(IMAGES, CHANNELS)).astype(np.float32)
    rotations = random_rotations(IMAGES, generator).astype(np.float32)
    rotations[0], rotations[1] = np.eye(3), np.diag([-1, 1, -1])
    volumes = ball.fold(draw(len(ball), CHANNELS))
    return Problem(disc, ball, volumes.astype(np.complex64), values, weights, rotations)


def backproject(operators, problem, images=slice(None), sums=None):
    p = problem
    if sums is None:
        sums = np.zeros((len(p.ball), CHANNELS), p.values.dtype)
    if operators is REFERENCE:
        sums = jnp.asarray(sums)
    added = operators.backproject(
        sums, p.values[images], p.weights[images], p.rotations[images], p.disc, p.ball
    )
    return np.asarray(added)


def slice_volumes(operators, problem):
    p = problem
    return np.asarray(operators.slice_volumes(p.volumes, p.rotations, p.disc, p.ball))


# The slow reference: full spectra on a whole cube in float64, neither mates nor half balls.


def full_cube(ball, values):
    """Expand a half ball to a cube of all signed coordinates."""
    reach = ball.reach + 1
    cube = np.zeros((2 * reach + 1,) * 3 + values.shape[1:], np.complex128)
    z, y, x = ball.coordinates
    cube[reach - z, reach - y, reach - x] = values.conj()
    cube[reach + z, reach + y, reach + x] = values
    return cube


def corners(point):
    """List the eight neighbours of a point (x y z) as (z, y, x), with trilinear weights."""
    base = np.floor(point).astype(int)
    for corner in np.ndindex(2, 2, 2):
        voxel = base + corner
        yield tuple(voxel[::-1]), np.prod(1 - np.abs(point - voxel))


def slow_slices(problem):
    p = problem
    cube, reach = full_cube(p.ball, p.volumes), p.ball.reach + 1
    slices = np.zeros((IMAGES, len(p.disc), CHANNELS), np.complex128)
    for image, pixel in np.ndindex(slices.shape[:2]):
        plane = np.array([p.disc.x[pixel], p.disc.y[pixel], 0.0])
        point = p.ball.oversampling * plane @ p.rotations[image].astype(np.float64)
        for voxel, weight in corners(point):
            slices[image, pixel] += weight * cube[tuple(np.add(voxel, reach))]
    return slices


def slow_backprojection(problem):
    p = problem
    reach = p.ball.reach + 1
    cube = np.zeros((2 * reach + 1,) * 3 + (CHANNELS,), np.complex128)
    for image, pixel in np.ndindex(p.values.shape):
        plane = np.array([p.disc.x[pixel], p.disc.y[pixel], 0.0])
        point = p.ball.oversampling * plane @ p.rotations[image].astype(np.float64)
        value = p.values[image, pixel] * p.weights[image].astype(np.complex128)
        mates = [(point, value), (-point, value.conj())]
        for place, term in mates if pixel else mates[:1]:
            for voxel, weight in corners(place):
                cube[tuple(np.add(voxel, reach))] += weight * term
    z, y, x = p.ball.coordinates
    return cube[reach + z, reach + y, reach + x]


@implementations
@settings(max_examples=6)
@given(seed=seeds, grid=grids)
def test_slices_equal_a_slow_full_spectrum_reference(operators, seed, grid):
    problem = random_problem(seed, grid)
    # Coordinates up to 6 are rounded to float32, so weights are good to 5e-7; values are below 6.
    np.testing.assert_allclose(slice_volumes(operators, problem), slow_slices(problem), atol=2e-5)


@implementations
@settings(max_examples=6)
@given(seed=seeds, grid=grids)
def test_backprojection_equals_a_slow_full_spectrum_reference(operators, seed, grid):
    problem = random_problem(seed, grid)
    found = problem.ball.fold(backproject(operators, problem))
    np.testing.assert_allclose(found, slow_backprojection(problem), atol=5e-5)


@implementations
@settings(max_examples=6)
@given(seed=seeds, grid=grids)
def test_real_values_backproject_like_complex_ones(operators, seed, grid):
    problem = random_problem(seed, grid, real=True)
    found = problem.ball.fold(backproject(operators, problem))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow_backprojection(problem).real, atol=5e-5)


@implementations
@given(seed=seeds, grid=grids)
def test_backproject_is_the_adjoint_of_slice_volumes(operators, seed, grid):
    p = random_problem(seed, grid)
    slices = slice_volumes(operators, p).astype(np.complex128)
    folded = p.ball.fold(backproject(operators, p)).astype(np.complex128)
    images = p.values[..., None] * p.weights[:, None]
    forward = (p.disc.multiplicity[:, None] * (slices.conj() * images).real).sum((0, 1))
    adjoint = (p.ball.weights[:, None] * (p.volumes.conj() * folded).real).sum(0)
    size = np.linalg.norm(slices) * np.linalg.norm(images)
    np.testing.assert_allclose(forward, adjoint, atol=1e-6 * size)


@given(seed=seeds, grid=grids)
def test_implementations_agree_within_rounding(seed, grid):
    problem = random_problem(seed, grid)
    for operation in (slice_volumes, backproject):
        reference, fast = operation(REFERENCE, problem), operation(NUMBA, problem)
        np.testing.assert_allclose(fast, reference, atol=3e-5)
        assert fast.dtype == reference.dtype


@implementations
@given(seed=seeds, grid=grids, cut=st.sampled_from([2, 4]))
def test_any_split_of_the_images_gives_the_same_sum(operators, seed, grid, cut):
    problem = random_problem(seed, grid)
    whole = backproject(operators, problem)
    first = backproject(operators, problem, slice(cut))
    both = backproject(operators, problem, slice(cut, None), first.copy())
    apart = first + backproject(operators, problem, slice(cut, None))
    np.testing.assert_allclose(both, whole, atol=3e-5)
    np.testing.assert_allclose(apart, whole, atol=3e-5)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@given(seed=seeds, grid=grids, real=st.booleans())
def test_the_number_of_threads_changes_no_bit(seed, grid, real):
    problem = random_problem(seed, grid, real)
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append((backproject(NUMBA, problem), slice_volumes(NUMBA, problem)))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@given(seed=seeds)
def test_compiled_backprojection_adds_in_place(seed):
    problem = random_problem(seed, (8, 3, 2))
    sums = np.zeros((len(problem.ball), CHANNELS), np.complex64)
    found = NUMBA.backproject(
        sums, problem.values, problem.weights, problem.rotations, problem.disc, problem.ball
    )
    assert found is sums


@implementations
@given(seed=seeds, grid=grids)
def test_channels_with_zero_weight_stay_empty(operators, seed, grid):
    problem = random_problem(seed, grid)
    problem.weights[:, 1] = 0
    assert not backproject(operators, problem)[:, 1].any()


@implementations
@pytest.mark.parametrize("oversampling", [1, 2])
@pytest.mark.parametrize(
    ("rotation", "view"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], lambda v: v.sum(0)),
        ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], lambda v: v.sum(2)),
        ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], lambda v: v.sum(1).T),
        ([[-1, 0, 0], [0, 1, 0], [0, 0, -1]], lambda v: v.sum(0)[:, ::-1]),
        ([[0, -1, 0], [1, 0, 0], [0, 0, 1]], lambda v: v.sum(0).T[:, ::-1]),
    ],
    ids=["z", "x", "y", "from behind", "quarter turn"],
)
def test_views_along_the_axes_are_sums_along_them(operators, oversampling, rotation, view):
    # A quarter turn keeps grid points on grid points, where interpolation is exact.
    size = 8
    volume = np.zeros((size,) * 3, np.float32)
    volume[1:, 1:, 1:] = np.random.default_rng(0).normal(size=(size - 1,) * 3)
    disc, ball = Disc(size, 3), Ball(size, 3, oversampling)
    spectrum = ball.from_cube(to_spectrum(pad_volume(volume, ball.volume_size)))[:, None]
    rotations = np.array([rotation], np.float32)
    found = np.asarray(operators.slice_volumes(spectrum, rotations, disc, ball))[0, :, 0]
    image = np.zeros((size, size))
    image[1:, 1:] = view(volume[1:, 1:, 1:].astype(np.float64))
    np.testing.assert_allclose(found, disc.from_spectra(to_spectrum(image, 2)), atol=2e-4)


@pytest.mark.parametrize("oversampling", [1, 2])
def test_gridding_correction_is_the_attenuation_of_interpolated_volumes(oversampling):
    # Backprojecting ones from every direction at one voxel spreads it trilinearly: its transform
    # is a tent, whose inverse transform over the box is sinc² along every axis.
    size = 16
    side = oversampling * size
    position = np.arange(size) - size // 2
    fine = 64
    offsets = (np.arange(2 * fine) + 0.5) / fine - 1
    tent = (1 - np.abs(offsets)) / fine
    axis = (tent * np.cos(2 * np.pi * np.outer(position, offsets) / side)).sum(1)
    expected = axis[:, None, None] * axis[:, None] * axis
    np.testing.assert_allclose(gridding_correction(size, oversampling), expected, atol=1e-4)

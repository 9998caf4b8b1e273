"""Regression over images gives the volume at a point."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import ImageSource, Molecule, observe, random_molecule

from recovar.compute.executors import LocalExecutor
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.halves import Halves
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA
from recovar.homogeneous import estimate_mean
from recovar.kernel_regression import (
    LinearModel,
    Regression,
    bytes_of_regression,
    finish_states,
    regress,
)
from recovar.latent_weights import LatentPosterior, kernel_weights

GRID = Grid(24, 3.0)
BALL = Ball(24, GRID.largest_radius)
WHITE = np.array([4.0])
MASK = np.ones(GRID.volume_shape, np.float32)
NONE = np.zeros((0, *GRID.volume_shape), np.float32)


def problem(
    posterior: LatentPosterior,
    points: np.ndarray,
    widths: list[float],
    components: np.ndarray = NONE,
    operators=NUMBA,
) -> Regression:
    return Regression(
        BALL,
        WHITE,
        np.ones(len(posterior)),
        posterior.means,
        kernel_weights(posterior, points, np.array(widths)),
        LinearModel(Halves(components, components), components),
        operators,
    )


def sure(coordinates: np.ndarray) -> LatentPosterior:
    """Coordinates that are known well."""
    images, zdim = coordinates.shape
    known = np.broadcast_to(1e-4 * np.eye(zdim), (images, zdim, zdim))
    return LatentPosterior(coordinates, known, np.ones(zdim))


def images_along(component: Molecule, coordinates: np.ndarray, noise: float = 0.0) -> ImageSource:
    """Images of a molecule plus z times a component."""
    count = len(coordinates)
    mean, _ = observe([random_molecule(1)], GRID, count, noise=noise, seed=4)
    other, _ = observe([component], GRID, count, noise=0.0, seed=4)
    values = mean.images.values + coordinates[:, None] * other.images.values
    batch = mean.images.__class__(
        mean.images.disc,
        values.astype(np.complex64),
        mean.images.transfer,
        mean.images.rotations,
        mean.images.rows,
        mean.images.halves,
    )
    return ImageSource(batch)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@settings(max_examples=5)
@given(block=st.integers(1, 40))
def test_any_split_of_the_images_gives_the_same_sums(block):
    source, _ = observe([random_molecule(1)], GRID, 40, noise=4.0)
    posterior = sure(np.random.default_rng(0).normal(size=(40, 2)))
    one = random_molecule(2).volume(24)[None]
    regression = problem(posterior, np.zeros((3, 2)), [0.1, 1.0], one)
    whole, split = (
        regress(ImageSource(source.images, size), regression, LocalExecutor())
        for size in (40, block)
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_both_operators_give_the_same_states():
    source, _ = observe([random_molecule(1)], GRID, 40, noise=4.0)
    posterior = sure(np.random.default_rng(0).normal(size=(40, 1)))
    component = random_molecule(2).volume(24)[None]
    points = np.array([[0.5]])
    found = []
    for operators in (NUMBA, REFERENCE):
        regression = problem(posterior, points, [0.3], component, operators)
        sums = regress(source, regression, LocalExecutor(operators))
        found.append(next(finish_states(sums, regression, points, MASK)).halves.first)
    np.testing.assert_allclose(*found, atol=2e-4 * np.abs(found[0]).max())


def test_all_images_alike_give_the_mean():
    source, _ = observe([random_molecule(1)], GRID, 300, noise=4.0)
    mean = estimate_mean(source, GRID, WHITE, LocalExecutor())
    posterior = sure(np.zeros((300, 1)))
    points = np.zeros((1, 1))
    regression = problem(posterior, points, [1.0])
    sums = regress(source, regression, LocalExecutor())
    state = next(finish_states(sums, regression, points, MASK))
    assert apart(state.halves.first, mean.halves.first) < 1e-5
    assert apart(state.halves.second, mean.halves.second) < 1e-5
    assert apart(state.volume, mean.regularized) < 1e-5


@pytest.mark.parametrize("point", [-1.0, 0.0, 1.5])
def test_a_wide_kernel_does_not_blur_a_linear_motion(point):
    component = random_molecule(2, blobs=4)
    coordinates = np.random.default_rng(0).normal(size=400)
    source = images_along(component, coordinates)
    posterior, points = sure(coordinates[:, None]), np.array([[point]])
    truth = random_molecule(1).volume(24) + np.float32(point) * component.volume(24)
    errors = []
    for components in (component.volume(24)[None], NONE):
        regression = problem(posterior, points, [3.0], components)
        sums = regress(source, regression, LocalExecutor())
        errors.append(apart(next(finish_states(sums, regression, points, MASK)).volume, truth))
    assert errors[0] < 0.06
    if point:
        assert errors[0] < 0.3 * errors[1]


def test_narrow_kernels_follow_what_the_linear_model_does_not_know():
    bend = random_molecule(3, blobs=4)
    coordinates = np.random.default_rng(0).uniform(-1.5, 1.5, size=2000)
    source = images_along(bend, coordinates**2, noise=1.0)
    posterior, points = sure(coordinates[:, None]), np.array([[0.0], [1.2]])
    regression = problem(posterior, points, [0.02, 0.2, 3.0])
    sums = regress(source, regression, LocalExecutor())
    states = list(finish_states(sums, regression, points, MASK))
    mean = estimate_mean(source, GRID, WHITE, LocalExecutor()).regularized
    for state, point in zip(states, points[:, 0], strict=True):
        truth = random_molecule(1).volume(24) + np.float32(point**2) * bend.volume(24)
        assert apart(state.volume, truth) < 0.6 * apart(mean, truth)


def test_coordinates_of_another_program_do_as_well():
    bend = random_molecule(3, blobs=4)
    angle = np.random.default_rng(0).uniform(0, np.pi, size=1500)
    source = images_along(bend, np.cos(angle), noise=1.0)
    curve = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    posterior = LatentPosterior(curve, np.zeros((1500, 2, 2)), curve.var(0))
    points = np.array([[1.0, 0.0], [-1.0, 0.0]])
    regression = problem(posterior, points, [0.02, 0.2, 3.0])
    sums = regress(source, regression, LocalExecutor())
    for state, sign in zip(finish_states(sums, regression, points, MASK), (1, -1), strict=True):
        truth = random_molecule(1).volume(24) + np.float32(sign) * bend.volume(24)
        assert apart(state.volume, truth) < 0.5 * apart(random_molecule(1).volume(24), truth)


def test_a_map_of_heterogeneity_keeps_states_at_the_linear_model_elsewhere():
    source, _ = observe([random_molecule(1)], GRID, 200, noise=4.0)
    posterior = sure(np.random.default_rng(0).normal(size=(200, 1)))
    points, where = np.array([[0.4]]), MASK.copy()
    where[..., :12] = 0
    regression = problem(posterior, points, [0.1])
    one, other = (
        next(
            finish_states(
                regress(source, regression, LocalExecutor()), regression, points, MASK, weight
            )
        ).volume
        for weight in (where, 0 * where)
    )
    np.testing.assert_array_equal(one[..., :12], other[..., :12])
    assert np.abs(one - other)[..., 12:].max() > 0


def test_the_memory_of_sums_is_told_before():
    source, _ = observe([random_molecule(1)], GRID, 10, noise=4.0)
    regression = problem(sure(np.zeros((10, 1))), np.zeros((3, 1)), [0.1, 1.0])
    sums = regress(source, regression, LocalExecutor())
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(sums)) == bytes_of_regression(BALL, 3, 2)

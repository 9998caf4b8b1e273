import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.metrics import align, captured_variance, describe_population

seeds = st.integers(0, 2**16)


def draw_population(seed, states=6, size=4):
    rng = np.random.default_rng(seed)
    volumes = rng.normal(size=(states, size, size, size))
    return volumes, rng.uniform(0.1, 1, states)


@given(seed=seeds)
def test_components_of_a_population_rebuild_its_covariance(seed):
    volumes, weights = draw_population(seed)
    found = describe_population(volumes, weights)
    flat = volumes.reshape(len(volumes), -1)
    covariance = np.cov(flat.T, aweights=weights, ddof=0)
    u = found.components.reshape(len(found.components), -1)
    np.testing.assert_allclose(found.mean.ravel(), np.average(flat, axis=0, weights=weights))
    np.testing.assert_allclose((u.T * found.variances) @ u, covariance, atol=1e-9)
    np.testing.assert_allclose(u @ u.T, np.eye(len(u)), atol=1e-9)


@given(seed=seeds)
def test_a_volume_that_occurs_twice_is_one_with_twice_the_weight(seed):
    volumes, weights = draw_population(seed)
    once = describe_population(volumes, np.append(2 * weights[:1], weights[1:]))
    twice = describe_population(
        np.concatenate([volumes, volumes[:1]]), np.append(weights, weights[0])
    )
    np.testing.assert_allclose(twice.variances, once.variances, rtol=1e-9)


@given(seed=seeds)
def test_no_volumes_capture_more_than_the_true_components(seed):
    population = describe_population(*draw_population(seed))
    others = np.random.default_rng(seed + 1).normal(size=(3, 4, 4, 4))
    assert (captured_variance(others, population) <= population.shares[:3] + 1e-9).all()
    np.testing.assert_allclose(
        captured_variance(population.components, population), population.shares
    )


@given(seed=seeds)
def test_scale_sign_and_repetition_of_volumes_capture_nothing_more(seed):
    population = describe_population(*draw_population(seed))
    first, second = population.components[:2]
    captured = captured_variance(np.stack([-3 * first, first, first + second]), population)
    np.testing.assert_allclose(captured, population.shares[[0, 0, 1]])


@given(seed=seeds)
def test_single_precision_volumes_give_the_same_population(seed):
    volumes, weights = draw_population(seed)
    volumes = (volumes + 10).astype(np.float32)
    single = describe_population(volumes, weights)
    double = describe_population(volumes.astype(np.float64), weights)
    np.testing.assert_allclose(single.variances, double.variances, rtol=1e-10)
    np.testing.assert_allclose(single.components, double.components, atol=1e-6)


@given(seed=seeds)
def test_angles_are_those_between_planes(seed):
    population = describe_population(*draw_population(seed))
    first, second, third = population.components[:3]
    angle = np.random.default_rng(seed).uniform(0, np.pi / 2)
    tilted = np.cos(angle) * second + np.sin(angle) * third
    found = align(np.stack([first + tilted, -2 * tilted]), population)
    np.testing.assert_allclose(found.cosines(2), [1, np.cos(angle)], atol=1e-9)
    # Alone, the first one leans half a right angle away from the first true one.
    np.testing.assert_allclose(found.sines, [0.5**0.5, np.sin(angle)], atol=1e-6)


def test_ranks_that_were_not_found_count_as_right_angles():
    population = describe_population(*draw_population(0))
    found = align(population.components[:1], population)
    np.testing.assert_allclose(found.cosines(3), [1, 0, 0], atol=1e-9)


@given(seed=seeds)
def test_the_error_of_the_covariance_is_that_of_the_whole_matrix(seed):
    volumes, weights = draw_population(seed)
    population = describe_population(volumes, weights)
    rng = np.random.default_rng(seed + 1)
    components, eigenvalues = rng.normal(size=(3, 4, 4, 4)), rng.uniform(0, 2, 3)
    true = np.cov(volumes.reshape(len(volumes), -1).T, aweights=weights, ddof=0)
    u = components.reshape(3, -1)
    expected = np.linalg.norm((u.T * eigenvalues) @ u - true) / np.linalg.norm(true)
    found = align(components, population).covariance_error(eigenvalues)
    assert found == pytest.approx(expected, rel=1e-9)


@given(seed=seeds)
def test_variances_along_any_directions_are_calibrated_if_they_are_those_of_the_truth(seed):
    volumes, weights = draw_population(seed)
    population = describe_population(volumes, weights)
    rng = np.random.default_rng(seed + 1)
    unit = np.linalg.qr(rng.normal(size=(64, 3)))[0].T
    lengths = rng.uniform(0.5, 2, 3)
    true = np.cov(volumes.reshape(len(volumes), -1).T, aweights=weights, ddof=0)
    along = np.einsum("kv,vw,kw->k", unit, true, unit)
    components = (lengths[:, None] * unit).reshape(3, 4, 4, 4)
    found = align(components, population).calibration(1.5 * along / lengths**2)
    np.testing.assert_allclose(found, 1.5)


def test_eigenvalues_are_sorted_before_they_are_compared_with_true_ones():
    population = describe_population(*draw_population(0))
    found = align(population.components[::-1], population)
    eigenvalues = 2 * population.variances[::-1]
    np.testing.assert_allclose(found.sorted_calibration(eigenvalues), 2)
    np.testing.assert_allclose(found.calibration(eigenvalues), 2)


def test_a_direction_without_variance_is_infinitely_overestimated():
    volumes = np.zeros((2, 4, 4, 4))
    volumes[1, 0, 0, 0] = 1.0
    found = align(np.roll(volumes[1:], 1, axis=1), describe_population(volumes, np.ones(2)))
    assert found.calibration(np.ones(1)).tolist() == [np.inf]

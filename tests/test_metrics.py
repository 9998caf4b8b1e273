import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.metrics import (
    captured_variance,
    classification_accuracy,
    describe_population,
    explained_variance,
    predict_by_neighbours,
)

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


def test_an_image_does_not_predict_itself():
    values = np.arange(5.0)
    everywhere = predict_by_neighbours(values[:, None], values, neighbours=99)
    np.testing.assert_allclose(everywhere, (values.sum() - values) / 4)


def test_images_at_one_place_predict_each_other():
    values = np.random.default_rng(0).normal(size=100)
    predicted = predict_by_neighbours(np.zeros((100, 2)), values, neighbours=20)
    assert abs(np.corrcoef(values, predicted)[0, 1]) < 0.5
    assert np.std(predicted) < 0.5


@given(seed=seeds)
def test_coordinates_may_be_turned_and_scaled(seed):
    rng = np.random.default_rng(seed)
    coordinates = rng.normal(size=(300, 3))
    values = coordinates[:, 0] ** 2
    turned = 7 * coordinates @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    expected = explained_variance(coordinates, values)
    assert explained_variance(turned, values) == pytest.approx(expected, abs=1e-9)


def test_coordinates_that_say_nothing_give_the_score_of_guessing():
    rng = np.random.default_rng(0)
    coordinates, values = rng.normal(size=(2000, 2)), rng.normal(size=2000)
    labels = rng.random(2000) < 0.7
    assert explained_variance(coordinates, values) == pytest.approx(-0.05, abs=0.05)
    assert classification_accuracy(coordinates, labels) == pytest.approx(0.7, abs=0.05)


def test_coordinates_that_blur_two_classes_are_as_good_as_bayes():
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.5
    coordinates = rng.normal(size=4000) + 2.0 * labels
    # The best rule cuts at 1 and is right with probability Φ(1).
    accuracy = classification_accuracy(coordinates[:, None], labels, neighbours=100)
    assert accuracy == pytest.approx(0.841, abs=0.02)

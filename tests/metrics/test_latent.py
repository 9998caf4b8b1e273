import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.metrics import (
    classification_accuracy,
    clustering_ari,
    explained_variance,
    linear_accuracy,
    predict_by_neighbours,
    regression_r2,
    within_label_share,
)

seeds = st.integers(0, 2**16)


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


@given(seed=seeds)
def test_affine_maps_do_not_change_what_models_predict(seed):
    rng = np.random.default_rng(seed)
    coordinates = rng.normal(size=(200, 2))
    values = coordinates[:, 0] - coordinates[:, 1] ** 2 + rng.normal(size=200)
    mapped = coordinates @ rng.normal(size=(2, 2)) + 5
    for model in ("linear", "quadratic"):
        expected = regression_r2(coordinates, values, model)
        assert regression_r2(mapped, values, model) == pytest.approx(expected, abs=1e-6)


def test_a_model_predicts_what_is_left_after_noise():
    rng = np.random.default_rng(0)
    coordinates = rng.normal(size=(4000, 2))
    values = coordinates @ np.array([1.0, 1.0]) + rng.normal(size=4000)
    # Two thirds of the variance are signal; 50 neighbours leave a fiftieth of the noise in it.
    for model, margin in (("linear", 0.02), ("quadratic", 0.02), ("neighbours", 0.04)):
        assert regression_r2(coordinates, values, model) == pytest.approx(2 / 3, abs=margin)


def test_models_predict_nothing_from_noise():
    rng = np.random.default_rng(0)
    coordinates, values = rng.normal(size=(500, 8)), rng.normal(size=500)
    for model in ("linear", "quadratic", "neighbours"):
        assert regression_r2(coordinates, values, model) < 0.02


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_clusters_that_touch_are_found_as_far_as_bayes_could(method):
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    coordinates = rng.normal(size=(2000, 2)) + 4.0 * labels[:, None] * np.array([1, 0])
    # The cut in the middle is right with probability p = Φ(2) = 0.977, which makes (2p − 1)².
    assert clustering_ari(coordinates, labels, method) == pytest.approx(0.911, abs=0.03)
    assert abs(clustering_ari(coordinates, rng.permutation(labels), method)) < 0.01


def test_a_mixture_finds_clusters_of_different_shape_where_k_means_does_not():
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    coordinates = rng.normal(size=(2000, 2)) * np.array([10.0, 1.0])
    coordinates[:, 1] += 8.0 * labels
    assert clustering_ari(coordinates, labels, "kmeans") < 0.1
    assert clustering_ari(coordinates, labels, "mixture") > 0.95


def test_labels_may_have_any_names_and_number():
    coordinates = np.repeat(np.eye(3), 20, axis=0) + 0.01 * np.arange(60)[:, None] / 60
    labels = np.repeat(["open", "shut", "torn"], 20)
    assert linear_accuracy(coordinates, labels) == 1
    assert classification_accuracy(coordinates, labels, 5) == 1
    assert clustering_ari(coordinates, labels) == 1
    assert within_label_share(coordinates, labels) < 1e-3


def test_labels_that_mean_nothing_leave_the_variance_within():
    coordinates = np.random.default_rng(0).normal(size=(4000, 3))
    assert within_label_share(coordinates, np.arange(4000) % 4) == pytest.approx(1, abs=0.01)

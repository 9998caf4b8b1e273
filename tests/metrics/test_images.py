import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.metrics import compare_contrasts, compare_noise, compare_posteriors, outlier_auc


@given(scale=st.floats(0.1, 10), seed=st.integers(0, 2**16))
def test_contrasts_are_compared_after_their_means_are_made_one(scale, seed):
    rng = np.random.default_rng(seed)
    true, found = rng.uniform(0.5, 1.5, size=(2, 50))
    scores = compare_contrasts(scale * found, true)
    assert scores.correlation == pytest.approx(np.corrcoef(found, true)[0, 1])
    rest = found / found.mean() - true / true.mean()
    assert scores.error == pytest.approx(np.sqrt(np.mean(rest**2)))
    assert scores.spread == pytest.approx(found.std() / found.mean())


def test_contrasts_that_were_not_estimated_correlate_with_nothing():
    scores = compare_contrasts(np.ones(3), np.array([0.9, 1.0, 1.1]))
    assert scores.correlation == 0
    assert scores.spread == 0
    assert scores.error == pytest.approx(scores.true_spread)


def test_noise_is_compared_on_the_shells_that_both_have():
    found = compare_noise(np.array([9.0, 2.0, 1.0, 4.0]), np.array([1.0, 1.0, 1.0, 2.0, 7.0]))
    assert found.ratios.tolist() == [2, 1, 2]
    assert (found.median, found.smallest, found.largest) == (2, 1, 2)


def test_outliers_that_are_ranked_by_chance_score_one_half():
    rng = np.random.default_rng(0)
    outliers = rng.random(4000) < 0.1
    assert outlier_auc(rng.normal(size=4000), outliers) == pytest.approx(0.5, abs=0.03)
    # Two Gaussians at a distance of 2 are told apart with probability Φ(√2) = 0.921.
    scores = rng.normal(size=4000) + 2.0 * outliers
    assert outlier_auc(scores, outliers) == pytest.approx(0.921, abs=0.02)


def test_true_posteriors_are_calibrated_and_narrow_ones_too_confident():
    rng = np.random.default_rng(0)
    prior, noise = np.array([4.0, 1.0]), np.array([[1.0, 0.5], [0.5, 2.0]])
    true = rng.normal(size=(20_000, 2)) * np.sqrt(prior)
    seen = true + rng.multivariate_normal(np.zeros(2), noise, 20_000)
    covariance = np.linalg.inv(np.linalg.inv(noise) + np.diag(1 / prior))
    means = seen @ (covariance @ np.linalg.inv(noise)).T
    found = compare_posteriors(means, np.tile(covariance, (20_000, 1, 1)), true)
    assert found.square == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(found.spreads, 1, atol=0.02)
    narrow = compare_posteriors(means, np.tile(covariance / 4, (20_000, 1, 1)), true)
    assert narrow.square == pytest.approx(4 * found.square)

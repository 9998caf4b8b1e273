"""What held-out images say: closed forms, and noise that never passes."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from recovar.core.halves import Halves
from recovar.held_out import (
    HeldOut,
    Verdict,
    average_gains,
    judge,
    log_evidence,
    reestimate_covariance,
)
from recovar.posterior import ImageStatistics

COUNT = 300


def observe(pixels=24, pcs=3, variances=(1.0, 1.0, 1.0), spread=0.0, seed=0, count=COUNT):
    """Images as vectors of pixels, with their own operators, and their inner products."""
    rng = np.random.default_rng(seed)
    slices = rng.normal(size=(count, pixels, pcs + 1))
    slices[..., 0] *= 3
    z = rng.normal(size=(count, pcs)) * np.sqrt(variances)
    contrast = 1 + spread * rng.normal(size=count)
    images = contrast[:, None] * np.einsum("npk,nk->np", slices, np.c_[np.ones(count), z])
    images += rng.normal(size=images.shape)
    gram = np.einsum("npk,npl->nkl", slices, slices)
    return slices, images, ImageStatistics(gram, np.einsum("npk,np->nk", slices, images))


def likelihood(slices, image, pcs, contrast):
    """Log likelihood of one image over that of noise alone."""
    part = contrast * slices[:, 1 : pcs + 1]
    cov = np.eye(len(image)) + part @ part.T
    found = multivariate_normal(contrast * slices[:, 0], cov).logpdf(image)
    return found - multivariate_normal(np.zeros(len(image))).logpdf(image)


def test_evidence_is_the_density_of_the_whole_image():
    slices, images, statistics = observe(count=4)
    evidence = log_evidence(statistics, 0.0)
    for number in range(4):
        wanted = [likelihood(slices[number], images[number], pcs, 1.0) for pcs in range(4)]
        np.testing.assert_allclose(evidence[number], wanted, rtol=1e-8)


def test_contrast_is_integrated():
    slices, images, statistics = observe(count=1, spread=0.2)
    evidence = log_evidence(statistics, 0.2)
    contrasts = np.linspace(0.0, 2.0, 101)
    prior = np.exp(-0.5 * ((contrasts - 1) / 0.2) ** 2)
    logs = np.array([[likelihood(slices[0], images[0], k, a) for a in contrasts] for k in (0, 3)])
    wanted = np.log((np.exp(logs - logs.max()) * prior).sum(1) * (contrasts[1] - contrasts[0]))
    np.testing.assert_allclose(evidence[0, [0, 3]], logs.max() + wanted, atol=0.02)


def held(statistics, spread=0.0, particle=None):
    rows = np.arange(len(statistics.gram)) if particle is None else particle
    return HeldOut(statistics, spread, rows)


def weak(strength, seed, spread=0.0, scale=0.2):
    """Components of which single images know little; they vary `strength` times as fitted."""
    statistics = observe(variances=(strength,) * 3, seed=seed, spread=spread)[2]
    found = statistics.scaled(np.full(3, scale))
    return held(ImageStatistics(found.gram, found.response), spread)


@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.3])
@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_both_halves_never_believe_in_noise(scale, spread):
    """40 pairs of halves with three components each: 0.012 false pairs are expected at most."""
    for seed in range(0, 80, 2):
        both = [judge(weak(0.0, seed + half, spread, scale)).gaining for half in (0, 1)]
        assert not (both[0] & both[1]).any()


def test_what_varies_as_fitted_always_gains():
    for seed in range(20):
        statistics = observe(variances=(0.25,) * 3, seed=seed)[2].scaled(np.full(3, 0.5))
        assert judge(held(statistics)).gaining.all()


def test_noise_loses_if_much_variance_was_fitted_along_it():
    scores = [judge(weak(0.0, seed, scale=0.5)).scores for seed in range(5)]
    assert np.max(scores) < -2


def test_images_of_one_particle_count_as_one():
    statistics = observe(variances=(0.04,) * 3)[2].scaled(np.full(3, 0.2))
    few = statistics.rows(np.repeat(np.arange(COUNT // 3), 3))
    particle = np.repeat(np.arange(COUNT // 3), 3)
    once = judge(held(statistics.rows(np.arange(COUNT // 3))))
    np.testing.assert_allclose(judge(held(few, particle=particle)).scores, once.scores)


def test_curves_average_over_all_images_of_both_halves():
    verdicts = Halves(Verdict(np.full((10, 2), 1.0), 10), Verdict(np.full((30, 3), 3.0), 30))
    curve = average_gains(verdicts)
    np.testing.assert_allclose(curve.mean, [2.5, 5.0])
    np.testing.assert_allclose(
        curve.error, np.std(np.repeat([1.0, 3.0], [10, 30])) / 40**0.5 * np.array([1, 2])
    )


def test_variances_are_estimated_from_held_out_images_alone():
    statistics = observe(variances=(2.0, 0.5, 0.0), count=2000)[2]
    keep = np.array([True, True, False])
    covariance = reestimate_covariance(held(statistics), keep)
    np.testing.assert_allclose(covariance, np.diag([2.0, 0.5]), atol=0.15)
    assert reestimate_covariance(held(statistics), ~keep & False).shape == (0, 0)

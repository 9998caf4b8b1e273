"""Correlations, priors and the Wiener filter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid, expand_shells, volume_radii
from recovar.regularization import (
    ball_shell_average,
    fsc,
    relevance,
    resolution_at,
    shell_prior,
    signal_to_noise,
    wiener,
)


def spectrum(seed, size=32):
    return fourier.to_spectrum(np.random.default_rng(seed).normal(size=(size,) * 3))


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
def test_a_map_agrees_with_itself_at_any_scale(scale, seed):
    one = spectrum(seed, 8)
    np.testing.assert_allclose(fsc(one, scale * one), 1)
    np.testing.assert_allclose(fsc(one, -scale * one), -1)


def test_fsc_of_independent_noise_vanishes():
    assert np.abs(fsc(spectrum(0), spectrum(1))[4:]).max() < 0.2


def test_fsc_tells_the_share_of_signal():
    signal, a, b = (spectrum(seed) for seed in range(3))
    ratio = 10.0 ** np.linspace(1, -2, 16)
    noise = expand_shells(1 / np.sqrt(ratio), volume_radii(32))
    found = fsc(signal + noise * a, signal + noise * b)
    np.testing.assert_allclose(found[3:], (ratio / (1 + ratio))[3:], atol=0.12)
    assert found[0] == found[1]


def test_fsc_of_nothing_is_zero():
    assert not fsc(0 * spectrum(0), spectrum(0)).any()


def test_subtracting_the_mean_ignores_a_radial_offset():
    offset = expand_shells(np.linspace(9, 1, 16) * 1e3, volume_radii(32))
    one, other = spectrum(0) + offset, spectrum(1) + offset
    assert fsc(one, other)[4:].min() > 0.9
    np.testing.assert_allclose(
        fsc(one, other, subtract_mean=True)[2:], fsc(spectrum(0), spectrum(1))[2:], atol=0.05
    )


def test_resolution_of_a_curve_that_stays_high_is_the_last_shell():
    assert resolution_at(np.ones(16), 0.5, Grid(32, 2.0)) == pytest.approx(64 / 15)
    assert resolution_at(np.zeros(16), 0.5, Grid(32, 2.0)) == pytest.approx(64)


def test_signal_to_noise_is_bounded():
    np.testing.assert_allclose(signal_to_noise(np.array([-1.0, 0.5, 1.0])), [1 / 999, 1, 999])


def test_without_prior_the_filter_divides():
    ball = Ball(16, 7)
    rng = np.random.default_rng(0)
    weights = rng.uniform(1, 2, len(ball)).astype(np.float32)
    truth = (rng.normal(size=len(ball)) + 1j * rng.normal(size=len(ball))).astype(np.complex64)
    inside = ball.radii < 7.5
    found = wiener(truth * weights, weights, ball)
    np.testing.assert_allclose(found[inside], truth[inside], rtol=1e-5)


def test_the_prior_shrinks_by_signal_over_signal_and_noise():
    """A flat weight w per voxel is 8 w per coefficient: a prior of 1/(8 w) keeps half."""
    ball = Ball(16, 7)
    weights = np.full(len(ball), 3.0, np.float32)
    found = wiener(weights + 0j, weights, ball, np.full(8, 1 / 24))
    np.testing.assert_allclose(found[ball.radii < 7.5], 0.5, rtol=1e-6)


def test_prior_and_filter_agree():
    """With the prior of a correlation c, each half keeps c of its coefficients."""
    ball = Ball(16, 7)
    weights = np.full(len(ball), 0.01, np.float32)
    curve = np.linspace(0.9, 0.1, 8)
    kept = wiener(weights + 0j, weights, ball, shell_prior(curve, weights, ball)).real
    expected = expand_shells(curve, ball.radii)
    inside = ball.radii < 7.5
    np.testing.assert_allclose(kept[inside], expected[inside], rtol=1e-4)


def test_empty_voxels_stay_empty():
    ball = Ball(16, 7)
    nothing = np.zeros(len(ball), np.float32)
    assert not wiener(nothing + 0j, nothing, ball).any()
    prior = shell_prior(np.ones(8), nothing, ball)
    assert not prior.any()
    assert not wiener(nothing + 0j, nothing, ball, prior).any()


def test_the_average_over_shells_of_the_ball_is_that_of_the_radius():
    ball = Ball(16, 7)
    np.testing.assert_allclose(
        ball_shell_average(ball.radii, ball)[2:7], np.arange(2, 7), rtol=0.03
    )


def test_only_voxels_whose_variance_exceeds_the_noise_are_relevant():
    generator = np.random.default_rng(0)
    axis = np.arange(32) - 16
    radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    mean = np.exp(-((radii / 5) ** 2)).astype(np.float32)
    moving = np.sqrt((axis[:, None, None] - 4) ** 2 + axis[:, None] ** 2 + axis**2) < 3
    noise = generator.normal(size=(8, 32, 32, 32)) ** 2
    variance = (noise.sum(0) + 200 * moving).astype(np.float32)
    weight = relevance(variance, mean, np.ones_like(mean), 2.0)
    assert weight[moving].min() > 0.3
    assert weight[radii > 10].max() < 0.05
    assert relevance(variance, mean, np.ones_like(mean), 0.0).min() == 1

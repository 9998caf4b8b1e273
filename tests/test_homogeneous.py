"""Means of images are sums, and show the molecule."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import ImageSource, observe, random_molecule

from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.masks import dilate, soft_edge, window_volume
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA
from recovar.errors import InputError
from recovar.homogeneous import (
    density_is_inverted,
    estimate_mean,
    get_multiple_conformations,
    mean_statistic,
    weights_on_grid,
)
from recovar.regularization import fsc

GRID = Grid(32, 3.0)
BALL = Ball(32, 15)
WHITE = np.array([4.0])


def agreement(volume, truth):
    """Mean correlation with the truth over shells 1 … 12."""
    return fsc(fourier.to_spectrum(volume), fourier.to_spectrum(truth))[1:13].mean()


def total(source, operators=NUMBA):
    statistic = mean_statistic(WHITE, BALL, operators)
    return LocalExecutor(operators).accumulate("test", statistic, source)


@settings(max_examples=6)
@given(block=st.integers(1, 40))
def test_any_split_of_the_images_gives_the_same_sum(block):
    source, _ = observe([random_molecule(1)], GRID, 40, noise=4.0)
    whole = total(ImageSource(source.images, 40))
    split = total(ImageSource(source.images, block))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_both_operators_give_the_same_mean():
    source, _ = observe([random_molecule(1)], GRID, 40, noise=4.0)
    one, other = (
        estimate_mean(source, GRID, WHITE, LocalExecutor(operators))
        for operators in (NUMBA, REFERENCE)
    )
    np.testing.assert_allclose(one.volume, other.volume, atol=1e-4 * np.abs(one.volume).max())
    np.testing.assert_allclose(one.fsc, other.fsc, atol=1e-3)


def test_clean_images_give_back_the_molecule():
    molecule = random_molecule(2)
    source, _ = observe([molecule], GRID, 400, noise=1e-3)
    mean = estimate_mean(source, GRID, np.array([1e-3]), LocalExecutor())
    truth = window_volume(molecule.volume(32))
    assert agreement(mean.volume, truth) > 0.995
    error = np.linalg.norm(mean.regularized - truth) / np.linalg.norm(truth)
    assert error < 0.05  # linear interpolation on the twofold grid leaves about 2 %


def test_the_prior_improves_a_noisy_mean():
    molecule = random_molecule(3)
    noise = 3.0
    source, _ = observe([molecule], GRID, 300, noise=noise)
    mean = estimate_mean(source, GRID, np.array([noise]), LocalExecutor())
    truth = window_volume(molecule.volume(32))
    errors = [np.linalg.norm(v - truth) for v in (mean.volume, mean.regularized)]
    assert errors[1] < 0.8 * errors[0]


def test_a_mask_improves_a_noisy_mean():
    molecule = random_molecule(3)
    source, _ = observe([molecule], GRID, 300, noise=3.0)
    truth = molecule.volume(32)
    mask = soft_edge(dilate(truth / truth.max() > 0.05, 2))
    plain, masked = (
        estimate_mean(source, GRID, np.array([3.0]), LocalExecutor(), mask=given_mask)
        for given_mask in (None, mask)
    )
    errors = [np.linalg.norm(mask * mean.regularized - truth) for mean in (plain, masked)]
    assert errors[1] < errors[0]
    assert masked.fsc[4:10].mean() > plain.fsc[4:10].mean()
    assert not masked.volume[mask == 0].any()


def test_halves_predict_their_error():
    noise = 0.5
    molecule = random_molecule(4)
    source, _ = observe([molecule], GRID, 600, noise=noise)
    mean = estimate_mean(source, GRID, np.array([noise]), LocalExecutor())
    truth = fourier.to_spectrum(window_volume(molecule.volume(32)))
    measured = fsc(fourier.to_spectrum(mean.volume), truth)
    curve = np.maximum(mean.fsc, 0)
    predicted = np.sqrt(2 * curve / (1 + curve))
    np.testing.assert_allclose(measured[2:9], predicted[2:9], atol=0.06)


def test_contrast_is_divided_out():
    molecule = random_molecule(5)
    contrast = np.tile([0.5, 0.5, 2.0, 2.0], 50)
    source, _ = observe([molecule], GRID, 200, noise=1e-3, contrast=contrast)
    mean = estimate_mean(source, GRID, np.array([1e-3]), LocalExecutor(), contrast)
    truth = window_volume(molecule.volume(32))
    for half in mean.halves:
        assert np.vdot(half, truth) / np.vdot(truth, truth) == pytest.approx(1, abs=0.03)


def test_weights_select_states():
    molecules = [random_molecule(6), random_molecule(7)]
    source, states = observe(molecules, GRID, 600, noise=1e-3)
    weights = np.eye(2)[states]
    found = get_multiple_conformations(source, weights, GRID, WHITE, LocalExecutor())
    truths = [window_volume(molecule.volume(32)) for molecule in molecules]
    for mean, own, other in zip(found, truths, truths[::-1], strict=True):
        assert agreement(mean.volume, own) > 0.99
        assert agreement(mean.volume, other) < 0.8


def test_equal_weights_give_the_mean():
    source, _ = observe([random_molecule(8)], GRID, 60, noise=1.0)
    mean = estimate_mean(source, GRID, WHITE, LocalExecutor())
    weights = np.full((60, 3), 0.5)
    for state in get_multiple_conformations(source, weights, GRID, WHITE, LocalExecutor()):
        np.testing.assert_allclose(state.volume, mean.volume, atol=1e-4 * mean.volume.max())


def test_negative_weights_are_refused():
    source, _ = observe([random_molecule(8)], GRID, 4)
    with pytest.raises(InputError, match="at least 0"):
        get_multiple_conformations(source, -np.ones((4, 1)), GRID, WHITE, LocalExecutor())


@pytest.mark.parametrize("count", [1, 4])
def test_very_few_images_give_finite_maps(count):
    source, _ = observe([random_molecule(9)], GRID, count, noise=1.0)
    mean = estimate_mean(source, GRID, WHITE, LocalExecutor())
    for leaf in (mean.volume, mean.regularized, *mean.halves, *mean.regularized_halves):
        assert np.isfinite(leaf).all()
    assert np.isfinite(mean.fsc).all()
    assert np.isfinite(mean.prior).all()


def test_weights_on_the_grid_count_every_pixel_once():
    source, _ = observe([random_molecule(1)], GRID, 50, defocus=None)
    folded = BALL.fold(total(source).weights)
    on_grid = weights_on_grid(folded.sum(1), BALL).astype(np.float64)
    counted = np.r_[1.0, np.full(15, 2.0), 1.0]
    expected = 50 * source.images.disc.multiplicity.sum() / 4.0
    assert (on_grid * counted).sum() == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(on_grid[1:, 1:, 0], on_grid[:0:-1, :0:-1, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, 16, 18])
def test_the_sign_is_found_in_the_smallest_boxes(size):
    volume = random_molecule(1).volume(size)
    assert not density_is_inverted(volume)
    assert density_is_inverted(-volume)


@pytest.mark.parametrize("zero", [0.0, -0.3, 0.3])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_is_found_whatever_the_zero_of_density(zero, sign):
    assert density_is_inverted(sign * random_molecule(1).volume(32) + zero) == (sign < 0)

"""Noise is found where it is known."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import ImageSource, observe, random_molecule, random_noise

from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.masks import no_mask, solvent_mask, spherical_mask
from recovar.core.slicing_numba import NUMBA
from recovar.noise import (
    deconvolve,
    disc_average,
    disc_shell_sums,
    estimate_noise,
    estimate_power,
    finish_noise,
    masked_noise_power,
    noise_statistic,
    residual_noise,
    white_level,
)

SIZE = 32
GRID = Grid(SIZE, 3.0)
DISC = Disc(SIZE, 15)
PROFILE = 5.0 * (1 + 4 * np.exp(-np.arange(16) / 4))
MOLECULE = random_molecule(1, blobs=12, spread=2.0)
VOLUME = MOLECULE.volume(SIZE)
MASK = solvent_mask(VOLUME / VOLUME.max() > 0.05)
EXECUTOR = LocalExecutor()


def soft_masks(count, seed=0):
    rng = np.random.default_rng(seed)
    axis = np.arange(SIZE) - SIZE // 2
    centres = rng.uniform(-4, 4, (count, 2, 1))
    y, x = axis - centres[:, 0], axis - centres[:, 1]
    return np.clip((12 - np.hypot(y[:, :, None], x[:, None])) / 4, 0, 1).astype(np.float32)


def noise_images(count, profile, seed=0):
    spectra = random_noise(count, DISC, profile, np.random.default_rng(seed))
    return fourier.to_volume(DISC.to_spectra(spectra), dimensions=2)


def test_the_power_of_masked_noise_is_as_predicted():
    mask = soft_masks(1)
    images = noise_images(8000, PROFILE)
    measured = (np.abs(fourier.to_spectrum(images * mask, dimensions=2)) ** 2).mean(0)
    predicted = masked_noise_power(PROFILE, mask)[0]
    np.testing.assert_allclose(measured, predicted, rtol=0.08, atol=0.01 * predicted.max())


@given(level=st.floats(0.1, 1e4))
def test_masked_white_noise_has_the_power_of_the_mask(level):
    mask = soft_masks(2)
    predicted = masked_noise_power(np.full(16, level), mask)
    share = (mask**2).mean((1, 2))
    inner = predicted[:, :4, :4].mean((1, 2))  # far from the rim, where the disc ends
    np.testing.assert_allclose(inner, level * share, rtol=0.02)


def test_deconvolution_inverts_the_prediction():
    outside = 1 - soft_masks(20)
    power = masked_noise_power(PROFILE, outside).sum(0)
    mask_power = (np.abs(fourier.to_spectrum(outside, dimensions=2)) ** 2).sum(0)
    np.testing.assert_allclose(deconvolve(power, mask_power), PROFILE, rtol=1e-2)


def test_white_noise_is_flat():
    source, _ = observe([MOLECULE], GRID, 1000, noise=50.0)
    found = estimate_noise(source, VOLUME, MASK.dilated, EXECUTOR)
    # Shell 1 has four independent pixels: 1.6 % per standard deviation over 1000 images.
    np.testing.assert_allclose(found.variance[1:], 50, rtol=0.06)
    white = estimate_noise(source, VOLUME, MASK.dilated, EXECUTOR, model="white")
    np.testing.assert_allclose(white.variance, 50, rtol=0.02)


@pytest.mark.parametrize("method", ["residual", "inside", "whole"])
def test_coloured_noise_is_found_under_a_known_molecule(method):
    contrast = np.random.default_rng(0).normal(1, 0.2, 1000)
    source, _ = observe([MOLECULE], GRID, 1000, noise=PROFILE, contrast=contrast)
    found = estimate_noise(source, VOLUME, MASK.dilated, EXECUTOR, contrast, method)
    # The inside is a fifth of the image: 3 % per standard deviation on shell 1.
    np.testing.assert_allclose(found.variance[1:] / PROFILE[1:], 1, atol=0.1)
    assert np.median(found.variance / PROFILE) == pytest.approx(1, abs=0.02)


def test_heterogeneity_does_not_pass_for_noise():
    molecules = [random_molecule(seed, blobs=12, spread=2.0) for seed in (1, 2)]
    volumes = [molecule.volume(SIZE) for molecule in molecules]
    mean = 0.5 * (volumes[0] + volumes[1])
    mask = solvent_mask(mean / mean.max() > 0.05)
    source, _ = observe(molecules, GRID, 800, noise=1.0)
    errors = {
        method: np.abs(
            estimate_noise(source, mean, mask.dilated, EXECUTOR, method=method).variance[2:] - 1
        ).max()
        for method in ("residual", "inside")
    }
    assert errors["residual"] < 0.15
    assert errors["inside"] > 3 * errors["residual"]


def test_neighbours_outside_the_mask_do_not_pass_for_noise():
    source, _ = observe([MOLECULE], GRID, 800, noise=10.0)
    images = fourier.to_volume(DISC.to_spectra(source.images.values), dimensions=2)
    images[:, :4] += 0.3 * np.random.default_rng(0).normal(size=(800, 4, SIZE))
    values = DISC.from_spectra(fourier.to_spectrum(images, dimensions=2)).astype(np.complex64)
    fields = source.images
    crowded = ImageSource(
        type(fields)(DISC, values, fields.transfer, fields.rotations, fields.rows, fields.halves)
    )
    found = estimate_noise(crowded, VOLUME, MASK.dilated, EXECUTOR)
    assert np.median(found.outside) > 12
    assert np.median(found.variance) == pytest.approx(10, rel=0.05)


def test_published_noise_is_never_above_its_bounds():
    source, _ = observe([MOLECULE], GRID, 500, noise=PROFILE)
    statistic = noise_statistic(VOLUME, MASK.dilated, NUMBA, bounded=True)
    sums = EXECUTOR.accumulate("test", statistic, source)
    published = finish_noise(sums, "published").variance
    for method in ("outside", "inside"):
        assert (published <= finish_noise(sums, method).variance + 1e-9).all()
    assert 0.7 < np.median(published / PROFILE) < 1


@pytest.mark.parametrize("mask", [no_mask(SIZE), spherical_mask(SIZE)])
def test_without_an_outside_whole_residuals_are_used(mask):
    source, _ = observe([MOLECULE], GRID, 300, noise=PROFILE)
    found = estimate_noise(source, VOLUME, mask.dilated, EXECUTOR)
    np.testing.assert_array_equal(found.variance, found.whole)


@settings(max_examples=5)
@given(block=st.integers(3, 30))
def test_any_split_of_the_images_gives_the_same_sum(block):
    source, _ = observe([MOLECULE], GRID, 30, noise=PROFILE)
    statistic = noise_statistic(VOLUME, MASK.dilated, NUMBA, bounded=True)
    whole, split = (
        EXECUTOR.accumulate("test", statistic, ImageSource(source.images, size))
        for size in (30, block)
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("count", [1, 4])
def test_very_few_images_give_positive_noise(count):
    source, _ = observe([MOLECULE], GRID, count, noise=PROFILE)
    for method in ("residual", "published", "masked"):
        found = estimate_noise(source, VOLUME, MASK.dilated, EXECUTOR, method=method)
        assert np.isfinite(found.variance).all()
        assert (found.variance > 0).all()


def test_power_of_empty_images_is_the_noise():
    source, _ = observe([MOLECULE], GRID, 500, noise=PROFILE, contrast=0.0)
    power = estimate_power(source, SIZE, EXECUTOR)
    np.testing.assert_allclose(power[1:], PROFILE[1:], rtol=0.1)
    assert white_level(power) == pytest.approx(np.median(PROFILE[8:]), rel=0.05)


def test_shell_sums_of_a_disc_count_its_pixels():
    counted = disc_shell_sums(np.ones((3, len(DISC))), DISC)
    np.testing.assert_array_equal(counted, 3 * np.bincount(DISC.shells))


def test_the_average_over_a_disc_leaves_out_its_rim():
    spectra = DISC.to_spectra(np.ones(len(DISC)))
    np.testing.assert_allclose(disc_average(spectra + 0.0), 1)


def test_residuals_and_posterior_make_up_the_noise():
    """y = u z + n: the variance of n is a fixed point of the update."""
    rng = np.random.default_rng(0)
    variance, scale, count = 2.0, 1.5, 200_000
    y = scale * rng.normal(size=count) + np.sqrt(variance) * rng.normal(size=count)
    posterior = 1 / (1 + scale**2 / variance)
    left = y - scale * posterior * scale * y / variance
    sums = np.array([np.sum(left**2)]), np.array([float(count)])
    updated = residual_noise(*sums, np.array([count * scale**2 * posterior]), np.array([9.0, 9.0]))
    np.testing.assert_allclose(updated, [variance, 9], rtol=0.01)

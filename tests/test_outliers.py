"""Images that do not show the molecule are told from those that do, and count for nothing."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import observe, random_molecule
from scipy import special

from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.slicing_numba import NUMBA
from recovar.expectation import Model, infer_from, moments_statistic
from recovar.outliers import Stranger, describe_stranger, probability_of_junk, strangeness
from recovar.posterior import Latents

GRID, RADIUS, COUNT, NOISE = Grid(24, 4.0), 9, 60, 1.0
BALL = Ball(24, RADIUS)
MOLECULE = random_molecule(1, blobs=20, spread=2.5)


def images(molecule=MOLECULE, **changes):
    source, _ = observe([molecule], GRID, COUNT, noise=NOISE, **changes)
    return source.images.at_radius(24, RADIUS).whitened(np.full(12, NOISE))


def model(contrast_sd=0.2):
    """The mean, and a component that no image has much of."""
    volumes = np.stack([MOLECULE.volume(24), 0.05 * random_molecule(2).volume(24)])
    return Model(volumes, contrast_sd, np.ones(1))


def weights_of(batch, **options):
    return np.asarray(infer_from(model(**options), BALL, NUMBA, weigh_junk=True)(batch).weight)


@pytest.mark.parametrize("contrast_sd", [0.0, 0.2])
def test_images_of_the_molecule_count_and_others_do_not(contrast_sd):
    batch = images()
    assert weights_of(batch, contrast_sd=contrast_sd).min() > 0.999
    ice = replace(batch, values=images(contrast=0.0).values)
    other = images(random_molecule(7, blobs=20, spread=2.5))
    turned = replace(batch, rotations=batch.rotations[::-1].copy())
    shift = np.exp(2j * np.pi * 6 * batch.disc.x / 24)
    away = replace(batch, values=(batch.values * shift).astype(np.complex64))
    for junk in (ice, other, turned, away):
        assert np.median(weights_of(junk, contrast_sd=contrast_sd)) < 1e-3
        assert weights_of(junk, contrast_sd=contrast_sd).mean() < 0.1


def moments_with(weight):
    """Sum moments of drawn latents; weights may depend on the row."""
    batch, generator = images(), np.random.default_rng(3)
    drawn = Latents(
        generator.normal(size=(COUNT, 2)),
        np.tile(0.3 * np.eye(2), (COUNT, 1, 1)),
        generator.normal(1, 0.1, COUNT),
        np.full(COUNT, 0.01),
        weight=weight,
    )

    def infer(block):
        return jax.tree.map(lambda part: part[block.rows], drawn)

    statistic = moments_statistic(infer, 2, BALL, NUMBA)

    def total(rows):
        return statistic.add(statistic.zeros(), batch.select(rows))

    return total


def leaves(moments):
    sums = moments.latents
    return [*moments.curvature, *moments.response, *vars(sums).values()]


def test_weights_of_one_change_nothing():
    every = np.arange(COUNT)
    plain, weighted = moments_with(None)(every), moments_with(np.ones(COUNT))(every)
    for one, other in zip(leaves(plain), leaves(weighted), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_image_without_weight_is_as_good_as_absent():
    weight = (np.arange(COUNT) % 3 > 0).astype(np.float64)
    weighted = moments_with(weight)(np.arange(COUNT))
    few = moments_with(None)(np.flatnonzero(weight))
    for one, other in zip(leaves(weighted), leaves(few), strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * scale)


def test_a_stranger_has_mean_and_variance_of_slices_over_all_views():
    """Slices of images in random views; shells of planes and of space differ a bit."""
    found = describe_stranger(MOLECULE.volume(24))
    source, _ = observe([MOLECULE], GRID, 3000, seed=1, defocus=None)
    batch = source.images.at_radius(24, RADIUS)
    shells, values = batch.disc.shells, batch.values
    counts = np.bincount(shells)
    mean = np.bincount(shells, np.real(values).mean(0)) / counts
    power = np.bincount(shells, (np.abs(values) ** 2).mean(0)) / counts
    scale = found.mean[0]
    np.testing.assert_allclose(found.mean[: RADIUS + 1], mean, atol=0.04 * scale)
    np.testing.assert_allclose(found.variance[: RADIUS + 1], power - mean**2, atol=0.04 * scale**2)


def gaussian(values, mean, sd):
    return -0.5 * ((values - mean) / sd) ** 2 - np.log(sd)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_strangeness_is_a_ratio_of_gaussian_likelihoods(seed):
    """Of real and imaginary parts, each half of a coefficient, at all pixels of the half plane."""
    generator = np.random.default_rng(seed)
    stranger = Stranger(generator.normal(size=12), generator.uniform(0.5, 2, 12))
    batch = images(seed=seed).select(np.arange(3))
    shells, transfer = batch.disc.shells, batch.transfer.astype(np.float64)

    def log_density(amplitude):
        sd = np.sqrt(1 + (amplitude * transfer) ** 2 * stranger.variance[shells])
        mean = amplitude * transfer * stranger.mean[shells]
        real = gaussian(np.real(batch.values), mean, sd / 2**0.5)
        imaginary = gaussian(np.imag(batch.values), 0 * mean, sd / 2**0.5)
        imaginary[:, 0] = 0  # the origin is real
        real[:, 0] = gaussian(np.real(batch.values), mean, sd)[:, 0]
        return (real + imaginary).sum(1)

    each = [log_density(amplitude) for amplitude in (0.0, 0.6, 1.0, 1.4)]
    expected = special.logsumexp(each, axis=0) - np.log(4) - each[0]
    np.testing.assert_allclose(strangeness(batch, stranger), expected, rtol=1e-4, atol=1e-2)


def test_probabilities_grow_with_the_odds():
    odds = np.linspace(-1000, 1000, 41)
    found = probability_of_junk(odds)
    assert (np.diff(found) >= 0).all()
    assert found[0] < 1e-100
    assert found[-1] == 1

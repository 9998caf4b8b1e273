"""The fit finds mean, subspace, variances and contrasts of molecules that are known."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import ImageSource, observe, random_molecule

from recovar.compute.executors import LocalExecutor
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.masks import spherical_mask
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA
from recovar.expectation import Model, moments_statistic
from recovar.maximization import bytes_of_sums
from recovar.posterior import Latents
from recovar.subspace import (
    SubspaceOptions,
    estimate_subspace,
    plan_radii,
    principal_axes,
)

GRID = Grid(32, 4.0)
RADIUS = 13
NOISE = 3.0
QUICK = SubspaceOptions(
    components=3,
    correct_contrast=True,
    first_radius=11,
    iterations=(9, 2),
    shrinkage_start=3,
    shrinkage_rise=3,
)


@pytest.fixture(scope="module")
def problem():
    """Two molecules that differ in a domain, with contrasts and noise."""
    body = random_molecule(3, blobs=30, spread=2.5)
    other = random_molecule(3, blobs=30, spread=2.5)
    body.positions[:6] *= 0.3
    body.positions[:6] += [6.0, 1.0, 0.0]
    np.add(body.positions[:6], [0.0, 4.0, 2.0], out=other.positions[:6])
    contrast = 1 + 0.15 * np.random.default_rng(5).standard_normal(1200)
    source, states = observe([body, other], GRID, 1200, noise=NOISE, contrast=contrast, seed=1)
    return source, states, contrast, body, other


def fit(source, options=QUICK, **rest):
    return estimate_subspace(
        source,
        GRID,
        np.full(16, NOISE),
        spherical_mask(GRID.size).mask,
        options,
        LocalExecutor(),
        last_radius=RADIUS,
        **rest,
    )


@pytest.fixture(scope="module")
def fitted(problem):
    return fit(problem[0])


def lowpass(volume):
    spectrum = np.fft.rfftn(volume)
    k = np.fft.fftfreq(GRID.size, 1 / GRID.size)
    radii = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(17) ** 2)
    return np.fft.irfftn(spectrum * (radii <= RADIUS), volume.shape, axes=(0, 1, 2))


def cosine(a, b):
    return abs(np.vdot(a, b)) / np.sqrt(np.vdot(a, a) * np.vdot(b, b))


def test_the_first_component_is_the_difference_of_two_states(problem, fitted):
    _, _, _, body, other = problem
    difference = lowpass(body.volume(32) - other.volume(32))
    assert cosine(fitted.components.volumes[0], difference) > 0.9


def test_only_as_many_components_survive_as_there_are(fitted):
    assert fitted.components.eigenvalues[1] < 0.05 * fitted.components.eigenvalues[0]


def test_the_variance_along_the_component_is_that_of_the_states(problem, fitted):
    """Half of the squared distance of two equally common states, shrunk by less than a third."""
    _, _, _, body, other = problem
    difference = lowpass(body.volume(32) - other.volume(32))
    expected = 0.25 * np.sum(difference**2) * GRID.size**3
    assert 0.6 < fitted.components.eigenvalues[0] / expected < 1.2


def test_the_mean_is_the_average_of_the_states(problem, fitted):
    _, _, _, body, other = problem
    assert cosine(fitted.mean, lowpass(0.5 * (body.volume(32) + other.volume(32)))) > 0.97


def test_the_spread_of_contrasts_is_found(fitted):
    assert 0.11 < fitted.contrast_sd < 0.19


def test_the_moving_part_is_where_the_heterogeneity_is(problem, fitted):
    _, _, _, body, other = problem
    difference = np.abs(lowpass(body.volume(32) - other.volume(32)))
    moving = difference > 0.3 * difference.max()
    assert fitted.heterogeneity[moving].mean() > 4 * fitted.heterogeneity[~moving].mean()


def test_another_start_finds_the_same_component(problem, fitted):
    again = fit(problem[0], seed=7)
    assert cosine(again.components.volumes[0], fitted.components.volumes[0]) > 0.98


def test_a_fit_goes_on_from_a_given_start(problem, fitted):
    """A few iterations of another fit's mean and components leave them what they are."""
    known = fitted.components
    factors = known.volumes * np.sqrt(known.eigenvalues)[:, None, None, None]
    components = np.zeros((QUICK.components, *fitted.mean.shape), np.float32)
    components[: len(factors)] = factors
    volumes = np.concatenate([fitted.mean[None], components])
    start = Model(volumes, fitted.contrast_sd, np.ones(len(components)))
    again = fit(problem[0], replace(QUICK, iterations=(1, 2), shrinkage_start=0), start=start)
    assert cosine(again.components.volumes[0], known.volumes[0]) > 0.97


def test_batches_do_not_change_the_fit(problem, fitted):
    source = problem[0]
    again = fit(ImageSource(source.images, 170))
    scale = np.abs(fitted.mean).max()
    np.testing.assert_allclose(again.mean, fitted.mean, atol=2e-3 * scale)
    np.testing.assert_allclose(
        again.components.eigenvalues[0], fitted.components.eigenvalues[0], rtol=5e-3
    )


def test_less_memory_does_not_change_the_fit(problem, fitted):
    """A third of the memory: the sums are made in several bands of the ball."""
    needed = bytes_of_sums(Ball(GRID.at_radius(RADIUS).size, RADIUS), 3)
    again = fit(problem[0], memory=needed // 3)
    np.testing.assert_allclose(again.mean, fitted.mean, atol=1e-5 * np.abs(fitted.mean).max())
    np.testing.assert_allclose(
        again.components.eigenvalues[0], fitted.components.eigenvalues[0], rtol=1e-4
    )


class Interrupted(Exception):
    """Stands for a process that ends."""


class Memory:
    """A checkpoint that ends the process after some saves."""

    def __init__(self, saves):
        self.saves, self.kept = saves, None

    def save(self, **arrays):
        self.kept = arrays
        self.saves -= 1
        if not self.saves:
            raise Interrupted

    def load(self):
        return self.kept


def test_an_interrupted_fit_ends_with_the_same_result(problem, fitted):
    place = Memory(saves=5)
    with pytest.raises(Interrupted):
        fit(problem[0], checkpoint=place)
    again = fit(problem[0], checkpoint=place)
    np.testing.assert_array_equal(again.mean, fitted.mean)
    np.testing.assert_array_equal(again.components.eigenvalues, fitted.components.eigenvalues)


def test_without_contrast_every_image_counts_the_same(problem):
    options = SubspaceOptions(components=1, first_radius=13, iterations=(3,))
    found = fit(problem[0], options)
    assert found.contrast_sd == 0


@settings(max_examples=5)
@given(block=st.integers(1, 30))
def test_moments_of_any_split_are_the_same(problem, block):
    source = problem[0].images.select(np.arange(30)).at_radius(14, 6)
    rng = np.random.default_rng(0)
    latents = Latents(
        rng.normal(size=(30, 2)), np.tile(np.eye(2), (30, 1, 1)), np.ones(30), np.zeros(30)
    )

    def inference(batch):
        return jax.tree.map(lambda field: field[batch.rows], latents)

    def total(operators, size):
        statistic = moments_statistic(inference, 2, Ball(14, 6), operators)
        return LocalExecutor(operators).accumulate("test", statistic, ImageSource(source, size))

    whole = jax.tree.leaves(total(NUMBA, 30))
    for other in (total(NUMBA, block), total(REFERENCE, 30)):
        for a, b in zip(whole, jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(a).max(), 1e-9))


def test_radii_grow_to_the_last():
    assert plan_radii(SubspaceOptions(), 62) == [14, 21, 32, 48, 62]
    assert plan_radii(SubspaceOptions(), 9) == [9]


def test_principal_axes_keep_the_covariance_and_are_orthonormal():
    factors = np.random.default_rng(0).normal(size=(3, 8, 8, 8)).astype(np.float32)
    found = principal_axes(factors)
    flat, turned = factors.reshape(3, -1), found.volumes.reshape(3, -1)
    covariance = (turned.T * found.eigenvalues) @ turned
    np.testing.assert_allclose(covariance, flat.T @ flat, atol=1e-4)
    np.testing.assert_allclose(turned @ turned.T, np.eye(3) / 8**3, atol=1e-7)
    assert (turned.sum(1) >= 0).all()

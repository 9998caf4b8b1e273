"""The published rule for states: its distances, its kernels, and the maps that it makes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import ImageSource, observe, random_molecule

from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.masks import window_volume
from recovar.core.slicing_numba import NUMBA
from recovar.errors import InputError
from recovar.homogeneous import estimate_mean, fold_means, mean_statistic
from recovar.latent_weights import LatentPosterior, mahalanobis
from recovar.published_states import (
    Binned,
    Bins,
    bin_images,
    choose_states,
    sampling_distances,
    sum_bins,
)
from recovar.published_states import _widen as widen
from recovar.regularization import fsc

GRID = Grid(20, 3.0)
BALL = Ball(20, 9)
WHITE = np.array([1.0])


def random_posterior(seed, images=30, zdim=3):
    """Posteriors of random information, as float32 files hold them, and what they know."""
    rng = np.random.default_rng(seed)
    variances = np.array([1e6, 1e4, 1e3])[:zdim]
    roots = rng.normal(size=(images, zdim, zdim)) / np.sqrt(variances) * 2
    information = np.einsum("nki,nkj->nij", roots, roots) + np.diag(0.5 / variances)
    covariances = np.linalg.inv(information + np.diag(1 / variances))
    means = rng.normal(size=(images, zdim)) * np.sqrt(variances)
    points = rng.normal(size=(2, zdim)) * np.sqrt(variances)
    stored = covariances.astype(np.float32).astype(np.float64)
    return LatentPosterior(means, stored, variances), information, points


def middle():
    mask = np.zeros(GRID.volume_shape, np.float32)
    mask[5:15, 5:15, 5:15] = 1
    return mask


def summed(source, bins):
    binned = Binned(BALL, WHITE, np.ones(len(source)), bins, NUMBA)
    return binned, sum_bins(source, binned, LocalExecutor())


@given(seed=st.integers(0, 2**16))
def test_distances_use_the_inverse_of_the_covariance_of_estimates(seed):
    posterior, information, points = random_posterior(seed)
    prior = np.diag(1 / posterior.variances)
    precision = (information + prior) @ np.linalg.inv(information) @ (information + prior)
    apart = points[None] - posterior.means[:, None]
    expected = np.einsum("nsi,nij,nsj->ns", apart, precision, apart)
    found = sampling_distances(posterior, points)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_estimates_scatter_by_the_distance():
    """At its truth an image has a distance of chi-squared, once the pull to 0 is taken off."""
    rng = np.random.default_rng(1)
    variances, truth = np.array([4.0, 1.0]), np.array([1.5, -0.5])
    information = np.array([[1.0, 0.4], [0.4, 2.0]])
    covariance = np.linalg.inv(information + np.diag(1 / variances))
    noise = rng.multivariate_normal(np.zeros(2), information, 20_000)
    means = (truth @ information + noise) @ covariance
    posterior = LatentPosterior(means, np.tile(covariance, (20_000, 1, 1)), variances)
    expected_mean = truth @ information @ covariance
    found = sampling_distances(posterior, expected_mean[None])
    assert found.mean() == pytest.approx(2, rel=0.03)
    assert mahalanobis(posterior, expected_mean[None]).mean() < 1.7


def test_what_an_image_says_nothing_about_counts_nothing():
    variances = np.array([4.0, 1.0])
    covariance = np.diag([4.0, 0.1])  # the first coordinate is as wide as without the image
    posterior = LatentPosterior(np.zeros((1, 2)), covariance[None], variances)
    near, far = sampling_distances(posterior, np.array([[0.0, 1.0], [100.0, 1.0]]))[0]
    assert near == far == pytest.approx(1 / (0.1 * 0.9))


def test_points_of_another_number_of_coordinates_are_refused():
    posterior, _, points = random_posterior(0)
    with pytest.raises(InputError, match="3 coordinates"):
        sampling_distances(posterior, points[:, :2])


@given(seed=st.integers(0, 2**16), count=st.integers(2, 60))
def test_bins_start_with_100_images_of_the_first_half_and_leave_out_its_last_twentieth(seed, count):
    rng = np.random.default_rng(seed)
    distances, halves = rng.chisquare(4, size=(2000, 2)), rng.integers(0, 2, 2000)
    bins = bin_images(distances, halves, count)
    for members, edges, each in zip(bins.members.T, bins.edges.T, distances.T, strict=True):
        assert np.count_nonzero(members[halves == 0] == 0) == 100
        assert np.mean(members[halves == 0] == count) == pytest.approx(0.05, abs=0.002)
        np.testing.assert_allclose(np.ptp(np.diff(np.sqrt(edges))), 0, atol=1e-6)
        inside = members < count
        assert (each[inside] <= edges[members[inside]]).all()
        later = inside & (members > 0)
        assert (each[later] > edges[members[later] - 1]).all()
        assert (each[~inside] > edges[-1]).all()


def test_few_images_are_all_in_the_first_bin():
    rng = np.random.default_rng(1)
    bins = bin_images(rng.chisquare(4, size=(60, 1)), np.zeros(60, np.int64), 5)
    assert not bins.members.any()


def test_images_that_say_nothing_are_all_in_the_first_bin():
    bins = bin_images(np.zeros((60, 1)), np.arange(60) % 2, 5)
    assert not bins.members.any()
    source, _ = observe([random_molecule(1, spread=2.0)], GRID, 60, noise=1.0)
    _, sums = summed(source, bins)
    kernels = [kernel.halves().first for kernel in widen(sums, bins.edges[:, 0], BALL)]
    for kernel in kernels[1:]:
        np.testing.assert_allclose(kernel, kernels[0], atol=1e-4 * np.abs(kernel).max())


@pytest.mark.parametrize("block", [23, 64])
def test_kernels_are_weighted_means_of_images(block):
    source, _ = observe([random_molecule(1, spread=2.0)], GRID, 60, noise=1.0)
    rng = np.random.default_rng(2)
    edges = np.linspace(1, 4, 11)[:, None] ** 2
    members = rng.integers(0, 12, size=(60, 1))
    _, sums = summed(ImageSource(source.images, block), Bins(edges, members))
    shares = np.clip(1 - edges / (2 * edges[:, 0]), 0, None)  # of bins in kernels
    shares[:, 0] = np.arange(11) == 0
    weights = np.vstack([shares, np.zeros(11)])[members[:, 0]]
    statistic = mean_statistic(WHITE, BALL, NUMBA, None, weights)
    direct = LocalExecutor().accumulate("test", statistic, source)
    pairs = zip(widen(sums, edges[:, 0], BALL), fold_means(direct, BALL), strict=True)
    for found, expected in pairs:
        for name in ("values", "weights"):
            scale = np.abs(getattr(expected, name)).max()
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name), atol=1e-5 * scale
            )


def test_with_all_images_in_the_first_bin_the_half_maps_are_those_of_the_mean():
    source, _ = observe([random_molecule(3, spread=2.0)], GRID, 200, noise=1.0)
    mean = estimate_mean(source, GRID, WHITE, LocalExecutor())
    edges = np.linspace(1, 2, 6)[:, None]
    binned, sums = summed(source, Bins(edges, np.zeros((200, 1), np.int64)))
    (chosen,) = choose_states(sums, binned, middle())
    for found, expected in zip(chosen.halves, mean.halves, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_two_states_are_told_apart():
    molecules = [random_molecule(4, spread=2.0), random_molecule(5, spread=2.0)]
    source, states = observe(molecules, GRID, 600, noise=0.05)
    rng = np.random.default_rng(6)
    means = (2.0 * states - 1)[:, None] + rng.normal(scale=0.3, size=(600, 1))
    posterior = LatentPosterior(means, np.full((600, 1, 1), 0.09), np.ones(1))
    distances = sampling_distances(posterior, np.array([[-1.0], [1.0]]))
    bins = bin_images(distances, source.images.halves, 6)
    binned, sums = summed(source, bins)
    truths = [window_volume(molecule.volume(20)) for molecule in molecules]
    found = choose_states(sums, binned, middle())
    for chosen, own, other in zip(found, truths, truths[::-1], strict=True):
        volume = fourier.to_spectrum(0.5 * (chosen.halves.first + chosen.halves.second))
        curves = [fsc(volume, fourier.to_spectrum(each))[1:8].mean() for each in (own, other)]
        assert curves[0] > 0.95
        assert curves[1] < curves[0] - 0.1


def test_half_maps_share_no_image():
    source, _ = observe([random_molecule(7, spread=2.0)], GRID, 120, noise=1.0)
    bins = Bins(np.linspace(1, 2, 4)[:, None], np.arange(120)[:, None] % 4)
    _, sums = summed(source, bins)
    images = source.images
    changed = np.where(images.halves[:, None] == 1, 2 * images.values, images.values)
    moved = ImageSource(replace(images, values=changed))
    _, others = summed(moved, bins)
    for one, other in zip(
        widen(sums, bins.edges[:, 0], BALL), widen(others, bins.edges[:, 0], BALL), strict=True
    ):
        np.testing.assert_array_equal(one.values[:, 0], other.values[:, 0])
        np.testing.assert_allclose(2 * one.values[:, 1], other.values[:, 1], rtol=1e-4, atol=1e-3)

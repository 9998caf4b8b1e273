"""Variances along given components, against coordinates that were drawn."""

import numpy as np
import pytest

from recovar.latent_covariance import LatentCovariance, estimate_latent_covariance
from recovar.posterior import ImageStatistics

_TRUE = np.array([[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.3]])


def _draw(images: int, strength: float, contrast_sd: float, seed: int = 0) -> ImageStatistics:
    """Compare images of the model with mean and components, of unit length without noise."""
    random = np.random.default_rng(seed)
    rows = np.sqrt(strength) * random.standard_normal((images, 30, 4)) / np.sqrt(30)
    rows[..., 0] *= 5
    z = random.multivariate_normal(np.zeros(3), _TRUE, images)
    contrast = 1 + contrast_sd * random.standard_normal(images)
    signal = np.einsum("nij,nj->ni", rows, np.concatenate([np.ones((images, 1)), z], axis=1))
    seen = contrast[:, None] * signal + random.standard_normal((images, 30))
    return ImageStatistics(
        np.einsum("nij,nik->njk", rows, rows).astype(np.float32),
        np.einsum("nij,ni->nj", rows, seen).astype(np.float32),
    )


@pytest.mark.parametrize("contrast_sd", [0.0, 0.15])
def test_variances_are_recovered_from_a_first_guess_that_is_far_off(contrast_sd: float) -> None:
    statistics = _draw(6000, 3.0, contrast_sd)
    found = estimate_latent_covariance(statistics, np.array([0.5, 4.0, 0.02]), contrast_sd and 0.3)
    np.testing.assert_allclose(found.covariance, _TRUE, atol=0.2)
    assert found.contrast_sd == pytest.approx(contrast_sd, abs=0.01)


def test_variances_are_unbiased_where_single_images_say_little() -> None:
    found = estimate_latent_covariance(_draw(20_000, 0.15, 0.0), np.ones(3))
    np.testing.assert_allclose(np.diag(found.covariance), np.diag(_TRUE), rtol=0.2, atol=0.1)


def test_regions_are_independent_of_each_other() -> None:
    regions = np.array([0, 1, 1])
    found = estimate_latent_covariance(_draw(3000, 3.0, 0.0), np.ones(3), regions=regions)
    assert np.all(found.covariance[0, 1:] == 0)
    assert found.covariance[0, 0] == pytest.approx(4, rel=0.1)


def test_axes_diagonalize_the_covariance() -> None:
    turn, variances = LatentCovariance(_TRUE, 0.0).axes()
    np.testing.assert_allclose(turn.T @ _TRUE @ turn, np.diag(variances), atol=1e-12)
    assert np.all(np.diff(variances) <= 0)


def test_axes_of_regions_do_not_mix() -> None:
    turn, variances = LatentCovariance(_TRUE, 0.0).axes(np.array([0, 0, 1]))
    assert variances[2] == pytest.approx(0.3)
    assert np.all(turn[2, :2] == 0)
    assert np.all(turn[:2, 2] == 0)


def test_turned_statistics_are_those_of_turned_components() -> None:
    statistics = _draw(5, 1.0, 0.0)
    axes = np.random.default_rng(1).standard_normal((3, 2))
    turned = statistics.turned(axes)
    np.testing.assert_allclose(turned.response[:, 1:], statistics.response[:, 1:] @ axes, rtol=1e-6)
    np.testing.assert_allclose(turned.gram[:, 0, 1:], statistics.gram[:, 0, 1:] @ axes, rtol=1e-6)
    np.testing.assert_allclose(
        turned.gram[:, 1:, 1:], axes.T @ statistics.gram[:, 1:, 1:] @ axes, rtol=1e-5
    )

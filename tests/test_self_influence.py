"""Components that were fitted to the very images that are compared with them."""

import numpy as np
import pytest

from recovar.latent_covariance import Axes, Observed, fit_axes
from recovar.posterior import ImageStatistics
from recovar.self_influence import ShellProducts

_VOXELS = 2000


def _fit(variance: float, images: int = 1500, components: int = 3) -> Axes:
    """Take components of images by ordinary principal component analysis, and judge them."""
    random = np.random.default_rng(0)
    direction = random.standard_normal(_VOXELS)
    direction /= np.linalg.norm(direction)
    z = np.sqrt(variance) * random.standard_normal((images, 1))
    seen = z * direction + random.standard_normal((images, _VOXELS))
    found = np.linalg.svd(seen, full_matrices=False)[2][:components]
    rows = np.concatenate([np.zeros((1, _VOXELS)), found])
    statistics = ImageStatistics(
        np.broadcast_to(rows @ rows.T, (images, components + 1, components + 1)).copy(),
        seen @ rows.T,
    )
    products = ShellProducts(
        found @ found.T[None] / _VOXELS, np.array([float(_VOXELS)]), np.ones(components)
    )
    transfer = np.full((images, 1), float(_VOXELS))
    regions = np.zeros(components, np.int64)
    observed = Observed(statistics, transfer, images)
    return fit_axes(observed, products, np.full(components, 0.05), regions)


def test_a_component_that_is_real_gets_the_variance_that_it_has() -> None:
    found = _fit(40.0)
    assert found.confirmed.tolist() == [True, False, False]
    assert found.variances[0] == pytest.approx(40, rel=0.1)


def test_components_of_noise_keep_the_variance_that_they_were_fitted_with() -> None:
    found = _fit(0.0)
    assert not found.confirmed.any()
    np.testing.assert_allclose(found.variances, 0.05, rtol=1e-6)


def test_axes_stay_orthonormal() -> None:
    found = _fit(40.0)
    np.testing.assert_allclose(found.turn.T @ found.turn, np.eye(3), atol=1e-10)


def test_an_image_influences_itself_by_its_share_of_all_that_is_known() -> None:
    images, voxels = 10, 50.0
    products = ShellProducts(np.full((1, 1, 1), 1e6), np.array([voxels]), np.ones(1))
    transfer = np.full((images, 1), 3 * voxels)
    influence = products.influence(np.eye(1), np.ones(1), transfer, np.ones((images, 1)))
    np.testing.assert_allclose(influence, voxels / images, rtol=1e-3)


def test_products_of_shells_add_up_to_those_of_volumes() -> None:
    random = np.random.default_rng(1)
    volumes = random.standard_normal((2, 12, 12, 12)).astype(np.float32)
    variances, regions = np.ones(2), np.zeros(2, np.int64)
    found = ShellProducts.of(volumes, variances, regions, 10)
    total = np.tensordot(found.counts, found.products, 1) / 12**3
    flat = volumes.reshape(2, -1)
    np.testing.assert_allclose(total, flat @ flat.T, rtol=1e-4, atol=1e-2)
    assert found.counts.sum() == 12**3

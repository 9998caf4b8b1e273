import numpy as np
import pytest

from recovar.posterior import ImageStatistics
from recovar.published_contrast import CONTRASTS, embed_published, most_probable_contrasts


def observe(contrasts, noise, pixels=200, seed=0):
    """Images y = a (A₀ + A z) + n with random A, as inner products; z has unit variance."""
    rng = np.random.default_rng(seed)
    count = len(contrasts)
    slices = rng.normal(size=(count, pixels, 3))
    z = rng.normal(size=(count, 2))
    extended = np.concatenate([np.ones((count, 1)), z], axis=1)
    slices[..., 0] *= 3
    images = contrasts[:, None] * np.einsum("npk,nk->np", slices, extended)
    images += noise * rng.normal(size=images.shape)
    gram = np.einsum("npi,npj->nij", slices, slices) / noise**2
    response = np.einsum("npi,np->ni", slices, images) / noise**2
    return ImageStatistics(gram, response), z


def test_contrasts_on_the_grid_are_found_where_there_is_hardly_any_noise():
    true = CONTRASTS[[4, 20, 24, 30, 49]]
    statistics, z = observe(true, noise=1e-2)
    np.testing.assert_array_equal(most_probable_contrasts(statistics, np.ones(2)), true)
    found = embed_published(statistics, np.ones(2), 2)
    np.testing.assert_allclose(found.contrast, true, rtol=1e-6)
    np.testing.assert_allclose(found.coordinates, z, atol=0.05)


def test_contrasts_beyond_the_grid_become_its_last():
    statistics, _ = observe(np.array([3.0]), noise=0.1)
    assert most_probable_contrasts(statistics, np.ones(2)) == pytest.approx(2.0)


def test_the_contrast_minimizes_what_is_left_and_the_coordinates_together():
    statistics, _ = observe(np.array([0.9, 1.1, 1.3]), noise=4.0)
    eigenvalues = np.array([1.5, 0.5])
    for image, chosen in enumerate(most_probable_contrasts(statistics, eigenvalues)):
        gram, response = statistics.gram[image], statistics.response[image]
        losses = []
        for a in CONTRASTS:
            pull = a * response[1:] - a**2 * gram[1:, 0]
            z = np.linalg.solve(a**2 * gram[1:, 1:] + np.diag(1 / eigenvalues), pull)
            model = a * np.concatenate([[1.0], z])
            losses.append(model @ gram @ model - 2 * model @ response + z @ (z / eigenvalues))
        assert chosen == CONTRASTS[np.argmin(losses)]

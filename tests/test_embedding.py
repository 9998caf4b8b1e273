import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.embedding import add_up, embed, estimate_contrast_sd
from recovar.posterior import ImageStatistics


def observe(count, pcs, seed=0, strength=4.0, contrast_sd=0.0, pixels=60):
    """Images y = a (A₀ + A z) + n with random A, as inner products."""
    rng = np.random.default_rng(seed)
    eigenvalues = np.sort(rng.uniform(0.5, 3.0, pcs))[::-1].copy()
    slices = rng.normal(size=(count, pixels, pcs + 1)) * (strength / pixels) ** 0.5
    slices[..., 0] *= 5
    z = rng.normal(size=(count, pcs)) * np.sqrt(eigenvalues)
    contrast = rng.normal(1, contrast_sd, count)
    extended = np.concatenate([np.ones((count, 1)), z], axis=1)
    images = contrast[:, None] * np.einsum("npk,nk->np", slices, extended)
    images += rng.normal(size=images.shape)
    gram = np.einsum("npi,npj->nij", slices, slices)
    response = np.einsum("npi,np->ni", slices, images)
    return ImageStatistics(gram, response), eigenvalues, z, contrast


def test_coordinates_are_ridge_regression_with_eigenvalues_as_prior():
    statistics, eigenvalues, _, _ = observe(50, 3)
    found = embed(statistics, eigenvalues, 3)
    gram = statistics.gram[:, 1:, 1:]
    pull = statistics.response[:, 1:] - statistics.gram[:, 1:, 0]
    covariance = np.linalg.inv(gram + np.diag(1 / eigenvalues))
    expected = np.einsum("nij,nj->ni", covariance, pull)
    np.testing.assert_allclose(found.coordinates, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.contrast, 1)
    plain = np.einsum("nij,nj->ni", np.linalg.inv(gram), pull)
    np.testing.assert_allclose(found.coordinates_noreg, plain, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.covariance_noreg, np.linalg.inv(gram), rtol=1e-3, atol=1e-4)


@given(zdim=st.integers(1, 4), seed=st.integers(0, 100))
def test_few_coordinates_need_only_the_leading_statistics(zdim, seed):
    statistics, eigenvalues, _, _ = observe(20, 4, seed, contrast_sd=0.1)
    found = embed(statistics, eigenvalues, zdim, 0.1)
    alone = embed(statistics.leading(zdim), eigenvalues[:zdim], zdim, 0.1)
    np.testing.assert_allclose(found.coordinates, alone.coordinates, rtol=1e-6)
    np.testing.assert_allclose(found.covariance, alone.covariance, rtol=1e-6)
    assert found.coordinates.shape == (20, zdim)


def test_any_number_of_images_gives_each_the_same_result():
    statistics, eigenvalues, _, _ = observe(2100, 2, contrast_sd=0.1)
    found = embed(statistics, eigenvalues, 2, 0.1)
    last = ImageStatistics(statistics.gram[-1:], statistics.response[-1:])
    alone = embed(last, eigenvalues, 2, 0.1)
    np.testing.assert_allclose(found.coordinates[-1:], alone.coordinates, rtol=1e-5)
    np.testing.assert_allclose(found.contrast[-1:], alone.contrast, rtol=1e-6)


def test_errors_have_the_covariance_that_is_claimed():
    statistics, eigenvalues, z, _ = observe(4000, 2)
    found = embed(statistics, eigenvalues, 2)
    error = found.coordinates - z
    distance = np.einsum("ni,nij,nj->n", error, np.linalg.inv(found.covariance), error)
    # χ² with two degrees of freedom has mean 2 and variance 4.
    assert distance.mean() == pytest.approx(2, abs=4 * 2 / 4000**0.5)


def test_reliability_is_the_share_of_variance_that_images_determine():
    statistics, eigenvalues, z, _ = observe(4000, 2)
    found = embed(statistics, eigenvalues, 2)
    explained = 1 - ((found.coordinates - z) ** 2).mean(0) / eigenvalues
    np.testing.assert_allclose(found.reliability, explained, atol=0.03)


def test_contrast_and_its_spread_are_recovered():
    statistics, eigenvalues, _, contrast = observe(4000, 2, contrast_sd=0.15)
    spread = estimate_contrast_sd(statistics, eigenvalues, 0.3)
    assert spread == pytest.approx(0.15, rel=0.1)
    found = embed(statistics, eigenvalues, 2, spread)
    assert np.corrcoef(found.contrast, contrast)[0, 1] > 0.7
    assert abs(found.contrast.mean() - contrast.mean()) < 0.02


@pytest.mark.parametrize("start", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_the_spread_of_contrasts_does_not_depend_on_the_guess(start, strength):
    statistics, eigenvalues, _, _ = observe(2500, 2, 3, strength, contrast_sd=0.15)
    assert estimate_contrast_sd(statistics, eigenvalues, start) == pytest.approx(0.15, rel=0.1)


def test_contrast_is_not_spread_where_all_are_alike():
    statistics, eigenvalues, _, _ = observe(2500, 2, 4)
    assert estimate_contrast_sd(statistics, eigenvalues) < 0.03


def test_images_of_one_particle_say_what_one_image_of_all_their_pixels_says():
    statistics, _, _, _ = observe(12, 2)
    particle = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 3))
    joint = add_up(statistics, particle)
    for number in range(4):
        mine = particle == number
        np.testing.assert_allclose(joint.gram[number], statistics.gram[mine].sum(0))
        np.testing.assert_allclose(joint.response[number], statistics.response[mine].sum(0))


def test_tilts_that_share_coordinates_have_errors_as_large_as_claimed():
    particles, tilts, pixels = 1500, 6, 20
    rng = np.random.default_rng(7)
    slices = rng.normal(size=(particles, tilts, pixels, 3)) * [1.0, 0.3, 0.2]
    z = rng.normal(size=(particles, 2))
    contrast = rng.normal(1, 0.15, particles)
    shown = slices[..., 0] + np.einsum("ntpk,nk->ntp", slices[..., 1:], z)
    images = contrast[:, None, None] * shown + rng.normal(size=shown.shape)
    statistics = ImageStatistics(
        np.einsum("ntpi,ntpj->ntij", slices, slices).reshape(-1, 3, 3),
        np.einsum("ntpi,ntp->nti", slices, images).reshape(-1, 3),
    )
    particle = np.repeat(np.arange(particles), tilts)
    found = embed(add_up(statistics, particle), np.ones(2), 2, 0.15)
    squares = (found.coordinates - z) ** 2 / np.einsum("nkk->nk", found.covariance)
    np.testing.assert_allclose(squares.mean(0), 1, atol=0.15)  # 4 standard errors
    alone = embed(statistics, np.ones(2), 2, 0.15)
    assert (found.reliability > alone.reliability + 0.1).all()
    np.testing.assert_array_equal(
        found.rows(particle).coordinates.reshape(particles, tilts, 2)[:, 3], found.coordinates
    )

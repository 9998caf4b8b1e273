import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.fourier import (
    crop_spectrum,
    crop_volume,
    pad_spectrum,
    pad_volume,
    to_spectrum,
    to_volume,
)
from recovar.core.grid import frequencies, half_weights, volume_radii

seeds = st.integers(0, 2**16)


def random_volume(seed, size=8):
    return np.random.default_rng(seed).normal(size=(size,) * 3)


def band_limited(seed, size, radius):
    """A volume without frequencies from `radius` on, with Friedel symmetry by construction."""
    spectrum = to_spectrum(random_volume(seed, size))
    k = np.abs(frequencies(size))
    inside = np.maximum(np.maximum(k[:, None, None], k[:, None]), np.arange(size // 2 + 1)) < radius
    return to_volume(spectrum * inside)


@given(seed=seeds)
def test_the_transform_is_a_sum_about_the_centre_without_a_factor(seed):
    size, volume = 4, random_volume(seed, 4)
    position = np.arange(size) - size // 2
    k = frequencies(size)
    wave = np.exp(-2j * np.pi * np.outer(k, position) / size)
    expected = np.einsum("az,by,cx,zyx->abc", wave, wave, wave[: size // 2 + 1], volume)
    np.testing.assert_allclose(to_spectrum(volume), expected, atol=1e-12)


def test_a_point_at_the_origin_has_a_flat_spectrum():
    volume = np.zeros((8, 8, 8))
    volume[4, 4, 4] = 3.0
    np.testing.assert_allclose(to_spectrum(volume), 3.0, atol=1e-12)


def test_a_gaussian_transforms_to_a_gaussian():
    size, width = 32, 2.0
    axis = np.arange(size) - size // 2
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    volume = np.exp(-square / (2 * width**2)) / (2 * np.pi * width**2) ** 1.5
    expected = np.exp(-2 * (np.pi * width * volume_radii(size) / size) ** 2)
    np.testing.assert_allclose(to_spectrum(volume), expected, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_transforming_there_and_back_changes_nothing(dimensions):
    values = random_volume(0)
    back = to_volume(to_spectrum(values, dimensions), dimensions)
    np.testing.assert_allclose(back, values, atol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_numpy_and_jax_agree(dimensions):
    values = random_volume(0).astype(np.float32)
    spectrum = to_spectrum(values, dimensions)
    assert spectrum.dtype == np.complex64
    on_device = to_spectrum(jnp.asarray(values), dimensions)
    np.testing.assert_allclose(on_device, spectrum, atol=1e-4)
    np.testing.assert_allclose(to_volume(on_device, dimensions), values, atol=1e-5)


@given(seed=seeds)
def test_half_weights_keep_inner_products(seed):
    a, b = random_volume(seed), random_volume(seed + 1)
    products = (to_spectrum(a).conj() * to_spectrum(b)).real * half_weights(8)
    assert products.sum() / 8**3 == pytest.approx((a * b).sum(), abs=1e-9)


@given(seed=seeds)
def test_cropping_a_spectrum_samples_a_smooth_volume_more_coarsely(seed):
    volume = band_limited(seed, size=16, radius=4)
    coarse = to_volume(crop_spectrum(to_spectrum(volume), 8)) * (8 / 16) ** 3
    np.testing.assert_allclose(coarse, volume[::2, ::2, ::2], atol=1e-12)


@given(seed=seeds)
def test_padding_a_spectrum_samples_a_smooth_volume_more_finely(seed):
    volume = band_limited(seed, size=8, radius=4)
    fine = to_volume(pad_spectrum(to_spectrum(volume), 16)) * (16 / 8) ** 3
    np.testing.assert_allclose(fine[::2, ::2, ::2], volume, atol=1e-12)


@given(seed=seeds)
def test_cropping_a_padded_spectrum_gives_it_back_without_its_outer_planes(seed):
    spectrum = to_spectrum(random_volume(seed))
    smooth = to_spectrum(band_limited(seed, size=8, radius=4))
    np.testing.assert_allclose(crop_spectrum(pad_spectrum(spectrum, 12), 8), smooth, atol=1e-10)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_cropped_spectra_belong_to_real_values_and_jax_agrees(dimensions):
    cropped = crop_spectrum(to_spectrum(random_volume(0, 12), dimensions), 6, dimensions)
    again = to_spectrum(to_volume(cropped, dimensions), dimensions)
    np.testing.assert_allclose(again, cropped, atol=1e-10)
    values = jnp.asarray(random_volume(0, 12), jnp.float32)
    on_device = crop_spectrum(to_spectrum(values, dimensions), 6, dimensions)
    np.testing.assert_allclose(on_device, cropped, atol=1e-3)


def test_spectra_are_not_cropped_to_more_nor_padded_to_less():
    spectrum = to_spectrum(random_volume(0))
    assert crop_spectrum(spectrum, 10) is spectrum
    assert pad_spectrum(spectrum, 6) is spectrum


@given(seed=seeds, size=st.sampled_from([10, 12, 16]))
def test_padding_a_volume_keeps_its_origin_and_cropping_undoes_it(seed, size):
    volume = random_volume(seed)
    padded = pad_volume(volume, size)
    assert padded[size // 2, size // 2, size // 2] == volume[4, 4, 4]
    assert padded.sum() == pytest.approx(volume.sum())
    np.testing.assert_array_equal(crop_volume(padded, 8), volume)


def test_padding_by_two_refines_the_spectrum():
    volume = random_volume(0)
    fine = to_spectrum(pad_volume(volume, 16))
    np.testing.assert_allclose(fine[:8:2, :8:2, :8:2], to_spectrum(volume)[:4, :4, :4], atol=1e-10)

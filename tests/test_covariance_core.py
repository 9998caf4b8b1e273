"""What one image adds to the covariance."""

import numpy as np

from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.columns_numba import integrate_kernels, pixel_table
from recovar.core.frequencies import Disc
from recovar.core.slicing_numba import NUMBA
from recovar.covariance_core import centre_on, compute_residuals, estimate_contrast

SIZE = 24


class Bank:
    def __init__(self, batch):
        self.batch = batch

    def __len__(self):
        return len(self.batch)

    def blocks(self, start=0):
        yield self.batch.select(np.arange(start, len(self.batch)))


def blob(width=2.5):
    axis = np.arange(SIZE) - SIZE // 2
    square = axis[:, None, None] ** 2 + (axis[:, None] - 1) ** 2 + axis**2
    return np.exp(-square / (2 * width**2)).astype(np.float32)


def images_of(volume, contrast, noise, seed=0):
    generator = np.random.default_rng(seed)
    count = len(contrast)
    turns, _ = np.linalg.qr(generator.normal(size=(count, 3, 3)))
    turns = turns.astype(np.float32)
    disc = Disc(SIZE, SIZE // 2 - 1)
    model = centre_on(volume, np.ones(1), disc.radius)
    slices = NUMBA.slice_volumes(model.mean, turns, disc, model.ball)[..., 0]
    transfer = generator.uniform(0.5, 1, (count, len(disc))).astype(np.float32)
    white = generator.normal(size=(count, SIZE, SIZE)).astype(np.float32) * noise**0.5 / SIZE
    grain = disc.from_spectra(fourier.to_spectrum(white, dimensions=2))
    values = contrast[:, None] * transfer * slices + grain
    rows = np.arange(count)
    return ImageBatch(disc, values.astype(np.complex64), transfer, turns, rows, rows % 2)


def test_images_of_the_mean_leave_no_residual():
    contrast = np.array([1.0, 0.8, 1.3])
    images = images_of(blob(), contrast, 0)
    centring = centre_on(blob(), np.full(4, 2.0), 8, contrast)
    residual = compute_residuals(images, centring, 8, NUMBA)
    assert np.abs(residual.values).max() < 1e-4 * np.abs(images.values).max()


def test_masks_multiply_the_centred_images():
    images = images_of(blob(), np.ones(3), 1.0)
    zero = np.zeros((SIZE,) * 3, np.float32)
    radius = SIZE // 2 - 1
    centring = centre_on(zero, np.ones(1), radius, mask=(blob(4) > 0.3).astype(np.float32))
    residual = compute_residuals(images, centring, radius, NUMBA)
    masks = centring.masks.image_masks(images.rotations, NUMBA.slice_volumes, windowed=True)
    pictures = fourier.to_volume(images.disc.to_spectra(images.values), dimensions=2) * masks
    expected = images.disc.from_spectra(fourier.to_spectrum(pictures, dimensions=2))
    np.testing.assert_allclose(residual.values, images.transfer * expected, atol=1e-4)
    assert masks.min() == 0
    assert masks.max() > 0.99


def test_the_spread_of_noise_is_that_of_masked_white_noise():
    generator = np.random.default_rng(0)
    images = images_of(blob(), np.ones(1), 0)
    zero = np.zeros((SIZE,) * 3, np.float32)
    centring = centre_on(zero, np.ones(1), 11, mask=(blob(4) > 0.3).astype(np.float32))
    residual = compute_residuals(images, centring, 11, NUMBA)
    mask = centring.masks.image_masks(images.rotations, NUMBA.slice_volumes, windowed=True)
    noise = generator.normal(size=(4000, SIZE, SIZE)).astype(np.float32) / SIZE
    spectra = np.fft.fft2(np.fft.ifftshift(noise * mask, axes=(1, 2)))
    # Pixel l = (1, 2) against all k; the scatter of 4,000 products is 1/√4000.
    products = np.mean(spectra * spectra[:, 1:2, 2:3].conj(), axis=0)
    lines = np.arange(-10, 11)
    found = products[(1 + lines)[:, None], (2 + lines)]
    assert np.abs(found - residual.spread[0]).max() < 0.06
    np.testing.assert_allclose(residual.spread[0, 10, 10], np.mean(mask**2), rtol=1e-4)


def test_kernel_integrals_are_the_sums_over_the_full_plane():
    images = images_of(blob(), np.ones(5), 1.0)
    disc, width = images.disc, 2.0
    points = np.array([[[0, 0, 0], [1, 1, 0]], [[4, -2, 3], [np.nan] * 3]], np.float32)
    squares = images.transfer**2
    products, weights = integrate_kernels(
        images.values, squares, images.rotations, points, disc, width
    )
    x, y = np.concatenate([disc.x, -disc.x[1:]]), np.concatenate([disc.y, -disc.y[1:]])
    for i in range(5):
        f = np.concatenate([images.values[i], images.values[i, 1:].conj()])
        c = np.concatenate([squares[i], squares[i, 1:]])
        places = x[:, None] * images.rotations[i, 0] + y[:, None] * images.rotations[i, 1]
        for block, j in [(0, 0), (0, 1), (1, 0)]:
            kernel = np.maximum(0, 1 - np.abs(places - points[block, j]) / width).prod(1)
            np.testing.assert_allclose(products[block, i, j], kernel @ f, atol=1e-4)
            np.testing.assert_allclose(weights[block, i, j], kernel @ c, atol=1e-5)
    assert (products[1, :, 1] == 0).all()


def test_the_pixel_table_numbers_the_disc_and_its_mates():
    disc = Disc(12, 4)
    table = pixel_table(disc)
    assert (table[4 + disc.y, 4 + disc.x] == np.arange(1, len(disc) + 1)).all()
    np.testing.assert_array_equal(table[::-1, ::-1][table > 1], -table[table > 1])
    assert (table != 0).sum() == 2 * len(disc) - 1


def test_contrast_is_found_from_the_mean_alone():
    generator = np.random.default_rng(3)
    truth = 1 + 0.15 * generator.normal(size=300)
    power = np.mean(np.abs(images_of(blob(), np.ones(20), 0).values) ** 2)
    noise = 2 * power
    images = images_of(blob(), truth, noise)
    found = estimate_contrast(
        Bank(images), centre_on(blob(), np.array([noise]), 11), LocalExecutor()
    )
    np.testing.assert_allclose(found.mean(), 1)
    assert np.corrcoef(found, truth)[0, 1] > 0.8
    # Shrinkage makes the estimates better than ones.
    assert np.mean((found - truth / truth.mean()) ** 2) < 0.5 * truth.var()

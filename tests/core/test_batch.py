import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.batch import ImageBatch
from recovar.core.fourier import crop_spectrum, to_spectrum
from recovar.core.frequencies import Disc

seeds = st.integers(0, 2**16)


def random_batch(seed, images=5, size=12):
    generator = np.random.default_rng(seed)
    disc = Disc(size, size // 2 - 1)
    pictures = generator.normal(size=(images, size, size)).astype(np.float32)
    batch = ImageBatch(
        disc,
        disc.from_spectra(to_spectrum(pictures, 2)),
        generator.normal(size=(images, len(disc))).astype(np.float32),
        generator.normal(size=(images, 3, 3)).astype(np.float32),
        np.arange(10, 10 + images),
        np.arange(images) % 2,
    )
    return batch, pictures


@given(seed=seeds)
def test_a_batch_at_a_smaller_radius_is_that_of_downsampled_images(seed):
    batch, pictures = random_batch(seed)
    small = batch.at_radius(8, 3)
    expected = crop_spectrum(to_spectrum(pictures, 2), 8, 2)
    np.testing.assert_allclose(small.values, small.disc.from_spectra(expected), atol=1e-5)
    np.testing.assert_array_equal(small.transfer, batch.transfer[:, : len(small.disc)])
    assert batch.at_radius(12, 5) is batch


@given(seed=seeds)
def test_whitening_divides_by_the_noise_of_each_shell(seed):
    batch, _ = random_batch(seed)
    noise = np.array([1.0, 4.0, 9.0])
    white = batch.whitened(noise)
    deviation = np.sqrt(noise)[np.minimum(batch.disc.shells, 2)]
    np.testing.assert_allclose(white.values * deviation, batch.values, rtol=1e-5)
    np.testing.assert_allclose(white.transfer * deviation, batch.transfer, rtol=1e-5)
    assert white.values.dtype == np.complex64
    assert white.transfer.dtype == np.float32


def test_selected_images_keep_everything_of_theirs():
    batch, _ = random_batch(0)
    some = batch.select(np.array([3, 1]))
    assert len(some) == 2
    assert some.rows.tolist() == [13, 11]
    assert some.halves.tolist() == [1, 1]
    for name in ("values", "transfer", "rotations"):
        np.testing.assert_array_equal(getattr(some, name), getattr(batch, name)[[3, 1]])

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.ctf import Optics, transfer_function
from recovar.core.exposure_numba import (
    add_disc,
    add_shifted,
    multiply_transfer,
    transfer_parameters,
)
from recovar.core.fourier import to_volume
from recovar.core.frequencies import Disc
from recovar.core.projection import centring_factors

SIZE = 16
DISC = Disc(SIZE, 7)
SHIFTS = st.tuples(st.floats(-20, 20), st.floats(-20, 20)).map(np.array)


def random_spectrum(seed, size=SIZE):
    generator = np.random.default_rng(seed)
    return np.asarray(scipy.fft.rfft2(generator.normal(size=(size, size)).astype(np.float32)))


def frequencies(size, voxel_size):
    y = scipy.fft.fftfreq(size, voxel_size)[:, None]
    return np.broadcast_arrays(scipy.fft.rfftfreq(size, voxel_size), y)


@given(seed=st.integers(0, 2**16), voxel_size=st.floats(0.8, 8))
def test_the_compiled_transfer_function_is_the_plain_one(seed, voxel_size):
    generator = np.random.default_rng(seed)
    low = np.array([-1e3, -1e3, -3, 80, 0, -1, -3, 0, 0.1])
    high = np.array([4e4, 4e4, 3, 300, 3, 1, 3, 300, 2])
    values = generator.uniform(low, high)[:, None]
    optics = Optics(*values)
    x, y = frequencies(32, voxel_size)
    found = np.ones(x.shape, np.complex64)
    multiply_transfer(found, x[0, 1], transfer_parameters(optics)[0])
    expected = transfer_function(optics, x, y)[0]
    np.testing.assert_allclose(found, expected, atol=3e-7 * values[-1, 0])


@given(seed=st.integers(0, 2**16), shift=SHIFTS)
def test_a_disc_is_placed_with_its_shift_and_the_origin_amid(seed, shift):
    values = DISC.from_spectra(random_spectrum(seed))
    spectrum = random_spectrum(seed + 1)
    before = spectrum.copy()
    add_disc(spectrum, values, DISC, shift)
    moved = values * centring_factors(shift[None], DISC, 1.0)[0].conj()
    added = np.fft.irfft2(spectrum) - np.fft.irfft2(before)
    expected = to_volume(DISC.to_spectra(moved), dimensions=2)
    np.testing.assert_allclose(added, expected, atol=3e-6 * np.abs(values).max())


@pytest.mark.parametrize("shift", [(3, -2), (0, 0), (-15, 40)])
def test_an_image_is_moved_against_its_shift(shift):
    image = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    total = np.zeros((SIZE, SIZE // 2 + 1), np.complex64)
    add_shifted(total, np.asarray(scipy.fft.rfft2(image)), np.array(shift, float))
    moved = np.roll(image, (-shift[1], -shift[0]), (0, 1))
    np.testing.assert_allclose(np.fft.irfft2(total), moved, atol=1e-5)

"""Transforms of one axis at a time equal those of whole oversampled volumes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.slicing import gridding_correction
from recovar.core.volumes import from_ball, to_ball

BALLS = [
    Ball(16, 7),
    Ball(16, 4),
    Ball(18, 8),
    Ball(12, 5, 1),
    Ball(10, 4, 4),
    Ball(12, 5, 2, (2, 6)),
]


def random_values(seed, ball):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(len(ball), 2)).astype(np.float32).view(np.complex64)[:, 0]


@pytest.mark.parametrize("ball", BALLS)
@given(seed=st.integers(0, 2**16))
def test_to_ball_is_the_transform_of_the_padded_volume(ball, seed):
    volume = np.random.default_rng(seed).normal(size=(ball.size,) * 3).astype(np.float32)
    corrected = volume / gridding_correction(ball.size, ball.oversampling)
    padded = fourier.pad_volume(corrected.astype(np.float64), ball.volume_size)
    expected = np.fft.fftn(np.fft.ifftshift(padded))[*ball.coordinates]
    found = to_ball(volume, ball)
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("ball", BALLS)
@given(seed=st.integers(0, 2**16))
def test_from_ball_is_the_cropped_transform_of_the_oversampled_volume(ball, seed):
    values = random_values(seed, ball)
    padded = fourier.to_volume(ball.to_cube(values.astype(np.complex128)))
    expected = fourier.crop_volume(padded, ball.size)
    expected = expected / gridding_correction(ball.size, ball.oversampling)
    found = from_ball(values, ball)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())

"""Mixtures keep what half sets agree on, where they do."""

import numpy as np
import pytest
from problems import random_molecule

from recovar.core import fourier
from recovar.core.halves import Halves
from recovar.local_shrinkage import make_bands, mix_levels

SIZE = 32
MASK = np.ones((SIZE,) * 3, np.float32)


def noise(seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=(SIZE,) * 3).astype(np.float32)


def smooth(seed: int) -> np.ndarray:
    return random_molecule(seed, spread=4.0).volume(SIZE)


@pytest.mark.parametrize("size", [8, 20, 32, 64])
def test_bands_add_up_to_one(size):
    total = np.zeros((size, size, size // 2 + 1))
    for band in make_bands(size):
        assert band.size % 2 == 0
        total += fourier.pad_spectrum(band.weights, size)
    radii = np.sqrt(
        sum(
            axis**2
            for axis in np.meshgrid(
                *[np.fft.fftfreq(size, 1 / size)] * 2, np.arange(size // 2 + 1), indexing="ij"
            )
        )
    )
    np.testing.assert_allclose(total[radii < size / 2 - 1], 1, atol=1e-6)


def test_equal_levels_change_nothing():
    same = Halves(noise(0), noise(1))
    mixed = mix_levels([same, same], smooth(2), MASK)
    np.testing.assert_array_equal(mixed.volume, smooth(2))
    np.testing.assert_array_equal(mixed.halves.first, same.first)


def test_a_step_that_both_half_sets_show_is_kept():
    wide, narrow = smooth(0), smooth(1)
    levels = [Halves(narrow, narrow), Halves(wide, wide)]
    mixed = mix_levels(levels, wide, MASK)
    lost = np.linalg.norm(mixed.volume - narrow) / np.linalg.norm(narrow - wide)
    assert lost < 0.02


def test_a_step_of_noise_is_dropped():
    levels = [Halves(noise(0), noise(1)), Halves(0 * noise(0), 0 * noise(0))]
    mixed = mix_levels(levels, smooth(0), MASK)
    kept = np.square(mixed.volume - smooth(0)).mean()
    average = np.square(0.5 * (noise(0) + noise(1))).mean()
    assert kept < 0.15 * average
    assert mixed.kept.shape == (1, len(make_bands(SIZE)))
    assert mixed.kept[0, -3:].max() < 0.15


def test_a_noisy_step_brings_the_mixture_nearer_to_the_truth():
    wide, truth, scale = smooth(0), smooth(1), 0.005
    narrow = Halves(truth + noise(0, scale), truth + noise(1, scale))
    mixed = mix_levels([narrow, Halves(wide, wide)], wide, MASK).volume
    errors = [np.linalg.norm(v - truth) for v in (mixed, wide, 0.5 * sum(narrow))]
    assert errors[0] < 0.5 * min(errors[1:])


def test_a_step_of_much_noise_and_little_signal_does_no_harm():
    wide, truth, scale = smooth(0), smooth(1), 0.02
    narrow = Halves(truth + noise(0, scale), truth + noise(1, scale))
    mixed = mix_levels([narrow, Halves(wide, wide)], wide, MASK).volume
    assert np.linalg.norm(0.5 * sum(narrow) - truth) > 4 * np.linalg.norm(wide - truth)
    assert np.linalg.norm(mixed - truth) < 0.8 * np.linalg.norm(wide - truth)


def test_a_step_is_kept_only_where_it_holds_signal():
    wide, where = 0 * noise(0), np.arange(SIZE)[None, None] * MASK < SIZE / 2
    signal = np.where(where, noise(5), 0).astype(np.float32)
    narrow = Halves(signal + noise(0, 0.7), signal + noise(1, 0.7))
    gained = mix_levels([narrow, Halves(wide, wide)], wide, MASK).volume
    left, right = np.square(gained[..., 2:12]).mean(), np.square(gained[..., 20:30]).mean()
    assert left > 8 * right


def test_nothing_changes_outside_the_mask():
    mask = np.zeros_like(MASK)
    mask[8:24, 8:24, 8:24] = 1
    levels = [Halves(smooth(1), smooth(1)), Halves(smooth(0), smooth(0))]
    mixed = mix_levels(levels, smooth(0), mask)
    np.testing.assert_array_equal(mixed.volume[mask == 0], smooth(0)[mask == 0])
    np.testing.assert_array_equal(mixed.halves.second[mask == 0], smooth(0)[mask == 0])
    assert not np.array_equal(mixed.volume, smooth(0))

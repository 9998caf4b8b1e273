"""Every image is whitened by its own noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Disc
from recovar.core.noise_spectra import NoiseSpectra
from recovar.errors import InputError

DISC = Disc(12, 5)
seeds = st.integers(0, 2**16)


def random_batch(rng, rows):
    shape = (len(rows), len(DISC))
    return ImageBatch(
        DISC,
        (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64),
        rng.normal(size=shape).astype(np.float32),
        np.tile(np.eye(3, dtype=np.float32), (len(rows), 1, 1)),
        rows,
        rows % 2,
    )


def random_spectra(rng, images, groups=3):
    return NoiseSpectra(
        rng.uniform(0.5, 4, (groups, 4)),
        rng.integers(0, groups, images),
        rng.uniform(0.3, 3, images).astype(np.float32),
    )


@given(seed=seeds, groups=st.integers(1, 3))
def test_images_are_whitened_by_their_own_rows(seed, groups):
    rng = np.random.default_rng(seed)
    spectra = random_spectra(rng, 20, groups)
    batch = random_batch(rng, rng.permutation(20)[:7])
    white = batch.whitened(spectra)
    for values, transfer, row, before in zip(
        white.values, white.transfer, batch.rows, batch.values, strict=True
    ):
        variance = spectra.scale[row] * spectra.profiles[spectra.group[row]]
        deviation = np.sqrt(variance[np.minimum(DISC.shells, 3)])
        np.testing.assert_allclose(values * deviation, before, rtol=1e-5)
        np.testing.assert_allclose(
            transfer * deviation, batch.transfer[batch.rows == row][0], rtol=1e-5
        )
    assert white.values.dtype == np.complex64
    assert white.transfer.dtype == np.float32


@given(seed=seeds)
def test_whitening_and_selecting_commute(seed):
    rng = np.random.default_rng(seed)
    spectra, keep = random_spectra(rng, 20), rng.permutation(9)[:4]
    batch = random_batch(rng, rng.permutation(20)[:9])
    np.testing.assert_allclose(
        batch.select(keep).whitened(spectra).values,
        batch.whitened(spectra).select(keep).values,
        rtol=1e-6,
    )


@given(seed=seeds)
def test_spectra_of_all_are_one_profile(seed):
    rng = np.random.default_rng(seed)
    batch, profile = random_batch(rng, np.arange(5)), rng.uniform(1, 2, 6)
    spectra = NoiseSpectra.of_all(profile, 5)
    np.testing.assert_array_equal(batch.whitened(spectra).values, batch.whitened(profile).values)


def test_an_ignored_shell_is_empty_and_no_other():
    rng = np.random.default_rng(0)
    batch = random_batch(rng, np.arange(5))
    spectra = random_spectra(rng, 5)
    before, after = batch.whitened(spectra), batch.whitened(spectra.without_shell(0))
    inner = DISC.shells == 0
    for name in ("values", "transfer"):
        assert (getattr(after, name)[:, inner] == 0).all()
        np.testing.assert_array_equal(
            getattr(after, name)[:, ~inner], getattr(before, name)[:, ~inner]
        )


def test_another_shape_keeps_levels_and_what_is_ignored():
    shape, levels = np.array([4.0, 2.0, 1.0]), np.array([1.0, 3.0])
    group = np.repeat([0, 1], 10)
    scale = np.tile(np.array([0.5, 1.5], np.float32), 10)
    spectra = NoiseSpectra(levels[:, None] * shape, group, scale).without_shell(0)
    other = spectra.with_shape(np.array([9.0, 7.0, 5.0, 3.0]))
    np.testing.assert_array_equal(other.profiles[0], np.array([np.inf, 7, 5, 3]))
    np.testing.assert_allclose(other.scale, scale * levels[group] / 2)


def test_noise_without_power_is_refused():
    with pytest.raises(InputError, match=r"above 0 on all shells, found 0.0 in group 1"):
        NoiseSpectra(np.array([[1.0, 1.0], [1.0, 0.0]]), np.zeros(3, int), np.ones(3, np.float32))

"""Resampled volumes are the same in Å."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import Molecule

from recovar.core import fourier
from recovar.core.grid import Grid
from recovar.core.resampling import resample

seeds = st.integers(0, 2**16)
boxes = st.sampled_from([8, 10, 16, 22])


def without_half_waves(spectrum, size):
    """Drop the waves of two voxels."""
    kept = np.abs(np.fft.fftfreq(size, 1 / size)) < size // 2
    return spectrum * (kept[:, None, None] & kept[:, None] & kept[: size // 2 + 1])


@given(seed=seeds, size=boxes, wanted=boxes, voxel_size=st.floats(0.5, 4))
def test_a_new_voxel_size_in_the_same_box_is_a_fourier_crop_or_pad(seed, size, wanted, voxel_size):
    volume = np.random.default_rng(seed).normal(size=(size,) * 3).astype(np.float32)
    found = resample(volume, voxel_size, Grid(size, voxel_size).cropped(wanted))
    spectrum = without_half_waves(fourier.to_spectrum(volume.astype(np.float64)), size)
    change = fourier.pad_spectrum if wanted > size else fourier.crop_spectrum
    expected = fourier.to_volume(change(spectrum, wanted)) * (wanted / size) ** 3
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-5)


@given(seed=seeds, size=boxes, wanted=boxes)
def test_another_box_of_the_same_voxel_size_is_cut_or_padded(seed, size, wanted):
    smooth = fourier.to_volume(
        without_half_waves(np.ones((size, size, size // 2 + 1), np.complex128), size)
    )
    volume = smooth + np.random.default_rng(seed).normal()
    found = resample(volume, 1.5, Grid(wanted, 1.5))
    change = fourier.pad_volume if wanted > size else fourier.crop_volume
    spectrum = fourier.to_spectrum(np.asarray(change(volume, wanted)))
    expected = fourier.to_volume(without_half_waves(spectrum, wanted))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max() + 1e-6)


@pytest.mark.parametrize(("voxel_size", "size"), [(0.9, 32), (1.17, 24), (0.83, 30)])
def test_a_smooth_molecule_is_the_same_in_any_box_and_voxel_size(voxel_size, size):
    positions = np.random.default_rng(0).normal(scale=1.5, size=(12, 3))
    molecule = Molecule(positions, width=1.8)
    other = Molecule(positions / voxel_size, width=1.8 / voxel_size)
    expected = other.volume(size) / voxel_size**3
    found = resample(molecule.volume(26), 1.0, Grid(size, voxel_size))
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core import fourier
from recovar.core.grid import Grid
from recovar.metrics import (
    compare_maps,
    cryobench_auc,
    cryobench_fsc,
    cryobench_images,
    fsc_auc,
    local_error,
    low_pass,
    scale_of,
    varying_region,
)

seeds = st.integers(0, 2**16)


def draw_volume(seed, size=16):
    return np.random.default_rng(seed).normal(size=(size,) * 3)


@given(seed=seeds, scale=st.floats(0.1, 10), size=st.sampled_from([8, 12, 16]))
def test_a_perfect_map_scores_what_it_should_at_any_scale(seed, scale, size):
    true, grid = draw_volume(seed, size), Grid(size, 2.0)
    found = compare_maps(scale * true, true, grid)
    assert found.auc == pytest.approx(1)
    assert found.resolution(0.5) == pytest.approx(grid.resolution(size // 2 - 1))
    spectra = [fourier.to_spectrum(volume) for volume in (scale * true, true)]
    assert cryobench_auc(cryobench_fsc(*spectra)) == pytest.approx((size / 2 - 1) / size)


def full_spectrum_fsc(first, second):
    """Correlate as the definition says, on whole spectra."""
    size = len(first)
    k = np.fft.fftfreq(size, 1 / size)
    radii = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    a, b = np.fft.fftn(first), np.fft.fftn(second)
    curve = [1.0]
    for i in range(1, size // 2):
        shell = (i - 1 <= radii) & (radii < i)
        x, y = a[shell], b[shell]
        curve.append((np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))).real)
    return np.array(curve)


@given(seed=seeds)
def test_the_shells_of_cryobench_are_those_of_the_whole_spectrum(seed):
    first, second = draw_volume(seed), draw_volume(seed) + draw_volume(seed + 1)
    expected = full_spectrum_fsc(first, second)
    found = cryobench_fsc(fourier.to_spectrum(first), fourier.to_spectrum(second))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    area = np.trapezoid(expected, np.arange(8) / 16)
    assert cryobench_auc(found) == pytest.approx(area)


def test_noise_as_strong_as_the_signal_correlates_as_it_must():
    true = draw_volume(0, 32)
    found = compare_maps(true + draw_volume(1, 32), true, Grid(32, 1.0))
    assert found.auc == pytest.approx(0.5**0.5, abs=0.03)
    assert fsc_auc(found.curve) == found.auc


def test_what_lies_outside_a_mask_does_not_count():
    true, mask = draw_volume(0), np.zeros((16, 16, 16))
    mask[4:12, 4:12, 4:12] = 1
    found = np.where(mask > 0, true, draw_volume(1))
    assert compare_maps(found, true, Grid(16, 1.0), mask).auc == pytest.approx(1)
    assert compare_maps(found, true, Grid(16, 1.0)).auc < 0.8


def test_a_map_that_was_low_passed_has_that_resolution():
    true, grid = draw_volume(0, 32), Grid(32, 1.5)
    found = compare_maps(low_pass(true[None], 0.5)[0], true, grid)
    assert found.resolution(0.5) == pytest.approx(grid.resolution(8), rel=0.1)
    assert found.auc == pytest.approx(8 / 15, abs=0.05)


def test_a_mirrored_map_is_another_map():
    true = draw_volume(0)
    assert compare_maps(true[::-1], true, Grid(16, 1.0)).auc < 0.3
    assert compare_maps(-true, true, Grid(16, 1.0)).auc == pytest.approx(-1)


def test_cryobench_takes_a_hundred_images_of_a_multiple():
    assert len(cryobench_images(5000)) == 100
    assert cryobench_images(99).tolist() == list(range(99))


def test_errors_are_local():
    true = np.abs(draw_volume(0, 24)) + 1
    found = true.copy()
    found[:12] = 0  # half of the molecule is missing
    error = local_error(found, true, np.ones(true.shape), 0.5)
    # One half is right, up to the edge between them; in the other the error is the density.
    assert error.median < 0.6
    assert error.worst > 0.9
    assert local_error(5 * true, true, np.ones(true.shape), 0.5).worst < 1e-6


def test_the_scale_of_a_map_is_that_of_what_it_has_in_common_with_the_truth():
    true = draw_volume(0, 24)
    assert scale_of(-0.5 * true + draw_volume(1, 24), true) == pytest.approx(-0.5, abs=0.02)


def test_the_region_that_varies_is_where_states_differ():
    volumes = np.zeros((2, 24, 24, 24))
    volumes[:, 4:8, 4:8, 4:8] = 5.0
    volumes[1, 16:20, 16:20, 16:20] = 1.0
    region = varying_region(volumes, np.array([0.5, 0.5]), 6.0)
    assert region[16:20, 16:20, 16:20].min() == 1
    assert region[4:8, 4:8, 4:8].max() == 0
    assert not varying_region(volumes[:1], np.ones(1), 6.0).any()

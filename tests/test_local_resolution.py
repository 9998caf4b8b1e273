"""Local resolution and local filters, on maps whose resolution is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core import fourier
from recovar.core.grid import Grid, volume_radii
from recovar.core.halves import Halves
from recovar.core.windows import Windows
from recovar.errors import InputError
from recovar.local_resolution import (
    filter_locally,
    local_resolution,
    sharpen,
    single_map_windows,
    state_windows,
    windows_of_length,
)

GRID = Grid(64, 2.0)


def white(rng, grid=GRID):
    return rng.normal(size=grid.volume_shape)


def blurred(field, grid, resolution):
    """Shape white noise to 100 at the origin and 1/6, a correlation of 1/7, at a resolution."""
    frequency = volume_radii(grid.size) / grid.resolution(1)
    ratio = 100 * np.exp(np.log(1 / 600) * (frequency * resolution) ** 2)
    return fourier.to_volume(fourier.to_spectrum(field) * np.sqrt(ratio))


def two_sides(seed, grid=GRID):
    """Make a map resolved to 6 Å where x < 0 and to 12 Å elsewhere, and its noisy halves."""
    rng = np.random.default_rng(seed)
    field = white(rng, grid)
    x = np.arange(grid.size) - grid.size // 2
    truth = np.where(x < 0, blurred(field, grid, 6.0), blurred(field, grid, 12.0))
    return truth, Halves(*((truth + white(rng, grid)).astype(np.float32) for _ in range(2)))


def noise(seed, grid=GRID):
    rng = np.random.default_rng(seed)
    return Halves(*(white(rng, grid).astype(np.float32) for _ in range(2)))


@pytest.mark.parametrize("length", [12.0, 20.0, 25.0])
def test_two_resolutions_side_by_side_are_recovered_within_15_percent(length):
    windows = windows_of_length(length)
    _, halves = two_sides(1)
    local = local_resolution(halves, GRID, windows)
    x = 2.0 * (local.centres[:, 2] - 32)
    for side, expected in ((x < -15, 6.0), (x > 15, 12.0)):
        assert np.median(local.resolutions[side]) == pytest.approx(expected, rel=0.15)
    middle = local.map[20:44, 20:44]
    assert np.median(middle[..., 14:20]) == pytest.approx(6, rel=0.15)
    assert np.median(middle[..., 44:50]) == pytest.approx(12, rel=0.15)


@pytest.mark.parametrize("windows", [state_windows(GRID), single_map_windows(GRID)])
def test_noise_resolves_nothing_nearly_everywhere(windows):
    local = local_resolution(noise(0), GRID, windows)
    assert np.mean(local.resolutions < 50) < 0.06
    axis = np.arange(64) - 32
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 28**2
    assert np.median(local.map[ball]) == pytest.approx(50)
    assert np.mean(local.map[ball] > 35) > 0.9


@pytest.mark.parametrize("windows", [state_windows(GRID), single_map_windows(GRID)])
def test_a_constant_that_both_halves_have_resolves_nothing(windows):
    halves = noise(0).map(lambda half: half + np.float32(3))
    local = local_resolution(halves, GRID, windows)
    assert np.mean(local.resolutions < 50) < 0.06


def test_without_the_raised_threshold_noise_would_be_resolved():
    local = local_resolution(noise(0), GRID, state_windows(GRID), false_positives=0.5)
    assert np.mean(local.resolutions < 50) > 0.2


def test_half_maps_tell_the_resolution_that_the_truth_tells_at_one_half():
    """A correlation of 1/7 between halves is one of 1/2 between their mean and the truth."""
    truth, halves = two_sides(8)
    windows = windows_of_length(16.0)
    found = local_resolution(halves, GRID, windows).resolutions
    mean = 0.5 * (halves.first + halves.second)
    against_truth = Halves(mean, truth.astype(np.float32))
    expected = local_resolution(against_truth, GRID, windows, threshold=0.5).resolutions
    ratio = np.log(found / expected)
    assert abs(np.median(ratio)) < 0.03
    assert np.std(ratio) < 0.12


def test_maps_that_agree_are_resolved_to_the_last_shell_and_kept_as_they_are():
    volume = noise(3).first
    local = local_resolution(Halves(volume, volume), GRID, state_windows(GRID))
    covered = local.map < 50
    assert np.mean(covered) > 0.4
    np.testing.assert_allclose(local.map[covered], GRID.resolution(31), rtol=1e-5)
    np.testing.assert_allclose(local.curves, 1, rtol=1e-5)
    found = filter_locally(volume, local)
    np.testing.assert_allclose(found[covered], volume[covered], atol=2e-5)
    assert not found[~covered].any()


def test_curves_equal_those_of_transforms_of_the_whole_box():
    """Cubes of 16 in a box of 64: every fourth coefficient of the box, in double precision."""
    _, halves = two_sides(2)
    windows = Windows(16.0, 6.0, 10.0)
    local = local_resolution(halves, GRID, windows)
    axis = (np.arange(64) - 32) * 2.0
    frequency = np.fft.fftfreq(16, 1 / 16) ** 2
    shells = np.rint(np.sqrt(frequency[:, None, None] + frequency[:, None] + frequency))
    for number in range(0, len(local.centres), 40):
        squares = [(axis - axis[place]) ** 2 for place in local.centres[number]]
        radii = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
        window = 0.5 + 0.5 * np.cos(np.pi * np.clip((radii - 6) / 10, 0, 1))
        centred = (half - np.sum(half * window) / np.sum(window) for half in halves)
        first, second = (np.fft.fftn(half * window)[::4, ::4, ::4] for half in centred)
        for shell in range(1, 8):
            a, b = first[shells == shell], second[shells == shell]
            expected = np.vdot(a, b).real / np.linalg.norm(a) / np.linalg.norm(b)
            assert local.curves[number, shell] == pytest.approx(expected, abs=1e-4)


def test_filtering_cubes_comes_close_to_filtering_the_whole_box():
    """The plain form: every window filters the whole map in double precision."""
    grid = Grid(48, 2.0)
    _, halves = two_sides(3, grid)
    volume = 0.5 * (halves.first + halves.second)
    mask = np.zeros(grid.volume_shape, np.float32)
    mask[16:33, 16:33, 16:33] = 1
    local = local_resolution(halves, grid, windows_of_length(12.0), mask)
    radii, spectrum = volume_radii(48).astype(np.float64), fourier.to_spectrum(volume.astype(float))
    total, coverage = np.zeros((2, *grid.volume_shape))
    for centre, curve, resolution in zip(
        local.centres, local.curves, local.resolutions, strict=True
    ):
        places = np.indices(grid.volume_shape) - centre[:, None, None, None]
        beyond = np.clip((2 * np.sqrt(np.sum(places**2, axis=0)) - 6) / 12, 0, 1)
        window = 0.5 + 0.5 * np.cos(np.pi * beyond)
        kept = np.where(np.cumsum(curve < 1e-4), 0, curve)
        weights = np.interp(radii * 18 / 48, np.arange(9), np.sqrt(2 * kept / (1 + kept)))
        if resolution > grid.resolution(23):
            edge = np.clip((radii - 96 / resolution + 1) / 2, 0, 1)
            weights *= 0.5 + 0.5 * np.cos(np.pi * edge)
        total += window * fourier.to_volume(spectrum * weights)
        coverage += window
    expected = (total / np.maximum(coverage, 1e-9))[mask > 0]
    found = filter_locally(volume, local)[mask > 0]
    assert np.std(found - expected) < 0.02 * np.std(expected)


def test_the_filtered_map_is_closer_to_the_truth_than_any_cut_through_the_whole():
    truth, halves = two_sides(4)
    volume = 0.5 * (halves.first + halves.second)
    local = local_resolution(halves, GRID, windows_of_length(16.0))
    inside = local.map < 49

    def error(found):
        return np.std((found - truth)[inside]) / np.std(truth[inside])

    spectrum = fourier.to_spectrum(volume)
    cuts = [fourier.to_volume(spectrum * (volume_radii(64) < 128 / d)) for d in (6, 7, 8, 10, 12)]
    assert error(filter_locally(volume, local)) < 0.95 * min(map(error, cuts))


def test_the_mask_chooses_windows_and_leaves_the_rest_at_the_worst():
    _, halves = two_sides(5)
    mask = np.zeros(GRID.volume_shape, np.float32)
    mask[28:36, 28:36, 12:20] = 1
    local = local_resolution(halves, GRID, windows_of_length(12.0), mask, worst=40.0)
    whole = local_resolution(halves, GRID, windows_of_length(12.0), worst=40.0)
    assert local.map[mask > 0].max() < 7
    assert local.map[..., 40:].min() == 40
    rows = [
        np.flatnonzero((whole.centres == centre).all(axis=1)).item() for centre in local.centres
    ]
    np.testing.assert_allclose(local.curves, whole.curves[rows], atol=1e-5)


def test_no_resolution_is_beyond_the_worst():
    _, halves = two_sides(6)
    local = local_resolution(halves, GRID, windows_of_length(12.0), worst=9.0)
    assert local.map.max() == pytest.approx(9)
    assert local.resolutions.max() == 9


def test_maps_without_density_resolve_nothing():
    nothing = np.zeros(GRID.volume_shape, np.float32)
    local = local_resolution(Halves(nothing, nothing), GRID, windows_of_length(25.0))
    assert local.map.min() == pytest.approx(50)
    assert not filter_locally(nothing, local).any()


def test_default_windows_are_the_published_ones_where_these_hold_enough_voxels():
    assert state_windows(Grid(256, 1.0)) == Windows(12.8, 6.4, 12.8)
    assert state_windows(Grid(32, 4.0)).step == 12
    assert single_map_windows(Grid(256, 1.0)) == Windows(25.0, 12.5, 25.0)


def test_windows_of_hardly_any_voxels_are_refused():
    halves = noise(0, Grid(16, 8.0))
    with pytest.raises(InputError, match=r"at least 4 voxels of 8 Å, got 15 Å"):
        local_resolution(halves, Grid(16, 8.0), windows_of_length(10.0))


def test_a_mask_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"mask with voxels above 0\.5"):
        local_resolution(noise(0), GRID, state_windows(GRID), 0.4 * np.ones(GRID.volume_shape))


@given(b_factor=st.floats(-300, 300), seed=st.integers(0, 100))
def test_blurring_undoes_sharpening(b_factor, seed):
    grid = Grid(8, 2.0)
    volume = white(np.random.default_rng(seed), grid)
    back = sharpen(sharpen(volume, grid, b_factor), grid, -b_factor)
    np.testing.assert_allclose(back, volume, atol=1e-6)


def test_positive_b_factors_sharpen_by_their_exponential():
    volume = noise(0).first.astype(np.float64)
    ratio = fourier.to_spectrum(sharpen(volume, GRID, 90.0)) / fourier.to_spectrum(volume)
    assert ratio[16, 0, 0].real == pytest.approx(np.exp(90 * (16 / 128) ** 2 / 4), rel=1e-5)
    assert ratio[0, 0, 0].real == pytest.approx(1)


def test_sharpening_comes_before_the_local_filter():
    _, halves = two_sides(7)
    local = local_resolution(halves, GRID, windows_of_length(20.0))
    np.testing.assert_allclose(
        filter_locally(halves.first, local, 50.0),
        filter_locally(sharpen(halves.first, GRID, 50.0), local),
        atol=1e-5,
    )

"""Windows, what lies in them, and how many numbers that is."""

import numpy as np
import pytest

from recovar.core.grid import Grid, volume_radii
from recovar.core.windows import (
    Windows,
    average_windows,
    cut_cubes,
    independent_coefficients,
    noise_limits,
)
from recovar.errors import InputError

GRID = Grid(24, 2.0)
WINDOWS = Windows(8.0, 4.0, 8.0)


def test_a_window_is_one_inside_and_falls_to_zero_at_its_reach():
    window = WINDOWS.sample(GRID)
    assert window.shape == (12, 12, 12)
    np.testing.assert_allclose(window[6, 6, 6:], [1, 1, 1, 0.853553, 0.5, 0.146447], atol=1e-6)
    assert window[0].max() == 0


def test_windows_that_leave_gaps_are_refused():
    with pytest.raises(InputError, match=r"10 Å in all, must be at least 0.9 of the step, 20 Å"):
        Windows(20.0, 5.0, 5.0)
    with pytest.raises(InputError, match="positive step"):
        Windows(5.0, 5.0, 0.0)


@pytest.mark.parametrize("step", [2.0, 6.0, 8.0, 10.0, 30.0])
def test_every_voxel_of_a_mask_is_covered_and_windows_stay_around_it(step):
    windows = Windows(step, step / 2, step)
    mask = np.zeros(GRID.volume_shape, np.float32)
    mask[:3, 5:20, 11] = 1
    mask[23, 23, 23] = 1
    centres = windows.centres(GRID, mask)
    window = windows.sample(GRID)
    covered = average_windows([1.0] * len(centres), centres, window, GRID)
    assert covered[mask > 0.5].min() == 1
    distances = np.linalg.norm(np.argwhere(mask > 0.5)[:, None] - centres, axis=-1).min(axis=0)
    assert distances.max() * GRID.voxel_size <= 3**0.5 / 2 * step + GRID.voxel_size


def test_without_mask_windows_lie_in_the_inscribed_ball_and_hold_its_centre():
    centres = WINDOWS.centres(GRID)
    assert (centres == 12).all(axis=1).any()
    assert np.linalg.norm(2.0 * (centres - 12), axis=1).max() <= 24 - 4


def test_an_empty_mask_has_no_windows():
    assert not len(WINDOWS.centres(GRID, np.zeros(GRID.volume_shape, np.float32)))


def test_cubes_hold_what_is_around_their_centres_and_zeros_beyond_the_box():
    volume = np.random.default_rng(0).normal(size=GRID.volume_shape).astype(np.float32)
    centres = np.array([[12, 10, 8], [0, 23, 12]])
    first, second = np.concatenate(list(cut_cubes(volume, centres, 4)))
    np.testing.assert_array_equal(first, volume[10:14, 8:12, 6:10])
    np.testing.assert_array_equal(second[2:, :3], volume[:2, 21:, 10:14])
    assert not second[:2].any()
    assert not second[:, 3:].any()


def test_cubes_put_together_are_the_map():
    volume = np.random.default_rng(0).normal(size=GRID.volume_shape).astype(np.float32)
    centres, window = WINDOWS.centres(GRID), WINDOWS.sample(GRID)
    cubes = (cube for batch in cut_cubes(volume, centres, len(window)) for cube in batch)
    found = average_windows(cubes, centres, window, GRID, empty=99.0)
    assert 0.3 < np.mean(found != 99) < 0.9
    np.testing.assert_allclose(found[found != 99], volume[found != 99], rtol=1e-5, atol=1e-5)


def test_the_correlation_of_noise_in_windows_scatters_as_the_count_of_coefficients_says():
    rng = np.random.default_rng(0)
    window = WINDOWS.sample(GRID)
    side = len(window)
    first, second = np.fft.fftn(
        rng.normal(size=(2, 1500, side, side, side)) * window, axes=(2, 3, 4)
    )
    frequency = np.fft.fftfreq(side, 1 / side) ** 2
    shells = np.rint(np.sqrt(frequency[:, None, None] + frequency[:, None] + frequency))
    counts, limits = independent_coefficients(window), noise_limits(window, 0.05)
    for shell in range(1, side // 2):
        a, b = first[:, shells == shell], second[:, shells == shell]
        powers = np.sum(np.abs(a) ** 2, axis=1) * np.sum(np.abs(b) ** 2, axis=1)
        correlation = np.sum(np.real(a.conj() * b), axis=1) / np.sqrt(powers)
        assert np.var(correlation) * counts[shell] == pytest.approx(1, abs=0.2)
        assert np.mean(correlation > limits[shell]) == pytest.approx(0.05, abs=0.02)


def test_a_cube_without_window_has_all_coefficients_of_its_shells():
    sizes = np.bincount(np.rint(volume_radii(8)).astype(int).ravel(), np.tile([1, 2, 2, 2, 1], 64))
    np.testing.assert_allclose(independent_coefficients(np.ones((8, 8, 8))), sizes[:4])


def test_a_single_pair_tells_nothing_and_a_toss_has_no_limit():
    window = WINDOWS.sample(GRID)
    assert noise_limits(window, 0.05)[0] > 0.999
    np.testing.assert_allclose(noise_limits(window, 0.5), 0, atol=1e-9)

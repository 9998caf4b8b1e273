import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.grid import (
    Grid,
    expand_shells,
    frequencies,
    half_weights,
    image_radii,
    shell_average,
    volume_radii,
)
from recovar.errors import InputError

sizes = st.integers(2, 10).map(lambda half: 2 * half)


@pytest.mark.parametrize("size", [-2, 0, 2, 7])
def test_odd_and_tiny_boxes_are_refused(size):
    with pytest.raises(InputError, match="even box of at least 4"):
        Grid(size, 1.0)


@pytest.mark.parametrize("voxel_size", [0.0, -1.0, float("nan")])
def test_voxels_without_extent_are_refused(voxel_size):
    with pytest.raises(InputError, match="positive voxel size"):
        Grid(8, voxel_size)


@given(size=sizes, cropped=sizes)
def test_a_cropped_grid_covers_the_same_cube(size, cropped):
    grid = Grid(size, 1.7)
    crop = grid.cropped(cropped)
    assert crop.size * crop.voxel_size == pytest.approx(size * 1.7)
    assert crop.resolution(2.0) == pytest.approx(grid.resolution(2.0))


@given(radius=st.integers(1, 40))
def test_the_grid_at_a_radius_holds_its_frequencies_and_never_grows(radius):
    grid = Grid(64, 1.0)
    small = grid.at_radius(min(radius, grid.largest_radius))
    assert small.size <= grid.size
    assert small.largest_radius >= min(radius, grid.largest_radius)


def test_resolution_at_the_edge_of_the_spectrum_is_two_voxels():
    assert Grid(64, 1.5).resolution(32) == pytest.approx(3.0)


@given(size=sizes)
def test_half_weights_count_every_coefficient_of_the_full_spectrum(size):
    assert half_weights(size).sum() * size**2 == size**3


@given(size=sizes)
def test_radii_are_distances_from_the_corner(size):
    k = frequencies(size)
    x = np.arange(size // 2 + 1)
    volume = np.sqrt((k**2)[:, None, None] + (k**2)[:, None] + x**2)
    np.testing.assert_allclose(volume_radii(size), volume, rtol=1e-6)
    np.testing.assert_allclose(image_radii(size), volume[0], rtol=1e-6)


@given(size=sizes, seed=st.integers(0, 2**16))
def test_shell_average_is_the_mean_over_the_full_spectrum(size, seed):
    real = np.random.default_rng(seed).normal(size=(size,) * 3)
    power = np.abs(np.fft.fftn(real)) ** 2
    k = np.fft.fftfreq(size, 1 / size)
    shells = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)
    expected = [power[shells == shell].mean() for shell in range(size // 2)]
    half = power[..., : size // 2 + 1]
    np.testing.assert_allclose(shell_average(half, size), expected, rtol=1e-9)


@given(size=sizes, seed=st.integers(0, 2**16))
def test_averaging_an_expanded_profile_gives_it_back(size, seed):
    profile = np.random.default_rng(seed).normal(size=size // 2)
    expanded = expand_shells(profile, volume_radii(size))
    np.testing.assert_allclose(shell_average(expanded, size), profile, rtol=1e-9)


def test_the_last_value_of_a_profile_continues_to_the_corners():
    assert expand_shells(np.array([1.0, 2.0]), np.array([0.4, 0.6, 9.0])).tolist() == [1, 2, 2]

"""Travel times against closed forms, and the paths that follow them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.eikonal import interpolate, trace_path, travel_time
from recovar.errors import InputError


def places(shape, spacing):
    """Coordinates of all grid points, the last axis counting the coordinates."""
    return np.stack(np.indices(shape), axis=-1) * spacing


@settings(max_examples=10)
@given(
    axes=st.integers(1, 5),
    stretch=st.lists(st.floats(0.2, 5), min_size=5, max_size=5),
    seed=st.integers(0, 2**16),
)
def test_at_unit_speed_the_travel_time_is_the_distance(axes, stretch, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(4, (200, 40, 15, 9, 7)[axes - 1], axes))
    spacing, start = np.array(stretch[:axes]), rng.integers(0, shape).astype(float)
    time = travel_time(np.ones(shape), spacing, start)
    distance = np.linalg.norm(places(shape, spacing) - start * spacing, axis=-1)
    np.testing.assert_allclose(time, distance, rtol=1e-9, atol=1e-9)


def test_a_source_between_grid_points_is_met_to_a_tenth_of_a_cell():
    start, spacing = np.array([10.3, 20.5]), np.array([1.0, 0.5])
    time = travel_time(np.ones((41, 51)), spacing, start)
    distance = np.linalg.norm(places((41, 51), spacing) - start * spacing, axis=-1)
    np.testing.assert_allclose(time, distance, atol=0.05)


def error_in_a_gradient(axes, size):
    """Where the speed grows linearly, T = arccosh(1 + |g|²|x−x₀|²/(2 F F₀))/|g|."""
    slope = np.array([1.0, 0.5, -0.3])[:axes]
    spacing, start = np.full(axes, 1 / size), np.full(axes, size / 2)
    where = places((size + 1,) * axes, spacing)
    speed, at_start = 1 + where @ slope, 1 + 0.5 * slope.sum()
    squares = ((where - 0.5) ** 2).sum(-1)
    steepness = np.linalg.norm(slope)
    exact = np.arccosh(1 + steepness**2 * squares / (2 * speed * at_start)) / steepness
    return np.abs(travel_time(speed, spacing, start) - exact).max()


@pytest.mark.parametrize(("axes", "sizes", "largest"), [(1, (20, 160), 2e-5), (2, (20, 160), 4e-5),
                                                        (3, (10, 40), 1e-3)])  # fmt: skip
def test_errors_fall_faster_than_the_power_three_halves_of_the_spacing(axes, sizes, largest):
    coarse, fine = (error_in_a_gradient(axes, size) for size in sizes)
    order = np.log(coarse / fine) / np.log(sizes[1] / sizes[0])
    assert order > 1.5
    assert fine < largest


def test_rays_are_bent_between_two_media_as_fermat_has_it():
    spacing, speeds = np.array([0.02, 0.02]), (1.0, 3.0)
    where = places((101, 101), spacing)
    speed = np.where(where[..., 0] < 1.01, *speeds)  # the media meet between two grid points
    start, end = np.array([10.0, 15.0]), np.array([90.0, 85.0])
    a, b = start * spacing, end * spacing
    meeting = np.linspace(0, 2, 100_001)
    times = [np.hypot(1.01 - p[0], meeting - p[1]) for p in (a, b)]
    fastest = times[0] / speeds[0] + times[1] / speeds[1]
    time = travel_time(speed, spacing, start)
    assert time[90, 85] == pytest.approx(fastest.min(), rel=0.01)
    path = trace_path(time, spacing, start, end) * spacing
    crossing = np.interp(1.01, path[:, 0], path[:, 1])
    assert crossing == pytest.approx(meeting[np.argmin(fastest)], abs=0.04)


def smooth_speed(shape, seed):
    rng = np.random.default_rng(seed)
    where = places(shape, 1 / np.array(shape))
    waves = [
        np.cos(2 * np.pi * (where @ rng.integers(-2, 3, len(shape)) + rng.uniform()))
        for _ in range(4)
    ]
    return np.exp(0.5 * sum(waves))


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16), axes=st.integers(2, 4))
def test_a_way_takes_as_long_back_as_forth(seed, axes):
    shape = ((60,) * 2, (20,) * 3, (12,) * 4)[axes - 2]
    rng = np.random.default_rng(seed)
    speed, spacing = smooth_speed(shape, seed), rng.uniform(0.5, 2, axes)
    a, b = (rng.integers(0, shape) for _ in range(2))
    ends = a.astype(float), b.astype(float)
    forth = travel_time(speed, spacing, ends[0])[tuple(b)]
    back = travel_time(speed, spacing, ends[1])[tuple(a)]
    assert forth == pytest.approx(back, rel=(0.01, 0.05, 0.12)[axes - 2], abs=0.1)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_times_grow_along_a_path_whose_cost_is_the_time_at_its_end(seed):
    shape, rng = (60, 50), np.random.default_rng(seed)
    speed, spacing = smooth_speed(shape, seed), rng.uniform(0.5, 2, 2)
    start, end = (rng.uniform(0, np.array(shape) - 1) for _ in range(2))
    time = travel_time(speed, spacing, start)
    path = trace_path(time, spacing, start, end)
    np.testing.assert_array_equal(path[[0, -1]], [start, end])
    at = interpolate(time, path)
    assert (np.diff(at[1:]) > 0).all()
    middle = interpolate(speed, (path[1:] + path[:-1]) / 2)
    cost = (np.linalg.norm(np.diff(path * spacing, axis=0), axis=1) / middle).sum()
    assert cost == pytest.approx(at[-1], rel=0.03, abs=0.5)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16), axes=st.integers(1, 4))
def test_paths_arrive_however_rough_the_speed_is(seed, axes):
    shape, rng = ((200,), (30,) * 2, (12,) * 3, (7,) * 4)[axes - 1], np.random.default_rng(seed)
    start, end = (rng.uniform(0, np.array(shape) - 1) for _ in range(2))
    time = travel_time(10 ** rng.uniform(-5, 0, shape), np.ones(axes), start)
    at = interpolate(time, trace_path(time, np.ones(axes), start, end))
    assert np.isfinite(at).all()
    assert (np.diff(at[1:]) > 0).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**16))
def test_stopping_at_the_end_changes_no_time_before(seed):
    shape, rng = (30, 25), np.random.default_rng(seed)
    speed, spacing = smooth_speed(shape, seed), np.ones(2)
    start, end = (rng.uniform(0, np.array(shape) - 1) for _ in range(2))
    whole, stopped = travel_time(speed, spacing, start), travel_time(speed, spacing, start, end)
    assert np.isfinite(stopped).all()
    before = whole <= interpolate(whole, end[None])[0]
    np.testing.assert_array_equal(stopped[before], whole[before])


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(InputError, match="1 to 5 axes, got 6"):
        travel_time(np.ones((2,) * 6), np.ones(6), np.zeros(6))
    with pytest.raises(InputError, match="speeds above 0"):
        travel_time(np.zeros((4, 4)), np.ones(2), np.zeros(2))
    with pytest.raises(InputError, match=r"within a grid of \(4, 4\)"):
        travel_time(np.ones((4, 4)), np.ones(2), np.array([0.0, 3.5]))


def test_paths_arrive_where_one_spacing_is_a_tiny_part_of_another():
    where = places((80, 80), np.array([1.0, 1.0])) / 79
    speed = np.exp(-20 * (where[..., 1] - 0.5 - 0.3 * np.sin(6 * where[..., 0])) ** 2) + 1e-5
    spacing, start, end = np.array([1.0, 1e-5]), np.array([3.2, 40.1]), np.array([75.7, 33.3])
    time = travel_time(speed, spacing, start)
    path = trace_path(time, spacing, start, end)
    np.testing.assert_array_equal(path[[0, -1]], [start, end])
    assert (np.diff(interpolate(time, path)[1:]) > 0).all()

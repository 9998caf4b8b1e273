import numpy as np
import pytest

from recovar.density.record import normalize, read_density, write_density
from recovar.errors import InputError
from recovar.records import save_arrays

AXES = (np.linspace(-1.0, 2, 7), np.linspace(0.0, 1, 5), np.linspace(5.0, 9, 6))


def random_density():
    return normalize(AXES, np.random.default_rng(0).random((7, 5, 6)))


def test_the_integral_of_a_density_is_one():
    density = random_density()
    assert density.values.sum() * density.cell == pytest.approx(1)


def test_a_density_has_its_values_at_grid_points_and_none_off_the_grid():
    density = random_density()
    points = np.array([[AXES[0][3], AXES[1][2], AXES[2][4], 77.0], [-1.1, 0.5, 6.0, 0.0]])
    np.testing.assert_allclose(density.at(points), [density.values[3, 2, 4], 0])


def test_a_marginal_has_the_axes_that_were_asked_for_in_their_order():
    density = random_density()
    marginal = density.marginal((2, 0))
    assert [len(axis) for axis in marginal.axes] == [6, 7]
    summed = density.values.sum(1).T * (AXES[1][1] - AXES[1][0])
    np.testing.assert_allclose(marginal.values, summed)


def test_a_density_is_read_as_it_was_written(tmp_path):
    density = random_density()
    write_density(tmp_path / "density.npz", density)
    found = read_density(tmp_path / "density.npz")
    np.testing.assert_array_equal(found.values, density.values)
    np.testing.assert_array_equal(found.axes[2], AXES[2])
    assert found.bands is None


def test_other_files_are_refused(tmp_path):
    save_arrays(tmp_path / "other.npz", axis0=np.zeros(3))
    with pytest.raises(InputError, match=r"Expected a density with its axes .* found axis0"):
        read_density(tmp_path / "other.npz")

"""Paths through latent space: known curves recovered, laws, and bad input."""

import logging

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.stats import rankdata

from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.record import Density, normalize
from recovar.errors import InputError
from recovar.trajectory import find_path, integrate_cost, outer_points, resample


class Arc:
    """Images along three quarters of a circle, whose further coordinates follow smaller waves."""

    def __init__(self, zdim, images=4000, noise=0.25, seed=0):
        rng = np.random.default_rng(seed)
        self.truth = np.sort(rng.uniform(0, 1, images))
        self.noise = noise * rng.uniform(0.5, 1.5, images)
        errors = self.noise[:, None] * rng.standard_normal((images, zdim))
        self.coordinates = self.place(self.truth, zdim) + errors
        self.covariance = self.noise[:, None, None] ** 2 * np.eye(zdim)
        self.ends = self.place(np.array([0.02, 0.98]), zdim)

    @staticmethod
    def place(truth, zdim):
        angle = 1.5 * np.pi * truth
        waves = [2 * np.cos(angle), 2 * np.sin(angle)]
        waves += [0.8 ** (k + 1) * np.cos(angle * k / 2) for k in range(2, zdim)]
        return np.stack(waves[:zdim], axis=-1)

    def find(self, method, **options):
        return find_path(
            self.coordinates, *self.ends, method=method, covariance=self.covariance, **options
        )

    def order(self, points):
        """Mean truth of the images next to points, in their order."""
        return self.truth[KDTree(self.coordinates).query(points, 50)[1]].mean(axis=1)

    def distance(self, points):
        """Largest distance of points from the curve without noise."""
        curve = self.place(np.linspace(0, 1, 1000), points.shape[1])
        return KDTree(curve).query(points)[0].max()


@pytest.fixture(scope="module")
def arc():
    return Arc(4)


@pytest.fixture(scope="module")
def landscape(arc):
    """On a grid that is coarse enough for tests."""
    low, high = np.percentile(arc.coordinates, (0.5, 99.5), axis=0)
    axes = tuple(np.linspace(*ends, 24) for ends in zip(low, high, strict=True))
    return estimate_kernel_density(arc.coordinates, axes)


def judge(arc, path, most):
    points = path.points[path.choose(20)]
    assert np.corrcoef(np.arange(20), rankdata(arc.order(points)))[0, 1] >= 0.99
    assert arc.distance(path.points) < most
    np.testing.assert_allclose(path.points[[0, -1]], arc.ends, atol=1e-12)
    np.testing.assert_allclose(np.diff(path.arc_length), path.arc_length[-1] / 199, rtol=0.02)


def test_the_grid_follows_an_arc_in_four_coordinates(arc, landscape):
    path = arc.find("grid", density=landscape)
    judge(arc, path, 0.5)
    assert (path.method, path.kind) == ("grid", "density")


def test_the_graph_follows_an_arc_in_ten_coordinates_unless_told_otherwise():
    arc = Arc(10)
    path = arc.find("auto")
    judge(arc, path, 0.6)
    assert (path.method, path.kind) == ("graph", "visual")


def test_coordinates_that_a_density_leaves_out_are_those_of_images_nearby():
    arc = Arc(6)
    density = estimate_kernel_density(
        arc.coordinates[:, :2], tuple(np.linspace(-3, 3, 80) for _ in range(2))
    )
    path = arc.find("auto", density=density)
    judge(arc, path, 0.5)
    assert (path.method, path.kind) == ("grid", "density")


def test_a_straight_line_is_for_looking_only_and_costs_more(arc, landscape):
    line = arc.find("line", density=landscape)
    assert (line.method, line.kind) == ("line", "visual")
    assert line.arc_length[-1] == pytest.approx(np.linalg.norm(arc.ends[1] - arc.ends[0]))
    assert line.cost > 3 * arc.find("grid", density=landscape).cost


def test_a_graph_under_a_density_over_all_coordinates_rests_on_it(arc, landscape):
    path = arc.find("graph", density=landscape)
    judge(arc, path, 0.6)
    assert path.kind == "density"


def test_the_graph_and_the_estimated_density_lead_the_same_way_in_two_coordinates():
    arc = Arc(2)
    path = arc.find("auto")
    judge(arc, path, 0.5)
    assert path.method == "grid"
    apart = np.linalg.norm(path.points - arc.find("graph").points, axis=1)
    assert apart.max() < 0.7


def test_without_covariances_images_that_tell_nothing_draw_the_graph_to_the_origin():
    arc, rng = Arc(2, images=2000), np.random.default_rng(1)
    arc.coordinates = np.concatenate([arc.coordinates, rng.normal(0, 0.7, (8000, 2))])
    empty = np.tile(4.0 * np.eye(2), (8000, 1, 1))
    arc.covariance = np.concatenate([arc.covariance, empty])
    plain = find_path(arc.coordinates, *arc.ends, method="graph")
    assert arc.distance(arc.find("graph").points) < 0.5
    assert arc.distance(plain.points) > 1


def test_separate_groups_of_images_are_joined_with_a_warning(caplog):
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.normal(0, 0.1, (60, 2)), rng.normal(9, 0.1, (60, 2))])
    with caplog.at_level(logging.WARNING):
        path = find_path(groups, groups[0], groups[-1], method="graph")
    assert "stand apart" in caplog.text
    np.testing.assert_allclose(path.points[[0, -1]], groups[[0, -1]], atol=1e-12)


def test_copies_of_an_image_do_no_harm():
    arc = Arc(3, images=1500)
    arc.coordinates = np.concatenate([arc.coordinates, np.repeat(arc.coordinates[700:701], 90, 0)])
    arc.covariance = np.concatenate([arc.covariance, np.repeat(arc.covariance[700:701], 90, 0)])
    assert arc.distance(arc.find("graph").points) < 1


def test_one_coordinate_goes_straight_between_its_outer_points():
    z = np.random.default_rng(0).normal(size=(5000, 1))
    low, high = outer_points(z)
    assert (z < low).mean() < 0.001 > (z > high).mean()
    path = find_path(z, low, high)
    np.testing.assert_allclose(path.points[:, 0], np.linspace(low[0], high[0], 200), atol=1e-3)
    assert path.kind == "density"
    assert abs(path.arc_length[np.argmax(path.density)] + low[0]) < 0.3


def test_the_cost_is_the_length_where_the_density_is_the_same_everywhere():
    z = np.random.default_rng(0).uniform(0, 1, (500, 2))
    flat = normalize((np.linspace(0, 1, 40), np.linspace(0, 1, 40)), np.ones((40, 40)))
    path = find_path(z, np.array([0.1, 0.1]), np.array([0.7, 0.9]), flat)
    assert path.cost == pytest.approx(1, rel=2e-3)
    assert path.arc_length[-1] == pytest.approx(1, rel=2e-3)


def test_costs_integrate_slowness_along_the_way():
    points = np.stack([np.linspace(1, 3, 2000), np.zeros(2000)], axis=1)
    assert integrate_cost(points, points[:, 0]) == pytest.approx(np.log(3), rel=1e-6)


def test_resampled_points_are_equally_far_apart():
    angle = np.linspace(0, np.pi, 2000) ** 2 / np.pi
    points = resample(np.stack([np.cos(angle), np.sin(angle)], axis=1), 50)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(steps, np.pi / 49, rtol=1e-3)


def test_chosen_points_include_both_ends(arc, landscape):
    path = arc.find("line", density=landscape)
    assert path.choose(6).tolist() == [0, 40, 80, 119, 159, 199]
    assert path.choose(2).tolist() == [0, 199]


def test_ends_that_cannot_be_are_refused(arc):
    z, (start, end) = arc.coordinates, arc.ends
    with pytest.raises(InputError, match="coordinate 2 is 50, those of images are"):
        find_path(z, start, np.array([0, 50, 0, 0.0]))
    with pytest.raises(InputError, match="its coordinate 1 is nan"):
        find_path(z, np.full(4, np.nan), end)
    with pytest.raises(InputError, match="the same point"):
        find_path(z, start, start)
    six = Density(tuple(np.arange(2.0) for _ in range(6)), np.ones((2,) * 6))
    with pytest.raises(InputError, match="at most 4 coordinates for a path in 4, got one over 6"):
        find_path(z, start, end, six)

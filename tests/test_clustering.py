import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from recovar import clustering
from recovar.clustering import cluster, map_to_plane, order_leaves, why_no_map
from recovar.errors import InputError


def blobs(places, each, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    places = np.asarray(places, float)
    truth = rng.permutation(np.repeat(np.arange(len(places)), each))
    return places[truth] + spread * rng.normal(size=(len(truth), places.shape[1])), truth


@given(seed=st.integers(0, 2**16), count=st.integers(1, 12), zdim=st.integers(1, 4))
def test_centres_are_images_of_their_own_clusters_and_none_is_nearer_to_the_mean(seed, count, zdim):
    z = np.random.default_rng(seed).normal(size=(60, zdim))
    found = cluster(z, count, seed)
    np.testing.assert_array_equal(found.centres, z[found.images])
    np.testing.assert_array_equal(found.labels[found.images], np.arange(count))
    assert found.sizes.sum() == 60
    for number, image in enumerate(found.images):
        members = z[found.labels == number]
        distances = np.linalg.norm(members - members.mean(0), axis=1)
        own = np.linalg.norm(z[image] - members.mean(0))
        assert own <= distances.min() * (1 + 1e-6) + 1e-9


def test_groups_that_lie_apart_are_found_in_the_order_of_the_line_they_lie_on():
    z, truth = blobs([[4.0, 0], [0, 0], [12, 0], [8, 0]], 50)
    found = cluster(z, 4, seed=3)
    np.testing.assert_array_equal(found.labels, np.array([1, 0, 3, 2])[truth])
    np.testing.assert_array_equal(found.sizes, [50] * 4)


@given(seed=st.integers(0, 2**16), count=st.integers(2, 20))
def test_the_order_of_points_on_a_line_is_theirs(seed, count):
    points = np.random.default_rng(seed).normal(size=(count, 1))
    np.testing.assert_array_equal(order_leaves(points), np.argsort(points[:, 0]))


@given(seed=st.integers(0, 2**16))
def test_points_that_are_nearest_to_each_other_stay_side_by_side(seed):
    points = np.random.default_rng(seed).normal(size=(15, 3))
    order = order_leaves(points)
    np.testing.assert_array_equal(np.sort(order), np.arange(15))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(15)
    nearest = distances.argmin(1)
    places = np.argsort(order)
    for point, other in enumerate(nearest):
        if nearest[other] == point:
            assert abs(places[point] - places[other]) == 1
    assert points[order[0], 0] <= points[order[-1], 0]


def test_the_number_of_threads_and_a_second_call_change_nothing():
    z = np.random.default_rng(1).normal(size=(5000, 6))
    with threadpool_limits(1):
        one = cluster(z, 25, seed=7)
    two = cluster(z, 25, seed=7)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.images, two.images)


def test_normalized_axes_count_alike():
    z, truth = blobs([[0.0, 0.0], [0.0, 1.0]], 40, spread=0.02)
    z[:, 0] = np.linspace(-100, 100, 80)
    right = np.mean(cluster(z, 2, 0, normalize=True).labels == truth)
    assert max(right, 1 - right) == 1
    assert np.mean(cluster(z, 2, 0).labels == (z[:, 0] > 0)) == 1


def test_a_coordinate_that_does_not_vary_is_no_problem_for_normalized_axes():
    z = np.column_stack([[0.0, 1, 0, 1, 0, 9, 8, 9, 8, 9], np.ones(10)])
    assert cluster(z, 2, 0, normalize=True).labels.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize("count", [0, 4])
def test_there_are_no_more_clusters_than_distinct_points(count):
    z = np.repeat(np.eye(3), 5, axis=0)
    assert len(cluster(z, 3, 0).centres) == 3
    with pytest.raises(InputError, match=f"from 1 to 3 clusters.*15 images, got {count}"):
        cluster(z, count, 0)


@pytest.mark.slow
def test_a_map_keeps_groups_apart_and_places_what_did_not_make_it(monkeypatch):
    pytest.importorskip("umap")
    z, truth = blobs([[0.0, 0, 0, 0], [9, 0, 0, 0], [0, 9, 0, 9]], 60)
    told = []
    monkeypatch.setattr(clustering, "MOST_FITTED", 120)
    place = map_to_plane(z, 5, told.append)
    assert told == [120, 60]
    middles = np.stack([place[truth == k].mean(0) for k in range(3)])
    nearest = np.linalg.norm(place[:, None] - middles, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, truth)
    np.testing.assert_array_equal(map_to_plane(z, 5), place)


def test_it_is_said_why_there_is_no_map(monkeypatch):
    assert why_no_map(np.zeros((50, 1))) == "one coordinate needs no map"
    assert "9 images are too few" in (why_no_map(np.zeros((9, 2))) or "")
    monkeypatch.setitem(sys.modules, "umap", None)
    assert "pip install 'recovar[umap]'" in (why_no_map(np.zeros((50, 2))) or "")

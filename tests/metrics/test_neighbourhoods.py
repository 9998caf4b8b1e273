import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recovar.metrics import (
    chance_similarity,
    information_imbalance,
    label_points,
    neighbourhood_similarity,
    neighbourhoods,
    sample,
)

seeds = st.integers(0, 2**16)


def neighbours_of(points, k):
    """List the k nearest others of every point, the slow way."""
    found = []
    for i, point in enumerate(points):
        distances = np.linalg.norm(points - point, axis=1)
        found.append([j for j in np.argsort(distances) if j != i][:k])
    return found


@given(seed=seeds)
def test_neighbours_in_common_are_counted(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))
    expected = [
        np.mean(
            [
                len(set(a) & set(b)) / k
                for a, b in zip(neighbours_of(first, k), neighbours_of(second, k), strict=True)
            ]
        )
        for k in (1, 4, 29)
    ]
    np.testing.assert_allclose(neighbourhood_similarity(first, second, [1, 4, 29]), expected)


@given(seed=seeds)
def test_the_imbalance_is_the_mean_rank_of_the_nearest(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))
    ranks = [
        1 + all_others.index(nearest[0])
        for nearest, all_others in zip(
            neighbours_of(first, 1), neighbours_of(second, 29), strict=True
        )
    ]
    expected = 2 / 30 * np.mean(ranks)
    assert information_imbalance(first, second) == pytest.approx(expected)


@given(seed=seeds)
def test_only_the_order_of_distances_counts(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) @ np.diag([1, 1, 0.1])
    turned = 3 * first @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + 1
    assert information_imbalance(turned, second) == information_imbalance(first, second)
    np.testing.assert_allclose(
        neighbourhood_similarity(turned, second, [5]), neighbourhood_similarity(first, second, [5])
    )


def test_a_space_that_holds_another_knows_it_and_not_the_reverse():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(1000, 2))
    line = plane[:, :1]
    assert information_imbalance(plane, line) < 0.1
    assert 0.2 < information_imbalance(line, plane) < 0.6


def test_spaces_that_have_nothing_in_common_score_as_chance_does():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1000, 2))
    assert information_imbalance(first, second) == pytest.approx(1, abs=0.06)
    found = neighbourhood_similarity(first, second, [10, 100])
    np.testing.assert_allclose(found, chance_similarity(second, [10, 100]), atol=0.005)


def test_labels_share_ranks_as_if_they_were_ordered_at_random():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [300, 100]))
    points, noise = label_points(labels), rng.normal(size=(400, 2))
    # Shares of 3/4 and 1/4: Σ share² = 0.625; coordinates without meaning give 1.
    assert information_imbalance(points, points) == pytest.approx(0.625)
    assert information_imbalance(noise, points) == pytest.approx(1, abs=0.06)
    jittered = points + 1e-6 * noise
    assert information_imbalance(jittered, points) == pytest.approx(0.625)
    assert neighbourhood_similarity(jittered, points, [50]).tolist() == [1.0]
    assert chance_similarity(points, [50])[0] == pytest.approx(0.625, abs=0.01)
    found = neighbourhood_similarity(noise, points, [50])[0]
    assert found == pytest.approx(0.625, abs=0.02)


@given(seed=seeds)
def test_flattened_rotations_are_ordered_by_the_angle_between_them(seed):
    turns = Rotation.random(50, rng=seed)
    angles = (turns[0].inv() * turns[1:]).magnitude()
    flat = turns.as_matrix().reshape(50, 9)
    distances = np.linalg.norm(flat[1:] - flat[0], axis=1)
    np.testing.assert_allclose(distances, 8**0.5 * np.sin(angles / 2))


def test_blocks_change_nothing(monkeypatch):
    first, second = np.random.default_rng(0).normal(size=(2, 100, 2))
    expected = information_imbalance(first, second), neighbourhood_similarity(first, second, [7])
    monkeypatch.setattr(neighbourhoods, "_BLOCK", 700)
    assert information_imbalance(first, second) == pytest.approx(expected[0])
    np.testing.assert_allclose(neighbourhood_similarity(first, second, [7]), expected[1])


def test_a_sample_is_the_same_for_the_same_seed_and_all_where_they_are_few():
    assert sample(5, 5).tolist() == [0, 1, 2, 3, 4]
    chosen = sample(1000, 50, seed=3)
    assert len(np.unique(chosen)) == 50
    np.testing.assert_array_equal(chosen, sample(1000, 50, seed=3))
    assert set(chosen) != set(sample(1000, 50, seed=4))

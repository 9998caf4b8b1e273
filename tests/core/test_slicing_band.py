"""Sums over images that are made band by band are those of the whole ball."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.frequencies import Ball, Disc
from recovar.core.poses import random_rotations
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA

IMAGES, CHANNELS = 7, 3
DISC, BALL = Disc(8, 3), Ball(8, 3)
seeds = st.integers(0, 2**16)
counts = st.integers(1, 12)


def random_images(seed, real):
    generator = np.random.default_rng(seed)
    values = (generator.normal(size=(2, IMAGES, len(DISC))).T @ [1, 1j]).T
    weights = generator.normal(size=(IMAGES, CHANNELS)).astype(np.float32)
    weights[2] = 0
    rotations = random_rotations(IMAGES, generator).astype(np.float32)
    rotations[0] = np.eye(3)
    values = values.real.astype(np.float32) if real else values.astype(np.complex64)
    return values, weights, rotations


def backproject(operators, images, ball):
    values, weights, rotations = images
    sums = np.zeros((len(ball), CHANNELS), values.dtype)
    return np.asarray(operators.backproject(sums, values, weights, rotations, DISC, ball))


@given(count=counts, oversampling=st.sampled_from([1, 2]), radius=st.sampled_from([1, 3, 9]))
def test_bands_hold_every_voxel_of_the_whole_ball_once(count, oversampling, radius):
    ball = Ball(20, radius, oversampling)
    bands = ball.bands(count)
    places = np.concatenate([band.places for band in bands])
    assert 1 <= len(bands) <= count
    np.testing.assert_array_equal(np.sort(places), np.arange(len(ball)))
    for band in bands:
        np.testing.assert_array_equal(band.coordinates, ball.coordinates[:, band.places])


@pytest.mark.parametrize("count", [2, 4, 8])
def test_bands_are_of_similar_size(count):
    ball = Ball(64, 31)
    sizes = np.array([len(band) for band in ball.bands(count)])
    # The largest plane, which is not divided, holds π·63²/2 voxels on either side of z = 0.
    assert np.ptp(sizes) < 2.2 * np.pi * 63**2
    assert len(sizes) == count


@settings(max_examples=10)
@given(seed=seeds, count=counts, real=st.booleans())
def test_banded_sums_have_the_bits_of_the_whole_sum(seed, count, real):
    images = random_images(seed, real)
    whole = backproject(NUMBA, images, BALL)
    for band in BALL.bands(count):
        np.testing.assert_array_equal(backproject(NUMBA, images, band), whole[band.places])


@settings(max_examples=4)
@given(seed=seeds, count=st.sampled_from([2, 3]), real=st.booleans())
def test_banded_sums_of_the_reference_are_parts_of_the_whole_sum(seed, count, real):
    images = random_images(seed, real)
    whole = backproject(REFERENCE, images, BALL)
    for band in BALL.bands(count):
        found = backproject(REFERENCE, images, band)
        np.testing.assert_allclose(found, whole[band.places], atol=1e-5)


@given(seed=seeds, count=counts)
def test_a_band_folds_like_the_whole_ball(seed, count):
    values = np.random.default_rng(seed).normal(size=(len(BALL), 2))
    for band in BALL.bands(count):
        folded = band.fold(values[band.places])
        np.testing.assert_array_equal(folded, BALL.fold(values)[band.places])


def test_images_without_weight_add_nothing():
    values, weights, rotations = random_images(0, real=False)
    kept = weights.any(1)
    some = backproject(NUMBA, (values[kept], weights[kept], rotations[kept]), BALL)
    np.testing.assert_array_equal(backproject(NUMBA, (values, weights, rotations), BALL), some)


@pytest.mark.parametrize("operators", [REFERENCE, NUMBA], ids=["jax", "numba"])
@settings(max_examples=4)
@given(seed=seeds)
def test_several_sums_at_once_are_those_made_one_by_one(operators, seed):
    values, weights, rotations = random_images(seed, real=False)
    power, pairs = np.abs(values), weights[:, [0, 0, 1, 1, 2]]
    pairs[3] = 1
    alone = (
        backproject(operators, (power, pairs[:, :CHANNELS], rotations), BALL),
        backproject(operators, (values, weights, rotations), BALL),
    )
    empty = (
        np.zeros((len(BALL), 5), np.float32),
        np.zeros((len(BALL), CHANNELS), np.complex64),
    )
    found = operators.backproject_many(
        empty, (power, values), (pairs, weights), rotations, DISC, BALL
    )
    np.testing.assert_allclose(np.asarray(found[0])[:, :CHANNELS], alone[0], atol=1e-5)
    np.testing.assert_allclose(np.asarray(found[1]), alone[1], atol=1e-5)

"""Comparing images with projections equals slicing and multiplying in float64."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.frequencies import Ball, Disc
from recovar.core.gram_numba import TILE, add_gram
from recovar.core.poses import random_rotations
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA

IMAGES = 5
DISC, BALL = Disc(30, 13), Ball(30, 13)  # 265 pixels: more than are compared at a time
seeds = st.integers(0, 2**16)
channel_counts = st.sampled_from([1, 2, 3, 4, 7])
implementations = pytest.mark.parametrize("operators", [REFERENCE, NUMBA], ids=["jax", "numba"])


def random_problem(seed, channels):
    generator = np.random.default_rng(seed)

    def draw(*shape):
        return (generator.normal(size=(2, *shape)).T @ [1, 1j]).T.astype(np.complex64)

    rotations = random_rotations(IMAGES, generator).astype(np.float32)
    transfer = generator.normal(size=(IMAGES, len(DISC))).astype(np.float32)
    return draw(len(BALL), channels), draw(IMAGES, len(DISC)), transfer, rotations


@implementations
@settings(max_examples=8)
@given(seed=seeds, channels=channel_counts)
def test_inner_products_equal_slices_multiplied_in_float64(operators, seed, channels):
    volumes, values, transfer, rotations = random_problem(seed, channels)
    gram, response = operators.inner_products(volumes, values, transfer, rotations, DISC, BALL)
    slices = np.asarray(REFERENCE.slice_volumes(volumes, rotations, DISC, BALL), np.complex128)
    projections = slices * (transfer * np.sqrt(DISC.multiplicity))[..., None]
    images = (values * np.sqrt(DISC.multiplicity)).astype(np.complex128)
    expected = np.einsum("ipc,ipd->icd", projections.conj(), projections).real
    pull = np.einsum("ipc,ip->ic", projections.conj(), images).real
    # Terms are rounded to float32, and a few hundred of them added in it.
    size = expected.diagonal(axis1=1, axis2=2).max()
    np.testing.assert_allclose(np.asarray(gram), expected, atol=2e-6 * size)
    np.testing.assert_allclose(np.asarray(response), pull, atol=1e-5 * size)
    assert gram.dtype == response.dtype == np.float32


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_the_number_of_threads_changes_no_bit():
    problem = random_problem(0, 5)
    threads = numba.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            found.append(NUMBA.inner_products(*problem, DISC, BALL))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@given(seed=seeds, tiles=st.integers(1, 3), length=st.integers(0, 40))
def test_tiles_hold_the_upper_triangle_of_the_gram_matrix(seed, tiles, length):
    channels = np.random.default_rng(seed).normal(size=(tiles * TILE, 40)).astype(np.float32)
    total = np.ones((tiles * TILE, tiles * TILE))
    add_gram(channels, length, total)
    used = channels[:, :length].astype(np.float64)
    np.testing.assert_allclose(np.triu(total), np.triu(1 + used @ used.T), atol=1e-4)

"""Slices by gridding equal the sums of waves over the voxels, in float64, to five digits."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.frequencies import Disc
from recovar.core.kaiser_bessel_numba import (
    bytes_of_transform,
    slice_accurately,
    transform_for_slices,
)
from recovar.core.poses import random_rotations

seeds = st.integers(0, 2**16)
discs = st.sampled_from([Disc(16, 7), Disc(18, 8), Disc(16, 4), Disc(8, 3)])
AXES = np.array(
    [
        np.eye(3),
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
        [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    ],
    np.float64,
)


def sum_waves(volume, rotations, disc):
    """Transform the voxels at the pixels' places, one axis at a time."""
    size = disc.size
    x, y = disc.x[:, None], disc.y[:, None]
    places = x * rotations[:, None, 0] + y * rotations[:, None, 1]
    axis = np.arange(size) - size // 2
    waves = np.exp(-2j * np.pi / size * places[..., None] * axis)
    mixed = np.einsum("zyx,ipx->ipzy", volume, waves[:, :, 0], optimize=True)
    return np.einsum("ipzy,ipy,ipz->ip", mixed, waves[:, :, 1], waves[:, :, 2], optimize=True)


def noise(seed, size, filled="cube"):
    volume = np.random.default_rng(seed).normal(size=(size,) * 3).astype(np.float32)
    axis = np.arange(size) - size // 2
    radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return volume if filled == "cube" else volume * (radii < size / 2)


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@settings(max_examples=10)
@given(seed=seeds, disc=discs, filled=st.sampled_from(["cube", "sphere"]))
def test_slices_are_sums_of_waves_to_five_digits(seed, disc, filled):
    volume = noise(seed, disc.size, filled)
    rotations = np.concatenate([AXES, random_rotations(8, np.random.default_rng(seed))])
    found = slice_accurately(transform_for_slices(volume, disc), rotations, disc)
    expected = sum_waves(volume.astype(np.float64), rotations, disc)
    assert found.dtype == np.complex64
    assert error(found, expected) < (7e-6 if filled == "cube" else 5e-6)
    for radius in range(1, disc.radius + 1):
        shell = disc.shells == radius
        assert error(found[:, shell], expected[:, shell]) < 1e-5


def test_points_in_a_large_box_are_single_waves():
    # Large enough for voxels to be asked for early.
    disc, generator = Disc(104, 51), np.random.default_rng(0)
    points, rotations = generator.integers(8, 96, (9, 3)), random_rotations(3, generator)
    volume = np.zeros((104,) * 3, np.float32)
    volume[tuple(points.T)] = heights = generator.normal(size=9)
    places = disc.x[:, None] * rotations[:, None, 0] + disc.y[:, None] * rotations[:, None, 1]
    expected = np.exp(-2j * np.pi / 104 * places @ (points[:, ::-1] - 52.0).T) @ heights
    values = transform_for_slices(volume, disc)
    assert values.nbytes > 2**24
    assert error(slice_accurately(values, rotations, disc), expected) < 1e-5


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_no_bit_depends_on_the_block_or_the_threads():
    disc = Disc(16, 7)
    values = transform_for_slices(noise(1, 16), disc)
    rotations = random_rotations(37, np.random.default_rng(1))
    whole = slice_accurately(values, rotations, disc)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        pieces = [slice_accurately(values, part, disc) for part in np.split(rotations, [1, 20])]
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_the_bytes_of_a_transform_are_counted():
    for disc in (Disc(16, 7), Disc(32, 5)):
        assert transform_for_slices(noise(0, disc.size), disc).nbytes == bytes_of_transform(disc)

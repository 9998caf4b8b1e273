"""Solving many small systems side by side equals solving each in float64."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.solve_numba import BLOCK, solve_packed

seeds = st.integers(0, 2**16)
sizes = st.sampled_from([1, 2, 5, 9])
counts = st.sampled_from([1, 3, BLOCK, BLOCK + 1, 17 * BLOCK + 5])


def random_systems(seed, count, size):
    generator = np.random.default_rng(seed)
    factors = generator.normal(size=(count, size, size + 2))
    matrices = (factors @ factors.transpose(0, 2, 1)).astype(np.float32)
    response = (generator.normal(size=(2, count, size)).T @ [1, 1j]).T.astype(np.complex64)
    prior = generator.random((count, size)).astype(np.float32)
    return matrices, np.ascontiguousarray(response), prior


def packed(matrices):
    return np.ascontiguousarray(matrices[:, *np.triu_indices(matrices.shape[-1])])


def dense(matrices, prior, ridge):
    size = matrices.shape[-1]
    diagonal = prior + ridge * np.trace(matrices, axis1=1, axis2=2)[:, None] / size
    return matrices.astype(np.float64) + diagonal[..., None] * np.eye(size)


@settings(max_examples=15)
@given(seed=seeds, count=counts, size=sizes, ridge=st.sampled_from([0.0, 1e-4]))
def test_solutions_are_those_of_a_library(seed, count, size, ridge):
    matrices, response, prior = random_systems(seed, count, size)
    found = solve_packed(packed(matrices), response, prior, ridge)
    expected = np.linalg.solve(dense(matrices, prior, ridge), response[..., None])[..., 0]
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@given(seed=seeds)
def test_a_voxel_that_nothing_is_known_of_is_zero(seed):
    matrices, response, prior = random_systems(seed, 5, 3)
    matrices[2] = 0
    prior[2] = 0
    found = solve_packed(packed(matrices), response, prior, 1e-4)
    others = np.array([0, 1, 3, 4])
    alone = solve_packed(packed(matrices[others]), response[others], prior[others], 1e-4)
    assert not found[2].any()
    np.testing.assert_array_equal(found[others], alone)


@given(seed=seeds)
def test_a_ridge_keeps_solutions_of_singular_systems_finite(seed):
    matrices, response, prior = random_systems(seed, 4, 5)
    matrices[:] = np.ones((5, 5))
    found = solve_packed(packed(matrices), response, 0 * prior, 1e-6)
    assert np.isfinite(found).all()
    residual = dense(matrices, 0 * prior, 1e-6) @ found[..., None] - response[..., None]
    # Solutions are about 1e6 and come back rounded to float32.
    assert np.abs(residual).max() < 1


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_the_number_of_threads_changes_no_bit():
    matrices, response, prior = random_systems(0, 40 * BLOCK, 4)
    threads = numba.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            found.append(solve_packed(packed(matrices), response, prior, 1e-4))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(*found)

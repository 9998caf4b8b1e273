"""Correlations in a mask."""

import numpy as np
import pytest

from recovar.core import fourier
from recovar.core.grid import Grid, volume_radii
from recovar.core.halves import Halves
from recovar.core.masks import soft_edge
from recovar.fsc_curves import masked_fsc

GRID = Grid(64, 2.0)
AXIS = np.arange(64) - 32
RADII = np.sqrt(AXIS[:, None, None] ** 2 + AXIS[:, None] ** 2 + AXIS**2)


def half_maps(seed, cut, radius=100):
    """Make structure up to a shell, in a ball, with three times the amplitude of white noise."""
    rng = np.random.default_rng(seed)
    field = fourier.to_spectrum(rng.normal(size=GRID.volume_shape))
    truth = 3 * fourier.to_volume(field * (volume_radii(64) < cut + 0.5)) * (radius > RADII)
    return Halves(*((truth + rng.normal(size=truth.shape)).astype(np.float32) for _ in range(2)))


def test_what_a_tight_mask_adds_is_taken_off():
    """Structure ends at shell 10: the mask carries it further, and the corrected curve does not."""
    halves = half_maps(0, 10)
    mask = (RADII < 14).astype(np.float32)
    curves = masked_fsc(halves, mask, GRID)
    assert curves.start == 11
    assert curves.masked[13:17].min() > 0.05
    beyond = slice(curves.start + 2, None)
    assert curves.randomized[beyond].mean() > 0.02
    assert abs(curves.corrected[beyond].mean()) < 0.4 * curves.masked[beyond].mean()


def test_up_to_where_phases_are_random_nothing_is_corrected():
    curves = masked_fsc(half_maps(1, 10), soft_edge(RADII < 20), GRID)
    first = slice(0, curves.start + 2)
    np.testing.assert_array_equal(curves.corrected[first], curves.masked[first])
    ratio = (curves.masked - curves.randomized) / (1 - curves.randomized)
    np.testing.assert_allclose(curves.corrected[curves.start + 2 :], ratio[curves.start + 2 :])


def test_a_mask_around_the_molecule_resolves_more_than_the_whole_box():
    halves = half_maps(2, 31, 16)
    curves = masked_fsc(halves, soft_edge(RADII < 18), GRID)
    assert curves.masked[5:].min() > curves.unmasked[5:].max()


def test_noise_is_resolved_by_no_mask():
    rng = np.random.default_rng(3)
    halves = Halves(*(rng.normal(size=GRID.volume_shape).astype(np.float32) for _ in range(2)))
    curves = masked_fsc(halves, soft_edge(RADII < 16), GRID)
    assert curves.start == 1
    assert np.abs(curves.corrected[5:]).mean() < 0.06
    assert curves.resolution() > 20


def test_maps_that_agree_everywhere_are_not_randomized():
    first = half_maps(4, 20).first
    curves = masked_fsc(Halves(first, first), soft_edge(RADII < 16), GRID)
    assert curves.start == GRID.shells
    np.testing.assert_allclose(curves.corrected, 1, rtol=1e-5)
    assert curves.resolution() == pytest.approx(GRID.resolution(31))


def test_random_phases_depend_on_the_seed_alone():
    halves, mask = half_maps(5, 10), soft_edge(RADII < 16)
    one, again, other = (masked_fsc(halves, mask, GRID, seed).randomized for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one[:8], other[:8], atol=0.01)


def test_a_mask_of_nothing_has_no_correlation():
    curves = masked_fsc(half_maps(6, 10), np.zeros(GRID.volume_shape, np.float32), GRID)
    assert not curves.corrected.any()

"""Soft masks of volumes and of images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import random_molecule
from scipy.spatial.transform import Rotation

from recovar.core import masks
from recovar.core.halves import Halves
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA
from recovar.errors import InputError


def ball(size, radius, centre=(0, 0, 0)):
    axes = [np.arange(size) - size // 2 - c for c in centre]
    return sum(np.ix_(*[axis**2 for axis in axes])[1:], start=axes[0][:, None, None] ** 2) <= (
        radius**2
    )


@given(distance=st.integers(0, 6), width=st.floats(1, 5))
def test_soft_edge_is_a_cosine_of_the_distance(distance, width):
    binary = np.zeros((16, 16, 16), bool)
    binary[8, 8, 8] = True
    expected = 0.5 + 0.5 * np.cos(np.pi * min(distance / width, 1))
    assert masks.soft_edge(binary, width)[8, 8, 8 + distance] == pytest.approx(expected, abs=1e-6)


def test_soft_edge_of_nothing_is_zero():
    assert not masks.soft_edge(np.zeros((8, 8, 8), bool)).any()


def test_dilation_adds_face_neighbours():
    binary = np.zeros((9, 9, 9), bool)
    binary[4, 4, 4] = True
    offsets = np.abs(np.indices((9, 9, 9)) - 4).sum(0)
    for steps in range(4):
        np.testing.assert_array_equal(masks.dilate(binary, steps), offsets <= steps)


def test_window_keeps_the_centre_and_a_constant():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(32, 32, 32)).astype(np.float32)
    windowed = masks.window_volume(volume)
    np.testing.assert_allclose(windowed[masks.sphere(32)], volume[masks.sphere(32)], rtol=1e-5)
    assert np.ptp(windowed[~ball(32, 19)]) < 1e-6
    np.testing.assert_allclose(masks.window_volume(np.full_like(volume, 3)), 3, rtol=1e-5)


def test_otsu_splits_two_classes():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0, 1, 5000), rng.normal(10, 1, 300)]
    # The class of the larger variance in number draws the threshold towards itself.
    assert 3 < masks.otsu_threshold(values) < 8


def test_a_mask_from_halfmaps_holds_the_molecule_and_little_else():
    molecule = random_molecule(0, blobs=30, spread=4.0)
    truth = molecule.volume(64)
    rng = np.random.default_rng(1)
    halves = Halves(
        *(truth + 0.3 * truth.std() * rng.normal(size=truth.shape) for _ in range(2))
    ).map(np.float32)
    found = masks.mask_from_halfmaps(halves)
    assert truth[found.binary].sum() > 0.95 * truth.sum()  # a blob may stand apart
    assert found.binary.mean() < 0.15
    assert (found.dilated >= found.mask).all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_flat_map_gives_a_mask_without_warnings(level):
    flat = np.full((16, 16, 16), level, np.float32)
    assert np.isfinite(masks.mask_from_halfmaps(Halves(flat, flat)).mask).all()


def test_a_user_mask_is_thresholded_or_kept():
    given_mask = 0.8 * ball(32, 6).astype(np.float32)
    assert masks.mask_from_volume(given_mask).mask.max() == 1
    np.testing.assert_array_equal(masks.mask_from_volume(given_mask, keep=True).mask, given_mask)
    grown = masks.mask_from_volume(given_mask, 2)
    np.testing.assert_array_equal(grown.binary, masks.dilate(given_mask > 0.5, 2))
    with pytest.raises(InputError, match="values above"):
        masks.mask_from_volume(0.5 * given_mask)


@pytest.mark.parametrize("size", [32, 80])
def test_the_image_mask_of_a_ball_is_a_disc_of_the_right_place(size):
    radius, centre = size * 0.25, np.array([size // 8, 0, -(size // 16)])  # z y x
    projector = masks.project_mask(masks.soft_edge(ball(size, radius, centre)))
    turns = Rotation.random(5, rng=np.random.default_rng(0)).as_matrix().astype(np.float32)
    found = projector.image_masks(turns, NUMBA.slice_volumes, 3)
    shadow = turns[:, :2] @ centre[::-1].astype(np.float32)
    axis = np.arange(size) - size // 2
    x, y = axis - shadow[:, 0, None], axis - shadow[:, 1, None]
    distance = np.hypot(y[:, :, None], x[:, None])
    assert found[distance < radius - 3].min() > 0.99
    assert found[distance > radius + 6].max() < 0.01


def test_both_operators_give_the_same_image_masks():
    projector = masks.project_mask(masks.soft_edge(ball(32, 8)))
    turns = Rotation.random(3, rng=np.random.default_rng(0)).as_matrix().astype(np.float32)
    one, other = (
        projector.image_masks(turns, operators.slice_volumes, windowed=True)
        for operators in (NUMBA, REFERENCE)
    )
    np.testing.assert_allclose(one, other, atol=0.05)  # a pixel at the threshold may differ


def test_softening_keeps_the_mean_and_the_centre():
    image = np.zeros((1, 32, 32), np.float32)
    image[0, 16, 16] = 1
    soft = masks.soften(image, 5)[0]
    assert soft.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(soft[1:, 1:], soft[:0:-1, :0:-1], atol=1e-7)

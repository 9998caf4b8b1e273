import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recovar.rendering import (
    FRONT,
    ValueColours,
    View,
    default_level,
    draw_surface,
    face,
    make_surface,
    project,
    render_surface,
    turntable,
)

SIZE = 32
AXIS = np.arange(SIZE) - SIZE // 2
GRID = np.stack(np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")[::-1], -1)  # x y z
CLOUD = np.array([[5.0, 1, -2], [-4, 3, 1], [0, -5, 4], [2, 2, 6]])
TURNS = st.integers(0, 2**16).map(lambda seed: Rotation.random(rng=seed).as_matrix())


def blobs(centres, width=2.5):
    squares = ((GRID[..., None, :] - centres) ** 2).sum(-1)
    return np.exp(-0.5 * squares / width**2).sum(-1).astype(np.float32)


def ball(radius):
    """A ball whose values fall linearly through 1 at its radius."""
    return np.clip(1 + (radius - np.linalg.norm(GRID, axis=-1)) / 4, 0, 2).astype(np.float32)


def brightness(picture):
    return picture[..., :3].mean(-1) * (picture[..., 3] > 0)


def test_the_front_view_is_the_sum_over_z():
    volume = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(project(volume), volume.sum(0))


@given(rotation=TURNS)
@settings(max_examples=4)
def test_turning_volume_and_view_together_leaves_projections_as_they_are(rotation):
    together = project(blobs(CLOUD @ rotation), View(rotation))
    np.testing.assert_allclose(together, project(blobs(CLOUD)), atol=0.4)
    assert np.abs(project(blobs(CLOUD @ rotation)) - project(blobs(CLOUD))).max() < 10


@given(rotation=TURNS)
@settings(max_examples=4)
def test_turning_volume_and_view_together_leaves_surfaces_as_they_are(rotation):
    still = render_surface(blobs(CLOUD), 0.4, pixels=64).astype(int)
    turned = render_surface(blobs(CLOUD @ rotation), 0.4, View(rotation), pixels=64).astype(int)
    differs = np.abs(turned - still).max(-1) > 25
    assert differs.sum() < 0.04 * (still[..., 3] > 0).sum()


@pytest.mark.parametrize("radius", [5.0, 8.5, 12.0])
def test_a_ball_is_a_disc_of_its_radius(radius):
    picture = render_surface(ball(radius), 1.0, pixels=160)
    area = picture[..., 3].sum() / 255
    assert np.sqrt(area / np.pi) * SIZE / 160 == pytest.approx(radius, rel=0.01)
    rows, columns = np.nonzero(picture[..., 3])
    assert rows.mean() == pytest.approx(79.5, abs=0.5)
    assert columns.mean() == pytest.approx(79.5, abs=0.5)


def test_narrower_views_show_less_of_the_box():
    near = render_surface(ball(6.0), 1.0, View(width=0.5), pixels=160)[..., 3].sum()
    far = render_surface(ball(6.0), 1.0, FRONT, pixels=160)[..., 3].sum()
    assert near == pytest.approx(4 * far, rel=0.02)


def test_what_the_view_is_centred_on_is_in_the_middle():
    at = np.array([6.0, -4.0, 3.0])
    picture = render_surface(blobs(at[None]), 0.4, View(centre=at / SIZE), pixels=120)
    assert np.argwhere(picture[..., 3]).mean(0) == pytest.approx([59.5, 59.5], abs=0.5)


def test_a_ball_looks_the_same_from_everywhere():
    surface = make_surface(blobs(np.zeros((1, 3)), width=6.0), 0.4)
    first = draw_surface(surface, FRONT, 80).astype(int)
    for view in (FRONT.turned(0.8), View(Rotation.random(rng=1).as_matrix())):
        other = draw_surface(surface, view, 80).astype(int)
        assert (np.abs(other - first).max(-1) > 12).mean() < 0.02


def test_light_falls_from_the_upper_left():
    light = brightness(render_surface(ball(10.0), 1.0, pixels=80))
    assert light[20:36, 20:36].mean() > 1.2 * light[44:60, 44:60].mean()


def test_x_is_right_y_is_up_and_larger_z_is_in_front():
    corner = render_surface(blobs(np.array([[8.0, 6.0, 0.0]])), 0.5, pixels=64)[..., 3]
    rows, columns = np.nonzero(corner)
    assert rows.max() < 32 < columns.min()
    pair = blobs(np.array([[0.0, 0, 8], [0.0, 0, -8]]))
    values = np.broadcast_to(AXIS[:, None, None], pair.shape).astype(np.float32)
    picture = render_surface(pair, 0.5, FRONT, ValueColours(values, (-8.0, 8.0), "bwr"), 64)
    red, blue = picture[32, 32, 0], picture[32, 32, 2]
    assert red > 2 * blue


def test_a_turn_brings_what_is_in_front_to_the_right():
    surface = make_surface(blobs(np.array([[0.0, 0, 9]])), 0.5)
    columns = np.nonzero(draw_surface(surface, FRONT.turned(np.pi / 2), 64)[..., 3])[1]
    assert columns.min() > 40


@pytest.mark.parametrize("level", [3.0, 1e9])
def test_nothing_is_drawn_above_the_largest_value(level):
    picture = render_surface(ball(8.0), level, pixels=32)
    assert picture.shape == (32, 32, 4)
    assert not picture.any()
    assert face(ball(8.0), level) is FRONT


def test_dust_is_not_drawn():
    clean, dirty = ball(9.0), ball(9.0)
    dirty[2, 2, 2] = 5
    assert not draw_surface(make_surface(dirty, 1.0), pixels=64)[48:, :16, 3].any()
    assert draw_surface(make_surface(dirty, 1.0, dust=0.0), pixels=64)[48:, :16, 3].any()
    kept = render_surface(dirty, 1.0, pixels=64).astype(int) - render_surface(clean, 1.0, pixels=64)
    assert (np.abs(kept).max(-1) > 12).mean() < 0.02


def test_large_and_small_boxes_show_the_same():
    small = render_surface(blobs(CLOUD), 0.4, pixels=64).astype(int)
    fine = np.clip(np.kron(blobs(CLOUD), np.ones((5, 5, 5), np.float32)), 0, None)
    large = render_surface(np.roll(fine, -2, (0, 1, 2)), 0.4, pixels=64).astype(int)
    assert large.shape == small.shape
    assert np.abs(large - small)[..., 3].mean() < 255 * 0.03


def test_the_level_lies_between_solvent_and_molecule():
    random = np.random.default_rng(0)
    molecule = (ball(8.0) > 1) * 3.0
    volume = (molecule + random.normal(0, 0.1, molecule.shape)).astype(np.float32)
    level = default_level(volume, (ball(11.0) > 1).astype(np.float32))
    assert 0.25 < level < 2.5
    assert default_level(2 * volume, (ball(11.0) > 1).astype(np.float32)) == pytest.approx(
        2 * level, rel=1e-3
    )


def test_noise_beyond_the_mask_raises_the_level():
    volume = np.where(ball(11.0) > 1, 0.1, np.random.default_rng(0).normal(size=(SIZE,) * 3))
    level = default_level(volume.astype(np.float32), (ball(11.0) > 1).astype(np.float32))
    assert level == pytest.approx(3, rel=0.05)


def test_a_broad_side_has_its_length_from_left_to_right():
    long = blobs(np.array([[2.0, t + 1.0, 0.3 * t] for t in range(-9, 10, 3)]))
    view = face(long, 0.5)
    rows, columns = np.nonzero(render_surface(long, 0.5, view, pixels=100)[..., 3])
    assert np.ptp(columns) > 2 * np.ptp(rows)
    assert min(rows.min(), columns.min()) > 0
    assert max(rows.max(), columns.max()) < 99
    np.testing.assert_allclose(np.cross(view.rotation[0], view.rotation[1]), view.rotation[2])


def test_a_turntable_begins_in_front_and_stays_within_the_picture():
    volume = blobs(CLOUD)
    view, surface = face(volume, 0.4), make_surface(volume, 0.4)
    frames = list(turntable(surface, view, frames=5, pixels=48))
    np.testing.assert_array_equal(frames[0], draw_surface(surface, view, 48))
    border = np.ones((48, 48), bool)
    border[1:-1, 1:-1] = False
    assert not any(frame[border, 3].any() for frame in frames)


def test_pictures_take_a_moment():
    volume = blobs(CLOUD)
    render_surface(volume, 0.4)
    start = time.process_time()
    render_surface(volume, 0.4, face(volume, 0.4))
    assert time.process_time() - start < 1

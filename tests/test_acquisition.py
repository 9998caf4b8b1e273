import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.acquisition import (
    NO_TRANSFER,
    Choice,
    Conditions,
    Kind,
    TiltScheme,
    draw_truth,
    noise_from_profile,
    noise_shape,
    pixel_variance,
    random_stream,
    white_noise,
)
from recovar.core.ctf import transfer_function
from recovar.core.grid import Grid, expand_shells, image_radii
from recovar.core.poses import random_rotations
from recovar.data.legacy import (
    FractionalPoses,
    optics_from_ctf_rows,
    read_ctf_pickle,
    read_poses_pickle,
)
from recovar.errors import InputError

GRID = Grid(16, 4.0)
WIDTH = 64.0
MANY = 4000


def draw(count=MANY, seed=5, **conditions):
    states = np.arange(count)[:, None] % 7
    return draw_truth(
        states, GRID, Conditions(**conditions), seed, other_states=np.array([[1.0, 2.0]])
    )


def given_poses(count):
    generator = np.random.default_rng(0)
    return FractionalPoses(
        random_rotations(count, generator), generator.uniform(-0.1, 0.3, (count, 2))
    )


def test_drawn_conditions_are_as_asked():
    truth = draw(defocus=(1e4, 2e4), shift=2.0, contrast=0.2, preferred=0.5)
    mean = (truth.optics.defocus_u + truth.optics.defocus_v) / 2
    assert 1e4 <= mean.min() < 1.1e4
    assert 1.9e4 < mean.max() <= 2e4
    assert (truth.optics.defocus_u >= truth.optics.defocus_v).all()
    np.testing.assert_allclose(truth.shifts.std(0), 2.0, rtol=0.06)
    assert truth.contrast.std() == pytest.approx(0.2, rel=0.06)
    assert truth.contrast.mean() == pytest.approx(1, abs=0.02)
    products = truth.rotations @ truth.rotations.swapaxes(1, 2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(truth.rotations), 1)
    # Of the preferred views 64 % lie within 23° of y, of the others 4 %.
    assert (truth.rotations[:, 2, 1] > 0.92).mean() == pytest.approx(0.34, abs=0.03)


def test_what_is_not_asked_for_does_not_happen():
    truth = draw()
    np.testing.assert_array_equal(truth.noise_scale, 1)
    for name in ("baseline", "offset", "tilt", "dose", "kind", "defocus_error", "pose_error"):
        assert not getattr(truth, name).any()
    assert not np.asarray(truth.optics.b_factor).any()
    assert not len(truth.others)
    assert not len(truth.neighbours)
    np.testing.assert_array_equal(truth.particle, np.arange(MANY))


def test_a_choice_does_not_depend_on_the_others():
    plain = draw()
    full = draw(
        noise_scale=0.2, baseline=1.0, empty=0.2, other=0.2, off_centre=0.2, neighbours=0.3,
        b_factor=(0.0, 50.0), defocus_error=300.0, pose_error=0.1, shift_error=2.0,
    )  # fmt: skip
    for name in ("rotations", "shifts", "contrast"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(full, name))
    np.testing.assert_array_equal(plain.optics.defocus_u, full.optics.defocus_u)


def test_streams_of_other_choices_images_and_seeds_differ():
    keys = [(0, Choice.NOISE, 0), (0, Choice.NOISE, 1), (1, Choice.NOISE, 0), (0, Choice.KIND, 0)]
    numbers = [random_stream(*key).random() for key in keys]
    assert len(set(numbers)) == 4
    assert random_stream(*keys[1]).random() == numbers[1]


def test_factors_and_offsets_have_their_spreads():
    truth = draw(noise_scale=0.1, baseline=2.0, b_factor=(20.0, 60.0), contrast=1.0)
    assert truth.noise_scale.std() == pytest.approx(0.1, rel=0.06)
    assert truth.noise_scale.mean() == pytest.approx(1, abs=0.01)
    assert truth.baseline.std() == pytest.approx(2.0, rel=0.06)
    b_factor = np.asarray(truth.optics.b_factor)
    assert 20 <= b_factor.min() < 21
    assert 59 < b_factor.max() <= 60
    assert truth.contrast.min() == pytest.approx(0.1)


def test_given_poses_and_optics_are_drawn_from_independently():
    poses = given_poses(50)
    rows = np.random.default_rng(1).uniform(1, 2, (60, 9)) * [1, 1, 1e4, 1e4, 9, 200, 1, 0.1, 9]
    optics = optics_from_ctf_rows(rows)
    truth = draw(poses=poses, optics=optics)
    distance = np.abs(truth.rotations[:, None] - poses.rotations).sum((2, 3))
    pose = distance.argmin(1)
    np.testing.assert_array_equal(truth.rotations, poses.rotations[pose])
    np.testing.assert_allclose(truth.shifts, WIDTH * poses.shift_fractions[pose])
    lens = np.abs(np.asarray(truth.optics.defocus_u)[:, None] - optics.defocus_u).argmin(1)
    for name, values in vars(optics).items():
        np.testing.assert_array_equal(getattr(truth.optics, name), values[lens])
    # 3,000 cells, 1.33 images each on average: mutual information as of independent draws.
    counts = np.zeros((50, 60))
    np.add.at(counts, (pose, lens), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / MANY
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = 49 * 59
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_given_rows_are_used_once_where_there_are_enough():
    poses = given_poses(100)
    truth = draw(90, poses=poses)
    assert len(np.unique(truth.rotations[:, 0, 0])) == 90
    assert len(np.unique(draw(101, poses=poses).rotations[:, 0, 0])) < 90


def test_without_a_transfer_function_everything_passes():
    truth = draw(20, optics=NO_TRANSFER)
    x = np.linspace(0, 0.5, 7)
    np.testing.assert_allclose(transfer_function(truth.optics, x, x), 1, atol=1e-6)


def test_junk_has_its_shares():
    truth = draw(empty=0.1, other=0.2, off_centre=0.3, neighbours=0.4)
    shares = np.bincount(truth.kind, minlength=4) / MANY
    # 4,000 images: 4 standard errors.
    np.testing.assert_allclose(shares, [0.4, 0.1, 0.2, 0.3], atol=0.03)
    np.testing.assert_array_equal(truth.others.rows, np.flatnonzero(truth.kind == Kind.OTHER))
    assert (truth.others.states == [1.0, 2.0]).all()
    assert not truth.others.offsets.any()
    told = truth.rotations[truth.others.rows]
    angles = np.einsum("nij,nij->n", told, truth.others.rotations)
    assert abs(angles.mean()) < 4 * angles.std() / len(angles) ** 0.5
    assert len(truth.neighbours) / MANY == pytest.approx(0.4, abs=0.03)
    assert (np.diff(truth.neighbours.rows) > 0).all()
    distance = np.linalg.norm(truth.neighbours.offsets, axis=1) / WIDTH
    assert 0.45 <= distance.min() < 0.46
    assert 0.74 < distance.max() <= 0.75
    np.testing.assert_allclose(np.bincount(truth.neighbours.states[:, 0]) / 1600, 1 / 7, atol=0.04)


def test_only_what_is_off_centre_is_displaced():
    truth = draw(off_centre=0.5, displacement=(0.2, 0.4))
    length = np.linalg.norm(truth.offset, axis=1) / WIDTH
    off = truth.kind == Kind.OFF_CENTRE
    assert not length[~off].any()
    assert 0.2 <= length[off].min() < 0.21
    assert 0.39 < length[off].max() <= 0.4
    assert np.abs(truth.offset[off].mean(0)).max() < 0.02 * WIDTH


def test_errors_of_files_have_their_spreads_and_change_what_is_true_alone():
    truth = draw(defocus_error=300.0, pose_error=0.05, shift_error=2.0, off_centre=0.1)
    assert truth.defocus_error.std() == pytest.approx(300, rel=0.05)
    told, true = truth.optics, truth.true_optics
    for name in ("defocus_u", "defocus_v"):
        found = np.asarray(getattr(true, name), np.float64) - getattr(told, name)
        np.testing.assert_allclose(found, truth.defocus_error, atol=0.01)
    between = truth.true_rotations @ truth.rotations.swapaxes(1, 2)
    angles = np.arccos((np.trace(between, axis1=1, axis2=2) - 1) / 2)
    np.testing.assert_allclose(angles, np.linalg.norm(truth.pose_error, axis=1), atol=1e-6)
    np.testing.assert_allclose(truth.pose_error.std(0), 0.05, rtol=0.05)
    here = truth.kind == Kind.MOLECULE
    np.testing.assert_allclose(truth.offset[here].std(0), 2.0, rtol=0.05)
    assert np.linalg.norm(truth.offset[~here], axis=1).min() >= 0.2 * WIDTH
    np.testing.assert_array_equal(draw().true_rotations, draw().rotations)


def test_errors_of_files_turn_a_tilted_particle_as_a_whole():
    scheme = TiltScheme(count=4, step=0.3)
    single = draw(20, pose_error=0.1, defocus_error=100.0)
    truth = draw(20, pose_error=0.1, defocus_error=100.0, tilts=scheme)
    level = truth.true_rotations[::4]
    np.testing.assert_allclose(level, single.true_rotations, atol=1e-12)
    plain = draw(5, tilts=scheme)
    tilts = plain.rotations @ np.repeat(plain.rotations[::4], 4, axis=0).swapaxes(1, 2)
    expected = tilts[:4] @ single.true_rotations[:, None]
    np.testing.assert_allclose(truth.true_rotations, expected.reshape(-1, 3, 3), atol=1e-12)
    np.testing.assert_array_equal(truth.defocus_error, np.repeat(single.defocus_error, 4))


@pytest.mark.parametrize(
    "shares", [{"empty": -0.1}, {"neighbours": 1.1}, {"empty": 0.6, "other": 0.6}]
)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(InputError, match="Expected shares of images between 0 and 1"):
        Conditions(**shares)


def test_another_molecule_needs_states():
    with pytest.raises(InputError, match="images shall show another molecule"):
        draw_truth(np.zeros((50, 1)), GRID, Conditions(other=0.5), 0)


def test_tilts_are_dose_symmetric():
    angles = TiltScheme(count=7, step=0.1).angles()
    np.testing.assert_allclose(angles, [0, 0.1, -0.1, -0.2, 0.2, 0.3, -0.3])
    for count in (3, 4, 41):
        angles = TiltScheme(count=count, step=1.0).angles()
        assert len(np.unique(angles)) == count
        assert (np.diff(np.abs(angles)) >= 0).all()


def test_images_of_a_tilt_series_show_one_particle():
    scheme = TiltScheme(count=5, step=0.2, dose=2.5, thickening=True)
    full = {"empty": 0.2, "other": 0.2, "off_centre": 0.2, "neighbours": 0.5, "noise_scale": 0.1}
    single, truth = draw(60, **full), draw(60, **full, tilts=scheme)
    assert len(truth.states) == 300
    np.testing.assert_array_equal(truth.particle, np.repeat(np.arange(60), 5))
    np.testing.assert_array_equal(truth.tilt[:5], scheme.angles())
    np.testing.assert_array_equal(truth.dose[5:10], [0, 2.5, 5, 7.5, 10])
    for name in ("states", "contrast", "kind"):
        np.testing.assert_array_equal(
            getattr(truth, name), getattr(single, name)[truth.particle], err_msg=name
        )
    np.testing.assert_allclose(truth.optics.scale, np.cos(truth.tilt), rtol=1e-6)
    np.testing.assert_allclose(truth.optics.b_factor, 4 * truth.dose)
    expected = single.noise_scale[truth.particle] / np.cos(truth.tilt)
    np.testing.assert_allclose(truth.noise_scale, expected)


def test_tilting_moves_the_whole_scene_about_the_y_axis():
    """A point of the molecule, and the neighbours in the plane, are seen where geometry says."""
    scheme = TiltScheme(count=4, step=0.3)
    full = {"off_centre": 0.5, "neighbours": 0.5}
    single, truth = draw(40, **full), draw(40, **full, tilts=scheme)
    place = np.array([3.0, -2.0, 5.0])
    x, y, z = (single.rotations @ place).T[:, truth.particle]
    seen = truth.rotations @ place
    np.testing.assert_allclose(seen[:, 0], np.cos(truth.tilt) * x + np.sin(truth.tilt) * z)
    np.testing.assert_allclose(seen[:, 1], y)
    for name in ("shifts", "offset"):
        flat = getattr(single, name)[truth.particle]
        np.testing.assert_allclose(getattr(truth, name)[:, 0], np.cos(truth.tilt) * flat[:, 0])
        np.testing.assert_allclose(getattr(truth, name)[:, 1], flat[:, 1])
    guests = truth.neighbours
    np.testing.assert_array_equal(np.unique(truth.particle[guests.rows]), single.neighbours.rows)
    np.testing.assert_allclose(
        guests.offsets[:, 0],
        np.cos(truth.tilt[guests.rows]) * np.repeat(single.neighbours.offsets[:, 0], 4),
    )


def test_jitter_is_told_and_differs_between_tilts():
    plain = draw(500, tilts=TiltScheme(count=3))
    shaken = draw(500, tilts=TiltScheme(count=3, jitter=2.0))
    np.testing.assert_allclose((shaken.shifts - plain.shifts).std(0), 2.0, rtol=0.1)
    np.testing.assert_array_equal(shaken.rotations, plain.rotations)


def pixels_of(noise):
    """The variance of pixels, summed over the coefficients that an image stores."""
    weights = np.full(9, 2.0)
    weights[[0, -1]] = 1
    return (weights * expand_shells(noise, image_radii(16))).sum() / 16**4


@given(seed=st.integers(0, 2**16), pixel_size=st.none() | st.floats(0.5, 8))
def test_noise_has_pixels_of_unit_variance(seed, pixel_size):
    profile = np.random.default_rng(seed).uniform(0.1, 5, 12)
    for noise in (
        noise_shape(GRID),
        white_noise(GRID),
        noise_from_profile(profile, GRID, 24, pixel_size),
    ):
        assert noise.shape == (8,)
        assert pixels_of(noise) == pytest.approx(1)
        assert pixel_variance(noise, 16) == pytest.approx(1)


def test_made_up_noise_falls_with_frequency():
    assert (np.diff(noise_shape(GRID)) < 0).all()


def test_a_profile_is_taken_at_the_same_frequencies():
    """Power 1 + i on shell i of a box of 32: twice as many shells for the same cycles per pixel."""
    profile = 1.0 + np.arange(16)
    relative = noise_from_profile(profile, GRID, 32)
    expected = np.array([2, 3, 5, 7, 9, 11, 13, 15.0])
    np.testing.assert_allclose(relative / relative[1], expected / 3)
    # The same box in Å: shells are the same, as far as they go.
    absolute = noise_from_profile(profile, GRID, 16, 4.0)
    np.testing.assert_allclose(absolute / absolute[1], np.array([2, 2, 3, 4, 5, 6, 7, 8]) / 2)
    finer = noise_from_profile(profile[:4], GRID, 16, 8.0)
    np.testing.assert_allclose(finer / finer[1], np.array([2, 3, 4, 4, 4, 4, 4, 4]) / 3)


@pytest.mark.parametrize("profile", [[1.0], [1.0, 2.0, 0.0], [1.0, np.nan]])
def test_a_profile_without_power_is_refused(profile):
    with pytest.raises(InputError, match="Expected a profile of noise with finite power above 0"):
        noise_from_profile(np.array(profile), GRID, 16)


def test_measured_poses_optics_and_noise_work_as_they_are(shared):
    path = shared / "data" / "empiar10076_poses_ctf.npz"
    poses, optics = read_poses_pickle(path), optics_from_ctf_rows(read_ctf_pickle(path))
    with np.load(path) as content:
        noise = noise_from_profile(content["noise_psd"], GRID, 256)
    truth = draw_truth(
        np.zeros((MANY, 1)), GRID, Conditions(poses=poses, optics=optics), 0, noise=noise
    )
    assert pixels_of(truth.noise) == pytest.approx(1)
    mean = poses.shift_fractions.mean(0)
    np.testing.assert_allclose(truth.shifts.mean(0) / WIDTH, mean, atol=0.002)
    np.testing.assert_allclose(
        np.quantile(truth.optics.defocus_u, (0.1, 0.5, 0.9)),
        np.quantile(optics.defocus_u, (0.1, 0.5, 0.9)),
        rtol=0.05,
    )


def test_streams_are_started_once_for_all_images(monkeypatch):
    """Only arrays: no loop over images could take so few calls."""
    starts = []
    original = np.random.Philox

    def count(*args, **options):
        starts.append(options)
        return original(*args, **options)

    monkeypatch.setattr(np.random, "Philox", count)
    draw(2000, empty=0.1, other=0.1, off_centre=0.1, neighbours=0.1)
    assert len(starts) < 25

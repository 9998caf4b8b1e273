from dataclasses import replace

import equinox as eqx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.ctf import Optics, transfer_function
from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.projection import centring_factors
from recovar.data.bank import ImageBank
from recovar.data.mrc import read_volume
from recovar.data.particles import read_particles
from recovar.records import load_arrays
from recovar.simulate_scattering_potential import AtomicSpecimen, Atoms
from recovar.simulator import (
    Choice,
    Conditions,
    Simulation,
    draw_truth,
    noise_shape,
    random_stream,
    write_simulation,
)
from recovar.specimens import VolumeSpecimen

GRID = Grid(16, 4.0)
DISC = Disc(16, 7)
IMAGES = 11
CONDITIONS = Conditions(defocus=(2_000.0, 6_000.0), shift=3.0)
POSITIONS = np.random.default_rng(0).normal(scale=8.0, size=(30, 3))


def atoms_at(state):
    """Two groups of atoms that move apart."""
    moved = POSITIONS + np.where(np.arange(30) < 15, 1.0, -1.0)[:, None] * state
    return Atoms(moved, np.full(30, "C"), 200.0)


SPECIMEN = AtomicSpecimen(atoms_at)


def flat_optics(images=IMAGES):
    """A microscope that transfers everything."""
    return Optics(*(np.full(images, v) for v in (0.0, 0.0, 0.0, 300.0, 0.0, -1.0, 0.0, 0.0, 1.0)))


def simulation(images=IMAGES, grid=GRID, seed=0, **changes):
    states = random_stream(seed, Choice.STATE).random((images, 1)) * 5
    return Simulation(SPECIMEN, grid, draw_truth(states, grid, CONDITIONS, seed), **changes)


def quiet(sim):
    return replace(sim, truth=replace(sim.truth, noise=0 * sim.truth.noise))


def everything(sim):
    return np.arange(len(sim))


def spectra_of(images):
    return DISC.from_spectra(to_spectrum(np.asarray(images, np.float64), 2))


@pytest.mark.parametrize("delocalized", [True, False])
@pytest.mark.parametrize("kind", ["atoms", "volumes"])
def test_images_do_not_depend_on_the_block_or_on_images_after_them(kind, delocalized):
    sim = simulation(delocalized=delocalized)
    if kind == "volumes":
        volumes = np.stack([SPECIMEN.volume(np.array([s]), GRID) for s in range(6)])
        sim = replace(sim, specimen=VolumeSpecimen(volumes))
    whole = sim.images(everything(sim))
    pieces = [sim.images(rows) for rows in np.split(everything(sim), [1, 4, 9])]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(sim.images(np.array([7, 2])), whole[[7, 2]])
    first = replace(simulation(5, delocalized=delocalized), specimen=sim.specimen)
    np.testing.assert_array_equal(first.images(everything(first)), whole[:5])
    np.testing.assert_array_equal(np.concatenate(list(sim.blocks())), whole)


def test_another_seed_gives_other_images():
    first, second = (simulation(2, seed=seed).truth for seed in (0, 1))
    for name in ("states", "rotations", "shifts", "contrast"):
        assert not np.isclose(getattr(first, name), getattr(second, name)).any()
    images = simulation(2)
    other = replace(images, truth=replace(images.truth, seed=1))
    assert np.abs(images.images(everything(images)) - other.images(everything(other))).max() > 1


def test_images_within_their_box_obey_the_model_exactly():
    sim = simulation(delocalized=False)
    truth = sim.truth
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(truth.optics, DISC.x * step, DISC.y * step)
    shift = centring_factors(truth.shifts, DISC, GRID.voxel_size).conj()
    slices = SPECIMEN.spectra(truth.states, truth.rotations, GRID)
    expected = truth.contrast[:, None] * transfer * shift * slices
    found = spectra_of(sim.signals(everything(sim)))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_wide_field_loses_what_a_narrow_one_wraps_around():
    # Where nothing leaves the box both agree; a strong defocus carries signal out of it.
    near = simulation()
    flat = flat_optics()
    near = replace(near, truth=replace(near.truth, optics=flat, shifts=0 * near.truth.shifts))
    wide, narrow = (replace(near, delocalized=d).signals(everything(near)) for d in (True, False))
    np.testing.assert_allclose(wide, narrow, atol=1e-5 * np.abs(narrow).max())
    far = eqx.tree_at(
        lambda o: (o.defocus_u, o.defocus_v, o.amplitude_contrast),
        flat,
        (flat.scale * 2e4, flat.scale * 2e4, flat.scale * 0),
    )
    strong = replace(near, truth=replace(near.truth, optics=far))
    wide, narrow = (replace(strong, delocalized=d).signals(everything(near)) for d in (True, False))
    assert np.square(wide).sum() < 0.97 * np.square(narrow).sum()


@pytest.mark.parametrize("delocalized", [True, False])
def test_moving_an_image_by_its_shift_centres_it(delocalized):
    sim = simulation(delocalized=delocalized)
    pixels = np.array([[x, y] for x in (-2, 0, 1) for y in (-1, 2, 0)] + [[0, 0]] * 2)
    truth = replace(sim.truth, optics=flat_optics())
    moved = replace(sim, truth=replace(truth, shifts=pixels * GRID.voxel_size))
    still = replace(sim, truth=replace(truth, shifts=pixels * 0.0))
    images = moved.signals(everything(sim))
    back = [np.roll(image, (y, x), (0, 1)) for image, (x, y) in zip(images, pixels, strict=True)]
    expected = still.signals(everything(sim))
    inside = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(
        np.array(back)[inside], expected[inside], atol=2e-4 * np.abs(expected).max()
    )


def test_noise_has_its_power_on_every_shell_and_no_correlation():
    sim = simulation(1500)
    truth = replace(sim.truth, amplitude=0.0, noise=256.0 * np.linspace(3, 0.5, 8))
    noise = replace(sim, truth=truth).images(everything(sim))
    spectra = spectra_of(noise)
    # 1500 exponential variates per pixel: 5 standard errors.
    power = (np.abs(spectra) ** 2).mean(0)
    np.testing.assert_allclose(power[1:], truth.noise[DISC.shells][1:], rtol=5 / 1500**0.5)
    assert np.abs((spectra[:, 5] * spectra[:, 6].conj()).mean()) < 5 / 1500**0.5 * power[5]
    variance = noise.var()
    one = (noise[:, 0, 0] * noise[:, 8, 8]).mean()
    assert np.abs(one) < 0.3 * variance


def test_made_up_noise_has_pixels_of_unit_variance():
    sim = simulation(200)
    noise = replace(sim, truth=replace(sim.truth, amplitude=0.0)).images(everything(sim))
    assert noise.var() == pytest.approx(1, abs=0.05)
    assert (np.diff(noise_shape(GRID)) < 0).all()


@given(ratio=st.floats(0.01, 10))
def test_the_signal_is_scaled_to_its_share_of_the_noise(ratio):
    sim = simulation(6).at_signal_to_noise(ratio)
    signal = sim.signals(everything(sim))
    assert np.square(signal).mean() == pytest.approx(ratio, rel=1e-4)
    volume = sim.volume(sim.truth.states[0])
    plain = SPECIMEN.volume(sim.truth.states[0], GRID)
    np.testing.assert_allclose(volume, sim.truth.amplitude * plain, rtol=1e-5)


def test_drawn_conditions_are_as_asked():
    conditions = Conditions(defocus=(1e4, 2e4), shift=2.0, contrast=0.2, preferred=0.5)
    truth = draw_truth(np.zeros((4000, 1)), GRID, conditions, seed=5)
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


@pytest.mark.parametrize("name", ["particles.star", "particles.cs"])
def test_written_images_are_read_with_their_poses_optics_and_truth(tmp_path, name):
    sim = quiet(simulation(delocalized=False))
    write_simulation(sim, tmp_path, states=np.array([[0.0], [2.0]]))
    particles = read_particles(tmp_path / name)
    bank = ImageBank(particles, everything(sim) % 2, memory=0)
    (batch,) = bank.blocks()
    truth = sim.truth
    slices = SPECIMEN.spectra(truth.states, truth.rotations, GRID)
    expected = truth.contrast[:, None] * batch.transfer * slices
    # Files keep float32: defoci to 1 mÅ and rotation vectors to 1e-7.
    assert np.abs(batch.values - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(batch.rows, everything(sim))


def test_pickles_hold_the_same_poses_and_optics(tmp_path):
    sim = quiet(simulation())
    write_simulation(sim, tmp_path, states=np.zeros((0, 1)))
    plain = read_particles(tmp_path / "particles.star")
    pickled = read_particles(
        tmp_path / "particles.mrcs", poses=tmp_path / "poses.pkl", ctf=tmp_path / "ctf.pkl"
    )
    np.testing.assert_allclose(pickled.rotations, plain.rotations, atol=1e-9)
    np.testing.assert_allclose(pickled.shifts, plain.shifts, atol=1e-9)
    for name, values in vars(plain.optics).items():
        np.testing.assert_allclose(getattr(pickled.optics, name), values, rtol=1e-5, atol=1e-6)
    assert pickled.pixel_size == pytest.approx(plain.pixel_size)


def test_the_truth_is_written_beside_the_images(tmp_path):
    sim = simulation().at_signal_to_noise(0.1)
    states = np.array([[0.0], [2.0]])
    write_simulation(sim, tmp_path, states)
    truth = load_arrays(tmp_path / "truth" / "truth.npz")
    for name in ("states", "rotations", "shifts", "contrast", "noise", "amplitude", "seed"):
        np.testing.assert_array_equal(truth[name], getattr(sim.truth, name))
    np.testing.assert_array_equal(truth["defocus_u"], sim.truth.optics.defocus_u)
    np.testing.assert_array_equal(truth["volume_states"], states)
    second = read_volume(tmp_path / "truth" / "volume_001.mrc")
    np.testing.assert_array_equal(second.values, sim.volume(states[1]))
    assert second.voxel_size == pytest.approx(4.0)

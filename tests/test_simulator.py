import json
from dataclasses import dataclass, replace

import equinox as eqx
import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.acquisition import (
    NO_TRANSFER,
    Choice,
    Conditions,
    Guests,
    Kind,
    TiltScheme,
    draw_truth,
    random_stream,
)
from recovar.core.ctf import Optics, transfer_function
from recovar.core.fourier import to_spectrum
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.projection import centring_factors
from recovar.data.atoms import Atoms
from recovar.data.bank import ImageBank
from recovar.data.mrc import read_volume
from recovar.data.particles import read_particles
from recovar.data.stack import ImageReader
from recovar.errors import InputError
from recovar.records import load_arrays
from recovar.simulate_scattering_potential import AtomicSpecimen
from recovar.simulator import Simulation, TrueStates, write_simulation
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


def busy(images=IMAGES, **changes):
    """Images of every kind, with all that can differ between them."""
    conditions = replace(
        CONDITIONS, noise_scale=0.2, baseline=0.5, b_factor=(0.0, 100.0), empty=0.15, other=0.15,
        off_centre=0.15, neighbours=0.4,
    )  # fmt: skip
    states = random_stream(0, Choice.STATE).random((images, 1)) * 5
    truth = draw_truth(states, GRID, conditions, 0, other_states=np.array([[-20.0], [20.0]]))
    return Simulation(SPECIMEN, GRID, truth, other=SPECIMEN, **changes)


@pytest.mark.parametrize("premultiplied", [True, False])
@pytest.mark.parametrize("delocalized", [True, False])
@pytest.mark.parametrize("kind", ["atoms", "volumes"])
def test_images_do_not_depend_on_their_block(kind, delocalized, premultiplied, monkeypatch):
    sim = busy(40, delocalized=delocalized, premultiplied=premultiplied)
    assert len(np.unique(sim.truth.kind)) == 4
    if kind == "volumes":
        volumes = np.stack([SPECIMEN.volume(np.array([s]), GRID) for s in range(6)])
        sim = replace(sim, specimen=VolumeSpecimen(volumes))
    whole = sim.images(everything(sim))
    pieces = [sim.images(rows) for rows in np.split(everything(sim), [1, 4, 9, 30])]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(sim.images(np.array([7, 2, 2])), whole[[7, 2, 2]])
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    np.testing.assert_array_equal(sim.images(np.arange(8)), whole[:8])


def test_images_do_not_depend_on_those_after_them():
    whole, first = simulation(), simulation(5)
    np.testing.assert_array_equal(
        first.images(everything(first)), whole.images(everything(whole))[:5]
    )


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


@given(ratio=st.floats(0.01, 10))
def test_the_signal_is_scaled_to_its_share_of_the_noise(ratio):
    sim = simulation(6).at_signal_to_noise(ratio)
    signal = sim.signals(everything(sim))
    assert np.square(signal).mean() == pytest.approx(ratio, rel=1e-4)
    volume = sim.volume(sim.truth.states[0])
    plain = SPECIMEN.volume(sim.truth.states[0], GRID)
    np.testing.assert_allclose(volume, sim.truth.amplitude * plain, rtol=1e-5)


@pytest.mark.parametrize("delocalized", [True, False])
def test_what_is_off_centre_lies_where_the_truth_says(delocalized):
    sim = simulation(delocalized=delocalized)
    truth = replace(sim.truth, optics=flat_optics(), shifts=np.zeros((IMAGES, 2)))
    pixels = np.tile([2, -1], (IMAGES, 1))
    kind = np.full(IMAGES, Kind.OFF_CENTRE)
    moved = replace(truth, kind=kind, offset=pixels * GRID.voxel_size)
    expected = np.roll(replace(sim, truth=truth).signals(everything(sim)), (-1, 2), (1, 2))
    found = replace(sim, truth=moved).signals(everything(sim))
    inside = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("premultiplied", [True, False])
def test_images_show_what_their_kind_says(premultiplied):
    """Every image is the sum of images that each show one thing."""
    sim = busy(40, delocalized=False, premultiplied=premultiplied)
    truth, found = sim.truth, sim.signals(np.arange(40))
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(truth.optics, DISC.x * step, DISC.y * step)
    transfer = truth.contrast[:, None] * transfer ** (1 + premultiplied)

    def show(states, rotations, shifts):
        slices = SPECIMEN.spectra(states, rotations, GRID)
        return slices * centring_factors(shifts, DISC, GRID.voxel_size).conj()

    expected = show(truth.states, truth.rotations, truth.shifts - truth.offset)
    expected[np.isin(truth.kind, (Kind.EMPTY, Kind.OTHER))] = 0
    assert (np.linalg.norm(truth.offset, axis=1) > 0).tolist() == (truth.kind == 3).tolist()
    for guests in (truth.others, truth.neighbours):
        shifts = truth.shifts[guests.rows] - guests.offsets
        expected[guests.rows] += show(guests.states, guests.rotations, shifts)
    expected *= transfer
    assert np.abs(spectra_of(found) - expected).max() < 2e-5 * np.abs(expected).max()
    empty = (truth.kind == Kind.EMPTY) & ~np.isin(np.arange(40), truth.neighbours.rows)
    assert empty.any()
    assert not found[empty].any()


def test_a_neighbour_beyond_the_box_is_not_seen():
    sim = simulation()
    truth = replace(
        sim.truth, kind=np.full(IMAGES, Kind.EMPTY), optics=flat_optics(), shifts=np.zeros((11, 2))
    )
    turned = replace(truth, neighbours=Guests(
        np.arange(IMAGES), truth.states, truth.rotations, np.tile([64.0, 0.0], (IMAGES, 1))
    ))  # fmt: skip
    plain = sim.signals(everything(sim))
    seen = replace(sim, truth=turned).signals(everything(sim))
    assert np.abs(seen).max() < 0.05 * np.abs(plain).max()


def test_an_unknown_other_molecule_is_refused():
    with pytest.raises(InputError, match="images show another molecule, but there is none"):
        replace(busy(40), other=None)


def test_premultiplied_noise_has_the_power_of_the_transfer_function():
    images, seed = 1500, 3
    sim = simulation(images, delocalized=True)
    optics = sim.truth.optics[np.zeros(images, np.int64)]
    noise = 256.0 * np.linspace(3, 0.5, 8)
    truth = replace(sim.truth, amplitude=0.0, noise=noise, optics=optics, seed=seed)
    wide = replace(sim, truth=truth, premultiplied=True)
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(optics[np.arange(1)], DISC.x * step, DISC.y * step)[0]
    narrow = replace(wide, delocalized=False)
    power = (np.abs(spectra_of(narrow.images(everything(sim)))) ** 2).mean(0)
    expected = noise[DISC.shells] * transfer**2
    np.testing.assert_allclose(power[1:], expected[1:], rtol=6 / images**0.5)
    # In a wide field frequencies are finer than the box tells apart: only sums agree.
    wider = (np.abs(spectra_of(wide.images(everything(sim)))) ** 2).mean(0)
    middle = (DISC.radii > 2) & (DISC.radii < 6)
    assert wider[middle].sum() == pytest.approx(expected[middle].sum(), rel=0.1)


def test_noise_and_baseline_differ_as_the_truth_says():
    sim = simulation(400)
    scale = np.repeat([0.5, 2.0], 200)
    baseline = np.linspace(-3, 3, 400)
    truth = replace(sim.truth, amplitude=0.0, noise_scale=scale)
    noise = replace(sim, truth=truth).images(everything(sim))
    # 51,200 pixels, of which the colour leaves about a third free.
    assert noise[:200].std() == pytest.approx(0.5, rel=0.03)
    assert noise[200:].std() == pytest.approx(2.0, rel=0.03)
    raised = replace(sim, truth=replace(truth, baseline=baseline)).images(everything(sim))
    np.testing.assert_allclose(raised - noise, baseline[:, None, None] + 0 * noise, atol=2e-6)


TRUE = TrueStates(np.array([[0.0], [2.0]]), np.array([0.25, 0.75]), np.array([[5.0]]))


def test_the_ratio_is_that_of_the_pixels_in_the_file(tmp_path):
    """Measured on what is written: signal alone, and the images less the signal."""
    conditions = replace(CONDITIONS, contrast=0.3, noise_scale=0.3, empty=0.2, neighbours=0.3)
    states = random_stream(0, Choice.STATE).random((300, 1)) * 5
    sim = Simulation(SPECIMEN, GRID, draw_truth(states, GRID, conditions, 0))
    sim = sim.at_signal_to_noise(0.5)
    write_simulation(sim, tmp_path, TRUE)
    with mrcfile.open(tmp_path / "particles.mrcs") as file:
        images = np.array(file.data)
    alone = replace(sim.truth, neighbours=draw_truth(states, GRID, CONDITIONS, 0).neighbours)
    signal = replace(sim, truth=alone).signals(everything(sim))
    noise = images - sim.signals(everything(sim))
    molecules = sim.truth.kind == Kind.MOLECULE
    # 76,800 pixels of coloured noise: the variance is known to 1 %.
    ratio = np.square(signal[molecules]).mean() / noise.var()
    assert ratio == pytest.approx(0.5, rel=0.03)


def test_a_sample_is_enough_to_scale_the_signal():
    sim = simulation(600)
    every, some = (sim.at_signal_to_noise(0.1, sample).truth.amplitude for sample in (600, 200))
    assert some == pytest.approx(every, rel=0.03)
    empty = replace(sim, truth=replace(sim.truth, kind=np.ones(600, np.int8)))
    with pytest.raises(InputError, match="No image shows the molecule"):
        empty.at_signal_to_noise(0.1)


@pytest.mark.parametrize("name", ["particles.star", "particles.cs"])
def test_written_images_are_read_with_their_poses_optics_and_truth(tmp_path, name):
    sim = quiet(simulation(delocalized=False))
    write_simulation(sim, tmp_path, TRUE)
    particles = read_particles(tmp_path / name)
    bank = ImageBank(particles, everything(sim) % 2, memory=0)
    (batch,) = bank.blocks()
    truth = sim.truth
    slices = SPECIMEN.spectra(truth.states, truth.rotations, GRID)
    expected = truth.contrast[:, None] * batch.transfer * slices
    # Files keep float32: defoci to 1 mÅ and rotation vectors to 1e-7.
    assert np.abs(batch.values - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_array_equal(batch.rows, everything(sim))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("kind", ["single", "tilts", "premultiplied", "no transfer"])
def test_all_formats_give_the_same_particles(tmp_path, kind, dtype):
    """Pickles have no place for B-factors and scales; only .star says premultiplied."""
    scheme = TiltScheme(count=3, jitter=1.0)
    conditions = replace(
        CONDITIONS, b_factor=(10.0, 100.0), tilts=scheme if kind == "tilts" else None,
        optics=NO_TRANSFER if kind == "no transfer" else None,
    )  # fmt: skip
    states = random_stream(0, Choice.STATE).random((IMAGES, 1)) * 5
    truth = draw_truth(states, GRID, conditions, 0)
    sim = Simulation(SPECIMEN, GRID, truth, premultiplied=kind == "premultiplied")
    write_simulation(sim, tmp_path, TRUE, dtype=dtype)
    star, cs = (read_particles(tmp_path / f"particles.{suffix}") for suffix in ("star", "cs"))
    pickled = read_particles(
        tmp_path / "particles.mrcs", poses=tmp_path / "poses.pkl", ctf=tmp_path / "ctf.pkl"
    )
    assert star.premultiplied == sim.premultiplied
    assert cs.sign == (1 if kind in ("premultiplied", "no transfer") else -1)
    for found in (star, cs, pickled):
        assert (found.box, found.pixel_size) == (16, pytest.approx(4.0))
        np.testing.assert_array_equal(found.slice_index, everything(sim))
        np.testing.assert_allclose(found.rotations, truth.rotations, atol=1e-6)
        np.testing.assert_allclose(found.shifts, truth.shifts, atol=2e-6)
        for name, values in vars(truth.optics).items():
            if found is pickled and name in ("b_factor", "scale"):
                continue
            np.testing.assert_allclose(
                getattr(found.optics, name), values, rtol=1e-6, atol=1e-6, err_msg=name
            )
        (batch,) = ImageBank(found, everything(sim) % 2, memory=0).blocks()
        images = ImageReader(found).read(everything(sim))
        expected = sim.images(everything(sim)).astype(dtype)
        np.testing.assert_array_equal(images, expected)
        assert len(batch) == len(sim)


def test_pixels_too_large_for_float16_are_refused(tmp_path):
    sim = simulation()
    loud = replace(sim, truth=replace(sim.truth, amplitude=1e6))
    with pytest.raises(InputError, match="finite as float16"):
        write_simulation(loud, tmp_path, TRUE, dtype=np.float16)
    assert not (tmp_path / "particles.mrcs").exists()


def test_images_are_visited_in_the_order_of_their_states(tmp_path):
    """And still lie where the table says."""
    sim = replace(simulation(600), specimen=(seen := Recorder(SPECIMEN, [])))
    write_simulation(sim, tmp_path, TRUE)
    states = np.concatenate(seen.states)
    blocks = np.split(states, np.cumsum([len(block) for block in seen.states])[:-1])
    assert len(blocks) > 2
    tops = [block.max() for block in blocks]
    bottoms = [block.min() for block in blocks]
    assert all(top <= bottom for top, bottom in zip(tops, bottoms[1:], strict=False))
    with mrcfile.open(tmp_path / "particles.mrcs") as file:
        np.testing.assert_array_equal(file.data, sim.images(everything(sim)))


@dataclass
class Recorder:
    """A specimen that remembers which states were asked for."""

    specimen: AtomicSpecimen
    states: list

    def spectra(self, states, rotations, grid):
        self.states.append(states)
        return self.specimen.spectra(states, rotations, grid)

    def volume(self, state, grid):
        return self.specimen.volume(state, grid)


def test_the_truth_is_written_beside_the_images(tmp_path):
    sim = busy(40).at_signal_to_noise(0.1)
    true = replace(TRUE, latent=lambda states: np.concatenate([states, 2 * states], axis=1))
    write_simulation(sim, tmp_path, true, about={"snr": 0.1})
    folder = tmp_path / "truth"
    each = load_arrays(folder / "per_image.npz")
    for name in ("rotations", "shifts", "contrast", "noise_scale", "kind", "offset", "particle"):
        np.testing.assert_array_equal(each[name], getattr(sim.truth, name))
    np.testing.assert_array_equal(each["defocus_u"], sim.truth.optics.defocus_u)
    np.testing.assert_array_equal(each["neighbours_rows"], sim.truth.neighbours.rows)
    np.testing.assert_array_equal(each["latent"], sim.truth.states * [1, 2])
    assert (each["state"] == -1).all()
    grid = load_arrays(folder / "grid.npz")
    np.testing.assert_array_equal(grid["latent"], [[0, 0], [2, 4]])
    np.testing.assert_array_equal(grid["weights"], [0.25, 0.75])
    np.testing.assert_array_equal(load_arrays(folder / "targets.npz")["latent"], [[5, 10]])
    meta = json.loads((folder / "meta.json").read_text())
    assert (meta["snr"], meta["box"], meta["apix"], meta["n"]) == (0.1, 16, 4.0, 40)
    volumes = [read_volume(folder / f"vol_{number:04d}.mrc").values for number in range(2)]
    np.testing.assert_array_equal(volumes[1], sim.volume(TRUE.states[1]))
    mean = read_volume(folder / "mean.mrc")
    expected = 0.25 * volumes[0] + 0.75 * volumes[1]
    np.testing.assert_allclose(mean.values, expected, atol=1e-6 * np.abs(expected).max())
    assert mean.voxel_size == pytest.approx(4.0)
    target = read_volume(folder / "target_00.mrc").values
    np.testing.assert_array_equal(target, sim.volume(TRUE.targets[0]))
    mask = read_volume(folder / "mask.mrc").values
    assert (mask[np.maximum(*volumes) > 0.2 * volumes[0].max()] == 1).all()
    assert mask[0, 0, 0] < 0.1


def test_the_written_noise_is_that_of_the_files(tmp_path):
    """Mean power of empty images, over the number of pixels."""
    states = np.zeros((1500, 1), np.int64)
    conditions = replace(CONDITIONS, noise_scale=0.3, empty=1.0)
    sim = Simulation(SPECIMEN, GRID, draw_truth(states, GRID, conditions, 0))
    write_simulation(sim, tmp_path, TRUE)
    noise = np.load(tmp_path / "truth" / "noise_radial.npy")
    assert noise.shape == (9,)
    with mrcfile.open(tmp_path / "particles.mrcs") as file:
        power = (np.abs(spectra_of(file.data)) ** 2).mean(0) / 256
    shells = np.bincount(DISC.shells, power) / np.bincount(DISC.shells)
    np.testing.assert_allclose(noise[1:8], shells[1:], rtol=0.05)
    each = load_arrays(tmp_path / "truth" / "per_image.npz")
    assert (each["state"] == -1).all()
    assert (each["kind"] == Kind.EMPTY).all()


def test_discrete_states_are_told_apart_from_continuous_ones(tmp_path):
    states = np.arange(12)[:, None] % 3
    conditions = replace(CONDITIONS, empty=0.3)
    sim = Simulation(SPECIMEN, GRID, draw_truth(states, GRID, conditions, 0))
    write_simulation(sim, tmp_path, TRUE)
    each = load_arrays(tmp_path / "truth" / "per_image.npz")
    expected = np.where(sim.truth.kind == Kind.EMPTY, -1, states[:, 0])
    np.testing.assert_array_equal(each["state"], expected)
    np.testing.assert_array_equal(each["latent"], states[:, 0])

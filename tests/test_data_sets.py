import json
from dataclasses import dataclass, replace

import mrcfile
import numpy as np
import pytest
from simulations import (
    CONDITIONS,
    DISC,
    GRID,
    IMAGES,
    SPECIMEN,
    busy,
    everything,
    quiet,
    simulation,
    spectra_of,
)

from recovar.acquisition import (
    NO_TRANSFER,
    Choice,
    Kind,
    TiltScheme,
    draw_truth,
    random_stream,
)
from recovar.data.bank import ImageBank
from recovar.data.mrc import read_volume
from recovar.data.particles import read_particles
from recovar.data.stack import ImageReader
from recovar.data_sets import TrueStates, write_simulation
from recovar.errors import InputError
from recovar.records import load_arrays
from recovar.simulate_scattering_potential import AtomicSpecimen
from recovar.simulator import Simulation

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

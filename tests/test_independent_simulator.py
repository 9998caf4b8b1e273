"""Images agree with those of a generator that was written apart, with NumPy and SciPy alone.

It is kept outside the repository, as are the conventions it states: poses and CTFs of cryoDRGN,
exact sums over points with an envelope of B = 300 Å², the CTF in the box of the image. Its images
hold all frequencies of the square, ours those of the disc |k| ≤ size/2 − 1: both are cut to that.
"""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import mrcfile
import numpy as np
import pytest

from recovar.acquisition import Conditions, draw_truth
from recovar.core.fourier import to_spectrum, to_volume
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.data.atoms import POINT, Atoms
from recovar.data.legacy import optics_from_ctf_rows, read_ctf_pickle, read_poses_pickle
from recovar.data.mrc import read_volume
from recovar.records import load_arrays
from recovar.simulate_scattering_potential import AtomicSpecimen
from recovar.simulator import Simulation

BOX, IMAGES = 32, 600
DISC = Disc(BOX, BOX // 2 - 1)


@dataclass(frozen=True)
class Pair:
    """The data set of the other generator, and ours from the same poses, CTFs and points."""

    module: ModuleType
    points: dict
    folder: Path
    scale: float
    """From the other's noise-free images to those in its file."""
    ours: Simulation
    theirs: np.ndarray


@pytest.fixture(scope="module")
def pair(tmp_path_factory, shared) -> Pair:
    script, folder = shared / "eval" / "make_bench.py", tmp_path_factory.mktemp("bench")
    measured = shared / "data" / "empiar10076_poses_ctf.npz"
    command = [sys.executable, script, "tiny", folder, "--poses", measured, "--ctf", measured]
    options = {"n": IMAGES, "box": BOX, "snr": 0.5}
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run(command, check=True, capture_output=True)
    spec = importlib.util.spec_from_file_location("make_bench", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    meta = json.loads((folder / "truth" / "meta.json").read_text())
    with mrcfile.open(folder / "particles.mrcs") as file:
        theirs = np.array(file.data)
    points = module.make_particle()
    simulation = simulate(module, points, folder, meta)
    return Pair(module, points, folder, meta["image_scale"], simulation, theirs)


def simulate(module: ModuleType, points: dict, folder: Path, meta: dict) -> Simulation:
    """Take over what the other generator has drawn."""
    each = load_arrays(folder / "truth" / "per_image.npz")
    poses, rows = read_poses_pickle(folder / "poses.pkl"), read_ctf_pickle(folder / "ctf.pkl")
    grid = Grid(BOX, meta["apix"])

    def atoms_at(state: np.ndarray) -> Atoms:
        positions = module.points(points, "discrete", state[0])
        return Atoms(positions, np.full(len(positions), POINT), b_factor=meta["bfactor"])

    drawn = draw_truth(each["state"][:, None], grid, Conditions(), 0)
    truth = replace(
        drawn,
        rotations=poses.rotations,
        shifts=BOX * meta["apix"] * poses.shift_fractions,
        optics=optics_from_ctf_rows(rows),
        contrast=each["contrast"],
        noise=BOX**2 * np.load(folder / "truth" / "noise_radial.npy"),
        amplitude=meta["image_scale"],
    )
    return Simulation(AtomicSpecimen(atoms_at), grid, truth, delocalized=False)


def cut(images: np.ndarray) -> np.ndarray:
    """Keep the frequencies of the disc."""
    spectra = DISC.from_spectra(to_spectrum(images, dimensions=2))
    return to_volume(DISC.to_spectra(spectra), dimensions=2)


def test_images_without_noise_agree_pixel_by_pixel(pair):
    rows = np.arange(0, IMAGES, 30)
    each = load_arrays(pair.folder / "truth" / "per_image.npz")
    poses = read_poses_pickle(pair.folder / "poses.pkl")
    pair.module._init(
        {
            "D": BOX, "apix": pair.ours.grid.voxel_size, "part": pair.points, "kind": "discrete",
            "latent": each["latent"], "rots": poses.rotations, "trans": BOX * poses.shift_fractions,
            "ctf": read_ctf_pickle(pair.folder / "ctf.pkl"), "contrast": each["contrast"],
        }
    )  # fmt: skip
    theirs = pair.scale * np.stack([pair.module._render(row) for row in rows])
    ours = pair.ours.signals(rows)
    largest = np.abs(theirs).max()
    assert np.abs(ours - cut(theirs)).max() < 1e-4 * largest
    np.testing.assert_allclose(cut(ours), ours, atol=1e-6 * largest)


def compare(first: np.ndarray, second: np.ndarray) -> None:
    """Means over images agree within 4.5 standard errors, which the images themselves tell."""
    error = np.sqrt((first.var(0) + second.var(0)) / len(first))
    assert (np.abs(first.mean(0) - second.mean(0)) < 4.5 * error).all()
    # So small errors that a wrong factor would be seen.
    assert (error < 0.1 * np.abs(first).mean(0)).all()


def shell_powers(images: np.ndarray) -> np.ndarray:
    """Mean power on each shell but the first, of every image."""
    power = np.abs(DISC.from_spectra(to_spectrum(images, dimensions=2))) ** 2
    starts = np.searchsorted(DISC.shells, np.arange(1, BOX // 2))
    return np.add.reduceat(power, starts, axis=1) / np.diff([*starts, len(DISC)])


def test_whole_data_sets_agree_in_second_order(pair):
    """Power on shells, of images and of noise alone; variance of pixels; products of neighbours."""
    rows = np.arange(IMAGES)
    signals = pair.ours.signals(rows)
    ours, theirs = cut(pair.ours.images(rows)), cut(pair.theirs)
    for first, second in ((ours, theirs), (ours - signals, theirs - signals)):
        compare(shell_powers(first), shell_powers(second))
        compare(np.square(first).mean((1, 2))[:, None], np.square(second).mean((1, 2))[:, None])
        for step in (1, 2):
            products = [
                (images * np.roll(images, step, axis)).mean((1, 2))
                for images in (first, second)
                for axis in (1, 2)
            ]
            compare(np.stack(products[:2], axis=1), np.stack(products[2:], axis=1))
    noise = np.load(pair.folder / "truth" / "noise_radial.npy")
    measured = shell_powers(theirs - signals).mean(0) / BOX**2
    np.testing.assert_allclose(measured, noise[1 : BOX // 2], rtol=0.08)


def test_true_volumes_agree(pair):
    """On the ball |k| ≤ size/2 − 1, in which ours are given."""
    grid = pair.ours.grid
    path = pair.folder / "truth" / "vol_0001.mrc"
    theirs = to_spectrum(read_volume(path).values.astype(np.float64))
    ours = to_spectrum(pair.ours.specimen.volume(np.array([1]), grid).astype(np.float64))
    inside = np.abs(ours) > 1e-6 * np.abs(ours).max()
    assert np.abs(ours - theirs)[inside].max() < 1e-4 * np.abs(theirs).max()

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from recovar.cli import main
from recovar.compute.progress import SilentReporter
from recovar.core.grid import Grid
from recovar.data.mrc import read_volume, write_volume
from recovar.data.particles import read_particles
from recovar.data.stack import read_images
from recovar.errors import InputError
from recovar.records import load_arrays
from recovar.simulate_scattering_potential import Atoms, generate_volume
from recovar.workflows.simulate import run_simulate
from recovar.workflows.simulating.config import SimulateConfig
from recovar.workflows.simulating.lookalikes import LOOKALIKES


def simulate(output, **options):
    run_simulate(SimulateConfig(output=output, **options), SilentReporter())
    return load_arrays(output / "truth" / "per_image.npz")


def small(tmp_path, name="set", **options):
    return simulate(tmp_path / name, **{"n_images": 12, "box": 24, "true_volumes": 3, **options})


def write_pdb(path, chains="ABC", bend=0.0):
    """Write chains of residues in a row along x, the last of them bent about z."""
    lines, serial = [], 0
    for number, chain in enumerate(chains):
        for residue in range(20):
            serial += 1
            x, y = 4.0 * (residue % 5), 4.0 * (residue // 5)
            if number == len(chains) - 1:
                x, y = x * np.cos(bend) - y * np.sin(bend), x * np.sin(bend) + y * np.cos(bend)
            lines.append(
                f"ATOM  {serial:5d}  CA  ALA {chain}{residue + 1:4d}    "
                f"{x + 22 * number:8.3f}{y:8.3f}{residue % 3:8.3f}  1.00 20.00           C  "
            )
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return str(path)


@pytest.mark.parametrize("name", sorted(LOOKALIKES))
def test_sets_have_the_sizes_of_those_they_are_named_after(tmp_path, name):
    like = LOOKALIKES[name]
    truth = simulate(tmp_path / "set", like=name, scale=15 / like.n_images, box=16, true_volumes=2)
    meta = json.loads((tmp_path / "set" / "truth" / "meta.json").read_text())
    assert meta["n"] == len(truth["contrast"]) == 15
    assert meta["apix"] * 16 == pytest.approx(like.pixel_size * like.box)
    assert (truth["contrast"] == 1).all()
    assert np.ptp(truth["noise"]) == 0
    distinct = len(np.unique(truth["latent"], axis=0))
    assert distinct == 15 if not like.conformations else distinct <= like.conformations
    volumes = sorted((tmp_path / "set" / "truth").glob("vol_*.mrc"))
    assert len(volumes) == (2 if not like.conformations else distinct)


def test_the_signal_has_its_share_of_the_noise_in_the_files(tmp_path):
    options = {"n_images": 300, "box": 24, "true_volumes": 2, "noise": "white"}
    simulate(tmp_path / "a", snr=0.5, **options)
    simulate(tmp_path / "b", snr=1e-6, **options)
    both, noise = (
        read_images(read_particles(tmp_path / name / "particles.star"), np.arange(300))
        for name in "ab"
    )
    signal = both - noise
    assert np.square(signal).mean() / noise.var() == pytest.approx(0.5, rel=0.03)
    assert noise.var() == pytest.approx(1, rel=0.02)


def test_the_same_seed_makes_the_same_files(tmp_path):
    for name in ("a", "b"):
        small(tmp_path, name, seed=3, neighbours=0.3, empty=0.2)
    small(tmp_path, "c", seed=4)
    first, second, other = (
        (tmp_path / name / "particles.mrcs").read_bytes() for name in ("a", "b", "c")
    )
    assert first == second
    assert first != other


def test_a_hinge_turns_the_chains_that_are_named(tmp_path, caplog):
    caplog.set_level("INFO")
    truth = small(tmp_path, structure=(write_pdb(tmp_path / "m.pdb"),), motion="hinge",
                  moving=("C",), angle=40.0)  # fmt: skip
    assert truth["latent"].min() >= -1
    assert truth["latent"].max() <= 1
    assert "The hinge is where moving and other atoms touch" in caplog.text
    volumes = [
        read_volume(tmp_path / "set" / "truth" / f"vol_{i:04d}.mrc").values for i in range(3)
    ]
    changed = np.abs(volumes[2] - volumes[0]).sum((0, 1))
    # Chain C is at the far end of x: what moves is on that side.
    assert changed[14:].sum() > 3 * changed[:10].sum()


@pytest.mark.parametrize(
    ("options", "states"),
    [
        ({"motion": "morph", "end": "end.pdb"}, 1),
        ({"motion": "morph", "end": "end.pdb", "morph": "linear"}, 1),
        ({"motion": "modes", "modes": 2, "density": "ring"}, 2),
        ({"motion": "composition", "compositions": "[AB],C;A,*B", "weights": (3.0, 1.0)}, 1),
        ({"motion": "hinge", "moving": ("C",), "conformations": 4}, 1),
        ({}, 1),
    ],
)
def test_every_motion_makes_a_set(tmp_path, options, states):
    write_pdb(tmp_path / "end.pdb", bend=0.6)
    if "end" in options:
        options = options | {"end": str(tmp_path / options["end"])}
    truth = small(tmp_path, structure=(write_pdb(tmp_path / "m.pdb"),), **options)
    assert truth["latent"].reshape(12, -1).shape[1] == states
    if "conformations" in options:
        assert len(np.unique(truth["latent"])) <= 4
    assert len(read_particles(tmp_path / "set" / "particles.star")) == 12


def test_structures_are_states_of_their_own(tmp_path):
    files = tuple(write_pdb(tmp_path / f"{chains}.pdb", chains) for chains in ("A", "AB", "ABC"))
    truth = small(tmp_path, structure=files, n_images=60, weights=(0.0, 1.0, 1.0))
    assert set(truth["state"]) == {1, 2}
    weights = load_arrays(tmp_path / "set" / "truth" / "grid.npz")["weights"]
    np.testing.assert_allclose(weights, np.bincount(truth["state"])[1:] / 60)


def test_frames_of_arrays_are_a_trajectory(tmp_path):
    frames = np.random.default_rng(0).normal(scale=8.0, size=(5, 30, 3))
    np.savez(tmp_path / "frames.npz", xyz=frames, element=np.full(30, "C"))
    truth = small(tmp_path, trajectory=tmp_path / "frames.npz", density="uniform")
    assert truth["latent"].min() >= 0
    assert truth["latent"].max() <= 4


def test_maps_are_states_and_come_to_the_grid_of_the_images(tmp_path):
    positions = np.random.default_rng(0).normal(scale=6.0, size=(40, 3))
    for number in range(2):
        atoms = Atoms(positions[: 20 + 20 * number], np.full(20 + 20 * number, "C"), 300.0)
        volume = generate_volume(atoms, Grid(32, 3.0))
        write_volume(tmp_path / f"{number}.mrc", volume, 3.0)
    paths = tmp_path / "0.mrc", tmp_path / "1.mrc"
    truth = small(tmp_path, volumes=paths, pixel_size=4.0, contrast=0.0)
    assert set(truth["state"]) <= {0, 1}
    meta = json.loads((tmp_path / "set" / "truth" / "meta.json").read_text())
    assert meta["apix"] == 4.0
    assert meta["box"] == 24


def test_poses_optics_and_noise_are_drawn_from_files(tmp_path, shared):
    source = shared / "data" / "empiar10076_poses_ctf.npz"
    truth = small(tmp_path, poses=str(source), ctf=str(source), noise=str(source))
    given = load_arrays(source)
    rows = [np.flatnonzero((given["rot"] == r.astype(np.float32)).all((1, 2))) for r in
            truth["rotations"]]  # fmt: skip
    assert all(len(row) == 1 for row in rows)
    assert np.isin(truth["defocus_u"], given["ctf"][:, 2]).all()
    assert np.ptp(truth["noise"]) > 0


def test_tilt_series_are_told_by_the_file(tmp_path):
    truth = small(tmp_path, n_images=3, tilts=5, tilt_step=10.0, dose=2.0)
    assert truth["particle"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    np.testing.assert_allclose(np.rad2deg(truth["tilt"][:5]), [0, 10, -10, -20, 20])
    text = (tmp_path / "set" / "particles.star").read_text()
    assert "_rlnGroupName" in text
    assert "_rlnCtfBfactor" in text


def test_the_picture_and_the_options_are_kept(tmp_path):
    small(tmp_path, snr=0.2)
    assert (tmp_path / "set" / "data-set.png").read_bytes().startswith(b"\x89PNG")
    meta = json.loads((tmp_path / "set" / "truth" / "meta.json").read_text())
    assert meta["options"]["snr"] == 0.2
    assert meta["latent"].startswith("bend of the arm")


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exists and is not empty"):
        small(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "mine.txt"]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(InputError, match="--dtype float16"):
        small(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.1}, "--like"),
        ({"motion": "hinge"}, "one --structure"),
        ({"volumes": (Path("a.mrc"),), "structure": ("b.pdb",)}, "--volumes and --structure"),
        ({"volumes": (Path("a.mrc"),), "trajectory": Path("b")}, "--volumes and --trajectory"),
        ({"structure": ("b.pdb",), "motion": "morph"}, "need each other"),
        ({"moving": ("A",)}, "need each other"),
        ({"empty": 0.6, "other": 0.6}, "at most 1"),
        ({"neighbours": 1.5}, "a share from 0 to 1"),
        ({"hinge": (1.0, 2.0)}, "three numbers"),
        ({"defocus": (2e4, 1e4)}, "the smaller first"),
        ({"snr": 0.0}, "above 0"),
        ({"box": 33}, "even number"),
        ({"modes": 3}, "at most 2"),
        ({"seed": -1}, "at least 0"),
    ],
)
def test_options_that_can_never_work_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        SimulateConfig(output=tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"motion": "hinge", "moving": ("X",)}, "no chain 'X'.*A, B, C"),
        ({"motion": "hinge", "moving": ("A", "B", "C")}, "all chains"),
        ({"motion": "hinge", "moving": ("C",), "axis": (0.0, 0.0, 0.0)}, "direction for --axis"),
        ({"motion": "hinge", "moving": ("C",), "density": "ring"}, "no population 'ring'"),
        ({"motion": "composition", "compositions": "A;Q"}, "no chain 'Q'"),
        ({"motion": "composition", "compositions": "A;B", "weights": (1.0,)}, "as many --weights"),
        ({"motion": "morph", "end": "short.pdb"}, "the atoms of"),
        ({"poses": "nowhere.pkl"}, "nowhere.pkl"),
        ({"ctf": "nowhere.npz"}, "nowhere.npz"),
        ({"noise": "nowhere.npy"}, "nowhere.npy"),
        ({"tilts": 41, "tilt_step": 5.0}, "beyond 90"),
    ],
)
def test_what_does_not_fit_the_molecule_is_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_pdb(tmp_path / "short.pdb", "AB")
    with pytest.raises(InputError, match=message):
        small(tmp_path, structure=(write_pdb(tmp_path / "m.pdb"),), **options)
    assert not (tmp_path / "set").exists()


def test_a_molecule_longer_than_the_box_is_told(tmp_path, caplog):
    small(tmp_path, pixel_size=2.0)
    assert "longer than the box" in caplog.text


def test_the_command_line_makes_a_set(tmp_path, capsys):
    command = ["simulate", "-o", str(tmp_path / "set"), "--n-images", "8", "--box", "16",
               "--true-volumes", "2", "--dtype", "float16"]  # fmt: skip
    assert main(command) == 0
    assert "recovar score" in capsys.readouterr().err
    images = read_images(read_particles(tmp_path / "set" / "particles.cs"), np.arange(8))
    assert images.shape == (8, 16, 16)

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from problems import Molecule

from recovar.acquisition import Conditions, draw_truth
from recovar.cli import main
from recovar.compute.progress import NoProgress, SilentReporter
from recovar.conventions import Evidence
from recovar.core.grid import Grid
from recovar.core.halves import Halves
from recovar.data.mrc import write_volume
from recovar.data.particles import read_particles
from recovar.data.star import read_star_table, write_particles
from recovar.data_sets import TrueStates, write_simulation
from recovar.manifest import read_manifest
from recovar.simulator import Simulation
from recovar.specimens import VolumeSpecimen
from recovar.workflows.check import check
from recovar.workflows.checking.config import CheckConfig
from recovar.workflows.checking.glance import glance
from recovar.workflows.checking.maps import find_hand, find_mask_axes, find_sign, orientations
from recovar.workflows.checking.sample import choose_rows

SIZE, COUNT = 20, 200
GRID = Grid(SIZE, 6.0)
RNG = np.random.default_rng(5)
BODY = Molecule(RNG.normal(size=(14, 3)) * [3.4, 2.2, 1.4] + [0.6, 0.2, -0.3]).volume(SIZE)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    conditions = Conditions(contrast=0.1, preferred=0.0, shift=9.0)
    truth = draw_truth(np.zeros((COUNT, 1)), GRID, conditions, 0)
    simulation = Simulation(VolumeSpecimen(BODY[None]), GRID, truth).at_signal_to_noise(0.4)
    states = np.zeros((1, 1))
    write_simulation(simulation, directory, TrueStates(states, np.ones(1), states))
    return directory


def spoilt(data: Path, directory: Path, **changes) -> Path:
    shutil.copytree(data, directory)
    table = read_star_table(data / "particles.star")
    write_particles(directory / "particles.star", replace(table, **changes))
    return directory / "particles.star"


def shifts(data: Path) -> np.ndarray:
    found = read_star_table(data / "particles.star").shifts
    assert found is not None
    return found


def test_right_files_are_called_right(data, tmp_path, capsys, caplog):
    write_volume(tmp_path / "mirror.mrc", np.roll(BODY[::-1], 1, 0), 6.0)
    options = ["--volume", tmp_path / "mirror.mrc", "-o", tmp_path / "out"]
    with caplog.at_level(logging.INFO, "recovar"):
        assert main(["check", f"{data}/particles.star", *map(str, options)]) == 0
    found = json.loads((tmp_path / "out" / "check.json").read_text())
    assert found["as_stated"]
    assert found["changes"] == []
    assert found["hand"]["mirrored"]
    assert found["sign"] == 1
    assert "As stated" in caplog.text
    assert "Hand: opposite to that of --volume" in caplog.text
    assert (tmp_path / "out" / "check.png").stat().st_size > 10_000


def test_a_run_stops_where_images_contradict_the_files(data, tmp_path, capsys):
    star = spoilt(data, tmp_path / "data", shifts=-shifts(data))
    command = [
        "pipeline",
        str(star),
        "-o",
        str(tmp_path / "run"),
        "--only-mean",
        "--mask",
        "sphere",
    ]
    assert main(command) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "shifts have the opposite sign" in message
    assert "--trust-input" in message
    assert not (tmp_path / "run").exists()
    assert main([*command, "--trust-input"]) == 0
    decision = read_manifest(tmp_path / "run").stages["conventions"].decisions["poses and CTFs"]
    assert decision.value == "shifts have the opposite sign"


def test_a_quick_look_names_transposed_rotations(data, tmp_path):
    rotations = read_star_table(data / "particles.star").rotations
    assert rotations is not None
    star = spoilt(data, tmp_path / "data", rotations=rotations.swapaxes(1, 2))
    opinion = glance(read_particles(star), NoProgress(), 0)
    assert opinion.refutes
    assert opinion.value == "rotations are transposed"


def test_rows_one_off_are_not_taken_for_poses_one_off(data, tmp_path):
    table = read_star_table(data / "particles.star")
    star = spoilt(
        data,
        tmp_path / "data",
        rotations=np.roll(table.rotations, -1, 0),
        shifts=np.roll(table.shifts, -1, 0),
        optics=table.optics[np.roll(np.arange(COUNT), -1)],
    )
    checked = check(read_particles(star), CheckConfig(particles=(star,)), SilentReporter())
    changes = [change.name for change in checked.found.changes]
    assert changes == ["every row belongs to the image after it"]


@pytest.mark.parametrize("count", [2, 15, 40, COUNT])
def test_right_files_are_never_refuted(data, count):
    particles = read_particles(data / "particles.star").select(np.arange(count))
    assert glance(particles, NoProgress(), 0).log10_odds == 0


def test_noise_alone_is_not_refuted(data, tmp_path):
    star = spoilt(data, tmp_path / "data")
    raw = np.memmap(tmp_path / "data" / "particles.mrcs", "<f4", "r+", offset=1024)
    raw[:] = np.random.default_rng(0).normal(size=raw.shape)
    raw.flush()
    opinion = glance(read_particles(star), NoProgress(), 0)
    assert not opinion.refutes
    assert opinion.value == "not proven"


def test_few_images_and_empty_ones_are_refused(data, tmp_path, capsys):
    star = spoilt(data, tmp_path / "data")
    np.save(tmp_path / "few.npy", np.arange(5))
    assert main(["check", str(star), "--ind", f"{tmp_path}/few.npy", "-o", f"{tmp_path}/out"]) == 2
    assert "at least 16 images" in " ".join(capsys.readouterr().err.split())
    raw = np.memmap(tmp_path / "data" / "particles.mrcs", "<f4", "r+", offset=1024)
    raw[:] = 1
    raw.flush()
    assert main(["check", str(star), "-o", f"{tmp_path}/out"]) == 2
    assert "without any contrast" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def evidence(noise: float = 0.02) -> Evidence:
    """Half-maps of the molecule."""
    rng = np.random.default_rng(0)
    first, second = (
        (BODY + rng.normal(scale=noise * BODY.max(), size=BODY.shape)).astype(np.float32)
        for _ in range(2)
    )
    nothing = np.zeros(0)
    return Evidence(Halves(first, second), np.full(SIZE // 2, 0.9), nothing, nothing)


def test_every_orientation_of_a_reference_is_found_again():
    found = evidence()
    for orientation in list(orientations())[::7]:
        hand = find_hand(found, orientation.apply(BODY))
        assert hand.orientation.is_mirror == orientation.is_mirror
        assert hand.log10_odds > 3
        back = hand.orientation.apply(orientation.apply(BODY))
        np.testing.assert_array_equal(back, BODY)


def test_half_of_the_orientations_are_mirrors():
    assert sum(orientation.is_mirror for orientation in orientations()) == 24
    assert next(orientations()).is_identity


def test_the_axes_of_a_mask_are_found():
    mask = (0.1 * BODY.max() < BODY).astype(np.float32)
    assert find_mask_axes(evidence(), mask, 3.0).orientation.is_identity
    permuted = find_mask_axes(evidence(), np.ascontiguousarray(mask.transpose(2, 0, 1)), 3.0)
    assert permuted.orientation.axes == (1, 2, 0)
    assert permuted.inside > permuted.stated


def test_a_mask_that_looks_alike_from_all_sides_has_no_axes():
    ball = np.ones_like(BODY)
    found = find_mask_axes(evidence(), ball, 3.0)
    assert found.orientation.is_identity
    assert found.odds.log10 == 0


def test_the_sign_is_that_of_the_density():
    halves = evidence().halves
    assert find_sign(halves) == 1
    assert find_sign(halves.map(np.negative)) == -1
    assert find_sign(Halves(halves.first, -halves.second)) == 0


@pytest.mark.parametrize(("count", "wanted"), [(80, 16), (101, 40), (3000, 3000), (7, 100)])
def test_rows_are_the_same_from_either_end(count, wanted):
    rows = choose_rows(count, wanted)
    np.testing.assert_array_equal(rows, np.sort(count - 1 - rows))
    assert len(rows) == min(count, 8 * (wanted // 8) if wanted < count else count)

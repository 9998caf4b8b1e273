import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from problems import random_molecule

from recovar.acquisition import Conditions, draw_truth
from recovar.cli import main
from recovar.core.grid import Grid
from recovar.data.legacy import read_halfsets, write_pickle
from recovar.data.mrc import write_stack
from recovar.data.star import read_star_table, write_particles
from recovar.data_sets import TrueStates, write_simulation
from recovar.manifest import read_manifest
from recovar.simulator import Simulation
from recovar.specimens import VolumeSpecimen
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.inputs import describe_inputs, original_halfsets, read_inputs

COUNT = 60


def simulate(directory: Path, size: int, seed: int) -> Path:
    grid = Grid(size, 96 / size)
    truth = draw_truth(np.zeros((COUNT, 1)), grid, Conditions(preferred=0.0), seed)
    molecule = VolumeSpecimen(random_molecule(0, spread=size / 10).volume(size)[None])
    simulation = Simulation(molecule, grid, truth).at_signal_to_noise(0.5)
    write_simulation(
        simulation, directory, TrueStates(np.zeros((1, 1)), np.ones(1), np.zeros((1, 1)))
    )
    return directory / "particles.star"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """Two data sets of one field, at different pixel sizes."""
    directory = tmp_path_factory.mktemp("two")
    return simulate(directory / "coarse", 16, 0), simulate(directory / "fine", 24, 1)


def test_several_files_are_one_set_of_images(files):
    inputs = read_inputs(PipelineConfig(particles=files, output=Path("run")))
    assert (inputs.grid.size, inputs.grid.voxel_size) == (16, 6.0)
    assert len(inputs.particles) == 2 * COUNT
    described = describe_inputs(PipelineConfig(particles=files, output=Path("run")), inputs)
    assert set(described["files"]) == {str(path) for path in files}


def test_half_sets_count_the_images_of_all_files(files, tmp_path):
    first, second = np.arange(2 * COUNT).reshape(-1, 2).T
    write_pickle(tmp_path / "halves.pkl", [first, second])
    halves = read_halfsets(tmp_path / "halves.pkl")
    config = PipelineConfig(
        particles=files, output=tmp_path / "run", halfsets=tmp_path / "halves.pkl"
    )
    for found, wanted in zip(original_halfsets(read_inputs(config)), halves, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("factor", "warns"), [(1.0, False), (4.0, True)])
def test_images_of_very_different_strength_are_told(files, tmp_path, caplog, factor, warns):
    table = read_star_table(files[0])
    images = np.random.default_rng(0).normal(size=(COUNT, 16, 16)).astype(np.float32)
    for name, scale in (("a", 1.0), ("b", factor)):
        write_stack(tmp_path / f"{name}.mrcs", scale * images, 6.0)
        write_particles(tmp_path / f"{name}.star", replace(table, stacks=(f"{name}.mrcs",)))
    particles = (tmp_path / "a.star", tmp_path / "b.star")
    read_inputs(PipelineConfig(particles=particles, output=tmp_path / "run"))
    assert ("Normalize them in the same way" in caplog.text) == warns


def test_the_command_takes_several_files(files, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    options = ["--mask", "sphere", "--only-mean"]
    assert main(["pipeline", *map(str, files), "-o", str(run), *options]) == 0
    assert read_manifest(run).config["particles"] == [str(path) for path in files]
    text = "60 of 24 px at 4 Å, 60 of 16 px at 6 Å. All are brought to 16 px at 6 Å."
    assert text in caplog.text
    assert main(["pipeline", str(files[0]), str(tmp_path / "no.star"), "-o", str(run)]) == 2

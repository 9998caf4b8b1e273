"""The demo, at a size that takes seconds; what it tells must come from comparisons."""

from dataclasses import replace

import numpy as np
import pytest

from recovar.cli import main
from recovar.compute.progress import SilentReporter
from recovar.data.mrc import read_volume
from recovar.data.particles import read_particles
from recovar.errors import InputError
from recovar.records import load_arrays
from recovar.workflows.configs import DemoConfig
from recovar.workflows.demo import make_molecules, make_simulation, run_demo, write_data
from recovar.workflows.demo_scores import read_recovered, score

OPTIONS = ("--n-images", "800", "--box", "24")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "-o", str(output), *OPTIONS, "--quiet"]) == 0
    return DemoConfig(output=output, n_images=800, box=24)


@pytest.fixture(scope="module")
def known(finished):
    simulation = make_simulation(finished)
    found = read_recovered(finished.output / "run")
    return found, simulation, make_molecules(simulation, SilentReporter())


def test_most_of_the_truth_is_recovered(known):
    found, simulation, molecules = known
    scores = score(found, simulation, molecules.population)
    # Three seeds gave at least 0.66, 0.63, 0.88 and 0.65; with half the images one was much worse.
    assert scores.resolution < 1.3 * scores.finest
    assert scores.noise == pytest.approx(1, abs=0.1)
    assert scores.contrast > 0.5
    assert scores.bend > 0.5
    assert scores.presence > 0.8 > scores.guessing
    assert 0.5 < scores.captured <= scores.possible < 1


def test_a_wrong_truth_gives_bad_figures(known):
    found, simulation, _ = known
    truth, other = simulation.truth, make_simulation(DemoConfig(n_images=800, box=24, seed=1))
    shuffled = np.random.default_rng(0).permutation(len(simulation))
    wrong = replace(
        truth,
        states=truth.states[shuffled],
        contrast=truth.contrast[shuffled],
        noise=2 * truth.noise,
    )
    population = make_molecules(other, SilentReporter()).population
    turned = replace(population, mean=population.mean[:, ::-1].copy())
    scores = score(found, replace(simulation, truth=wrong), turned)
    assert scores.resolution > 3 * scores.finest
    assert scores.noise == pytest.approx(0.5, abs=0.05)
    assert abs(scores.contrast) < 0.2
    assert scores.bend < 0.1
    assert scores.presence < scores.guessing + 0.05
    assert scores.captured < 0.5 * scores.possible


def test_the_data_set_is_written_as_users_have_it(finished):
    data = finished.output / "data"
    star, cs = (read_particles(data / f"particles{suffix}") for suffix in (".star", ".cs"))
    assert len(star) == len(cs) == 800
    np.testing.assert_allclose(star.rotations, cs.rotations, atol=1e-4)
    assert read_volume(data / "truth" / "mean.mrc").values.shape == (24, 24, 24)


def test_a_picture_and_a_table_are_left(finished):
    picture = finished.output / "run" / "output" / "plots" / "demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = (finished.output / "recovered.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "Mean", "Noise", "Contrast", "Arm", "Domain", "Components",
    ]  # fmt: skip


def test_a_second_time_nothing_is_computed_again(finished, capsys):
    result = finished.output / "run" / "model" / "subspace.npz"
    stack = finished.output / "data" / "particles.mrcs"
    before = [path.stat().st_mtime_ns for path in (result, stack)]
    assert main(["demo", "-o", str(finished.output), *OPTIONS]) == 0
    assert [path.stat().st_mtime_ns for path in (result, stack)] == before
    told = capsys.readouterr().err
    assert "is used as it is" in told
    assert "Stage subspace is done" in told
    assert (finished.output / "recovered.txt").read_text() in told


def test_other_options_are_refused_where_data_exist(finished):
    with pytest.raises(InputError, match="800 images of 24 pixels, seed 0"):
        run_demo(replace(finished, seed=1), SilentReporter())


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is no data set of the demo"):
        run_demo(DemoConfig(output=tmp_path, n_images=100, box=24), SilentReporter())
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "thesis.tex"]


def test_a_data_set_that_was_not_finished_is_made_again(tmp_path):
    partial = tmp_path / ".partial.data" / "particles.mrcs"
    partial.parent.mkdir()
    partial.write_bytes(b"half of it")
    simulation = make_simulation(DemoConfig(n_images=100, box=24))
    write_data(tmp_path / "data", simulation, SilentReporter())
    assert len(load_arrays(tmp_path / "data" / "truth" / "per_image.npz")["states"]) == 100
    assert not partial.exists()


@pytest.mark.parametrize("wrong", [{"n_images": 99}, {"box": 25}, {"box": 22}, {"seed": -1}])
def test_options_that_cannot_work_are_refused(wrong):
    with pytest.raises(InputError, match="Expected"):
        DemoConfig(**wrong)

import json
import shutil

import numpy as np

from recovar.cli import main
from recovar.density.record import read_density

QUICK = ("--points", "24", "--replicates", "20", "--quiet")


def test_the_density_of_a_run_is_left_with_states_as_latent_points(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert main(["density", str(copy), "--zdim", "2", "--dims", "1", *QUICK]) == 0
    place = copy / "output" / "density_2"
    assert {file.name for file in place.iterdir()} == {
        "density.npz",
        "stable_states.txt",
        "populations.json",
        "density_1.png",
    }
    density = read_density(place / "density.npz")
    assert np.asarray(density.bands).shape == (2, 24)
    states = json.loads((place / "populations.json").read_text())["states"]
    assert sum(state["population"] for state in states) > 0.999
    assert np.loadtxt(place / "stable_states.txt", ndmin=2).shape == (len(states), 2)


def test_the_published_method_leaves_all_its_densities(run, tmp_path):
    command = ["density", str(run), "--zdim", "1", "-o", str(tmp_path / "d"), "--quiet"]
    assert main([*command, "--method", "published", "--n-states", "2"]) == 0
    with np.load(tmp_path / "d" / "all_densities.npz") as found:
        assert len(found["densities"]) == len(found["alphas"])
    assert len(np.loadtxt(tmp_path / "d" / "stable_states.txt", ndmin=2)) == 2


def test_impossible_options_are_told(run, tmp_path, caplog):
    for options, message in (
        (["--dims", "2", "--zdim", "1"], "Expected at most 1 for --dims"),
        (["--dims", "5"], "Expected 1 to 4 coordinates for --dims, got 5."),
        ([], "Choose one with --zdim, of 1, 2 coordinates."),
        (["--method", "published", "--replicates", "30"], "--replicates are for bands"),
    ):
        caplog.clear()
        assert main(["density", str(run), "-o", str(tmp_path / "d"), *options, "--quiet"]) == 2
        assert message in caplog.text
    assert not (tmp_path / "d").exists()

"""States of a finished run are reconstructed where users ask for them."""

import shutil

import mrcfile
import numpy as np
import pytest
from two_states import SIZE

from recovar.cli import main
from recovar.compute.memory import peak_rss
from recovar.core import fourier
from recovar.core.grid import volume_radii
from recovar.data.mrc import read_volume
from recovar.manifest import read_manifest
from recovar.records import load_arrays
from recovar.workflows.compute_state import read_points

FILES = (
    "state.mrc",
    "state_half1.mrc",
    "state_half2.mrc",
    "local_resolution.mrc",
    "fsc.txt",
)


@pytest.fixture(scope="module")
def centres(run, tmp_path_factory):
    """Latent points of both states."""
    z = load_arrays(run / "output" / "embedding" / "zdim2.npz")
    states = z["row"] % 2
    points = np.stack([z["z"][states == state].mean(0) for state in (0, 1)])
    path = tmp_path_factory.mktemp("points") / "points.txt"
    np.savetxt(path, points)
    return path


@pytest.fixture(scope="module")
def states(run, centres, tmp_path_factory):
    """States at both points, outside of the run."""
    output = tmp_path_factory.mktemp("states") / "states"
    assert compute(run, centres, "-o", output) == 0
    return output


def compute(run, points, *options) -> int:
    """Call the command."""
    given = map(str, (run, "--latent-points", points, *options, "--quiet"))
    return main(["compute_state", *given])


def correlation(one, other) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_every_state_has_its_files(states):
    assert sorted(path.name for path in states.glob("vol*")) == ["vol000", "vol001"]
    for directory in states.glob("vol*"):
        assert sorted(path.name for path in directory.iterdir()) == sorted(FILES)
        with mrcfile.open(directory / "state.mrc") as file:
            assert file.data.shape == (SIZE, SIZE, SIZE)
            assert file.voxel_size.x == pytest.approx(6.0)
    pictures = ("montage.png", "turntable.gif", "states.gif", "chimerax.cxc")
    assert all((states / name).is_file() for name in pictures)
    assert "vol001/state.mrc" in (states / "chimerax.cxc").read_text()
    assert np.loadtxt(states / "vol000" / "fsc.txt").shape == (SIZE // 2, 5)


def test_a_state_is_nearer_to_its_truth_than_to_the_other_one(states, data):
    truths = [read_volume(data / "truth" / f"vol_{n:04d}.mrc").values for n in (0, 1)]
    apart = truths[0] - truths[1]
    found = [read_volume(states / f"vol{n:03d}" / "state.mrc").values for n in (0, 1)]
    assert correlation(found[0] - found[1], apart) > 0.8
    for state, truth in zip(found, truths, strict=True):
        assert correlation(state, truth) > 0.95


def test_half_maps_are_of_different_images(states):
    halves = [read_volume(states / "vol000" / f"state_half{n}.mrc").values for n in (1, 2)]
    assert 0.5 < correlation(*halves) < 0.999


def test_less_memory_changes_nothing(run, centres, states, tmp_path, caplog):
    points = tmp_path / "many.npy"
    np.save(points, np.tile(np.loadtxt(centres), (12, 1)))
    with caplog.at_level("INFO"):
        assert compute(run, points, "-o", tmp_path / "few", "--memory", memory_for_groups()) == 0
    passes = sum("States: 240 images" in message for message in caplog.messages)
    assert passes > 1
    for state in (0, 1, 22, 23):
        one = read_volume(tmp_path / "few" / f"vol{state:03d}" / "state.mrc").values
        other = read_volume(states / f"vol{state % 2:03d}" / "state.mrc").values
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


def memory_for_groups() -> str:
    """A ceiling that leaves room for some of the states only."""
    return f"{peak_rss() + 17_000_000}B"


def test_states_of_a_run_are_kept_in_it_and_not_made_twice(run, centres, tmp_path, caplog):
    copy = shutil.copytree(run, tmp_path / "run")
    assert compute(copy, centres) == 0
    assert (copy / "output" / "compute_state" / "vol001" / "state.mrc").is_file()
    manifest = read_manifest(copy)
    assert manifest.command[1] == "pipeline"
    assert "compute_state/states" in manifest.stages
    with caplog.at_level("INFO"):
        assert compute(copy, centres) == 0
    assert any("is done; its result is loaded" in message for message in caplog.messages)
    assert (copy / "command.txt").read_text().count("compute_state") == 2


@pytest.mark.parametrize("options", [("--q", "0.9"), ("--n-std", "2.5")])
def test_the_rule_of_the_first_release_is_there(run, centres, data, tmp_path, options):
    assert compute(run, centres, "-o", tmp_path / "hard", *options) == 0
    found = read_volume(tmp_path / "hard" / "vol000" / "state.mrc").values
    truth = read_volume(data / "truth" / "vol_0000.mrc").values
    assert correlation(found, truth) > 0.85


def test_the_published_rule_is_there(run, centres, data, states, tmp_path):
    options = ("--state-method", "published", "--n-bandwidths", "5")
    assert compute(run, centres, "-o", tmp_path / "bins", *options) == 0
    names = ("state.mrc", "state_half1.mrc", "state_half2.mrc")
    found, *halves = (read_volume(tmp_path / "bins" / "vol000" / name).values for name in names)
    default = read_volume(states / "vol000" / "state_half1.mrc").values
    truth = read_volume(data / "truth" / "vol_0000.mrc").values
    assert correlation(found, truth) > 0.85
    assert 0.5 < correlation(*halves) < 0.999
    assert correlation(halves[0], default) < 0.999


def test_states_can_be_larger_than_the_images_that_were_analysed(data, tmp_path):
    run = tmp_path / "run"
    options = ("--mask", "sphere", "--zdim", "2", "--downsample", "16", "--quiet")
    assert main(["pipeline", f"{data}/particles.star", "-o", str(run), *options]) == 0
    z = load_arrays(run / "output" / "embedding" / "zdim2.npz")["z"]
    np.savetxt(tmp_path / "points.txt", z[::2].mean(0)[None])
    originals = ("--particles", f"{data}/particles.star")
    assert compute(run, tmp_path / "points.txt", "-o", tmp_path / "large", *originals) == 0
    assert compute(run, tmp_path / "points.txt", "-o", tmp_path / "small") == 0
    large = read_volume(tmp_path / "large" / "vol000" / "state.mrc")
    small = read_volume(tmp_path / "small" / "vol000" / "state.mrc")
    assert (len(large.values), large.voxel_size) == (SIZE, pytest.approx(6.0))
    assert (len(small.values), small.voxel_size) == (16, pytest.approx(7.5))
    truth = read_volume(data / "truth" / "vol_0000.mrc").values
    assert correlation(large.values, truth) > 0.95
    scale = np.vdot(large.values, truth) / np.vdot(truth, truth)
    assert scale == pytest.approx(1, abs=0.1)


def test_sharpening_raises_high_frequencies(run, centres, states, tmp_path):
    sharp = tmp_path / "sharp"
    assert compute(run, centres, "-o", sharp, "--Bfactor", "2000") == 0
    shells = np.rint(volume_radii(SIZE)).astype(int)
    powers = [
        np.bincount(shells.ravel(), np.abs(fourier.to_spectrum(volume)).ravel() ** 2)
        for volume in (read_volume(d / "vol000" / "state.mrc").values for d in (sharp, states))
    ]
    gain = np.sqrt(powers[0] / powers[1])
    assert gain[5] > 2 * gain[1] > 2


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ("1 2 3\n", (), "expected points of 1 or 2 coordinates"),
        ("1 2\n", ("--zdim", "1"), "expected points of 1 coordinates as --zdim says, found 2"),
        ("nan 2\n", (), "finite latent points"),
        ("1 2\n", ("--q", "0.9", "--n-std", "2"), "Give one of them"),
        ("1 2\n", ("--q", "2"), "between 0 and 1 for --q"),
        ("1 2\n", ("--q", "0.9", "--state-method", "published"), "not for published"),
        ("1 2\n", ("--memory", "1MB", "--state-method", "published"), "fewer --n-bandwidths"),
        ("1 2\n", ("--n-bandwidths", "1"), "at least 2 for --n-bandwidths"),
        ("1e9 2\n", ("--q", "0.9"), "No image lies within"),
        ("1 2\n", ("--memory", "1MB"), "of memory for a state"),
        ("1 2\n", ("--particles", "nowhere.star"), "no such file"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    run, tmp_path, caplog, points, options, message
):
    path = tmp_path / "points.txt"
    path.write_text(points)
    assert compute(run, path, "-o", tmp_path / "out", *options) == 2
    assert message in caplog.text
    assert not (tmp_path / "out").exists()


def test_other_images_are_not_taken_for_the_same_ones(run, centres, data, tmp_path, caplog):
    lines = (data / "particles.star").read_text().splitlines()
    rows = [number for number, line in enumerate(lines) if "@" in line]
    turned = lines[: rows[0]] + [lines[row] for row in reversed(rows)] + lines[rows[-1] + 1 :]
    other = tmp_path / "other.star"
    other.write_text("\n".join(turned) + "\n")
    options = ("--particles", other, "-o", tmp_path / "out")
    shutil.copy(data / "particles.mrcs", tmp_path)
    assert compute(run, centres, *options) == 2
    assert "expected the images of the run in another size, found others" in caplog.text


def test_a_plain_list_is_a_point_if_its_length_is_that_of_an_embedding(tmp_path):
    np.save(tmp_path / "z.npy", np.array([1.0, 2.0]))
    assert read_points(tmp_path / "z.npy", (1, 2)).shape == (1, 2)
    assert read_points(tmp_path / "z.npy", (1, 4)).shape == (2, 1)


def test_a_run_without_embeddings_is_refused(tmp_path, caplog):
    assert compute(tmp_path, tmp_path / "z.txt") == 2
    assert "Expected a run in" in caplog.text


def test_another_run_is_not_written_over(run, centres, tmp_path, caplog):
    other = shutil.copytree(run, tmp_path / "other")
    before = (other / "manifest.json").read_bytes()
    assert compute(run, centres, "-o", other) == 2
    assert "is a run of its own" in caplog.text
    assert (other / "manifest.json").read_bytes() == before

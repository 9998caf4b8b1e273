"""Scores of results that are made from the truth itself, so that their values are known."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from problems import Molecule
from scipy.spatial.transform import Rotation

from recovar.cli import main
from recovar.compute.progress import SilentReporter
from recovar.core import fourier
from recovar.core.masks import soft_edge
from recovar.data.legacy import write_pickle
from recovar.data.mrc import read_volume, write_volume
from recovar.errors import InputError
from recovar.metrics import cryobench_images, describe_population
from recovar.noise import Noise
from recovar.records import load_arrays, save_arrays
from recovar.run import Run
from recovar.workflows.configs import ScoreConfig
from recovar.workflows.score import judge, read_pair, run_score
from recovar.workflows.scoring.picture import draw_scores
from recovar.workflows.scoring.table import Score, Section, describe, to_tree

SIZE, VOXEL, SCALE = 24, 5.0, 0.25
DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Known:
    """A truth directory and what is in it."""

    place: Path
    volumes: np.ndarray
    weights: np.ndarray
    latent: np.ndarray
    contrast: np.ndarray

    @property
    def population(self):
        return describe_population(SCALE * self.volumes, self.weights)

    def coordinates(self, count):
        """Put every image where its true volume lies along the true components."""
        population = self.population
        rest = (SCALE * self.volumes - population.mean).reshape(len(self.volumes), -1)
        places = rest @ population.components[:count].reshape(count, -1).T
        return places[self.nearest]

    @property
    def nearest(self):
        states = load_arrays(self.place / "grid.npz")["latent"]
        return np.abs(self.latent[:, None] - states).argmin(1)


def volume(state):
    """A body and an arm; states 0 … 2 turn the arm by up to a right angle."""
    body = np.random.default_rng(0).normal(scale=1.5, size=(20, 3))
    arm = np.linspace(3, 8, 6)[:, None] * np.array([np.cos(0.8 * state), np.sin(0.8 * state), 0])
    return Molecule(np.concatenate([body, arm]), 1.0).volume(SIZE)


def write_truth(directory, *, continuous, count=400, **more):
    rng = np.random.default_rng(1)
    latent = rng.uniform(0, 2, count) if continuous else rng.integers(0, 3, count).astype(float)
    states = np.linspace(0, 2, 9) if continuous else np.arange(3.0)
    volumes = np.stack([volume(state) for state in states])
    nearest = np.abs(latent[:, None] - states).argmin(1)
    weights = np.bincount(nearest, minlength=len(states)) / count
    contrast = rng.normal(1, 0.15, count)
    place = directory / "truth"
    place.mkdir(parents=True)
    save_arrays(
        place / "per_image.npz",
        latent=latent,
        state=np.full(count, -1) if continuous else latent.astype(int),
        contrast=contrast,
        **more,
    )
    targets = np.array([0.0, 1.0, 2.0])
    save_arrays(place / "grid.npz", latent=states, weights=weights)
    save_arrays(place / "targets.npz", latent=targets)
    for name, each in (("vol_{:04d}", states), ("target_{:02d}", targets)):
        for number, state in enumerate(each):
            write_volume(place / f"{name.format(number)}.mrc", volume(state), VOXEL)
    write_volume(place / "mean.mrc", np.tensordot(weights, volumes, 1), VOXEL)
    write_volume(place / "mask.mrc", soft_edge(volumes.max(0) > 0.02, 4.0), VOXEL)
    np.save(place / "noise_radial.npy", np.linspace(2, 1, SIZE // 2 + 1))
    (place / "meta.json").write_text(json.dumps({"image_scale": SCALE}))
    poses = Rotation.random(count, rng=rng).as_matrix()
    write_pickle(directory / "poses.pkl", (poses, np.zeros((count, 2))))
    ctf = np.tile([SIZE, VOXEL, 9000, 9000, 0, 300, 2.7, 0.1, 0], (count, 1))
    ctf[:, 2:4] += rng.uniform(0, 9000, (count, 1))
    write_pickle(directory / "ctf.pkl", ctf)
    return Known(place, volumes, weights, latent, contrast)


@pytest.fixture(scope="module")
def discrete(tmp_path_factory):
    return write_truth(tmp_path_factory.mktemp("discrete"), continuous=False)


@pytest.fixture(scope="module")
def hinge(tmp_path_factory):
    return write_truth(tmp_path_factory.mktemp("hinge"), continuous=True)


def write_folder(folder, known, *, noise=0.0):
    """Write what a program would leave that found the truth, up to noise."""
    rng = np.random.default_rng(2)
    (folder / "per_image").mkdir(parents=True)

    def blurred(values):
        return values + noise * values.std() * rng.normal(size=values.shape)

    mean = np.tensordot(known.weights, known.volumes, 1)
    write_volume(folder / "mean.mrc", blurred(mean), VOXEL)
    population = known.population
    for number, component in enumerate(population.components[:2]):
        write_volume(folder / f"pc_{number:04d}.mrc", -3 * blurred(component), VOXEL)
    np.save(folder / "eigenvalues.npy", population.variances[:2] / 9)
    z = known.coordinates(2)
    np.save(folder / "embedding.npy", z + noise * z.std(0) * rng.normal(size=z.shape))
    np.save(folder / "contrast.npy", 2 * blurred(known.contrast))
    np.save(folder / "noise_radial.npy", 1.1 * np.linspace(2, 1, SIZE // 2 + 1))
    for number in range(3):
        target = read_volume(known.place / f"target_{number:02d}.mrc").values
        write_volume(folder / f"state_{number:02d}.mrc", blurred(target), VOXEL)
    for number, image in enumerate(cryobench_images(len(known.latent))):
        true = known.volumes[known.nearest[image]]
        write_volume(folder / "per_image" / f"vol_{number:03d}.mrc", blurred(true), VOXEL)
    return folder


def write_run(path, known, rows=None):
    """Write the files of a run of the pipeline that found the truth."""
    population, count = known.population, 2
    rows = np.arange(len(known.latent)) if rows is None else rows
    shells = SIZE**2 * np.linspace(2, 1, SIZE // 2 + 1)[: SIZE // 2]
    with Run.create_or_resume(path, (), {}) as run:
        run.stage("noise", Noise, lambda _: Noise(*[shells] * 5))
    volumes = path / "output" / "volumes"
    volumes.mkdir(parents=True)
    write_volume(volumes / "mean.mrc", population.mean, VOXEL)
    for number, component in enumerate(population.components[:count]):
        write_volume(volumes / f"eigen_pos{number:03d}.mrc", component, VOXEL)
    rng = np.random.default_rng(3)
    spread = 0.1 * np.sqrt(population.variances[:count])
    z = known.coordinates(count)[rows] + spread * rng.normal(size=(len(rows), count))
    save_arrays(
        path / "output" / "embedding" / f"zdim{count}.npz",
        z=z,
        covariance=np.tile(np.diag(spread**2), (len(rows), 1, 1)),
        z_noreg=z,
        covariance_noreg=np.tile(np.diag(spread**2), (len(rows), 1, 1)),
        contrast=known.contrast[rows],
        eigenvalues=population.variances[:count],
        identity=np.array([f"{row + 1:06d}@particles.mrcs" for row in rows]),
        row=np.arange(len(rows)),
    )
    return path


def scores_of(truth, result, **options):
    """Score without a picture, and read back what scores.json would hold."""
    config = ScoreConfig(truth=truth, result=result, **options)
    return json.loads(json.dumps(to_tree(judge(*read_pair(config), SilentReporter()))))


def test_a_perfect_folder_gets_the_best_of_everything(discrete, tmp_path):
    folder = write_folder(tmp_path / "result", discrete)
    found = scores_of(discrete.place, folder)
    perfect = (SIZE / 2 - 1) / SIZE
    assert found["mean"]["auc"] == pytest.approx({"unmasked": 1, "masked": 1})
    assert found["mean"]["local_error"]["90%"] < 1e-5
    assert found["states"]["auc"]["moving"] == pytest.approx(1)
    assert found["states"]["local_error"]["90%"] < 1e-5
    assert found["per_image"]["auc"]["masked"] == pytest.approx(perfect, abs=1e-6)
    assert found["per_image"]["auc_of_mean"]["moving"] < perfect - 0.01
    for kind in ("unmasked", "masked", "ball", "lowpass"):
        captured = found["pcs"][kind]["captured"]
        assert captured == pytest.approx(found["pcs"][kind]["optimal"], abs=1e-4)
    assert found["pcs"]["masked"]["largest_sine"]["2"] < 0.05
    assert found["pcs"]["calibration"] == pytest.approx({"1": 1, "2": 1}, rel=1e-4)
    assert found["pcs"]["covariance_error"] < 1e-3
    latent = found["latent"]
    assert latent["ari_kmeans"] == latent["ari_gmm"] == 1
    assert latent["linear_classifier_accuracy"] == 1
    assert latent["within_label_share"] == pytest.approx(0, abs=1e-12)
    assert latent["neighbours_in_common"]["30"] == 1
    assert latent["imbalance"]["to truth"] == pytest.approx(latent["imbalance"]["truth itself"])
    assert latent["imbalance_view"]["to"] == pytest.approx(1, abs=0.15)
    assert found["contrast"]["corr"] == pytest.approx(1)
    assert found["contrast"]["rmse"] == pytest.approx(0, abs=1e-6)
    assert found["noise"]["ratio_median"] == pytest.approx(1.1)


def test_a_run_is_scored_by_the_volumes_that_it_tells(discrete, tmp_path):
    run = write_run(tmp_path / "run", discrete)
    found = scores_of(discrete.place.parent, run)
    # Coordinates carry a tenth of the spread as noise, whose posterior says so.
    assert found["posterior"]["square"] == pytest.approx(1, abs=0.15)
    assert found["posterior"]["spread"] == pytest.approx({"1": 1, "2": 1}, abs=0.15)
    assert found["mean"]["scale"] == pytest.approx(1, abs=1e-5)
    assert found["noise"]["ratio_median"] == pytest.approx(1)
    assert found["conformations"]["auc"]["moving"] > found["per_image"]["auc"]["moving"]
    assert found["per_image"]["auc"]["moving"] > found["per_image"]["auc_of_mean"]["moving"]
    assert found["latent"]["ari_kmeans"] == 1


def test_a_run_of_some_images_is_matched_by_their_names(discrete, tmp_path):
    rows = np.random.default_rng(4).permutation(len(discrete.latent))[:150]
    run = write_run(tmp_path / "run", discrete, rows)
    found = scores_of(discrete.place, run)
    assert found["latent"]["images"]["judged"] == 150
    assert found["latent"]["ari_kmeans"] == 1
    assert found["contrast"]["corr"] == pytest.approx(1)


def test_a_file_of_coordinates_alone_is_scored(hinge, tmp_path):
    chosen = np.arange(0, 400, 2)
    write_pickle(tmp_path / "z.9.pkl", hinge.coordinates(2)[chosen])
    write_pickle(tmp_path / "ind.pkl", chosen)
    found = scores_of(hinge.place, tmp_path / "z.9.pkl", ind=tmp_path / "ind.pkl")
    assert set(found) == {"latent"}
    # An eighth of the range falls to one volume; within it nothing is known: 1 − 1/8² = 0.984.
    assert found["latent"]["r2_neighbours"] == pytest.approx(0.984, abs=0.015)
    assert found["latent"]["r2_linear"] > 0.8


def test_the_last_of_numbered_files_is_taken(hinge, tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    write_pickle(folder / "z.2.pkl", np.random.default_rng(0).normal(size=(400, 3)))
    write_pickle(folder / "z.10.pkl", hinge.coordinates(2))
    found = scores_of(hinge.place, folder)
    assert found["latent"]["r2_neighbours"] > 0.9


def test_neighbours_are_counted_up_to_the_smallest_state(tmp_path):
    known = write_truth(tmp_path / "data", continuous=False, count=60)
    np.save(tmp_path / "z.npy", known.coordinates(2))
    found = scores_of(known.place, tmp_path / "z.npy")
    assert np.bincount(known.latent.astype(int)).min() < 30
    assert found["latent"]["neighbours_in_common"] == {"10": 1}


def test_junk_does_not_count_and_its_scores_are_judged(tmp_path):
    kind = np.zeros(400, int)
    kind[::4] = 1
    known = write_truth(tmp_path / "data", continuous=False, kind=kind)
    folder = tmp_path / "result"
    folder.mkdir()
    z = known.coordinates(2)
    z[::4] = 100.0
    np.save(folder / "embedding.npy", z)
    np.save(folder / "outlier_scores.npy", np.where(kind == 1, 1.0, np.linspace(0, 1.25, 400)))
    found = scores_of(known.place, folder)
    assert found["latent"]["images"]["judged"] == 300
    assert found["latent"]["ari_kmeans"] == 1
    assert found["outliers"]["auc"] == pytest.approx(0.8, abs=0.01)


def test_particles_of_a_tilt_series_may_have_one_row_each(tmp_path):
    known = write_truth(tmp_path / "data", continuous=False, particle=np.arange(400) // 4)
    np.save(tmp_path / "z.npy", known.coordinates(2)[::4])
    found = scores_of(known.place, tmp_path / "z.npy")
    assert found["latent"]["images"]["judged"] == 100
    assert found["latent"]["ari_kmeans"] == 1


def test_smaller_boxes_of_the_same_width_are_compared_after_cropping_the_truth(discrete, tmp_path):
    small = fourier.crop_spectrum(fourier.to_spectrum(read_mean(discrete)), 16)
    folder = tmp_path / "result"
    folder.mkdir()
    write_volume(folder / "mean.mrc", fourier.to_volume(small), VOXEL * SIZE / 16)
    found = scores_of(discrete.place, folder)
    assert found["mean"]["auc"]["unmasked"] == pytest.approx(1, abs=1e-6)


def read_mean(known):
    return read_volume(known.place / "mean.mrc").values


def test_noise_in_a_result_lowers_its_scores(hinge, tmp_path):
    folder = write_folder(tmp_path / "result", hinge, noise=1.0)
    found = scores_of(hinge.place, folder)
    assert 0.2 < found["mean"]["auc"]["unmasked"] < 0.95
    assert found["mean"]["local_error"]["median"] > 0.1
    assert (
        found["pcs"]["unmasked"]["captured"]["1"] < 0.9 * found["pcs"]["unmasked"]["optimal"]["1"]
    )
    assert 0.2 < found["latent"]["r2_quadratic"] < 0.9
    assert found["contrast"]["corr"] == pytest.approx(0.5**0.5, abs=0.1)
    assert found["latent"]["imbalance"]["to truth"] > 0.2


@pytest.mark.parametrize("kind", ["discrete", "hinge"])
def test_an_independent_scorer_gives_the_same_numbers(kind, tmp_path, request, shared):
    script, known = shared / "eval" / "score.py", request.getfixturevalue(kind)
    noise = 1.0 if kind == "hinge" else 0.3  # clusters must not depend on where they start
    folder = write_folder(tmp_path / "result", known, noise=noise)
    ours = scores_of(known.place, folder)
    command = [sys.executable, script, "score", known.place, folder, "--json", tmp_path / "t.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    theirs = json.loads((tmp_path / "t.json").read_text())
    for region in ("unmasked", "masked"):
        assert ours["mean"]["auc"][region] == pytest.approx(theirs["mean"][region]["auc"], abs=1e-5)
        for name in ("res05", "res0143"):
            # Where correlations never fall that far, the last shell is told here and Nyquist there.
            expected = max(theirs["mean"][region][name], 2 * VOXEL * SIZE / (SIZE - 2))
            assert ours["mean"][name][region] == pytest.approx(expected, rel=1e-5)
    for number, state in enumerate(theirs["states"]):
        for region in ("unmasked", "masked", "moving"):
            mine = ours["states"][f"{number:02d}"]["auc"][region]
            assert mine == pytest.approx(state[region]["auc"], abs=1e-5)
    for region in ("unmasked", "masked", "lowpass"):
        for name in ("captured", "optimal"):
            mine = ours["pcs"][region][name]
            assert mine == pytest.approx(theirs["pcs"][region][name], abs=1e-5)
        for rank, cosines in theirs["pcs"][region]["cos_angles"].items():
            mine = list(ours["pcs"][region]["cos_angles"][rank].values())
            assert mine == pytest.approx(cosines, abs=1e-4)
    for name in set(ours["latent"]) & set(theirs["latent"]):
        margin = 0.03 if name.startswith("ari") else 1e-6
        assert ours["latent"][name] == pytest.approx(theirs["latent"][name], abs=margin)
    for name in ("corr", "rmse", "sd_est", "sd_true"):
        assert ours["contrast"][name] == pytest.approx(theirs["contrast"][name], abs=2e-3)
    assert ours["noise"] == pytest.approx(theirs["noise"])


def test_the_command_prints_a_table_and_leaves_numbers_and_a_picture(hinge, tmp_path, capsys):
    folder = write_folder(tmp_path / "result", hinge)
    (folder / "contrast.npy").unlink()
    assert main(["score", str(hinge.place.parent), str(folder)]) == 0
    told = capsys.readouterr().err
    for title in ("Mean", "States", "Components", "Latent coordinates", "Noise"):
        assert f"\n{title}\n" in told
    assert "Not scored:" in told
    assert "contrast: the result has none" in told
    assert (folder / "score" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "score" / "scores.json").read_text())["mean"]["auc"]


@pytest.mark.parametrize("name", ["mean.mrc", "noise_radial.npy", "state_01.mrc", "contrast.npy"])
def test_whatever_is_missing_the_rest_is_scored(discrete, tmp_path, name):
    whole, folder = write_folder(tmp_path / "whole", discrete), tmp_path / "result"
    folder.mkdir()
    (folder / name).write_bytes((whole / name).read_bytes())
    config = ScoreConfig(truth=discrete.place, result=folder)
    truth, found = read_pair(config)
    sections = judge(truth, found, SilentReporter())
    assert len(to_tree(sections)) == 1
    titles = [axes.get_title(loc="left") for axes in draw_scores(truth, found, sections).axes]
    assert len(titles) == 6


def definitions_of(tree):
    """Name scores as the page of definitions does, which writes … for a number or a variant."""
    for group, scores in tree.items():
        for name, value in scores.items():
            if name.isdigit() or name in ("unmasked", "masked", "ball", "lowpass"):
                yield from (f"{group}.….{inner}" for inner in value)
            else:
                yield f"{group}.{name}"


def test_every_score_has_its_definition(discrete, hinge, tmp_path):
    text, names = DOCS.read_text(), set()
    for known in (discrete, hinge):
        run = write_run(tmp_path / known.place.parent.name, known)
        names |= set(definitions_of(scores_of(known.place, run)))
    assert len(names) > 30
    assert not {name for name in names if f"`{name}`" not in text}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: np.save(f / "embedding.npy", np.zeros((399, 2))), "embedding of 399 images"),
        (lambda f: write_volume(f / "mean.mrc", np.ones((24, 24, 24)), 2.0), "24 of 2 Å"),
        (lambda f: write_volume(f / "mean.mrc", np.ones((32, 32, 32)), 3.75), "32 of 3.75 Å"),
        (lambda f: write_volume(f / "pc_0000.mrc", np.ones((16, 16, 16)), 7.5), "a box of 24"),
        (lambda f: (f / "embedding.npy").write_bytes(b"junk"), "no array that can be read"),
    ],
)
def test_results_that_do_not_fit_the_truth_are_refused(discrete, tmp_path, break_it, message):
    folder = write_folder(tmp_path / "result", discrete)
    break_it(folder)
    with pytest.raises(InputError, match=message):
        run_score(ScoreConfig(truth=discrete.place, result=folder), SilentReporter())
    assert not (folder / "score").exists()


def test_wrong_places_are_refused_in_a_sentence(discrete, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    run = write_run(tmp_path / "run", discrete)
    for truth, result, more, message in (
        (tmp_path / "empty", run, (), "Expected a truth directory"),
        (discrete.place, tmp_path / "empty", (), "holds nothing that can be scored"),
        (discrete.place, tmp_path / "nowhere", (), "nothing is there"),
        (discrete.place, run, ("--zdim", "7"), "no embedding of 7 coordinates. Give one of 2"),
        (discrete.place, run, ("--ind", "x.npy"), "Leave out --ind"),
        (discrete.place, tmp_path / "empty", ("--zdim", "2"), "nothing for --zdim to choose"),
        (discrete.place, run, ("--zdim", "0"), "Expected at least 1 for --zdim"),
    ):
        assert main(["score", str(truth), str(result), *more]) == 2
        assert message in capsys.readouterr().err


def test_a_run_of_other_images_is_refused(discrete, tmp_path):
    run = write_run(tmp_path / "run", discrete)
    file = run / "output" / "embedding" / "zdim2.npz"
    each = load_arrays(file)
    each["identity"] = np.array([f"{n + 900:06d}@particles.mrcs" for n in range(400)])
    save_arrays(file, **each)
    with pytest.raises(InputError, match=r"has image 1299, and the truth .* knows 400"):
        scores_of(discrete.place, run)


def test_a_truth_with_a_missing_volume_is_refused(tmp_path):
    known = write_truth(tmp_path / "data", continuous=False, count=40)
    (known.place / "vol_0002.mrc").unlink()
    np.save(tmp_path / "z.npy", np.zeros((40, 2)))
    with pytest.raises(InputError, match="Expected 3 volumes"):
        scores_of(known.place, tmp_path / "z.npy")


def test_images_without_coordinates_are_left_out(discrete, tmp_path):
    z = discrete.coordinates(2)
    z[:10] = np.nan
    np.save(tmp_path / "z.npy", z)
    found = scores_of(discrete.place, tmp_path / "z.npy")
    assert found["latent"]["images"] == {"judged": 390, "usable": 390, "without": 10}


def test_a_table_and_its_numbers_tell_the_same():
    section = Section(
        "Some",
        (
            Score("some.thing", 0.12345, "of something", 1.0),
            Score("some.parts", {"a": 2.0, "b": float("inf")}, "long " * 30),
            Score("some.hidden.1", 3.0),
        ),
    )
    assert to_tree([section]) == {
        "some": {"thing": 0.12345, "parts": {"a": 2.0, "b": None}, "hidden": {"1": 3.0}}
    }
    lines = describe([section])
    assert lines[:2] == ["", "Some"]
    assert lines[2].split() == ["thing", "0.123", "(best", "1)", "of", "something"]
    assert lines[3].split() == ["parts", "a", "2", "b", "inf"]
    assert all(len(line) <= 100 for line in lines)
    assert not any("hidden" in line for line in lines)

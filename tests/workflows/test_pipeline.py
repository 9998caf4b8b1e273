import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from two_states import COUNT, GRID, QUICK, SIZE, call

from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import volume_radii
from recovar.core.masks import soft_edge, sphere
from recovar.data.mrc import read_volume, write_volume
from recovar.data.particles import read_particles
from recovar.data.star import read_star, read_star_table, write_particles
from recovar.manifest import read_manifest
from recovar.maximization import bytes_of_sums
from recovar.records import load_arrays
from recovar.reproducibility import Reproducibility
from recovar.run import Run, read_result
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.heterogeneity import analyse_heterogeneity
from recovar.workflows.inputs import read_inputs
from recovar.workflows.mean import analyse_mean
from recovar.workflows.work import Work


def volume(run: Path, name: str) -> np.ndarray:
    return read_volume(run / "output" / "volumes" / f"{name}.mrc").values


def embedding(run: Path, zdim: int) -> dict[str, np.ndarray]:
    return dict(np.load(run / "output" / "embedding" / f"zdim{zdim}.npz"))


def test_a_run_leaves_what_is_promised(run):
    volumes = {path.name for path in (run / "output" / "volumes").iterdir()}
    assert volumes >= {
        *("mean.mrc", "mean_half1.mrc", "mean_half2.mrc", "mean_filtered.mrc"),
        *("mask.mrc", "dilated_mask.mrc", "heterogeneity_mask.mrc"),
        *("eigen_pos000.mrc", "eigen_neg000.mrc", "variance4.mrc", "variance20.mrc"),
    }
    plots = {path.stem for path in (run / "output" / "plots").iterdir()}
    assert plots >= {"fsc", "noise", "eigenvalues", "contrast", "embedding", "mean", "components"}
    assert plots >= {"nuisance", "reproducibility"}
    decisions = {name for stage in read_manifest(run).stages.values() for name in stage.decisions}
    assert decisions >= {"half sets", "sign of the images", "solvent mask", "noise"}
    log = (run / "run.log").read_text()
    assert "largest frequency of the components: " in log
    assert "Results are in" in log


def test_the_component_that_tells_the_states_apart_is_found_in_both_halves(run):
    found = read_result(run, "reproducibility", Reproducibility)
    assert found.real[0]
    table = np.loadtxt(run / "output" / "reproducibility.txt")
    np.testing.assert_allclose(table[:, 2], found.shared, atol=1e-3)
    decision = read_manifest(run).stages["reproducibility"].decisions["real components"]
    assert decision.value.startswith(f"{found.real.sum()} of {len(found.shared)} (1")
    assert f"suggested zdim {found.suggested_zdim}: " in (run / "run.log").read_text()


def test_half_sets_are_fitted_apart_only_if_that_is_wanted(run, data, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "model" / "reproducibility.npz").unlink()
    options = (*QUICK, "--correct-contrast", "--quiet", "--no-reproducibility")
    assert call(data, copy, *options) == 0
    assert not (copy / "model" / "reproducibility.npz").exists()


def test_the_audit_of_nuisances_is_written_for_people_and_programs(run):
    found = json.loads((run / "output" / "nuisance.json").read_text())
    names = [nuisance["name"] for nuisance in found["nuisances"]]
    assert names[:3] == ["defocus", "astigmatism", "viewing direction"]
    assert "contrast" in names
    coordinates = len(found["coordinates"])
    for nuisance in found["nuisances"]:
        for kind in ("mean", "spread"):
            assert len(nuisance[kind]["share"]) == len(nuisance[kind]["chance"]) == coordinates
    table = (run / "output" / "nuisance.txt").read_text()
    assert all(table.count(f"\n{name} ") == 2 for name in names)


def test_half_sets_are_two_arrays_of_original_indices(run):
    halves = pickle.loads((run / "model" / "halfsets.pkl").read_bytes())
    assert len(halves) == 2
    np.testing.assert_array_equal(np.sort(np.concatenate(halves)), np.arange(COUNT))


def test_numbers_for_scripts_are_in_one_file_of_plain_arrays(run):
    numbers = load_arrays(run / "model" / "results.npz")
    assert len(numbers["contrast"]) == len(numbers["half"]) == len(numbers["row"]) == COUNT
    np.testing.assert_array_equal(numbers["eigenvalues"], embedding(run, 2)["eigenvalues"])
    assert len(numbers["fsc"]) == len(numbers["noise_variance"]) == SIZE // 2
    assert tuple(numbers["volume_shape"]) == (SIZE,) * 3


def test_the_two_states_are_told_apart(run):
    first = embedding(run, 2)["z"][:, 0]
    states = np.arange(COUNT) % 2
    right = np.mean((first > np.median(first)) == states)
    # Chance gives 0.5 ± 0.03; two overlapping normal clouds at this noise give about 0.95.
    assert max(right, 1 - right) > 0.85


def test_volumes_along_the_component_go_from_state_to_state(run, data):
    z = embedding(run, 1)["z"][:, 0]
    states = np.arange(COUNT) % 2
    means = [z[states == state].mean() for state in (0, 1)]
    ends = [volume(run, "mean") + mean * volume(run, "eigen_pos000") for mean in means]
    truth = [read_volume(data / "truth" / f"vol_{state:04d}.mrc").values for state in (0, 1)]
    found, wanted = ends[1] - ends[0], truth[1] - truth[0]
    assert np.vdot(found, wanted) > 0.6 * np.linalg.norm(found) * np.linalg.norm(wanted)
    mean = volume(run, "mean")
    scale = np.vdot(mean, sum(truth) / 2) / np.vdot(mean, mean)
    assert scale == pytest.approx(1, abs=0.2)


def test_components_are_normalized_and_variances_add_up(run):
    components = [volume(run, f"eigen_pos{k:03d}") for k in range(2)]
    np.testing.assert_allclose([(v**2).sum() for v in components], SIZE**-3, rtol=1e-4)
    np.testing.assert_array_equal(volume(run, "eigen_neg001"), -components[1])
    eigenvalues = embedding(run, 2)["eigenvalues"]
    expected = sum(e * v**2 for e, v in zip(eigenvalues, components, strict=True))
    np.testing.assert_allclose(volume(run, "variance4"), expected, rtol=1e-3, atol=1e-9)


def test_embeddings_say_which_images_they_are_of(run):
    found = embedding(run, 1)
    np.testing.assert_array_equal(found["row"], np.arange(COUNT))
    assert found["identity"][2] == "000003@particles.mrcs"
    assert found["covariance"].shape == (COUNT, 1, 1)
    assert found["contrast"].std() > 0.02
    assert set(found) >= {"z_noreg", "covariance_noreg"}


def test_the_star_file_has_latent_columns_and_reads_as_particles(run, data):
    file = run / "output" / "particles.star"
    table = read_star(file)[1]
    latent = np.array(table.columns["recovarLatent01"], float)
    np.testing.assert_allclose(latent, embedding(run, 2)["z"][:, 0], rtol=1e-4)
    again = read_particles(file, datadir=data)
    assert again.half is not None
    assert len(again) == COUNT


def test_a_second_call_repeats_nothing(run, data, caplog):
    before = (run / "model" / "subspace.npz").stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "recovar"):
        assert call(data, run, *QUICK, "--correct-contrast") == 0
    assert (run / "model" / "subspace.npz").stat().st_mtime_ns == before
    assert "starts" not in caplog.text
    assert "Stage subspace is done" in caplog.text


def test_memory_and_batches_change_nothing(run, data, tmp_path):
    config = PipelineConfig(
        particles=(data / "particles.star",),
        output=tmp_path / "poor",
        mask="sphere",
        zdim=(1, 2),
        correct_contrast=True,
    )
    budget = 12_000_000  # the sums of the fit need about three times what is left of this
    with Run.create_or_resume(config.output, [], {}) as poor:
        work = Work(config, read_inputs(config), poor, LocalExecutor(), budget)
        images = work.bank(1.0)
        assert work.room(images) < bytes_of_sums(Ball(SIZE, 9), 10)
        assert sum(1 for _ in images.blocks()) >= 4
        analyse_heterogeneity(work, analyse_mean(work))
    # Only rounding may differ, which the iterations of the fit hardly amplify.
    for zdim in (1, 2):
        z = embedding(run, zdim)["z"]
        np.testing.assert_allclose(embedding(config.output, zdim)["z"], z, atol=1e-3 * z.std())


@pytest.mark.parametrize(
    ("count", "mask"), [(2, "sphere"), (3, "from_halfmaps"), (4, "sphere"), (4, "from_halfmaps")]
)
def test_only_the_mean_of_few_images_is_no_problem(data, tmp_path, count, mask):
    output = tmp_path / "few"
    assert call(data, output, "--only-mean", "--n-images", count, "--mask", mask, "--quiet") == 0
    assert volume(output, "mean").shape == GRID.volume_shape
    assert (output / "output" / "plots" / "fsc.png").exists()
    assert not (output / "output" / "embedding").exists()


def test_premultiplied_images_are_taken_and_named(data, tmp_path, caplog):
    shutil.copytree(data, tmp_path / "data")
    star = tmp_path / "data" / "particles.star"
    write_particles(star, replace(read_star_table(star), premultiplied=True))
    with caplog.at_level(logging.INFO):
        options = ("--only-mean", "--mask", "sphere", "--n-images", 8, "--quiet")
        assert call(tmp_path / "data", tmp_path / "run", *options) == 0
    assert "images were multiplied by their transfer functions" in caplog.text


def test_images_of_the_other_sign_are_flipped(data, tmp_path):
    flipped = tmp_path / "data"
    shutil.copytree(data, flipped)
    stack = flipped / "particles.mrcs"
    raw = np.memmap(stack, "<f4", "r+", offset=1024)
    raw *= -1
    raw.flush()
    options = ("--only-mean", "--mask", "sphere", "--quiet")
    assert call(flipped, tmp_path / "a", *options) == 0
    assert call(flipped, tmp_path / "b", *options, "--uninvert-data", "false") == 0
    signs = [read_manifest(tmp_path / r).stages["first_mean"].decisions for r in "ab"]
    assert [sign["sign of the images"].value for sign in signs] == ["flipped", "kept"]
    np.testing.assert_allclose(volume(tmp_path / "a", "mean"), -volume(tmp_path / "b", "mean"))


def test_shrunken_images_give_the_same_mean_in_a_smaller_box(data, tmp_path):
    options = ("--only-mean", "--mask", "none", "--uninvert-data", "false", "--quiet")
    assert call(data, tmp_path / "whole", *options) == 0
    assert call(data, tmp_path / "small", *options, "--downsample", 16) == 0
    file = tmp_path / "small/output/volumes/mean_half1.mrc"
    assert read_volume(file).voxel_size == pytest.approx(7.5)
    small = fourier.to_spectrum(volume(tmp_path / "small", "mean_half1"))
    whole = fourier.to_spectrum(volume(tmp_path / "whole", "mean_half1"))
    # Pixels keep their values, so that a coefficient of an image scales with their number.
    expected = fourier.crop_spectrum(whole, 16) * (16 / 20) ** 2
    low = volume_radii(16) < 5
    difference = np.linalg.norm((small - expected)[low])
    # The edges of the windows on both maps lie at different radii.
    assert difference < 0.1 * np.linalg.norm(expected[low])


def test_a_focus_mask_bounds_the_components(data, tmp_path):
    axis = np.arange(SIZE) - SIZE // 2
    focus = soft_edge(sphere(SIZE) & (axis > 1), 2)
    write_volume(tmp_path / "focus.mrc", focus, 6.0)
    options = ("--mask", "sphere", "--zdim", 1, "--focus-mask", tmp_path / "focus.mrc", "--quiet")
    assert call(data, tmp_path / "run", *options) == 0
    component = volume(tmp_path / "run", "eigen_pos000")
    inside = (component[focus > 0.01] ** 2).sum()
    assert inside > 0.9 * (component**2).sum()
    assert (tmp_path / "run/output/volumes/focus_mask.mrc").exists()


def write_array(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--zdim", "0"], "Expected numbers of coordinates"),
        (["--zdim", "three"], "three"),
        (["--n-images", "1"], "at least 2 for --n-images"),
        (["--downsample", "15"], "even number"),
        (["--downsample", "64"], "at most the 20 pixels"),
        (["--mask", "missing.mrc"], "no such file"),
        (["--mask", "sphere", "--mask-option", "none"], "contradict each other"),
        (["--memory", "much"], "amount of memory"),
        (["--memory", "1MB"], "for --memory"),
        (["--ind", "missing.pkl"], "no such file"),
        (["--poses", "missing.pkl"], "no such file"),
        (["--uninvert-data", "perhaps"], "perhaps"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    data, tmp_path, capsys, options, sentence
):
    assert call(data, tmp_path / "run", *options) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_wrong_files_are_refused_before_anything_is_written(data, tmp_path, capsys):
    poses = pickle.loads((data / "poses.pkl").read_bytes())
    write_volume(tmp_path / "mask.mrc", np.ones((12, 12, 12), np.float32), 6.0)
    for option, file, sentence in [
        ("--poses", write_array(tmp_path / "few.pkl", (poses[0][:5], poses[1][:5])), "240 images"),
        ("--ctf", write_array(tmp_path / "code.pkl", Path), "nothing was executed"),
        ("--ind", write_array(tmp_path / "none.pkl", np.zeros(COUNT, bool)), "are selected"),
        ("--mask", tmp_path / "mask.mrc", "a box of 20 voxels"),
        ("--focus-mask", tmp_path / "mask.mrc", "a box of 20 voxels"),
        ("--halfsets", write_array(tmp_path / "h.pkl", [np.arange(5), np.arange(5)]), "both half"),
    ]:
        assert call(data, tmp_path / "run", option, file) == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_images_that_are_not_finite_leave_no_directory(data, tmp_path, capsys):
    spoilt = tmp_path / "data"
    shutil.copytree(data, spoilt)
    np.memmap(spoilt / "particles.mrcs", "<f4", "r+", offset=1024)[7 * SIZE**2] = np.nan
    assert call(spoilt, tmp_path / "run") == 2
    assert "image 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_stack_is_named(data, tmp_path, capsys):
    (tmp_path / "particles.star").write_bytes((data / "particles.star").read_bytes())
    assert call(tmp_path, tmp_path / "run") == 2
    assert "particles.mrcs not found" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_directory_with_other_things_is_left_alone(data, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert call(data, tmp_path) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "sign_of_life"),
    [("em", "Subspace, iteration 4 of"), ("columns", "Variance: ")],
)
def test_a_killed_run_goes_on_to_the_same_result(data, tmp_path, method, sign_of_life):
    options = ["--mask", "sphere", "--zdim", "1,2", "--subspace", method]
    command = [sys.executable, "-c", "import recovar.cli; raise SystemExit(recovar.cli.main())"]
    arguments = ["pipeline", data / "particles.star", "-o", tmp_path / "killed", *options]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        log, deadline = tmp_path / "killed" / "run.log", time.monotonic() + 120
        while not (log.exists() and sign_of_life in log.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert "subspace" not in json.loads((tmp_path / "killed/manifest.json").read_text())["stages"]
    assert call(data, tmp_path / "killed", *options, "--quiet") == 0
    assert call(data, tmp_path / "whole", *options, "--quiet") == 0
    for zdim in (1, 2):
        z = embedding(tmp_path / "whole", zdim)["z"]
        found = embedding(tmp_path / "killed", zdim)["z"]
        np.testing.assert_allclose(found, z, atol=1e-3 * z.std())

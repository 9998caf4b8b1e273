"""The command that traces paths: what it leaves, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from two_states import SIZE

from recovar.cli import main
from recovar.data.mrc import read_volume
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.record import write_density
from recovar.errors import InputError
from recovar.manifest import read_manifest
from recovar.workflows.finished import open_finished
from recovar.workflows.tracing.config import ComputeTrajectoryConfig
from recovar.workflows.tracing.ends import find_ends


def trace(run: Path, output: Path, *options: object) -> int:
    command = ["compute_trajectory", str(run), "-o", str(output), "--quiet", "--q", "0.9"]
    return main([*command, *map(str, options)])


@pytest.fixture(scope="module")
def coordinates(run):
    return open_finished(run).embedding(2).coordinates


@pytest.fixture(scope="module")
def points(coordinates, tmp_path_factory) -> Path:
    """Three latent points, two of them the outermost images along coordinate 1."""
    order = np.argsort(coordinates[:, 0])
    path = tmp_path_factory.mktemp("points") / "points.txt"
    np.savetxt(path, coordinates[[order[2], order[len(order) // 2], order[-3]]])
    return path


@pytest.fixture(scope="module")
def traced(run, points, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("traced") / "path"
    assert trace(run, output, "--endpts", points, "--ind", "0,2", "--n-vols", 3) == 0
    return output


def test_a_trajectory_leaves_path_pictures_and_volumes(traced, points):
    told = json.loads((traced / "path.json").read_text())
    path, ends = np.array(told["path"]), np.loadtxt(points)[[0, 2]]
    assert (told["kind"], told["method"]) == ("density", "grid")
    assert path.shape == (200, 2)
    np.testing.assert_allclose(path[[0, -1]], ends, rtol=1e-6)
    np.testing.assert_allclose(told["path_subsampled"], path[[0, 100, 199]])
    assert len(told["density"]) == len(told["arc_length"]) == 200
    for name in (
        "path_density_t.png",
        "density/density_01.png",
        "density_along_path.png",
        "montage.png",
    ):
        assert (traced / name).read_bytes().startswith(b"\x89PNG")
    volumes = [read_volume(traced / f"reweight_{n:03d}.mrc").values for n in range(3)]
    assert volumes[0].shape == (SIZE,) * 3
    first, last = (np.linalg.norm(volumes[n] - volumes[1]) for n in (0, 2))
    assert np.linalg.norm(volumes[2] - volumes[0]) > max(first, last)
    assert not (traced / "reweight_003.mrc").exists()


def test_a_second_call_repeats_nothing_and_other_ends_all(run, traced, points, tmp_path):
    copy = tmp_path / "path"
    shutil.copytree(traced, copy)
    before = read_manifest(copy).stages
    assert trace(run, copy, "--endpts", points, "--kmeans-ind", "0,2", "--n-vols", 3) == 0
    assert read_manifest(copy).stages == before
    assert trace(run, copy, "--endpts", points, "--ind", "2,0", "--n-vols", 2) == 0
    assert not (copy / "reweight_002.mrc").exists()
    assert set(read_manifest(copy).stages) == {"path", "pictures", "states"}


def test_a_given_density_is_followed_and_its_lacking_coordinates_are_told(
    run, coordinates, points, tmp_path
):
    density = tmp_path / "density.npz"
    write_density(density, estimate_kernel_density(coordinates[:, :1]))
    options = ("--endpts", points, "--ind", "0,2", "--n-vols", 2, "--density", density)
    assert trace(run, tmp_path / "path", *options) == 0
    told = json.loads((tmp_path / "path" / "path.json").read_text())
    assert (told["kind"], told["density_coordinates"]) == ("density", 1)
    assert "the first 1 of 2 coordinates" in told["remark"]
    assert not (tmp_path / "path" / "density").exists()


def test_the_ends_of_one_coordinate_need_not_be_given(run):
    config = ComputeTrajectoryConfig(run=run, zdim=1)
    ends = find_ends(config, open_finished(run))
    z = open_finished(run).embedding(1).coordinates
    assert z.min() <= ends[0, 0] < np.percentile(z, 1) < np.percentile(z, 99) < ends[1, 0]


def test_two_files_or_two_rows_give_the_same_ends(run, points, tmp_path):
    values = np.loadtxt(points)
    for name, row in (("a.txt", values[0]), ("b.txt", values[2])):
        np.savetxt(tmp_path / name, row[None])
    finished = open_finished(run)
    files = ComputeTrajectoryConfig(run=run, z_st=tmp_path / "a.txt", z_end=tmp_path / "b.txt")
    rows = ComputeTrajectoryConfig(run=run, endpts=points, kmeans_ind=(0, 2))
    np.testing.assert_array_equal(find_ends(files, finished), find_ends(rows, finished))


def test_clusters_of_an_analysis_are_numbered(run, points, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    finished = open_finished(copy)
    config = ComputeTrajectoryConfig(run=copy, kmeans_ind=(1, 2))
    with pytest.raises(InputError, match=r"has none\. Run recovar analyze first"):
        find_ends(config, finished)
    for clusters in (3, 4):
        kmeans = copy / "output" / "analysis_2" / f"kmeans_{clusters}"
        kmeans.mkdir(parents=True)
        shutil.copy(points, kmeans / "centers.txt")
        if clusters == 3:
            np.testing.assert_allclose(find_ends(config, finished), np.loadtxt(points)[1:])
    with pytest.raises(InputError, match=r"kmeans_3/centers.txt, .*kmeans_4/centers.txt. Name one"):
        find_ends(config, finished)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Expected the ends of the trajectory"),
        (("--endpts", "{points}"), "expected two latent points, found 3. Choose two rows"),
        (("--endpts", "{points}", "--ind", "0,5"), "expected at least 6 points"),
        (("--endpts", "{points}", "--ind", "1,1"), "Expected two different numbers"),
        (
            ("--endpts", "{points}", "--ind", "0,1", "--zdim", 1),
            "points of 1 coordinates as --zdim",
        ),
        (("--endpts", "{wide}"), "expected points of 1 or 2 coordinates"),
        (("--endpts", "{far}"), "lies where there are no images: its coordinate 2"),
        (("--endpts", "{same}"), "are the same point"),
        (("--endpts", "{none}"), "no_file.txt"),
        (("--z-st", "{far}"), "Give both or none"),
        (("--z-st", "{points}", "--z-end", "{points}"), "Expected one latent point in each"),
        (("--z-st", "{far}", "--z-end", "{far}", "--ind", "0,1"), "The ends are given twice"),
        (("--endpts", "{points}", "--ind", "0,2", "--n-vols", 1), "at least 2 for --n-vols"),
        (("--endpts", "{points}", "--ind", "0,2", "--density", "{wide}"), "not a readable .npz"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    run, points, tmp_path, caplog, options, sentence
):
    names = {name: tmp_path / f"{name}.txt" for name in ("wide", "far", "same")}
    np.savetxt(names["wide"], np.zeros((2, 7)))
    np.savetxt(names["far"], [[0, 0], [0, 1e9]])
    np.savetxt(names["same"], np.loadtxt(points)[[1, 1]])
    names |= {"points": points, "none": tmp_path / "no_file.txt"}
    given = [str(option).format(**names) for option in options]
    assert trace(run, tmp_path / "path", *given) == 2
    assert sentence in caplog.text
    assert not (tmp_path / "path").exists()


def test_graph_and_line_say_that_they_are_for_looking_only(run, points, tmp_path):
    for method in ("graph", "line"):
        options = ("--endpts", points, "--ind", "0,2", "--n-vols", 2, "--method", method)
        assert trace(run, tmp_path / method, *options) == 0
        told = json.loads((tmp_path / method / "path.json").read_text())
        assert (told["kind"], told["method"]) == ("visual", method)
        assert "For looking only" in told["remark"]

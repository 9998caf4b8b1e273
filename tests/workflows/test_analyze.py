import logging
import pickle
import re
import shutil
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from two_states import COUNT, SIZE

from recovar.cli import main
from recovar.cli.options import read_attribute_texts
from recovar.data.legacy import read_indices
from recovar.data.mrc import read_volume
from recovar.data.star_text import read_star_text
from recovar.manifest import read_manifest
from recovar.workflows.analyzing.config import AnalyzeConfig
from recovar.workflows.analyzing.pairs import choose_pairs

CLUSTERS = 4
KMEANS = f"kmeans_{CLUSTERS}"
QUICK = ("--zdim", 2, "--n-clusters", CLUSTERS, "--skip-umap", "--n-vols", 3)


def analyze(run: Path, *options: object) -> int:
    return main(["analyze", str(run), *map(str, options), "--quiet"])


@pytest.fixture(scope="module")
def analysed(run, tmp_path_factory) -> Path:
    """A run with an analysis."""
    place = tmp_path_factory.mktemp("analysed") / "run"
    shutil.copytree(run, place)
    assert analyze(place, *QUICK) == 0
    return place


@pytest.fixture(scope="module")
def kmeans(analysed) -> Path:
    return analysed / "output" / "analysis_2" / KMEANS


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def test_an_analysis_leaves_what_is_promised(analysed, kmeans):
    assert names(kmeans.parent) >= {"pca_01.png", KMEANS}
    states = {
        name.format(state)
        for state in range(CLUSTERS)
        for name in (
            "reweight_{:03d}.mrc",
            "reweight_halfmap0_{:03d}.mrc",
            "reweight_halfmap1_{:03d}.mrc",
            "local_resolution_{:03d}.mrc",
            "cluster_{:03d}.star",
        )
    }
    assert names(kmeans) >= states | {
        *("centers.pkl", "centers.npy", "centers.txt", "labels.pkl", "labels.npy"),
        *("centers_01.png", "centers_01no_annotate.png", "clusters_01.png"),
        *("cluster_sizes.txt", "cluster_sizes.png", "montage.png", "chimerax.cxc"),
        *("trajectory_endpoints.pkl", "trajectory_endpoints.npz"),
        *("path0/path.json", "path0/path_density_t.png", "path0/density/density_01.png"),
        *(f"path0/reweight_{state:03d}.mrc" for state in range(3)),
        *("path0/montage.png", "path0/chimerax.cxc"),
    }
    assert read_volume(kmeans / "reweight_000.mrc").values.shape == (SIZE,) * 3
    assert not [name for name in names(analysed) if ".partial." in name]


def test_clusters_are_told_alike_in_every_file(analysed, kmeans):
    z = np.load(analysed / "output/embedding/zdim2.npz")["z"]
    labels, centers = np.load(kmeans / "labels.npy"), np.load(kmeans / "centers.npy")
    for name, array in (("labels", labels), ("centers", centers)):
        content = pickle.loads((kmeans / f"{name}.pkl").read_bytes())
        assert type(content) is np.ndarray
        np.testing.assert_array_equal(content, array)
    np.testing.assert_allclose(np.loadtxt(kmeans / "centers.txt"), centers, rtol=1e-8)
    assert (np.abs(z[:, None] - centers).sum(2) == 0).any(0).all()
    sizes = np.loadtxt(kmeans / "cluster_sizes.txt")
    np.testing.assert_array_equal(sizes[:, 1], np.bincount(labels))
    assert sizes[:, 2].sum() == pytest.approx(100, abs=0.1)


def test_the_states_of_the_molecule_are_in_different_clusters(kmeans):
    labels = np.load(kmeans / "labels.npy")
    truth = np.arange(COUNT) % 2
    shares = [truth[labels == k].mean() for k in range(CLUSTERS)]
    assert min(shares) < 0.2
    assert max(shares) > 0.8


def test_particles_of_clusters_are_those_that_export_takes(analysed, kmeans, data, tmp_path):
    labels = np.load(kmeans / "labels.npy")
    whole = (data / "particles.star").read_bytes().splitlines(keepends=True)
    taken = []
    for number in range(CLUSTERS):
        file = kmeans / f"cluster_{number:03d}.star"
        options = ["--cluster", str(number), "--zdim", "2", "--overwrite", "--quiet"]
        for suffix in (".star", ".txt"):
            out = tmp_path / f"out{suffix}"
            assert main(["export", str(analysed), "-o", str(out), *options]) == 0
        assert (tmp_path / "out.star").read_bytes() == file.read_bytes()
        np.testing.assert_array_equal(
            read_indices(tmp_path / "out.txt"), np.flatnonzero(labels == number)
        )
        rows = [line for line in file.read_bytes().splitlines(keepends=True) if b"@" in line]
        assert set(rows) <= set(whole)
        taken += rows
        assert len(read_star_text(file).particles) == len(rows)
    assert sorted(taken) == sorted(line for line in whole if b"@" in line)


def test_ends_of_trajectories_are_centres(kmeans):
    ends = np.load(kmeans / "trajectory_endpoints.npz")
    content = pickle.loads((kmeans / "trajectory_endpoints.pkl").read_bytes())
    for name in ("centers", "pairs"):
        np.testing.assert_array_equal(content[name], ends[name])
    np.testing.assert_array_equal(ends["centers"], np.load(kmeans / "centers.npy"))
    np.testing.assert_array_equal(ends["pairs"], choose_pairs(ends["centers"], 2))


def test_a_second_call_repeats_nothing_and_other_numbers_live_beside(analysed, tmp_path, caplog):
    run = tmp_path / "run"
    shutil.copytree(analysed, run)
    before = names(run)
    with caplog.at_level(logging.INFO, "recovar"):
        assert analyze(run, *QUICK) == 0
    assert "starts" not in caplog.text
    assert names(run) == before
    options = ("--zdim", 2, "--n-clusters", 2, "--skip-umap", "--skip-centers")
    assert analyze(run, *options, "--n-trajectories", 0) == 0
    new = names(run) - before
    assert "output/analysis_2/kmeans_2/labels.npy" in new
    assert not [name for name in new if "reweight" in name or "path0" in name]
    assert before <= names(run)
    assert read_manifest(run).command[1] == "pipeline"
    assert main(["export", str(run), "-o", f"{run}.txt", "--zdim", "2", "--cluster", "0"]) == 2
    assert (
        main(["export", str(run), "-o", f"{run}.txt", "--cluster", "0", "--n-clusters", "2"]) == 0
    )


def test_a_directory_elsewhere_gets_the_same_files(analysed, kmeans, tmp_path):
    before = names(analysed)
    few = ("--skip-umap", "--skip-centers", "--n-trajectories", 0)
    options = ("--zdim", 2, "--n-clusters", CLUSTERS, *few, "-o", tmp_path / "own")
    assert analyze(analysed, *options) == 0
    assert names(analysed) == before
    for name in ("labels.npy", "centers.txt", "cluster_000.star", "centers_01.png"):
        assert (tmp_path / "own" / KMEANS / name).read_bytes() == (kmeans / name).read_bytes()
    assert analyze(analysed, *QUICK, "-o", analysed / "model") == 2


def test_one_coordinate_is_analysed_with_one_trajectory(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    options = ("--zdim", 1, "--n-clusters", 3, "--n-vols", 2, "--skip-centers")
    assert analyze(tmp_path / "run", *options) == 0
    found = names(tmp_path / "run" / "output" / "analysis_1")
    wanted = {"pca_0.png", "kmeans_3/centers_0.png", "kmeans_3/path0/reweight_001.mrc"}
    assert found >= wanted
    assert "umap.png" not in found
    assert "kmeans_3/path1" not in found
    labels = np.load(tmp_path / "run/output/analysis_1/kmeans_3/labels.npy")
    z = np.load(tmp_path / "run/output/embedding/zdim1.npz")["z"][:, 0]
    bounds = [(z[labels == k].min(), z[labels == k].max()) for k in range(3)]
    assert bounds[0][1] < bounds[1][0]
    assert bounds[1][1] < bounds[2][0]


@pytest.mark.slow
def test_a_map_is_drawn_where_umap_is_at_hand(run, tmp_path):
    pytest.importorskip("umap")
    shutil.copytree(run, tmp_path / "run")
    few = ("--skip-centers", "--n-trajectories", 0)
    assert analyze(tmp_path / "run", "--zdim", 2, "--n-clusters", 2, *few) == 0
    place = tmp_path / "run" / "output" / "analysis_2"
    embedding = np.load(place / "umap_embedding.npy")
    assert embedding.shape == (COUNT, 2)
    np.testing.assert_array_equal(
        pickle.loads((place / "umap_embedding.pkl").read_bytes()), embedding
    )
    maps = {"centers_umap.png", "centers_umapno_annotate.png", "clusters_umap.png"}
    assert names(place / "kmeans_2") >= maps
    assert (place / "umap.png").exists()


def test_without_umap_it_is_said_and_all_else_is_done(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    shutil.copytree(run, tmp_path / "run")
    few = ("--skip-centers", "--n-trajectories", 0)
    assert analyze(tmp_path / "run", "--zdim", 2, "--n-clusters", 2, *few) == 0
    assert "pip install 'recovar[umap]'" in capsys.readouterr().err
    assert (tmp_path / "run/output/analysis_2/kmeans_2/labels.npy").exists()


def test_particles_that_are_gone_are_told_of(run, data, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(data), str(tmp_path / "gone")))
    options = ("--zdim", 2, "--n-clusters", 2, "--skip-umap", "--skip-centers")
    assert analyze(tmp_path / "run", *options, "--n-trajectories", 0) == 0
    assert "particles of clusters are not written" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--zdim", 7), "no embedding of 7 coordinates. Give one of 1, 2"),
        ((), "Choose one with --zdim, of 1, 2 coordinates"),
        (("--zdim", 2, "--n-clusters", 0), "at least 1 for --n-clusters"),
        (("--zdim", 2, "--n-clusters", 999), "from 1 to 240 clusters"),
        (("--zdim", 2, "--n-trajectories", -1), "at least 0 for --n-trajectories"),
        (("--zdim", 2, "--n-vols", 1), "at least 2 for --n-vols"),
        (("--zdim", 2, "--q", 2), "quantile between 0 and 1"),
        (("--zdim", 2, "--density", "nowhere.npz"), "nowhere.npz"),
        (("--density", "a.npz", "--n-trajectories", 0), "--density is for trajectories"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(run, tmp_path, capsys, options, message):
    shutil.copytree(run, tmp_path / "run")
    assert analyze(tmp_path / "run", *options, "-o", tmp_path / "own") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "own" / KMEANS / "labels.npy").exists()


def test_a_place_without_a_finished_run_is_refused(tmp_path, capsys):
    assert analyze(tmp_path, "--zdim", 2) == 2
    assert "Expected a run" in capsys.readouterr().err


@given(
    seed=st.integers(0, 2**16),
    clusters=st.integers(2, 9),
    zdim=st.integers(1, 4),
    count=st.integers(0, 8),
)
def test_pairs_are_the_farthest_that_are_left_and_then_the_ends_of_axes(
    seed, clusters, zdim, count
):
    centres = np.random.default_rng(seed).normal(size=(clusters, zdim))
    pairs = choose_pairs(centres, count)
    assert len(pairs) <= count
    far = 0 if zdim == 1 else min((count + 1) // 2, clusters // 2)
    left = set(range(clusters))
    for a, b in pairs[:far]:
        longest = max(np.linalg.norm(centres[i] - centres[j]) for i, j in combinations(left, 2))
        assert np.linalg.norm(centres[a] - centres[b]) == pytest.approx(longest)
        left -= {a, b}
    ends = {tuple(pair) for pair in np.stack([centres.argmin(0), centres.argmax(0)], axis=1)}
    assert {tuple(pair) for pair in pairs[far:]} <= ends
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)


def test_the_page_names_every_option():
    page = (Path(__file__).parents[2] / "docs" / "analyze.md").read_text()
    for name in set(read_attribute_texts(AnalyzeConfig)) - {"run", "output"}:
        assert re.search(rf"--{name.replace('_', '-')}\b", page), name

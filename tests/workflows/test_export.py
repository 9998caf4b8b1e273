"""Particles taken back out of runs, which are made here of plain arrays."""

import csv
import os
import pickle
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.cli import main
from recovar.cli.options import read_attribute_texts
from recovar.core.ctf import Optics
from recovar.data import ImageTable
from recovar.data.cryosparc import write_cs
from recovar.data.cryosparc_tables import read_cs, read_csg, read_joined_cs
from recovar.data.export import write_rows
from recovar.data.legacy import read_indices, write_pickle
from recovar.data.star import write_particles
from recovar.data.star_blocks import read_star
from recovar.data.star_text import read_star_text
from recovar.errors import InputError
from recovar.manifest import fingerprint
from recovar.records import load_arrays, save_arrays
from recovar.run import Run
from recovar.workflows.exporting.config import ExportConfig
from recovar.workflows.exporting.query import evaluate_query

COUNT = 40
HEAD = """# kept as it is
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImageSize #3
1   'the first'  32
2 second   32

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnMicrographName #4
_rlnClassNumber #5
"""
LINES = [
    f"{' ' * (row % 3)}{row + 1:0{4 + row % 3}d}@s{row % 2}.mrcs  {1 + (row >= 20)}\t"
    f"{10_000 + 100 * row}.50  'mic {row}.mrc' 7 \r\n"
    for row in range(COUNT)
]


def write_star(path, lines=LINES):
    path.write_bytes(HEAD.encode() + "".join(lines).encode())
    return path


def names_of(path):
    return [str(name) for name in read_star_text(path).particles.columns["rlnImageName"]]


@dataclass(frozen=True)
class Made:
    """A run with what was put into it."""

    path: Path
    original: Path
    z: np.ndarray
    covariance: np.ndarray
    contrast: np.ndarray
    row: np.ndarray

    def export(self, name, *options):
        return main(
            ["export", str(self.path), "-o", str(self.path.parent / name), *map(str, options)]
        )

    def rows(self, *options):
        """Export indices, and read them back."""
        assert self.export("rows.txt", "--overwrite", *options) == 0
        return read_indices(self.path.parent / "rows.txt").tolist()


def make_run(place, original, identity, row, *, particles=None, table=None):
    """Leave what the pipeline leaves, as far as exports need it."""
    rng = np.random.default_rng(3)
    count = len(row)
    z = rng.normal(size=(count, 2))
    half = rng.normal(size=(count, 2, 2))
    covariance = np.einsum("nij,nkj->nik", half, half) + 0.1 * np.eye(2)
    contrast = rng.uniform(0.5, 1.5, count)
    config = {
        "particles": particles or str(original),
        "output": str(place / "run"),
        "passthrough": [],
    }

    def inputs(stage):
        with stage.write("model/halfsets.pkl") as partial:
            write_pickle(partial, [np.sort(row[half_set::2]) for half_set in (0, 1)])

    def embed(stage):
        for zdim in (1, 2):
            with stage.write(f"output/embedding/zdim{zdim}.npz") as partial:
                save_arrays(
                    partial,
                    z=z[:, :zdim],
                    covariance=covariance[:, :zdim, :zdim],
                    z_noreg=z[:, :zdim],
                    covariance_noreg=covariance[:, :zdim, :zdim],
                    contrast=contrast,
                    eigenvalues=np.ones(zdim),
                    identity=identity,
                    row=row,
                )
        if table is not None:
            with stage.write("output/particles.star") as partial:
                write_particles(partial, table)

    with Run.create_or_resume(place / "run", ["recovar"], config) as run:
        files = {str(original): fingerprint(original)}
        run.stage("inputs", NoneType, inputs, options={"files": files})
        run.stage("embedding", NoneType, embed)
    return Made(place / "run", original, z, covariance, contrast, row)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A run of most rows of a STAR file, in another order."""
    place = tmp_path_factory.mktemp("made")
    original = write_star(place / "particles.star")
    row = np.random.default_rng(0).permutation(COUNT)[:30]
    names = np.array(names_of(original))[row]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        made = make_run(Path(), Path("particles.star"), names, row)
    return replace(made, path=place / "run", original=original)


@pytest.fixture
def made(once, tmp_path):
    """That run for one test, with the file that it was made from."""
    shutil.copytree(once.path.parent, tmp_path, dirs_exist_ok=True)
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(once.path.parent), str(tmp_path)))
    return replace(once, path=tmp_path / "run", original=tmp_path / "particles.star")


def image_table(count):
    rng = np.random.default_rng(5)

    def some(low, high):
        return rng.uniform(low, high, count).astype(np.float32)

    values = (some(1e4, 2e4), some(1e4, 2e4), some(0, 1), np.full(count, 300, np.float32))
    rest = (np.full(count, 2.7, np.float32), np.full(count, 0.1, np.float32), some(0, 1))
    optics = Optics(*values, *rest, np.zeros(count, np.float32), np.ones(count, np.float32))
    return ImageTable(
        source=Path("x"),
        stacks=("a.mrcs",),
        stack_index=np.zeros(count, np.int32),
        slice_index=np.arange(count),
        identity=np.arange(count),
        box=np.full(count, 32),
        pixel_size=np.full(count, 2.0),
        rotations=np.tile(np.eye(3), (count, 1, 1)),
        shifts=rng.uniform(-1, 1, (count, 2)),
        optics=optics,
    )


@pytest.fixture
def made_of_cs(tmp_path):
    """A run of a .cs file whose CTFs and more lie in a second table."""
    table = image_table(COUNT)
    uids = np.random.default_rng(1).permutation(2**63 + np.arange(COUNT, dtype=np.uint64))
    write_cs(tmp_path / "all.cs", table, uids)
    rows = read_cs(tmp_path / "all.cs")
    names = rows.dtype.names
    ctf = [name for name in names if name.startswith("ctf/")]
    write_rows(tmp_path / "J7_particles.cs", rows[[name for name in names if name not in ctf]])
    write_rows(tmp_path / "J7_passthrough_particles.cs", rows[["uid", *ctf]][::-1])
    row = np.arange(COUNT)
    return make_run(tmp_path, tmp_path / "J7_particles.cs", uids, row, table=table)


def test_kept_rows_and_all_else_keep_every_byte(made):
    assert made.export("half.star", "--half", 1) == 0
    rows = np.sort(made.row[::2])
    expected = HEAD.encode() + "".join(LINES[row] for row in rows).encode()
    assert (made.path.parent / "half.star").read_bytes() == expected


def test_groups_of_optics_that_are_not_used_are_left_out(made):
    assert made.export("few.star", "--where", "rlnOpticsGroup == 2") == 0
    text = (made.path.parent / "few.star").read_text()
    assert "2 second   32\n\ndata_particles" in text
    assert "the first" not in text


def test_a_real_file_comes_out_of_a_run_as_it_went_in(shared, tmp_path):
    for name in ("iospi/test.star", "cryodrgn/relion31.v2.star"):
        original = shared / "data" / "zoo" / name
        names = np.array(names_of(original))
        place = tmp_path / original.stem
        place.mkdir()
        run = make_run(place, original, names, np.arange(len(names)))
        assert run.export("all.star") == 0
        assert (place / "all.star").read_bytes() == original.read_bytes()
        assert run.export("some.star", "--half", 2) == 0
        lines = set(original.read_bytes().splitlines())
        kept = (place / "some.star").read_bytes().splitlines()
        assert set(kept) <= lines
        assert sum(b"@" in line for line in kept) == len(names[1::2])


def test_a_real_table_of_cryosparc_reimports_identically(shared, tmp_path):
    original = shared / "data/zoo/cryodrgn/cryosparc_P12_J24_001_particles.rows0-999.cs"
    rows = np.load(original)
    run = make_run(tmp_path, original, rows["uid"], np.arange(len(rows)))
    assert run.export("some.cs", "--where", "latent1 > 0 and ctf/df1_A > 0") == 0
    again = np.load(tmp_path / "some.cs")
    assert again.dtype == rows.dtype
    assert again.tobytes() == rows[run.z[:, 0] > 0].tobytes()


def test_images_that_are_probably_junk_can_be_left_out(made, tmp_path):
    junk = np.where(np.arange(30) % 4, 0.01, 0.99)
    assert made.export("all.txt", "--where", "junk < 0.5") == 2
    save_arrays(made.path / "output" / "outliers.npz", log_odds=0 * junk, probability=junk)
    assert made.export("good.txt", "--where", "junk < 0.5") == 0
    rows = np.loadtxt(tmp_path / "good.txt", dtype=int)
    np.testing.assert_array_equal(rows, np.sort(made.row[junk < 0.5]))


def test_latent_columns_and_classes_are_added_and_old_ones_taken_away(made, tmp_path):
    np.save(tmp_path / "labels.npy", np.arange(30) % 3)
    options = ("--labels", tmp_path / "labels.npy", "--cluster", "0,2", "--class-number")
    assert made.export("a.star", *options, "--latent", "--absolute-paths") == 2
    assert made.export("a.star", *options, "--latent") == 0
    order = np.argsort(made.row)
    order = order[np.isin(order % 3, (0, 2))]
    columns = read_star(tmp_path / "a.star")[1].columns
    assert [int(v) for v in columns["rlnClassNumber"]] == (order % 3 + 1).tolist()
    np.testing.assert_allclose(np.array(columns["recovarLatent02"], float), made.z[order, 1], 1e-5)
    np.testing.assert_allclose(
        np.array(columns["recovarContrast"], float), made.contrast[order], atol=1e-5
    )
    text = (tmp_path / "a.star").read_text()
    assert f"'mic {made.row[order[0]]}.mrc' " in text
    assert made.export("b.star", "--original", tmp_path / "a.star", "--latent", "--zdim", 1) == 0
    assert "recovarLatent02" not in read_star(tmp_path / "b.star")[1]
    assert "recovarLatent01" in read_star(tmp_path / "b.star")[1]


def test_absolute_names_hold_from_anywhere(made, tmp_path):
    for name in ("s0.mrcs", "s1.mrcs"):
        (tmp_path / name).touch()
    assert made.export("a.star", "--absolute-paths", "--where", "rlnDefocusU < 10400") == 0
    row = int(made.row.min())
    assert (
        names_of(tmp_path / "a.star")[0] == f"{row + 1:0{4 + row % 3}d}@{tmp_path}/s{row % 2}.mrcs"
    )


def test_names_of_files_may_be_any_bytes(tmp_path):
    original = tmp_path / "p.star"
    lines = "".join(LINES[:4]).encode().replace(b"@s", b"@\xe9\xc3\xa9")
    original.write_bytes(HEAD.encode() + lines)
    for stack in (b"0", b"1"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9\xc3\xa9" + stack + b".mrcs")).touch()
    run = make_run(tmp_path, original, np.array(names_of(original)), np.arange(4))
    assert run.export("a.star", "--where", "rlnOpticsGroup < 9") == 0
    assert (tmp_path / "a.star").read_bytes().endswith(lines)
    assert run.export("b.star", "--absolute-paths") == 0
    assert os.fsencode(tmp_path) + b"/\xe9\xc3\xa91.mrcs" in (tmp_path / "b.star").read_bytes()
    assert run.export("a.csv") == 0
    assert b"\n0001@\xe9\xc3\xa90.mrcs,0," in (tmp_path / "a.csv").read_bytes()


def test_images_are_found_in_a_file_that_was_reordered_and_lost_some(made, tmp_path, capsys):
    order = np.random.default_rng(9).permutation(COUNT)[:25]
    (tmp_path / "moved").mkdir()
    moved = write_star(
        tmp_path / "moved" / "p.star", [LINES[row].replace("00", "0") for row in order]
    )
    made.original.unlink()
    assert made.export("all.star") == 2
    assert "is not there any more" in capsys.readouterr().err
    assert made.export("all.star", "--original", moved) == 0
    lost = set(made.row) - set(order)
    assert f"{len(lost)} of 30 selected images are not in {moved}" in capsys.readouterr().err
    kept = [row for row in order if row in made.row]
    assert [int(name.split("@")[0]) - 1 for name in names_of(tmp_path / "all.star")] == kept
    assert made.rows("--original", moved) == [k for k, row in enumerate(order) if row in made.row]
    assert made.export("all.csv", "--original", moved) == 0
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert sum(row["row"] == "-1" for row in rows) == len(lost)


def test_repeated_names_are_told_apart_only_in_the_very_file(tmp_path, capsys):
    original = write_star(tmp_path / "twice.star", [*LINES[:5], *LINES[:5]])
    run = make_run(tmp_path, original, np.array(names_of(original)), np.arange(10))
    assert run.rows("--half", 2) == [1, 3, 5, 7, 9]
    write_star(original, [*LINES[:5], LINES[6], *LINES[:5]])
    assert run.export("x.txt") == 2
    assert "names 10 of its images more than once" in capsys.readouterr().err


def test_a_run_that_moved_with_its_data_finds_them(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    original = write_star(Path("p.star"))
    make_run(Path(), original, np.array(names_of(original)), np.arange(COUNT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert main(["export", "b/run", "-o", "out.star"]) == 0
    assert Path("out.star").read_bytes() == Path("b/p.star").read_bytes()


def test_tables_of_cryosparc_come_with_what_passes_through_and_their_group(made_of_cs, tmp_path):
    assert made_of_cs.export("out/some.cs", "--half", 1) == 0
    for name, source in (
        ("some.cs", "J7_particles.cs"),
        ("some_passthrough_particles.cs", "J7_passthrough_particles.cs"),
    ):
        rows, again = np.load(tmp_path / source), np.load(tmp_path / "out" / name)
        whole = rows.view(f"V{rows.itemsize}")[:: -1 if "passthrough" in name else 1]
        assert again.dtype == rows.dtype
        assert again.tobytes() == whole[::2].tobytes()
    groups = {group: path.name for group, path in read_csg(tmp_path / "out/some.csg").items()}
    assert groups == {
        "alignments3D": "some.cs",
        "blob": "some.cs",
        "ctf": "some_passthrough_particles.cs",
    }
    joined = read_joined_cs(tmp_path / "out" / "some.csg")
    assert [len(table) for table in joined] == [20, 20]
    moved = made_of_cs.export("again.cs", "--original", tmp_path / "out/some.csg", "--half", 1)
    assert moved == 0
    assert (tmp_path / "again.cs").read_bytes() == (tmp_path / "out/some.cs").read_bytes()


def test_runs_of_other_formats_give_converted_star_files(made_of_cs, tmp_path, capsys):
    assert made_of_cs.export("some.star", "--box", "1:0..", "--latent") == 0
    chosen = np.flatnonzero(made_of_cs.z[:, 0] >= 0)
    assert names_of(tmp_path / "some.star") == [f"{row + 1:06d}@a.mrcs" for row in chosen]
    stack = tmp_path / "a.mrcs"
    stack.touch()
    (tmp_path / "s").mkdir()
    names = np.array([f"{row + 1:06d}@a.mrcs" for row in range(COUNT)])
    run = make_run(tmp_path / "s", stack, names, np.arange(COUNT), table=image_table(COUNT))
    assert run.rows("--half", 2) == list(range(1, COUNT, 2))
    assert run.export("some.star", "--half", 2) == 0
    assert len(names_of(tmp_path / "s" / "some.star")) == COUNT // 2
    capsys.readouterr()
    assert run.export("some.cs") == 2
    assert "which has no table of images" in capsys.readouterr().err
    (tmp_path / "t").mkdir()
    files = [str(stack), str(stack)]
    several = make_run(tmp_path / "t", stack, names, np.arange(COUNT), particles=files)
    assert several.export("some.csv") == 0
    capsys.readouterr()
    assert several.export("some.cs") == 2
    assert "was made from 2 files. Write another format" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize("suffix", [".txt", ".npy", ".pkl"])
def test_indices_are_of_the_particles_file_and_lie_in_a_text_too(made, tmp_path, suffix):
    assert made.export(f"i{suffix}", "--half", 2) == 0
    expected = np.sort(made.row[1::2])
    assert read_indices(tmp_path / f"i{suffix}", COUNT).tolist() == expected.tolist()
    assert np.loadtxt(tmp_path / "i.txt", dtype=int).tolist() == expected.tolist()
    if suffix == ".pkl":
        content = pickle.loads((tmp_path / "i.pkl").read_bytes())
        assert type(content) is np.ndarray
        assert content.dtype == np.int64


def test_tables_hold_what_is_known_of_every_image(made, tmp_path):
    assert made.export("t.npz", "--n-clusters", 3, "--seed", 4) == 0
    table = load_arrays(tmp_path / "t.npz")
    np.testing.assert_array_equal(table["row"], made.row)
    np.testing.assert_array_equal(table["z"], made.z)
    np.testing.assert_allclose(table["sd"] ** 2, np.einsum("nkk->nk", made.covariance))
    assert sorted(set(table["label"])) == [0, 1, 2]
    assert made.export("t.csv", "--n-clusters", 3, "--seed", 4) == 0
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["identity"] for row in rows] == table["identity"].tolist()
    np.testing.assert_allclose([float(row["latent2"]) for row in rows], made.z[:, 1], rtol=1e-8)
    assert [int(row["label"]) for row in rows] == table["label"].tolist()
    assert [int(row["half"]) for row in rows] == [1, 2] * 15


def test_conditions_are_joined_and_inverted(made, tmp_path):
    x, y = made.z.T
    lower, upper = sorted(np.quantile(made.contrast, [0.2, 0.7]))

    def expect(mask, *options):
        assert made.rows(*options) == np.sort(made.row[mask]).tolist()

    expect((x >= -0.5) & (x <= 0.5) & (y <= 1), "--box", "1:-0.5..0.5, 2:..1")
    contrasts = ("--min-contrast", lower, "--max-contrast", upper)
    inside = (made.contrast >= lower) & (made.contrast <= upper)
    expect(inside & (x < 0), *contrasts, "--where", "latent1 < 0")
    expect(~(inside & (x < 0)), *contrasts, "--where", "latent1 < 0", "--invert")
    defocus = 10_000.5 + 100 * made.row
    expect((defocus > 11_000) & (x > y), "--where", "rlnDefocusU > 11e3 and latent1 > latent2")
    np.savetxt(tmp_path / "square.txt", [[0, 0], [0, 1], [1, 1], [1, 0]])
    square = ("--polygon", tmp_path / "square.txt")
    expect((x > 0) & (x < 1) & (y > 0) & (y < 1), *square)
    np.save(tmp_path / "triangle.npy", [[-9.0, -9.0], [9.0, -9.0], [9.0, 9.0]])
    expect(y > x, "--polygon", tmp_path / "triangle.npy", "--axes", "2,1")


def test_the_nearest_images_are_taken(made):
    point = np.array([0.3, -0.2])
    away = made.z - point
    for distance, squares in (
        ("euclidean", (away**2).sum(1)),
        (
            "mahalanobis",
            [d @ np.linalg.solve(c, d) for d, c in zip(away, made.covariance, strict=True)],
        ),
    ):
        rows = made.rows("--near=0.3,-0.2", "--count", 7, "--distance", distance)
        assert rows == np.sort(made.row[np.argsort(squares)[:7]]).tolist()


def test_lists_count_the_file_or_the_run(made, tmp_path):
    (tmp_path / "ind.txt").write_text(" ".join(map(str, made.row[:4])))
    assert made.rows("--ind", tmp_path / "ind.txt") == np.sort(made.row[:4]).tolist()
    (tmp_path / "ind.txt").write_text("3 1")
    expected = np.sort(made.row[[3, 1]]).tolist()
    assert made.rows("--ind", tmp_path / "ind.txt", "--ind-of", "run") == expected


def test_some_are_drawn_by_the_seed(made):
    drawn = [made.rows("--half", 1, "--random", 6, "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 6
    assert set(drawn[0]) <= set(made.row[::2])


def test_labels_are_of_the_run_or_of_the_file(made, tmp_path, capsys):
    np.save(tmp_path / "run.npy", np.arange(30))
    np.save(tmp_path / "file.npy", np.arange(COUNT))
    assert made.rows("--labels", tmp_path / "run.npy", "--cluster", "3,4") == sorted(made.row[3:5])
    row = int(made.row[0])
    assert made.rows("--labels", tmp_path / "file.npy", "--cluster", row) == [row]
    analysis = made.path / "output" / "analysis_2"
    for count in (2, 5):
        (analysis / f"kmeans_{count}").mkdir(parents=True)
        np.save(analysis / f"kmeans_{count}" / "labels.npy", np.arange(30) % count)
        if count == 2:
            assert made.rows("--cluster", 0) == sorted(made.row[::2])
    assert made.rows("--cluster", 0, "--n-clusters", 5) == sorted(made.row[::5])
    assert made.export("x.txt", "--cluster", 0) == 2
    assert "several divisions into clusters: kmeans_2, kmeans_5" in capsys.readouterr().err
    whole = make_run_of_all(tmp_path / "other")
    assert whole.export("x.txt", "--labels", tmp_path / "file.npy", "--cluster", "1") == 2
    assert "the labels may be of either" in capsys.readouterr().err


def make_run_of_all(place):
    place.mkdir()
    original = write_star(place / "p.star")
    row = np.arange(COUNT)[::-1].copy()
    return make_run(place, original, np.array(names_of(original))[row], row)


def test_nothing_is_replaced_that_should_stay(made, tmp_path, capsys):
    before = made.original.read_bytes()
    assert made.export("particles.star", "--half", 1, "--overwrite") == 2
    assert "is an input; it is never overwritten" in capsys.readouterr().err
    assert made.original.read_bytes() == before
    (tmp_path / "ind.txt").write_text("0 1 2 3 4 5 6 7 8 9")
    options = ("--ind", tmp_path / "ind.txt", "--overwrite")
    assert made.export("ind.npy", *options) == 2
    assert not (tmp_path / "ind.npy").exists()
    assert made.export("run/output/embedding/zdim2.npz", "--overwrite") == 2
    assert made.export("a.npy", "--half", 1) == 0
    (tmp_path / "a.npy").unlink()
    capsys.readouterr()
    assert made.export("a.npy", "--half", 2) == 2
    assert "a.txt exists. Choose another name, or allow it" in capsys.readouterr().err
    assert not (tmp_path / "a.npy").exists()
    assert made.export("a.npy", "--half", 2, "--overwrite") == 0
    assert np.load(tmp_path / "a.npy").tolist() == np.sort(made.row[1::2]).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--zdim", 7), "no embedding of 7 coordinates. Give one of 1, 2"),
        (("--where", "contrast > 9"), "None of the 30 images"),
        (("--where", "color > 9"), "nothing that is called color"),
        (("--where", "rlnMicrographName > 9"), "expected numbers in _rlnMicrographName"),
        (("--box", "3:0..1"), "Expected coordinates from 1 to 2 for --box, got 3"),
        (("--box", "1:2..1"), "expected bounds such as"),
        (("--box", "1=2"), "expected bounds such as"),
        (("--near=1", "--count", 3), "Expected 2 coordinates for --near"),
        (("--near=1,2", "--count", 31), "Expected at most 30 for --count"),
        (("--cluster", 1), "--cluster needs clusters"),
        (("--cluster", 9, "--n-clusters", 2), "no cluster 9 in k-means of 2 coordinates"),
        (("--random", 31), "Expected at most 30 for --random"),
        (("--n-clusters", 31, "--cluster", 0), "from 1 to 30 clusters"),
        (("--half", 3), "Expected 1 or 2 for --half"),
        (("--latent",), "change rows of a .star file"),
        (("--count", 3), "--count needs --near"),
        (("--axes", "1,2"), "--axes needs --polygon"),
        (("--n-clusters", 2), "--n-clusters needs --cluster or --class-number"),
        (("--original", "nowhere.star"), "Expected a STAR file at nowhere.star"),
        (("--original", "nowhere.cs"), "was made from a STAR file"),
        (("--original", "nowhere.txt"), "Expected a .star, .cs or .csg file for --original"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(made, tmp_path, capsys, options, message):
    assert made.export("x.txt", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x.txt").exists()


def test_files_of_other_kinds_are_refused(made, tmp_path, capsys):
    assert made.export("x.xml") == 2
    assert "Expected a file ending in .star, .cs" in capsys.readouterr().err
    assert made.export("x.cs") == 2
    assert "the run was made from a STAR file" in " ".join(capsys.readouterr().err.split())
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "x.txt")]) == 2
    other = write_star(tmp_path / "o.star", [line.replace("@s", "@other") for line in LINES])
    assert made.export("x.txt", "--original", other) == 2
    assert "has none of the 30 images" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.star", "particles.star", "run"]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.b > 1",
        "a[0] > 1",
        "a",
        "a and b",
        "a > 'x'",
        "a > True",
        "a / 2 > 1",
        "a ** 9 > 1",
        "(a > 1) & (b > 1)",
        "a in b",
        "a is b",
        "a = 1",
        "lambda: a > 1",
        "[a > 1]",
        "a > 1; b > 1",
        "a > 1\0",
        "a > 1" + "0" * 5000,
        "(" * 5000,
        "a > " + "-" * 5000 + "1",
        "not " * 5000 + "a > 1",
        "",
    ],
)
def test_queries_that_are_not_comparisons_are_refused(text):
    columns = {"a": np.arange(3.0), "b": np.ones(3)}
    with pytest.raises(InputError, match="--where"):
        evaluate_query(text, 3, columns.__getitem__)


@given(values=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1))
def test_queries_mean_what_python_means(values):
    a, b = np.array(values, float).T
    text = "(a < b <= 2 or not a != -1) and a + 2 * b - 1 >= -b or a == 3"
    expected = [eval(text, {}, {"a": x, "b": y}) for x, y in zip(a, b, strict=True)]
    assert evaluate_query(text, len(a), {"a": a, "b": b}.__getitem__).tolist() == expected


def test_unknown_numbers_meet_no_comparison():
    columns = {"a": np.array([np.nan, 1.0])}
    assert evaluate_query("a < 2", 2, columns.__getitem__).tolist() == [False, True]


def test_the_page_names_every_option():
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    for name in set(read_attribute_texts(ExportConfig)) - {"run", "output"}:
        assert re.search(rf"--{name.replace('_', '-')}\b", page), name

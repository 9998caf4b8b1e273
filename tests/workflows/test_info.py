"""Reports on files: those of other programs, and made ones whose mistakes are known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recovar.cli import main
from recovar.core.ctf import Optics
from recovar.core.poses import random_rotations, rotations_from_relion_euler
from recovar.data import ImageTable
from recovar.data.cryosparc import read_cs, write_cs
from recovar.data.legacy import ctf_rows, write_indices, write_pickle, write_poses_pickle
from recovar.data.mrc import write_stack, write_volume
from recovar.data.mrc_header import HEADER_BYTES
from recovar.data.star import write_particles
from recovar.data.star_blocks import StarTable, read_star, write_star
from recovar.errors import InputError
from recovar.records import save_arrays
from recovar.run import Run
from recovar.workflows.info import report_file
from recovar.workflows.informing.config import InfoConfig
from recovar.workflows.informing.report import describe, to_plain
from recovar.workflows.informing.views import measure_coverage

COUNT, BOX, PIXEL = 400, 32, 2.5


def report(path, **options):
    return report_file(path, InfoConfig(files=(path,), **options))


def tell(path):
    try:
        return report(path)
    except InputError as refusal:
        return refusal


def facts(path, **options):
    return {fact.name: fact for fact in report(path, **options).facts}


def doubts(path):
    return "\n".join(report(path).doubts)


def make_optics(count=COUNT, **changes):
    usual = {
        "defocus_u": 15000.0,
        "defocus_v": 14000.0,
        "defocus_angle": 0.3,
        "voltage": 300.0,
        "spherical_aberration": 2.7,
        "amplitude_contrast": 0.1,
        "phase_shift": 0.0,
        "b_factor": 0.0,
        "scale": 1.0,
    }
    return Optics(**{n: np.full(count, v, np.float32) for n, v in (usual | changes).items()})


def make_table(count=COUNT, optics=None, **changes):
    generator = np.random.default_rng(0)
    table = ImageTable(
        source=Path("made.star"),
        stacks=("made.mrcs",),
        stack_index=np.zeros(count, np.int32),
        slice_index=np.arange(count),
        identity=np.arange(count),
        box=np.full(count, BOX),
        pixel_size=np.full(count, PIXEL),
        rotations=random_rotations(count, generator),
        shifts=generator.uniform(-3, 3, (count, 2)),
        optics=make_optics(count, **(optics or {})),
        half=(np.arange(count) % 2).astype(np.int8),
    )
    return replace(table, **changes)


@pytest.fixture
def images():
    """A disc of radius 6 in noise of deviation 1."""
    y, x = np.indices((BOX, BOX)) - BOX // 2
    disc = np.hypot(x, y) < 6
    noise = np.random.default_rng(1).standard_normal((COUNT, BOX, BOX))
    return (noise + 0.5 * disc).astype(np.float32)


@pytest.fixture
def particles(tmp_path, images):
    write_particles(tmp_path / "made.star", make_table())
    write_stack(tmp_path / "made.mrcs", images, PIXEL)
    return tmp_path / "made.star"


ZOO = (
    *("aspire", "cryocat", "cryodrgn", "cryojax", "cryolike", "cryosparc-tools", "cylindra"),
    *("drgnai", "dynamo2m", "emtable", "iospi", "maven", "mrcfile", "ngl", "relion"),
    *("rosettasciio", "simplecryoem", "spider", "starfile", "tomodrgn", "xmipp"),
)


@pytest.mark.parametrize("folder", ZOO)
def test_every_file_of_others_is_told_about_or_refused_with_a_sentence(shared, folder):
    files = [f for f in (shared / "data" / "zoo" / folder).rglob("*") if f.is_file()]
    told = 0
    for path in files:
        found = tell(path)
        if isinstance(found, InputError):
            assert re.fullmatch(rf"(?s).*{re.escape(str(path))}.*[.`]", str(found))
            continue
        told += 1
        assert found.facts
        assert json.loads(json.dumps(to_plain(found), allow_nan=False))["path"] == str(path)
        assert max(map(len, describe([found])[1:])) <= max(100, len(str(path)) + 30)
    assert told


def test_no_folder_of_others_is_left_out(shared):
    assert {path.name for path in (shared / "data" / "zoo").iterdir() if path.is_dir()} == set(ZOO)


REFUSED = {
    "cryosparc-tools/job096_run_data.star": "git-LFS pointer",
    "xmipp/smallStack.stk": "SPIDER",
    "maven/occupancies_expected.csv": "is a text of a kind that is not known",
    "mrcfile/EMD-3001.map.bz2": "looks compressed",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(shared, name):
    with pytest.raises(InputError, match=REFUSED[name]):
        report(shared / "data" / "zoo" / name)


def test_a_real_star_file_is_told_in_words_and_units(shared):
    path = shared / "data" / "zoo" / "cryodrgn" / "relion31.star"
    found = facts(path)
    assert found["images"].value == 5
    assert found["box"].text == "256 pixels"
    assert found["pixel size"].text == "2.806 Å"
    assert found["stacks"].text == "1 named, all found"
    assert found["optics"].value["groups"][0]["voltage_kV"] == 300
    assert found["optics"].text.endswith("box 256: 5 images")
    assert "1 Å" in doubts(path)


def test_a_table_of_cryosparc_and_its_pickled_twin_have_the_same_poses_and_defocus(shared):
    place = shared / "data" / "zoo" / "cryodrgn"
    table = facts(place / "cryosparc_P12_J24_001_particles.rows0-999.cs")
    twin = facts(place / "cryosparc_P12_J24_001_particles.rows0-999.expected.npz")
    assert table["orientations"].text == twin["orientations"].text
    assert table["defocus"].value == pytest.approx(twin["defocus"].value, rel=1e-6)
    assert table["images"].value == twin["images"].value == 1000


def test_tomograms_are_listed_and_the_reason_told_why_they_are_not_used(shared):
    found = report(shared / "data" / "zoo" / "cryocat" / "relion_4.0.star")
    assert "1,746 rows of 21 columns" in "\n".join(describe([found]))
    assert "subtomograms" in found.notes[0]


def test_sound_particles_give_rise_to_no_doubt(particles):
    found = report(particles)
    assert found.doubts == ()
    assert found.missing == ()
    assert facts(particles)["half-sets"].value == [200, 200]
    assert facts(particles)["orientations"].value["efficiency"] > 0.95


def test_an_alignment_of_cryosparc_is_told_alike(tmp_path, particles):
    table = make_table()
    write_cs(tmp_path / "made.cs", table, np.arange(1, COUNT + 1, dtype=np.uint64))
    of_star, of_cs = facts(particles), facts(tmp_path / "made.cs")
    assert of_star["optics"].text == of_cs["optics"].text
    assert of_star["half-sets"].value == of_cs["half-sets"].value
    for name, value in of_star["shifts"].value.items():
        assert of_cs["shifts"].value[name] == pytest.approx(value, rel=1e-5)


def test_optics_groups_are_combinations_of_values_with_their_counts(tmp_path):
    row = np.arange(COUNT)
    box = np.where(row < 100, 48, BOX)
    voltage = np.where(row % 2 == 0, 200.0, 300.0)
    write_particles(tmp_path / "made.star", make_table(optics={"voltage": voltage}, box=box))
    groups = facts(tmp_path / "made.star")["optics"].value["groups"]
    counts = {(group["voltage_kV"], group["box_pixels"]): group["images"] for group in groups}
    assert counts == {(200, 48): 50, (300, 48): 50, (200, 32): 150, (300, 32): 150}


def test_a_table_of_ctfs_alone_is_told_with_what_it_lacks(tmp_path):
    write_cs(tmp_path / "made.cs", make_table(), np.arange(1, COUNT + 1, dtype=np.uint64))
    rows = read_cs(tmp_path / "made.cs")
    fields = ["uid", *(name for name in rows.dtype.names if name.startswith("ctf/"))]
    np.save(tmp_path / "ctf.npy", rows[fields])
    (tmp_path / "ctf.npy").rename(tmp_path / "ctf.cs")
    found = report(tmp_path / "ctf.cs")
    assert facts(tmp_path / "ctf.cs")["defocus"].value == [14500, 14500]
    assert "no field blob/path" in found.missing[0]
    assert found.doubts == ()


def few(value):
    """Put a value in row 8 of a parameter that is 15000 elsewhere."""
    return np.where(np.arange(COUNT) == 7, value, 15000.0)


MISTAKES = {
    "shifts": ({"shifts": np.full((COUNT, 2), 30.0)}, {}, "more than a quarter of the box"),
    "poses": ({"rotations": np.tile(np.eye(3), (COUNT, 1, 1))}, {}, "poses are equal"),
    "halves": ({"half": (np.arange(COUNT) < 40).astype(np.int8)}, {}, "10% and 90%|90% and 10%"),
    "repeated": ({"slice_index": np.arange(COUNT) // 2}, {}, "200 rows of 400 name an image that"),
    "pixel": ({"pixel_size": np.ones(COUNT)}, {}, "exactly 1 Å"),
    "overfocus": ({}, {"defocus_u": few(-9e4)}, "Row 8 is overfocused"),
    "micrometres": ({}, {"defocus_u": 1.5, "defocus_v": 1.4}, "below 1,000 Å: is it in Å, not"),
    "far": ({}, {"defocus_u": few(2e5)}, "Row 8 has a defocus above 60,000 Å"),
    "volts": ({}, {"voltage": 3e5}, "looks like V in place of kV"),
    "voltage": ({}, {"voltage": 30.0}, "not 80 to 300 kV"),
    "per cent": ({}, {"amplitude_contrast": 10.0}, "is it in per cent"),
    "negative": ({}, {"amplitude_contrast": -0.1}, "0.07 to 0.2 is usual"),
    "aberration": ({}, {"spherical_aberration": 0.0}, "has no spherical aberration"),
    "radians": ({}, {"phase_shift": np.deg2rad(1.57)}, "radians stated where the format has deg"),
    "degrees": ({}, {"phase_shift": 90.0}, "degrees stated where the format has radians"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(tmp_path, mistake):
    changes, optics, sentence = MISTAKES[mistake]
    write_particles(tmp_path / "made.star", make_table(optics=optics, **changes))
    found = report(tmp_path / "made.star").doubts
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError("\n".join(found))


def test_angles_in_radians_are_noticed(particles):
    optics, table = read_star(particles)
    columns = dict(table.columns)
    for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
        columns[label] = np.deg2rad(np.array(columns[label], float))
    write_star(particles, [optics, StarTable("particles", columns)])
    assert "are they in radians" in doubts(particles)


def test_views_of_a_ring_and_of_one_direction_have_the_efficiencies_of_their_integrals():
    generator = np.random.default_rng(3)
    angles = np.stack(
        [generator.uniform(0, 2 * np.pi, 20000), np.full(20000, np.pi / 2), np.zeros(20000)]
    )
    ring = rotations_from_relion_euler(angles.T)
    assert measure_coverage(ring).efficiency == pytest.approx(8 / np.pi**2, abs=0.02)
    one = measure_coverage(rotations_from_relion_euler(np.zeros((1000, 3))))
    # A direction is sampled if its sine to the plane of the slice is below 0.1.
    assert one.hardly_sampled == pytest.approx(0.9, abs=0.01)
    assert one.efficiency < 0.01


def test_preferred_views_are_noticed(tmp_path):
    angles = np.random.default_rng(4).uniform(0, 0.4, (COUNT, 3))
    table = make_table(rotations=rotations_from_relion_euler(angles))
    write_particles(tmp_path / "made.star", table)
    assert "Views are uneven" in doubts(tmp_path / "made.star")


@pytest.mark.parametrize(("sign", "word"), [(1, "bright"), (-1, "dark")])
def test_the_sign_of_particles_is_seen(tmp_path, images, sign, word):
    write_stack(tmp_path / "made.mrcs", sign * images, PIXEL)
    found = facts(tmp_path / "made.mrcs")
    assert found["particles look"].text.startswith(word)
    assert found["particles look"].value["sign"] == sign
    assert found["background"].value["normalised"]


@pytest.mark.parametrize(("stated", "doubted"), [(1, False), (-1, True)])
def test_a_stated_sign_is_compared_with_that_of_the_images(particles, stated, doubted):
    path = particles.with_suffix(".cs")
    write_cs(path, make_table(sign=stated), np.arange(1, COUNT + 1, dtype=np.uint64))
    assert ("are dark, but they look bright" in doubts(path)) == doubted


def test_noise_has_no_sign(tmp_path):
    noise = np.random.default_rng(5).standard_normal((64, BOX, BOX)).astype(np.float32)
    write_stack(tmp_path / "noise.mrcs", 3 * noise, PIXEL)
    found = facts(tmp_path / "noise.mrcs")
    assert found["particles look"].text.startswith("not clear")
    assert not found["background"].value["normalised"]


def test_broken_and_empty_images_are_counted(tmp_path, images):
    path = tmp_path / "broken.mrcs"
    write_stack(path, images[:10], PIXEL)
    stored = np.memmap(path, "<f4", "r+", offset=HEADER_BYTES, shape=(10, BOX, BOX))
    stored[3, 0, 0] = np.nan
    stored[5] = 0
    stored.flush()
    found = doubts(path)
    assert "1 of 10 images looked at have NaN" in found
    assert "1 of 10 images looked at have one value" in found


def test_missing_images_are_told_with_the_places_that_were_tried(particles):
    (particles.parent / "made.mrcs").unlink()
    found = report(particles)
    assert facts(particles)["stacks"].value == {"named": 1, "looked_for": 1, "found": 0}
    assert (
        f"Image file made.mrcs: looked for made.mrcs in the current directory, {particles.parent}"
        in (found.missing[0])
    )


def test_images_are_looked_for_in_datadir(tmp_path, particles):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "made.mrcs").rename(tmp_path / "elsewhere" / "made.mrcs")
    assert facts(particles, datadir=tmp_path / "elsewhere")["stacks"].value["found"] == 1


def test_a_table_that_disagrees_with_its_stack_is_noticed(particles, images):
    write_stack(particles.parent / "made.mrcs", images[:300, :16, :16], 2 * PIXEL)
    found = doubts(particles)
    assert "The table states images of 32 pixels" in found
    assert "holds 300 images, the table asks for image 400" in found
    assert "The table states 2.5 Å per pixel" in found


def test_missing_columns_are_told_with_what_follows(tmp_path):
    path = tmp_path / "bare.star"
    names = [f"{row:06d}@made.mrcs" for row in range(1, 5)]
    write_star(path, [StarTable("particles", {"rlnImageName": names})])
    lacks = " ".join(report(path).missing)
    for word in ("Poses", "Transfer functions", "Pixel size", "Box", "Half-sets"):
        assert f"{word}: " in lacks


def test_tilt_series_are_counted(tmp_path):
    table = make_table(
        particle=np.arange(COUNT) // 10, dose=(np.arange(COUNT) % 10) * 3.0, half=None
    )
    write_particles(tmp_path / "tilts.star", table)
    found = facts(tmp_path / "tilts.star")
    assert found["particles"].text == "40, each a tilt series of 10 images"
    assert found["dose"].value == [0, 27]


def test_a_mask_is_told_from_a_map(tmp_path):
    ball = np.linalg.norm(np.indices((16, 16, 16)) - 8, axis=0) < 4
    write_volume(tmp_path / "mask.mrc", ball.astype(np.float32), 3.0)
    write_volume(tmp_path / "map.mrc", 5.0 * ball - 1, 3.0)
    mask, density = facts(tmp_path / "mask.mrc"), facts(tmp_path / "map.mrc")
    assert mask["a mask"].value == {"mask": True, "inside": ball.mean()}
    assert "hard edge" in mask["a mask"].text
    assert not density["a mask"].value["mask"]
    assert density["densities"].value["mean"] == pytest.approx(5 * ball.mean() - 1)
    assert mask["box"].value == [16, 16, 16]


def test_permuted_axes_origins_and_odd_boxes_are_told(shared):
    found = report(shared / "data" / "zoo" / "mrcfile" / "EMD-3001.map")
    assert "permuted" in {fact.name: fact for fact in found.facts}["axes"].text
    assert "must be cubic" in " ".join(found.doubts)
    assert "first voxel is not 0" in " ".join(found.doubts)


def test_pickles_are_recognized_by_their_shapes(tmp_path):
    table = make_table()
    write_poses_pickle(tmp_path / "poses.pkl", table.rotations, table.shifts / (BOX * PIXEL))
    write_pickle(tmp_path / "ctf.pkl", ctf_rows(table.optics, BOX, PIXEL))
    write_indices(tmp_path / "ind.pkl", np.arange(0, COUNT, 2))
    write_pickle(tmp_path / "halves.pkl", [np.arange(3), np.arange(3, 9)])
    np.save(tmp_path / "mask.npy", np.arange(COUNT) % 4 == 0)
    (tmp_path / "ind.txt").write_text("4 5 9\n")
    kinds = {path.name: report(path).kind for path in tmp_path.iterdir()}
    assert kinds == {
        "poses.pkl": "poses, pkl",
        "ctf.pkl": "CTF parameters, pkl",
        "ind.pkl": "indices, pkl",
        "halves.pkl": "two lists of indices, pkl",
        "mask.npy": "indices, npy",
        "ind.txt": "indices, txt",
    }
    assert facts(tmp_path / "ctf.pkl")["pixel size"].value == [PIXEL, PIXEL]
    assert "100 chosen" in facts(tmp_path / "mask.npy")["images"].text


def test_old_and_broken_poses_are_noticed(tmp_path):
    table = make_table()
    write_pickle(tmp_path / "pixels.pkl", (table.rotations, table.shifts))
    write_pickle(tmp_path / "scaled.pkl", (2 * table.rotations, table.shifts / 80))
    write_pickle(tmp_path / "mirrored.pkl", -table.rotations)
    assert "they are in pixels" in doubts(tmp_path / "pixels.pkl")
    assert "not a rotation (400 of 400)" in doubts(tmp_path / "scaled.pkl")
    assert "mirrors" in doubts(tmp_path / "mirrored.pkl")


def test_a_run_is_told_with_its_stages_and_decisions(tmp_path):
    with Run.create_or_resume(tmp_path / "run", ["recovar", "try"], {}) as run:

        def compute(stage):
            with stage.write("output/a.txt") as partial:
                partial.write_text("a")
            stage.decide("sign", -1, "particles are dark")

        run.stage("mean", type(None), compute)
    found = facts(tmp_path / "run")
    assert found["stages done"].value == ["mean"]
    assert found["mean: sign"].text == "-1 (particles are dark)"
    (tmp_path / "run" / "output" / "a.txt").unlink()
    assert report(tmp_path / "run").missing == ("1 file of the run, such as output/a.txt.",)


def test_a_known_truth_is_told_and_another_directory_refused(tmp_path):
    save_arrays(tmp_path / "data" / "truth" / "per_image.npz", latent=np.zeros(7), kind=np.zeros(7))
    found = facts(tmp_path / "data")
    assert found["images"].value == 7
    assert "mask.mrc" in " ".join(report(tmp_path / "data").missing)
    with pytest.raises(InputError, match="neither a run"):
        report(tmp_path)


def test_files_that_cannot_be_read_come_last_and_are_not_a_success(particles, capsys):
    missing = particles.parent / "nowhere.star"
    assert main(["info", str(missing), str(particles)]) == 2
    output = capsys.readouterr()
    assert f"{particles}: particles, STAR" in output.out
    assert "half-sets           200 and 200 images" in output.out
    assert f"Expected a file or a directory at {missing}" in output.err


def test_json_says_the_same(particles, capsys):
    assert main(["info", str(particles), "nowhere.star", "--json"]) == 2
    told, refused = json.loads(capsys.readouterr().out)["files"]
    assert told["facts"]["half-sets"] == [200, 200]
    assert told["kind"] == "particles, STAR"
    assert "nowhere.star" in refused["error"]


def test_a_report_goes_to_a_file_that_is_not_there_yet(particles, capsys):
    output = particles.parent / "told.json"
    command = ["info", str(particles), "--json", "-o", str(output)]
    assert main(command) == 0
    before = output.read_text()
    assert json.loads(before)["files"][0]["path"] == str(particles)
    assert main(command) == 2
    assert "allow it with --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert main(["info", str(particles), "-o", str(particles), "--overwrite"]) == 2
    assert "is an input" in capsys.readouterr().err
    assert report(particles).kind == "particles, STAR"


def test_commas_belong_to_names(tmp_path, capsys):
    write_volume(tmp_path / "a,b.mrc", np.zeros((8, 8, 8)), 2.0)
    assert main(["info", str(tmp_path / "a,b.mrc")]) == 0
    assert "volume, MRC" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["nan", "1e300", "0", "some"])
def test_odd_values_in_any_column_are_told_or_refused(tmp_path, value):
    path = tmp_path / "odd.star"
    write_particles(path, make_table())
    tables = read_star(path)
    for number, table in enumerate(tables):
        for label in table.columns:
            columns = {name: list(texts) for name, texts in table.columns.items()}
            columns[label][-1] = value
            changed = [*tables]
            changed[number] = StarTable(table.name, columns)
            write_star(path, changed)
            found = tell(path)
            assert isinstance(found, InputError) or describe([found])


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -7.0, 1e30])
def test_odd_values_in_any_field_are_told_or_refused(tmp_path, value):
    write_cs(tmp_path / "made.cs", make_table(), np.arange(1, COUNT + 1, dtype=np.uint64))
    rows = read_cs(tmp_path / "made.cs")
    for name in rows.dtype.names:
        if rows.dtype[name].base.kind == "f":
            odd = rows.copy()
            odd[name][-1] = value
            np.save(tmp_path / "odd.npy", odd)
            (tmp_path / "odd.npy").replace(tmp_path / "odd.cs")
            found = tell(tmp_path / "odd.cs")
            assert isinstance(found, InputError) or json.dumps(to_plain(found), allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -7.0, 1e300])
def test_odd_values_in_pickles_are_told_or_refused(tmp_path, value):
    rows = ctf_rows(make_optics(), BOX, PIXEL)
    for column in range(9):
        odd = rows.copy()
        odd[-1, column] = value
        write_pickle(tmp_path / "ctf.pkl", odd)
        found = tell(tmp_path / "ctf.pkl")
        assert json.dumps(to_plain(found), allow_nan=False)
    turns, shifts = make_table().rotations.copy(), np.zeros((COUNT, 2))
    turns[-1, 0, 0] = shifts[-1, 1] = value
    write_pickle(tmp_path / "poses.pkl", (turns, shifts))
    assert json.dumps(to_plain(tell(tmp_path / "poses.pkl")), allow_nan=False)

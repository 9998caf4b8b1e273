"""Poses and CTF parameters of tables as pickles, against those that another program published."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recovar.cli import main
from recovar.core.ctf import Optics
from recovar.core.poses import random_rotations
from recovar.data import ImageTable
from recovar.data.cryosparc import read_cs, write_cs
from recovar.data.legacy import read_content, read_ctf_pickle, read_poses_pickle
from recovar.data.star import write_particles
from recovar.data.star_blocks import StarTable, read_star, write_star
from recovar.records import load_arrays

COUNT, BOX, PIXEL = 6, 32, 2.5


def make_table(**changes):
    generator = np.random.default_rng(0)
    optics = {
        "defocus_u": generator.uniform(1e4, 2e4, COUNT),
        "defocus_v": generator.uniform(1e4, 2e4, COUNT),
        "defocus_angle": generator.uniform(-1, 1, COUNT),
        "voltage": np.full(COUNT, 300.0),
        "spherical_aberration": np.full(COUNT, 2.7),
        "amplitude_contrast": np.full(COUNT, 0.1),
        "phase_shift": generator.uniform(0, 1, COUNT),
        "b_factor": np.zeros(COUNT),
        "scale": np.ones(COUNT),
    }
    table = ImageTable(
        source=Path("made.star"),
        stacks=("made.mrcs",),
        stack_index=np.zeros(COUNT, np.int32),
        slice_index=np.arange(COUNT),
        identity=np.arange(COUNT),
        box=np.full(COUNT, BOX),
        pixel_size=np.full(COUNT, PIXEL),
        rotations=random_rotations(COUNT, generator),
        shifts=generator.uniform(-9, 9, (COUNT, 2)),
        optics=Optics(**{name: value.astype(np.float32) for name, value in optics.items()}),
    )
    return replace(table, **changes)


@pytest.fixture
def star(tmp_path):
    write_particles(tmp_path / "made.star", make_table())
    return tmp_path / "made.star"


@pytest.fixture
def cs(tmp_path):
    write_cs(tmp_path / "made.cs", make_table(), np.arange(1, COUNT + 1, dtype=np.uint64))
    return tmp_path / "made.cs"


@pytest.fixture
def published(shared):
    return shared / "data" / "zoo" / "cryodrgn"


def parse(*words) -> int:
    return main([str(word) for word in words])


def refusal(capsys, *words) -> str:
    assert parse(*words) == 2
    return capsys.readouterr().err


def without(path, *fields):
    """Leave fields out of a .cs file."""
    rows = read_cs(path)
    np.save(path.with_suffix(".npy"), rows[[n for n in rows.dtype.names if n not in fields]])
    path.with_suffix(".npy").replace(path)


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_published_poses_of_a_star_file_are_reproduced(published, tmp_path, suffix):
    star = published / "FinalRefinement-OriginalParticles-PfCRT.star"
    output = tmp_path / f"poses{suffix}"
    assert parse("parse_pose_star", star, "-D", 300, "--Apix", 1.035, "-o", output) == 0
    ours, theirs = read_poses_pickle(output), read_poses_pickle(published / "pose.star.pkl")
    np.testing.assert_allclose(ours.rotations, theirs.rotations, atol=1e-6)
    np.testing.assert_allclose(ours.shift_fractions, theirs.shift_fractions, atol=1e-6)


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_published_ctfs_of_a_star_file_are_reproduced(published, tmp_path, suffix):
    star = published / "FinalRefinement-OriginalParticles-PfCRT.star"
    output = tmp_path / f"ctf{suffix}"
    words = ("-D", 300, "--Apix", 1.035, "-w", 0.1, "-o", output, "--png", tmp_path / "ctf.png")
    assert parse("parse_ctf_star", star, *words) == 0
    np.testing.assert_allclose(
        read_ctf_pickle(output), read_ctf_pickle(published / "ctf1.pkl"), rtol=1e-6, atol=1e-6
    )
    assert (tmp_path / "ctf.png").read_bytes().startswith(b"\x89PNG")


def test_published_values_of_a_cryosparc_table_are_reproduced(published, tmp_path):
    table = published / "cryosparc_P12_J24_001_particles.rows0-999.cs"
    theirs = load_arrays(table.with_suffix(".expected.npz"))
    assert parse("parse_pose_csparc", table, "-D", 180, "-o", tmp_path / "poses.pkl") == 0
    assert parse("parse_ctf_csparc", table, "-o", tmp_path / "ctf.pkl") == 0
    poses = read_poses_pickle(tmp_path / "poses.pkl")
    np.testing.assert_allclose(poses.rotations, theirs["rot"], atol=1e-6)
    np.testing.assert_allclose(poses.shift_fractions, theirs["trans"], atol=1e-6)
    ctf = read_ctf_pickle(tmp_path / "ctf.pkl")
    np.testing.assert_allclose(ctf, theirs["ctf"], rtol=1e-6, atol=1e-6)


def test_a_star_and_a_cs_file_of_the_same_images_give_the_same_pickles(star, cs, tmp_path):
    for kind in ("pose", "ctf"):
        assert parse(f"parse_{kind}_star", star, "-o", tmp_path / f"{kind}1.pkl") == 0
        assert parse(f"parse_{kind}_csparc", cs, "-o", tmp_path / f"{kind}2.pkl") == 0
    one, two = (read_poses_pickle(tmp_path / f"pose{i}.pkl") for i in (1, 2))
    np.testing.assert_allclose(one.rotations, two.rotations, atol=1e-6)
    np.testing.assert_allclose(one.shift_fractions, two.shift_fractions, atol=1e-6)
    one, two = (read_ctf_pickle(tmp_path / f"ctf{i}.pkl") for i in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    np.testing.assert_array_equal(one[:, :2], np.tile([BOX, PIXEL], (COUNT, 1)))


def test_shifts_are_fractions_of_the_box(star, tmp_path):
    assert parse("parse-pose-star", star, "-o", tmp_path / "poses.pkl") == 0
    poses = read_poses_pickle(tmp_path / "poses.pkl")
    np.testing.assert_allclose(poses.shift_fractions, make_table().shifts / (BOX * PIXEL))


def test_a_pickle_is_a_tuple_of_plain_arrays(star, tmp_path):
    assert parse("parse-pose-star", star, "-o", tmp_path / "poses.pkl") == 0
    content = read_content(tmp_path / "poses.pkl")
    assert isinstance(content, tuple)
    assert [part.shape for part in content] == [(COUNT, 3, 3), (COUNT, 2)]


def test_mixed_boxes_keep_their_own(tmp_path):
    box = np.where(np.arange(COUNT) < 2, 48, BOX)
    write_particles(tmp_path / "made.star", make_table(box=box))
    assert parse("parse_ctf_star", tmp_path / "made.star", "-o", tmp_path / "ctf.pkl") == 0
    np.testing.assert_array_equal(read_ctf_pickle(tmp_path / "ctf.pkl")[:, 0], box)
    assert parse("parse_pose_star", tmp_path / "made.star", "-o", tmp_path / "poses.pkl") == 0
    expected = make_table().shifts / (box * PIXEL)[:, None]
    poses = read_poses_pickle(tmp_path / "poses.pkl")
    np.testing.assert_allclose(poses.shift_fractions, expected)


@pytest.mark.parametrize("command", ["parse_pose_star", "parse_ctf_star"])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-D", 64), "states images of 32 pixels, -D says 64"),
        (("--Apix", 1.5), "states 2.5 Å per pixel, --Apix says 1.5"),
        (("-D", 1), "at least 2 pixels for -D"),
        (("--Apix", -2), "--Apix above 0"),
    ],
)
def test_what_contradicts_a_star_file_is_refused(star, tmp_path, capsys, command, words, sentence):
    assert sentence in refusal(capsys, command, star, *words, "-o", tmp_path / "out.pkl")
    assert not (tmp_path / "out.pkl").exists()


@pytest.mark.parametrize("command", ["parse_pose_csparc", "parse_ctf_csparc"])
def test_what_contradicts_a_cryosparc_table_is_refused(cs, tmp_path, capsys, command):
    output = ("-o", tmp_path / "out.pkl")
    assert "-D says 64" in refusal(capsys, command, cs, "-D", 64, *output)
    assert "--Apix says 1.5" in refusal(capsys, command, cs, "--Apix", 1.5, *output)


def test_what_a_file_does_not_state_is_asked_for_and_taken(cs, tmp_path, capsys):
    without(cs, "blob/shape", "blob/psize_A", "alignments3D/psize_A")
    output = ("-o", tmp_path / "out.pkl")
    assert "Give it with -D" in refusal(capsys, "parse_ctf_csparc", cs, *output)
    assert "states no pixel size" in refusal(capsys, "parse_ctf_csparc", cs, "-D", BOX, *output)
    given = ("-D", BOX, "--Apix", PIXEL, *output)
    assert parse("parse_ctf_csparc", cs, *given) == 0
    np.testing.assert_array_equal(read_ctf_pickle(tmp_path / "out.pkl")[:, :2], [[BOX, PIXEL]] * 6)
    assert parse("parse_pose_csparc", cs, *given, "--overwrite") == 0
    poses = read_poses_pickle(tmp_path / "out.pkl")
    np.testing.assert_allclose(
        poses.shift_fractions, make_table().shifts / (BOX * PIXEL), rtol=1e-5
    )


def test_values_that_are_given_take_the_place_of_those_in_the_file(star, tmp_path):
    words = ("--kv", 200, "--cs", 1.4, "-w", 0.07, "--ps", 90, "-o", tmp_path / "ctf.pkl")
    assert parse("parse_ctf_star", star, *words) == 0
    rows = read_ctf_pickle(tmp_path / "ctf.pkl")
    np.testing.assert_allclose(rows[:, 5:], [[200, 1.4, 0.07, 90]] * COUNT, rtol=1e-6)


def test_a_heterogeneous_refinement_without_a_pixel_size_has_shifts_twice_as_large(cs, tmp_path):
    assert parse("parse_pose_csparc", cs, "--hetrefine", "-o", tmp_path / "stated.pkl") == 0
    without(cs, "alignments3D/psize_A")
    assert parse("parse_pose_csparc", cs, "-o", tmp_path / "once.pkl") == 0
    assert parse("parse_pose_csparc", cs, "--hetrefine", "-o", tmp_path / "twice.pkl") == 0
    stated, once, twice = (
        read_poses_pickle(tmp_path / f"{name}.pkl").shift_fractions
        for name in ("stated", "once", "twice")
    )
    np.testing.assert_allclose(stated, once)
    np.testing.assert_allclose(twice, 2 * once)


def test_ab_initio_poses_are_found_and_expected_only_where_they_are(cs, tmp_path, capsys):
    output = ("-o", tmp_path / "poses.pkl")
    assert "Leave out --abinit" in refusal(capsys, "parse_pose_csparc", cs, "--abinit", *output)
    rows = read_cs(cs)
    names = [n.replace("alignments3D/", "alignments_class_0/") for n in rows.dtype.names]
    posterior = ("alignments_class_0/class_posterior", "<f4")
    kinds = [rows.dtype.fields[name][0] for name in rows.dtype.names]
    made = np.zeros(COUNT, [*zip(names, kinds, strict=True), posterior])
    for old, new in zip(rows.dtype.names, names, strict=True):
        made[new] = rows[old]
    np.save(tmp_path / "abinit.npy", made)
    (tmp_path / "abinit.npy").rename(tmp_path / "abinit.cs")
    assert parse("parse_pose_csparc", tmp_path / "abinit.cs", "--abinit", *output) == 0
    poses = read_poses_pickle(tmp_path / "poses.pkl")
    np.testing.assert_allclose(poses.rotations, make_table().rotations, atol=1e-6)


def test_poses_in_a_passthrough_file_are_joined_by_uid(cs, tmp_path):
    rows = read_cs(cs)
    poses = [name for name in rows.dtype.names if not name.startswith("ctf/")]
    np.save(tmp_path / "other.npy", rows[poses][::-1])
    (tmp_path / "other.npy").rename(tmp_path / "other.cs")
    without(cs, *(name for name in rows.dtype.names if name.startswith("alignments3D")))
    words = ("--passthrough", tmp_path / "other.cs", "-o", tmp_path / "poses.pkl")
    assert parse("parse_pose_csparc", cs, *words) == 0
    found = read_poses_pickle(tmp_path / "poses.pkl")
    np.testing.assert_allclose(found.rotations, make_table().rotations, atol=1e-6)


def test_tables_that_name_no_images_are_parsed(cs, tmp_path):
    without(cs, "blob/path", "blob/idx", "blob/sign")
    for kind in ("pose", "ctf"):
        assert parse(f"parse_{kind}_csparc", cs, "-o", tmp_path / f"{kind}.pkl") == 0
    found = read_poses_pickle(tmp_path / "pose.pkl")
    np.testing.assert_allclose(found.rotations, make_table().rotations, atol=1e-6)
    assert read_ctf_pickle(tmp_path / "ctf.pkl").shape == (COUNT, 9)


def test_a_file_of_another_version_is_refused_where_relion31_is_expected(
    published, tmp_path, capsys
):
    old = published / "FinalRefinement-OriginalParticles-PfCRT.star"
    output = ("-o", tmp_path / "poses.pkl")
    assert "Leave out --relion31" in refusal(capsys, "parse_pose_star", old, "--relion31", *output)
    new = published / "relion31.star"
    assert parse("parse_pose_star", new, "--relion31", *output) == 0


def test_what_is_missing_is_named(star, cs, tmp_path, capsys):
    optics, particles = read_star(star)
    left = ("rlnAngleTilt", "rlnDefocusV")
    columns = {k: v for k, v in particles.columns.items() if k not in left}
    write_star(star, [optics, StarTable("particles", columns)])
    output = ("-o", tmp_path / "out.pkl")
    assert "_rlnAngleTilt is missing" in refusal(capsys, "parse_pose_star", star, *output)
    assert "_rlnDefocusV" in refusal(capsys, "parse_ctf_star", star, *output)
    without(cs, "ctf/df1_A", "alignments3D/pose")
    assert "alignments3D/pose is missing" in refusal(capsys, "parse_pose_csparc", cs, *output)
    assert "ctf/df1_A" in refusal(capsys, "parse_ctf_csparc", cs, *output)


def test_values_that_cannot_be_poses_are_refused(tmp_path, capsys):
    shifts = make_table().shifts
    shifts[3] = 3 * BOX * PIXEL
    write_particles(tmp_path / "far.star", make_table(shifts=shifts))
    shifts[4] = np.nan
    write_particles(tmp_path / "nan.star", make_table(shifts=shifts))
    output = ("-o", tmp_path / "poses.pkl")
    told = refusal(capsys, "parse_pose_star", tmp_path / "far.star", *output)
    assert "row 4: expected a shift within the box, found 3 boxes" in told
    told = refusal(capsys, "parse_pose_star", tmp_path / "nan.star", *output)
    assert "row 5: expected a finite shift" in told
    assert not (tmp_path / "poses.pkl").exists()


def test_nothing_is_overwritten_unasked_and_inputs_never(star, tmp_path, capsys):
    output = tmp_path / "poses.pkl"
    assert parse("parse_pose_star", star, "-o", output) == 0
    before = output.read_bytes()
    assert "allow it with --overwrite" in refusal(capsys, "parse_pose_star", star, "-o", output)
    assert parse("parse_pose_star", star, "-o", output, "--overwrite") == 0
    assert output.read_bytes() == before
    link = tmp_path / "link.npz"
    link.symlink_to(star)
    told = refusal(capsys, "parse_ctf_star", star, "-o", link, "--overwrite")
    assert "is an input" in told
    assert "ends in .pkl or .npz" in refusal(capsys, "parse_ctf_star", star, "-o", star)

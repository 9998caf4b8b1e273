from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import recfunctions

from recovar.data.cryosparc import read_cs, read_cs_table, read_csg, write_cs
from recovar.data.export import describe_group
from recovar.errors import InputError

UIDS = np.arange(10, 16, dtype=np.uint64)


def save(path, rows):
    with path.open("wb") as file:
        np.save(file, rows)
    return path


def drop(rows, *names):
    return recfunctions.drop_fields(rows, names, usemask=False)


def add(rows, **columns):
    names = [name.replace("__", "/") for name in columns]
    dtype = rows.dtype.descr + [
        (name, value.dtype, value.shape[1:])
        for name, value in zip(names, columns.values(), strict=True)
    ]
    out = np.zeros(len(rows), dtype)
    for name in rows.dtype.names:
        out[name] = rows[name]
    for name, value in zip(names, columns.values(), strict=True):
        out[name] = value
    return out


@pytest.fixture
def rows(tmp_path, make_table):
    write_cs(tmp_path / "made.cs", make_table(), UIDS)
    return read_cs(tmp_path / "made.cs")


@given(seed=st.integers(0, 2**16), sign=st.sampled_from([-1, 1, None]))
def test_tables_read_back_unchanged(tmp_path_factory, make_table, seed, sign):
    path = tmp_path_factory.mktemp("cs") / "p.cs"
    table = make_table(seed=seed, sign=sign)
    write_cs(path, table, UIDS)
    back = read_cs_table(path)
    assert back.stacks == table.stacks
    assert back.sign == sign
    np.testing.assert_array_equal(back.identity, UIDS)
    for name in ("stack_index", "slice_index", "box", "pixel_size", "half"):
        np.testing.assert_array_equal(getattr(back, name), getattr(table, name), err_msg=name)
    np.testing.assert_allclose(back.rotations, table.rotations, atol=1e-6)
    np.testing.assert_allclose(back.shifts, table.shifts, atol=1e-5)
    for name, value in vars(table.optics).items():
        np.testing.assert_array_equal(getattr(back.optics, name), value, err_msg=name)


def test_envelopes_and_scales_read_back_unchanged(tmp_path, make_table):
    table = make_table()
    envelope, scale = np.linspace(0, 50, 6, dtype="f4"), np.linspace(0.5, 1, 6, dtype="f4")
    table = replace(table, optics=replace(table.optics, b_factor=envelope, scale=scale))
    write_cs(tmp_path / "p.cs", table, UIDS)
    optics = read_cs_table(tmp_path / "p.cs").optics
    np.testing.assert_array_equal(optics.b_factor, envelope)
    np.testing.assert_array_equal(optics.scale, scale)
    plain = drop(read_cs(tmp_path / "p.cs"), "ctf/bfactor", "ctf/scale")
    optics = read_cs_table(save(tmp_path / "q.cs", plain)).optics
    assert not optics.b_factor.any()
    np.testing.assert_array_equal(optics.scale, 1)


def test_shifts_use_the_pixel_size_of_the_alignment(tmp_path, rows):
    rows["alignments3D/psize_A"] *= 2
    doubled = read_cs_table(save(tmp_path / "p.cs", rows)).shifts
    lacking = drop(rows, "alignments3D/psize_A")
    np.testing.assert_allclose(doubled, 2 * read_cs_table(save(tmp_path / "q.cs", lacking)).shifts)


def test_passthrough_fields_are_joined_by_uid_and_never_overwrite(tmp_path, rows):
    poses = [name for name in rows.dtype.names if name.startswith("alignments3D")]
    main = save(tmp_path / "main.cs", drop(rows, *poses))
    other = rows[::-1].copy()
    other["blob/idx"] = 99
    joined = read_cs_table(main, [save(tmp_path / "other.cs", other)])
    whole = read_cs_table(save(tmp_path / "whole.cs", rows))
    np.testing.assert_array_equal(joined.rotations, whole.rotations)
    np.testing.assert_array_equal(joined.slice_index, whole.slice_index)


def test_a_passthrough_file_beside_the_table_is_used_if_it_covers_it(tmp_path, rows, caplog):
    caplog.set_level("INFO")
    main = save(tmp_path / "P1_particles.cs", drop(rows, "alignments3D/pose", "ctf/df1_A"))
    save(tmp_path / "P1_passthrough_particles.cs", rows[:3])
    assert read_cs_table(main).rotations is None
    save(tmp_path / "P1_passthrough_particles.cs", rows[::-1])
    assert read_cs_table(main).rotations is not None
    assert "are taken from" in caplog.text


def test_the_most_probable_class_gives_the_pose(tmp_path, rows):
    vectors = rows["alignments3D/pose"]
    posterior = np.array([[0.1, 0.9], [0.8, 0.2]] * 3, np.float32)
    chosen = np.array([1, 0] * 3)
    poses = np.zeros((6, 2, 3), np.float32)
    shifts = np.zeros((6, 2, 2), np.float32)
    poses[np.arange(6), chosen] = vectors
    shifts[np.arange(6), chosen] = rows["alignments3D/shift"]
    bare = drop(rows, *(name for name in rows.dtype.names if name.startswith("alignments3D")))
    multi = add(
        bare,
        alignments3D_multi__pose=poses,
        alignments3D_multi__shift=shifts,
        alignments3D_multi__class_posterior=posterior,
        alignments3D_multi__psize_A=rows["alignments3D/psize_A"],
    )
    classes = bare
    for k in range(2):
        classes = add(
            classes,
            **{
                f"alignments_class_{k}__pose": poses[:, k],
                f"alignments_class_{k}__shift": shifts[:, k],
                f"alignments_class_{k}__class_posterior": posterior[:, k],
            },
        )
    wanted = read_cs_table(save(tmp_path / "w.cs", rows))
    for table in (multi, classes):
        found = read_cs_table(save(tmp_path / "p.cs", table))
        np.testing.assert_allclose(found.rotations, wanted.rotations, atol=1e-12)
        np.testing.assert_allclose(found.shifts, wanted.shifts, atol=1e-12)


def test_a_single_valued_split_means_no_half_sets(tmp_path, rows):
    rows["alignments3D/split"] = 1
    assert read_cs_table(save(tmp_path / "p.cs", rows)).half is None


def test_images_of_one_micrograph_or_exposure_group_share_a_number(tmp_path, rows):
    uids = np.array([2**63, 7] * (len(rows) // 2), np.uint64)
    extra = {"location/micrograph_uid": uids, "ctf/exp_group_id": (uids == 7).astype("u4") + 5}
    table = read_cs_table(save(tmp_path / "p.cs", add(rows, **extra)))
    assert table.micrograph.tolist() == table.optics_group.tolist() == [0, 1] * (len(rows) // 2)
    assert read_cs_table(save(tmp_path / "q.cs", rows)).micrograph is None


def test_a_leading_angle_bracket_is_stripped_from_paths(tmp_path, rows):
    rows["blob/path"] = b">a.mrc"
    assert read_cs_table(save(tmp_path / "p.cs", rows)).stacks == ("a.mrc",)


def test_what_is_wrong_is_said(tmp_path, rows):
    with pytest.raises(InputError, match="there is no such file"):
        read_cs_table(tmp_path / "none.cs")
    (tmp_path / "text.cs").write_text("hello")
    with pytest.raises(InputError, match="found no array that can be read"):
        read_cs_table(tmp_path / "text.cs")
    with pytest.raises(InputError, match="found no array that can be read"):
        read_cs_table(save(tmp_path / "o.cs", np.array([{}], dtype=object)))
    with pytest.raises(InputError, match="expected a table with named fields"):
        read_cs_table(save(tmp_path / "a.cs", np.zeros(3)))
    with pytest.raises(InputError, match=r"no particles \(zero rows\)"):
        read_cs_table(save(tmp_path / "z.cs", rows[:0]))
    with pytest.raises(InputError, match="expected the field blob/path"):
        read_cs_table(save(tmp_path / "b.cs", drop(rows, "blob/path")))
    with pytest.raises(InputError, match=r"expected the uids of all 6 particles .* 2 are missing"):
        read_cs_table(save(tmp_path / "m.cs", rows), [save(tmp_path / "p.cs", rows[2:])])
    rows["blob/sign"] = [1, 1, 1, -1, -1, -1]
    with pytest.raises(InputError, match="expected images of one contrast"):
        read_cs_table(save(tmp_path / "s.cs", rows))


def test_aberrations_that_are_ignored_are_said(tmp_path, rows, caplog):
    read_cs_table(save(tmp_path / "p.cs", add(rows, ctf__tilt_A=np.ones((6, 2), np.float32))))
    assert "ctf/tilt_A (up to 1) are ignored" in caplog.text


def test_cryodrgn_reads_the_same_from_a_real_table(zoo):
    table = read_cs_table(zoo / "cryodrgn/cryosparc_P12_J24_001_particles.rows0-999.cs")
    with np.load(zoo / "cryodrgn/cryosparc_P12_J24_001_particles.rows0-999.expected.npz") as wanted:
        np.testing.assert_allclose(table.rotations, wanted["rot"], atol=1e-6)
        shifts = table.shifts / table.pixel_size[:, None] / 180
        np.testing.assert_allclose(shifts, wanted["trans"], atol=1e-6)
        found = [np.asarray(value, float) for value in vars(table.optics).values()]
        found[2], found[6] = np.rad2deg(found[2]), np.rad2deg(found[6])
        np.testing.assert_allclose(np.stack(found[:7], axis=1), wanted["ctf"][:, 2:], rtol=1e-6)
    assert table.sign == -1


def test_a_real_table_without_poses_or_rows_is_said(zoo):
    table = read_cs_table(zoo / "cryodrgn/empiar_10076_rows0-3.cs")
    assert table.no_poses == "the field alignments3D/pose is missing"
    assert table.optics is not None
    with pytest.raises(InputError, match="zero rows"):
        read_cs_table(zoo / "cryosparc-tools/4k_dataset.cs")


GROUP = """created: 2024-05-01 10:00:00.000000
group:
  description: particles
  name: particles
  type: particle
results:
  alignments3D:
    metafile: '>J3_particles.cs'
    num_items: 6
    type: particle.alignments3D
  blob: {metafile: ">J3_passthrough.cs", num_items: 6, type: particle.blob}
  ctf:
    metafile: '>J3_passthrough.cs'
version: v4.5.1
"""


def test_a_results_group_is_read_by_the_tables_that_it_names(tmp_path, rows):
    whole = read_cs_table(save(tmp_path / "whole.cs", rows))
    save(tmp_path / "J3_particles.cs", add(drop(rows, "blob/path"), note__a=np.ones(6)))
    passed = rows[::-1].copy()
    passed["alignments3D/pose"] = 0
    save(tmp_path / "J3_passthrough.cs", passed)
    (tmp_path / "J3.csg").write_text(GROUP)
    assert read_csg(tmp_path / "J3.csg")["ctf"] == tmp_path / "J3_passthrough.cs"
    joined = read_cs_table(tmp_path / "J3.csg")
    np.testing.assert_array_equal(joined.rotations, whole.rotations)
    np.testing.assert_array_equal(joined.slice_index, whole.slice_index)
    (tmp_path / "J3_passthrough.cs").unlink()
    with pytest.raises(InputError, match=r"J3.csg: its table of blob, ctf .* no such file"):
        read_cs_table(tmp_path / "J3.csg")
    (tmp_path / "J3.csg").write_text("created: today\n")
    with pytest.raises(InputError, match=r"found none\. Export the particles again"):
        read_cs_table(tmp_path / "J3.csg")


def test_groups_are_read_as_they_are_exported(tmp_path, rows):
    text = describe_group("chosen", {"it's.cs": rows, "other.cs": rows}, "2026-01-31 12:00:00")
    (tmp_path / "a.csg").write_text(text)
    save(tmp_path / "it's.cs", rows)
    assert set(read_csg(tmp_path / "a.csg")) == {"alignments3D", "blob", "ctf"}
    np.testing.assert_array_equal(read_cs_table(tmp_path / "a.csg").identity, UIDS)


def test_names_with_quotes_are_read_from_a_results_group(tmp_path):
    (tmp_path / "a.csg").write_text("results:\n  blob:\n    metafile: '>it''s.cs'\n")
    assert read_csg(tmp_path / "a.csg") == {"blob": tmp_path / "it's.cs"}


def test_tables_of_very_many_fields_are_read(tmp_path, rows):
    many = add(
        rows, **{f"alignments_class_{k}__alpha_of_some_kind": np.ones(6) for k in range(300)}
    )
    assert len(read_cs_table(save(tmp_path / "p.cs", many))) == 6


def test_the_compressed_format_is_refused_with_a_way_out(tmp_path):
    (tmp_path / "p.cs").write_bytes(b"\x94CSDAT" + bytes(100))
    with pytest.raises(InputError, match=r"CSDAT .* cryosparc-tools"):
        read_cs_table(tmp_path / "p.cs")


def test_poses_of_2d_classes_are_not_taken(tmp_path, rows):
    poses = [name for name in rows.dtype.names if name.startswith("alignments3D")]
    flat = add(drop(rows, *poses), alignments2D__pose=np.ones(6, np.float32))
    table = read_cs_table(save(tmp_path / "p.cs", flat))
    assert table.rotations is None
    assert table.no_poses.endswith("alignments2D has poses of 2-D classes only")


def test_poses_of_the_given_table_win_over_those_passed_through(tmp_path, rows):
    poses = [name for name in rows.dtype.names if name.startswith("alignments3D")]
    turned = np.full((6, 3), 0.5, np.float32)
    main = add(
        drop(rows, *poses),
        alignments_class_0__pose=turned,
        alignments_class_0__shift=np.zeros((6, 2), np.float32),
        alignments_class_0__class_posterior=np.ones(6, np.float32),
    )
    table = read_cs_table(save(tmp_path / "main.cs", main), [save(tmp_path / "passed.cs", rows)])
    rows["alignments3D/pose"] = turned
    wanted = read_cs_table(save(tmp_path / "wanted.cs", rows))
    np.testing.assert_array_equal(table.rotations, wanted.rotations)


def test_a_given_pixel_size_corrects_that_of_the_alignment(tmp_path, rows):
    rows["alignments3D/psize_A"] *= 2
    path = save(tmp_path / "p.cs", rows)
    stated, corrected = read_cs_table(path), read_cs_table(path, pixel_size=1.65)
    np.testing.assert_allclose(corrected.shifts, 1.1 * stated.shifts)


def test_an_alignment_without_a_pixel_size_has_that_of_the_images(tmp_path, rows, caplog):
    wanted = read_cs_table(save(tmp_path / "p.cs", rows)).shifts
    rows["alignments3D/psize_A"][2] = 0
    found = read_cs_table(save(tmp_path / "p.cs", rows)).shifts
    np.testing.assert_array_equal(found, wanted)
    assert "that of the images is used" in caplog.text
    bare = drop(rows, "alignments3D/psize_A", "blob/psize_A", "blob/shape", "blob/sign")
    table = read_cs_table(save(tmp_path / "b.cs", bare))
    assert (table.rotations, table.box, table.pixel_size, table.sign) == (None,) * 4
    assert "the file states no pixel size" in table.no_poses


def test_classes_without_a_posterior_are_refused(tmp_path, rows):
    poses = [name for name in rows.dtype.names if name.startswith("alignments3D")]
    multi = add(drop(rows, *poses), alignments3D_multi__pose=np.zeros((6, 2, 3), np.float32))
    with pytest.raises(InputError, match="to choose the class of each particle, found none"):
        read_cs_table(save(tmp_path / "p.cs", multi))
    posterior = np.where(np.eye(6, 2, k=-3) > 0, np.nan, 0.5).astype(np.float32)
    multi = add(multi, alignments3D_multi__class_posterior=posterior)
    with pytest.raises(InputError, match=r"row 4: expected finite posteriors .*\[nan, 0.5\]"):
        read_cs_table(save(tmp_path / "p.cs", multi))


def test_uids_that_do_not_tell_particles_apart_are_told(tmp_path, rows, caplog):
    table = read_cs_table(save(tmp_path / "p.cs", drop(rows, "uid")))
    assert table.identity.tolist() == list(range(6))
    assert "told apart by the numbers of their rows" in caplog.text
    poses = [name for name in rows.dtype.names if name.startswith("alignments3D")]
    main = save(tmp_path / "main.cs", drop(rows, *poses))
    rows["uid"][3] = rows["uid"][1]
    read_cs_table(save(tmp_path / "twice.cs", rows))
    assert "1 of its rows repeat the uid of another, as 11" in caplog.text
    with pytest.raises(InputError, match="expected each uid once, found 11 2 times"):
        read_cs_table(main, [tmp_path / "twice.cs"])
    with pytest.raises(InputError, match="expected the field uid"):
        read_cs_table(main, [tmp_path / "p.cs"])


def test_uids_above_what_a_double_holds_are_joined_exactly(tmp_path, rows):
    rows["uid"] = 2**63 + np.arange(6, dtype=np.uint64)
    signed = rows.astype([(n, "<i8" if n == "uid" else rows.dtype[n]) for n in rows.dtype.names])
    main = save(tmp_path / "main.cs", drop(rows, "blob/idx"))
    table = read_cs_table(main, [save(tmp_path / "passed.cs", signed[::-1].copy())])
    np.testing.assert_array_equal(table.slice_index, rows["blob/idx"])


@pytest.mark.parametrize(
    ("field", "values", "sentence"),
    [
        ("blob/path", np.arange(6), "expected one name for each image in the field blob/path"),
        ("blob/path", np.array([b"a", b">", b"a", b"a", b"a", b"a"]), "row 2: expected the name"),
        ("blob/idx", np.full(6, 0.5), "expected whole numbers in the field blob/idx"),
        ("blob/idx", np.array([0, 0, -1, 0, 0, 0]), "row 3: expected whole numbers from 0"),
        ("blob/shape", np.tile([8, 6], (6, 1)), r"row 1: expected square images, found \[8, 6\]"),
        ("blob/sign", np.full(6, np.nan), "images of one contrast, found several"),
        ("alignments3D/pose", np.ones((6, 4)), "expected 3 numbers for each image"),
        ("ctf/df1_A", np.full(6, b"x"), "expected 1 numbers for each image"),
        ("uid", np.ones(6), "expected the field uid, whole numbers"),
    ],
)
def test_fields_that_cannot_be_are_refused_by_name(tmp_path, rows, field, values, sentence):
    broken = add(drop(rows, field), **{field.replace("/", "__"): values})
    with pytest.raises(InputError, match=sentence):
        read_cs_table(save(tmp_path / "p.cs", broken))

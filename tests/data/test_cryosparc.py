from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import recfunctions

from recovar.data.cryosparc import read_cs, read_cs_table, write_cs
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
        np.testing.assert_allclose(np.stack(found[:7], axis=1), wanted["ctf"][:, 2:], rtol=1e-5)
    assert table.sign == -1


def test_a_real_table_without_poses_or_rows_is_said(zoo):
    table = read_cs_table(zoo / "cryodrgn/empiar_10076_rows0-3.cs")
    assert table.no_poses == "the field alignments3D/pose is missing"
    assert table.optics is not None
    with pytest.raises(InputError, match="zero rows"):
        read_cs_table(zoo / "cryosparc-tools/4k_dataset.cs")

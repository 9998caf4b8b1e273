"""Images found again by what they are called, and cryoSPARC's tables cut to some of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.data.cryosparc_tables import read_cs, read_csg
from recovar.data.export import (
    describe_group,
    find_passthrough,
    match_identities,
    number_names,
    select_uids,
    write_rows,
)
from recovar.errors import InputError


def table(uids, *fields):
    rows = np.zeros(len(uids), [("uid", "<u8"), *((name, "<f4") for name in fields)])
    rows["uid"] = uids
    for number, name in enumerate(fields):
        rows[name] = np.asarray(uids) + number
    return rows


@given(seed=st.integers(0, 2**16), kept=st.integers(1, 30))
def test_rows_are_found_in_any_order(seed, kept):
    rng = np.random.default_rng(seed)
    names = rng.permutation(2**60 + np.arange(30, dtype=np.uint64))
    order = rng.permutation(30)[:kept]
    found = match_identities(names, names[order])
    there = found.rows >= 0
    np.testing.assert_array_equal(names[order][found.rows[there]], names[there])
    assert set(names[~there]) == set(names) - set(names[order])
    assert not found.repeated.any()


def test_names_are_equal_whatever_zeros_they_begin_with():
    names = ["000002@a b.mrcs", "1@b.mrcs", "3@a b.mrcs"]
    wanted, present = number_names(Path("x.star"), names, ["01@b.mrcs", "2@a b.mrcs", "2@b.mrcs"])
    assert match_identities(wanted, present).rows.tolist() == [1, 0, -1]


def test_rows_of_a_table_are_taken_by_uid(tmp_path):
    rows = table([5, 3, 9, 7], "blob/x")
    write_rows(tmp_path / "a.cs", rows)
    kept = select_uids(tmp_path / "a.cs", np.array([7, 3], np.uint64))
    assert kept.tobytes() == rows[[3, 1]].tobytes()
    with pytest.raises(InputError, match="the particle with uid 4 once, found it nowhere"):
        select_uids(tmp_path / "a.cs", np.array([4], np.uint64))
    write_rows(tmp_path / "b.cs", table([5, 5]))
    with pytest.raises(InputError, match="uid 5 once, found it more than once"):
        select_uids(tmp_path / "b.cs", np.array([5], np.uint64))


def test_tables_beside_are_found_if_they_know_all_particles_and_something_new(tmp_path):
    write_rows(tmp_path / "J1_particles.cs", table([1, 2], "blob/x"))
    for name, rows in (
        ("J1_passthrough_particles", table([2, 1, 3], "ctf/x")),
        ("J2_passthrough_particles", table([1, 3], "other/x")),
        ("J3_passthrough_particles", table([1, 2], "ctf/x", "blob/x")),
        ("J4_passthrough_volumes", table([1, 2], "map/x")),
    ):
        write_rows(tmp_path / f"{name}.cs", rows)
    found = find_passthrough(tmp_path / "J1_particles.cs")
    assert [path.name for path in found] == ["J1_passthrough_particles.cs"]


def test_a_group_names_the_first_table_that_has_each_group_of_fields(tmp_path):
    tables = {
        "a.cs": table([1], "blob/x", "alignments_class_0/x"),
        "it's.cs": table([1], "blob/y", "ctf/x"),
    }
    (tmp_path / "g.csg").write_text(describe_group("g", tables, "2026-01-01"))
    text = (tmp_path / "g.csg").read_text()
    assert "metafile: '>it''s.cs'" in text
    assert "type: particle.alignments3D\n" in text
    del tables["it's.cs"]
    tables["b.cs"] = table([1], "ctf/x")
    (tmp_path / "g.csg").write_text(describe_group("g", tables, "2026-01-01"))
    found = {group: path.name for group, path in read_csg(tmp_path / "g.csg").items()}
    assert found == {"blob": "a.cs", "alignments_class_0": "a.cs", "ctf": "b.cs"}


def test_real_tables_come_back_byte_for_byte(zoo, tmp_path):
    for path in sorted(zoo.rglob("*.cs")):
        rows = read_cs(path)
        uids = rows["uid"][::3] if len(np.unique(rows["uid"])) == len(rows) else []
        kept = select_uids(path, np.array(uids, np.uint64))
        write_rows(tmp_path / "kept.cs", kept)
        again = np.load(tmp_path / "kept.cs")
        assert again.dtype == rows.dtype
        assert again.tobytes() == rows[::3].tobytes()

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.data.cryosparc import write_cs
from recovar.data.grids import CommonGrid, ImageKind, find_common_grid
from recovar.data.legacy import write_ctf_pickle, write_pickle, write_poses_pickle
from recovar.data.mrc import write_stack
from recovar.data.particles import (
    Particles,
    assign_halves,
    read_image_list,
    read_particles,
    table_of,
)
from recovar.data.star import StarTable, write_particles, write_star
from recovar.errors import InputError


def write_stacks(directory, count=3, box=8, pixel_size=1.5):
    for name in ("a.mrcs", "b.mrcs"):
        write_stack(directory / name, np.zeros((count, box, box), np.float32), pixel_size)


@pytest.fixture
def dataset(tmp_path, make_table):
    write_stacks(tmp_path)
    write_particles(tmp_path / "p.star", make_table())
    return tmp_path


def test_star_and_cs_of_one_data_set_agree(dataset, make_table):
    write_cs(dataset / "p.cs", make_table(), np.arange(6, dtype=np.uint64))
    star, cs = read_particles(dataset / "p.star"), read_particles(dataset / "p.cs")
    assert star.stacks == cs.stacks == (dataset / "a.mrcs", dataset / "b.mrcs")
    assert (star.box, star.pixel_size) == (cs.box, cs.pixel_size) == (8, 1.5)
    np.testing.assert_allclose(star.rotations, cs.rotations, atol=1e-6)
    np.testing.assert_allclose(star.shifts, cs.shifts, atol=1e-5)
    np.testing.assert_array_equal(star.half, cs.half)


def test_a_table_of_particles_reads_back(dataset):
    first = read_particles(dataset / "p.star")
    write_particles(dataset / "q.star", table_of(first))
    second = read_particles(dataset / "q.star")
    np.testing.assert_allclose(first.rotations, second.rotations, atol=1e-12)
    assert first.stacks == second.stacks


@pytest.mark.parametrize("as_file", [True, False])
def test_selection_keeps_rows_stacks_and_order(dataset, as_file):
    chosen = np.array([5, 1])
    write_pickle(dataset / "i.pkl", chosen)
    some = read_particles(dataset / "p.star", ind=dataset / "i.pkl" if as_file else chosen)
    every = read_particles(dataset / "p.star")
    assert some.stacks == (dataset / "b.mrcs",)
    assert some.source_row.tolist() == some.particle.tolist() == [5, 1]
    same = every.select(chosen)
    np.testing.assert_array_equal(some.rotations, same.rotations)
    np.testing.assert_array_equal(some.identity, same.identity)
    np.testing.assert_array_equal(some.optics.defocus_u, same.optics.defocus_u)


def test_pickles_take_the_place_of_what_the_file_says(dataset, make_table):
    table = make_table(seed=1)
    write_poses_pickle(dataset / "poses.pkl", table.rotations, table.shifts / 16)
    write_ctf_pickle(dataset / "ctf.pkl", table.optics, 16, 1.0)
    particles = read_particles(
        dataset / "p.star",
        poses=dataset / "poses.pkl",
        ctf=dataset / "ctf.pkl",
        ind=np.array([4, 2]),
    )
    assert particles.pixel_size == 2.0
    np.testing.assert_allclose(particles.rotations, table.rotations[[4, 2]])
    np.testing.assert_allclose(particles.shifts, table.shifts[[4, 2]] / 16 * 8 * 2.0)
    np.testing.assert_allclose(particles.optics.defocus_u, table.optics.defocus_u[[4, 2]])
    assert [path.name for path in particles.sources] == ["p.star", "ctf.pkl", "poses.pkl"]


def test_stacks_and_lists_of_stacks_are_read_with_pickles(dataset, make_table):
    table = make_table()
    write_poses_pickle(dataset / "poses.pkl", table.rotations, table.shifts / 16)
    write_ctf_pickle(dataset / "ctf.pkl", table.optics, 8, 1.5)
    (dataset / "list.txt").write_text("# stacks\na.mrcs\nb.mrcs\n")
    options = {"poses": dataset / "poses.pkl", "ctf": dataset / "ctf.pkl"}
    particles = read_particles(dataset / "list.txt", **options)
    assert particles.slice_index.tolist() == [0, 1, 2, 0, 1, 2]
    assert particles.identity[3] == "000001@b.mrcs"
    with pytest.raises(InputError, match="for 3 images, found"):
        read_particles(dataset / "a.mrcs", **options)


def test_images_alone_are_listed_without_poses(dataset):
    listed = read_image_list(dataset / "a.mrcs")
    assert (len(listed), listed.rotations, listed.optics) == (3, None, None)
    with pytest.raises(InputError, match=r"has no poses: .* Give them with --poses"):
        read_particles(dataset / "a.mrcs")


def test_missing_transfer_functions_are_said(dataset):
    columns = {"rlnImageName": ["1@a.mrcs", "2@a.mrcs"], "rlnImagePixelSize": np.ones(2)}
    angles = {name: np.ones(2) for name in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")}
    write_star(dataset / "q.star", [StarTable("", columns | angles)])
    with pytest.raises(InputError, match=r"no transfer functions: missing columns.*--ctf"):
        read_particles(dataset / "q.star")
    write_star(dataset / "q.star", [StarTable("", {"rlnImageName": ["1@a.mrcs"]})])
    with pytest.raises(InputError, match="states no pixel size"):
        read_image_list(dataset / "q.star")
    assert read_image_list(dataset / "q.star", pixel_size=3.0).pixel_size == 3.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"box": np.array([8, 8, 8, 8, 8, 10])}, "has images of 10 pixels and of others in"),
        ({"box": np.full(6, 16)}, "has images of 16 × 16 pixels, .*a.mrcs has 8 × 8"),
        ({"pixel_size": np.full(6, -1.0)}, "expected pixel sizes above 0 Å, found -1. Give the"),
        ({"slice_index": np.arange(6)}, "expected at least 5 images, as .* asks, found 3"),
        ({"shifts": np.full((6, 2), np.inf)}, "row 1 .*: expected a finite shift"),
    ],
)
def test_tables_that_do_not_fit_are_refused(dataset, make_table, changes, sentence):
    write_particles(dataset / "q.star", make_table(**changes))
    with pytest.raises(InputError, match=sentence):
        read_particles(dataset / "q.star")


def test_stacks_of_a_size_that_is_not_stated_are_refused(tmp_path, make_table):
    write_stacks(tmp_path)
    write_particles(tmp_path / "p.star", make_table())
    write_stack(tmp_path / "b.mrcs", np.zeros((3, 6, 6), np.float32), 1.5)
    with pytest.raises(InputError, match=r"has images of 8 × 8 pixels, .*b.mrcs has 6 × 6"):
        read_particles(tmp_path / "p.star")
    write_stack(tmp_path / "b.mrcs", np.zeros((3, 6, 8), np.float32), 1.5)
    with pytest.raises(InputError, match=r"b.mrcs: expected square images, found 8 × 6 pixels"):
        read_particles(tmp_path / "p.star")


def test_images_of_one_kind_are_not_touched(dataset):
    """Pixel sizes that differ by rounding are one."""
    particles = read_particles(dataset / "p.star")
    assert (particles.kinds, particles.kind) == ((), None)
    grid = find_common_grid(np.full(4, 8), np.array([1.5, 1.5001, 1.4999, 1.5]))
    assert grid == CommonGrid(ImageKind(8, 1.5))


@pytest.fixture
def two_files(dataset, make_table):
    """The data set, and one of larger images with smaller pixels in a directory of its own."""
    (dataset / "other").mkdir()
    write_stacks(dataset / "other", box=10, pixel_size=1.2)
    table = make_table(seed=1, box=10, pixel_size=np.full(6, 1.2))
    write_particles(dataset / "other" / "q.star", table)
    write_cs(dataset / "other" / "q.cs", table, np.arange(6, dtype=np.uint64))
    return dataset


@pytest.mark.parametrize("name", ["q.star", "q.cs"])
def test_several_files_follow_one_another(two_files, name, caplog):
    caplog.set_level("INFO")
    paths = [two_files / "p.star", two_files / "other" / name]
    both = read_particles(paths)
    parts = [read_particles(path) for path in paths]
    for field in ("rotations", "shifts", "half"):
        wanted = np.concatenate([getattr(part, field) for part in parts])
        np.testing.assert_array_equal(getattr(both, field), wanted)
    assert both.sources == tuple(paths)
    assert both.source.tolist() == [0] * 6 + [1] * 6
    assert both.source_row.tolist() == list(range(12))
    assert both.row_in_source.tolist() == [*range(6), *range(6)]
    assert [str(text) for text in both.identity[[0, 6]]] == [
        str(part.identity[0]) for part in parts
    ]
    assert len(both.stacks) == 4
    assert (both.box, both.pixel_size) == (8, 1.5)
    assert (
        "6 of 10 px at 1.2 Å, 6 of 8 px at 1.5 Å. All are brought to 8 px at 1.5 Å" in caplog.text
    )


def test_a_selection_of_several_files_counts_their_images_together(two_files):
    paths = [two_files / "p.star", two_files / "other" / "q.star"]
    some, every = read_particles(paths, ind=np.array([7, 0, 11])), read_particles(paths)
    same = every.select(np.array([7, 0, 11]))
    for field in ("rotations", "source_row", "source", "row_in_source", "particle", "half"):
        np.testing.assert_array_equal(getattr(some, field), getattr(same, field))
    assert some.source.tolist() == [1, 0, 1]
    assert some.row_in_source.tolist() == [1, 0, 5]
    alone = read_particles(paths, ind=np.array([8, 9]))
    assert (alone.kinds, alone.box, alone.pixel_size) == ((), 10, 1.2)


def test_optics_groups_of_several_files_are_different(two_files):
    paths = [two_files / "p.star", two_files / "other" / "q.star"]
    first, second = (read_particles(path).optics_group for path in paths)
    both = read_particles(paths).optics_group
    assert both.tolist() == [*first, *(second + first.max() + 1)]


def test_several_files_share_pickles(two_files, make_table):
    table = make_table(12, seed=2)
    write_poses_pickle(two_files / "poses.pkl", table.rotations, table.shifts / 16)
    write_ctf_pickle(two_files / "ctf.pkl", table.optics, 16, 1.0)
    both = read_particles(
        [two_files / "p.star", two_files / "other" / "q.star"],
        poses=two_files / "poses.pkl",
        ctf=two_files / "ctf.pkl",
    )
    np.testing.assert_allclose(both.rotations, table.rotations)
    np.testing.assert_allclose(both.shifts, table.shifts / 16 * 16 * 1.0)
    assert [kind.pixel_size for kind in both.kinds] == pytest.approx([1.6, 2.0])


def test_one_stack_that_two_files_name_is_one(dataset, make_table):
    (dataset / "sub").mkdir()
    write_particles(dataset / "sub" / "q.star", make_table(stacks=("../a.mrcs", "../b.mrcs")))
    both = read_particles([dataset / "p.star", dataset / "sub" / "q.star"])
    assert len({path.resolve() for path in both.stacks}) == 2
    assert both.particle.tolist() == [*range(6), *range(6)]


def test_files_that_do_not_go_together_are_refused(two_files, make_table):
    first = two_files / "p.star"
    write_particles(two_files / "m.star", make_table(premultiplied=True))
    with pytest.raises(InputError, match=r"In .*m.star images are multiplied .* in .*p.star they"):
        read_particles([first, two_files / "m.star"])
    for name, sign in (("d.cs", -1), ("b.cs", 1)):
        write_cs(two_files / name, make_table(sign=sign), np.arange(6, dtype=np.uint64))
    with pytest.raises(InputError, match=r"d.cs \(-1\), .*b.cs \(\+1\)"):
        read_particles([two_files / "d.cs", two_files / "b.cs"])
    assert read_particles([two_files / "d.cs", first]).sign is None
    with pytest.raises(InputError, match="is given 2 times"):
        read_particles([first, first])
    with pytest.raises(InputError, match="got none"):
        read_particles([])
    with pytest.raises(InputError, match="Passthrough files go with one"):
        read_particles([first, two_files / "d.cs"], passthrough=[two_files / "x.cs"])


def test_half_sets_of_several_files_are_used_if_all_have_them(two_files, make_table, caplog):
    write_particles(two_files / "n.star", make_table(half=None))
    assert read_particles([two_files / "p.star", two_files / "n.star"]).half is None
    assert "n.star has no half sets" in caplog.text


def test_an_image_that_is_listed_twice_stays_in_one_half_set(dataset, make_table):
    again = np.array([0, 1, 2, 3, 4, 5, 0, 1])
    table = make_table(8, stack_index=(again % 2).astype(np.int32), slice_index=again // 2)
    write_particles(dataset / "q.star", replace(table, half=None))
    particles = read_particles(dataset / "q.star")
    assert particles.particle.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    halves = assign_halves(particles, 0)
    assert halves[:2].tolist() == halves[6:].tolist()


def test_tilts_are_told_by_their_particle_and_read_back(dataset, make_table):
    dose = np.array([0.0, 3.0, 6.0] * 2)
    table = make_table(particle=np.arange(6) // 3, dose=dose, half=None)
    write_particles(dataset / "t.star", table)
    tilts = read_particles(dataset / "t.star")
    assert tilts.particle.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(tilts.dose, dose)
    halves = assign_halves(tilts, 0)
    assert [len(set(halves[rows])) for rows in (slice(3), slice(3, 6))] == [1, 1]
    write_particles(dataset / "u.star", table_of(tilts))
    np.testing.assert_array_equal(read_particles(dataset / "u.star").particle, tilts.particle)
    both = read_particles([dataset / "t.star", dataset / "u.star"])
    assert both.particle.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_images_of_several_kinds_are_written_as_their_files_hold_them(two_files):
    both = read_particles([two_files / "p.star", two_files / "other" / "q.star"])
    write_particles(two_files / "r.star", table_of(both))
    again = read_particles(two_files / "r.star")
    assert again.kinds == both.kinds
    np.testing.assert_array_equal(again.kind, both.kind)
    np.testing.assert_allclose(again.shifts, both.shifts)


def test_selections_of_nothing_or_too_much_are_refused(dataset):
    with pytest.raises(InputError, match=r"No images .* are selected"):
        read_particles(dataset / "p.star", ind=np.array([], np.int64))
    with pytest.raises(InputError, match="indices from 0 to 5, found 6"):
        read_particles(dataset / "p.star", ind=np.array([6]))
    with pytest.raises(InputError, match="No images are left"):
        read_particles(dataset / "p.star").select(np.zeros(6, bool))


def test_matrices_that_are_not_rotations_are_refused(dataset):
    particles = read_particles(dataset / "p.star")
    for bad in (2 * np.eye(3), np.diag([1.0, 1.0, -1.0]), np.full((3, 3), np.nan)):
        rotations = particles.rotations.copy()
        rotations[3] = bad
        with pytest.raises(InputError, match=r"row 4 \(image 000002@b.mrcs\): expected a rotation"):
            replace(particles, rotations=rotations)
    with pytest.raises(InputError, match="Expected 6 rows of optics"):
        replace(particles, optics=particles.optics[np.arange(2)])


def test_a_pixel_size_of_the_header_that_differs_is_said(dataset, caplog):
    write_stacks(dataset, pixel_size=1.0)
    read_particles(dataset / "p.star")
    assert "states 1 Å per pixel" in caplog.text


def test_other_kinds_of_file_are_refused(dataset):
    with pytest.raises(InputError, match=r"Expected particles in a .star, .cs"):
        read_particles(dataset / "p.stk")
    with pytest.raises(InputError, match=r"Passthrough files go with a .cs file"):
        read_particles(dataset / "p.star", passthrough=[dataset / "x.cs"])
    (dataset / "l.txt").write_text("\n")
    with pytest.raises(InputError, match="expected one stack per line, found none"):
        read_particles(dataset / "l.txt")


@given(order=st.permutations(range(12)), seed=st.integers(0, 99))
def test_half_sets_go_by_particle_and_not_by_the_order_of_rows(make_table, order, seed):
    from_table = make_table(12, half=None)
    particles = _particles(from_table, np.arange(12) // 3)
    half = assign_halves(particles, seed)
    assert all(len(set(half[particles.particle == p])) == 1 for p in range(4))
    assert sorted(np.bincount(half)) == [6, 6]
    rows = np.array(order)
    np.testing.assert_array_equal(assign_halves(particles.select(rows), seed), half[rows])


def test_half_sets_of_the_file_are_kept(make_table):
    particles = _particles(make_table(), np.arange(6))
    np.testing.assert_array_equal(assign_halves(particles, 0), particles.half)


def _particles(table, particle):
    return Particles(
        stacks=(Path("a.mrcs"), Path("b.mrcs")),
        stack_index=table.stack_index,
        slice_index=table.slice_index,
        rotations=table.rotations,
        shifts=table.shifts,
        optics=table.optics,
        box=8,
        pixel_size=1.5,
        particle=particle,
        half=table.half,
        identity=table.identity,
        sources=(table.source,),
        source_row=np.arange(len(table)),
    )


def test_real_data_sets_are_read_whole(zoo):
    particles = read_particles(zoo / "cryodrgn/relion31.star")
    assert (len(particles), particles.box, particles.pixel_size) == (5, 256, 2.806)
    assert len(read_particles(zoo / "drgnai/M_particles_subset.star")) == 5
    assert len(read_particles(zoo / "simplecryoem/relion_proj_batch.star")) == 24
    with pytest.raises(InputError, match=r"toy_images_a.mrcs not found \(2 of 2 .*--datadir"):
        read_particles(zoo / "cryodrgn/relion5.star")

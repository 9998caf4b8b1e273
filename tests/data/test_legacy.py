import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core.poses import random_rotations
from recovar.data.legacy import (
    optics_from_ctf_rows,
    read_ctf_pickle,
    read_halfsets,
    read_indices,
    read_pickle,
    read_poses_pickle,
    write_ctf_pickle,
    write_indices,
    write_pickle,
    write_poses_pickle,
)
from recovar.errors import InputError


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@given(
    protocol=st.integers(0, 5),
    dtype=st.sampled_from(["f4", "f8", "i4", "i8", "bool", "U3", ">f4"]),
    fortran=st.booleans(),
)
def test_arrays_and_containers_of_any_protocol_are_read(tmp_path_factory, protocol, dtype, fortran):
    path = tmp_path_factory.mktemp("pkl") / "x.pkl"
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order="F" if fortran else "C")
    path.write_bytes(pickle.dumps((array, [1, 2.5, None], {"k": np.float32(3)}), protocol))
    found, numbers, mapping = read_pickle(path)
    np.testing.assert_array_equal(found, array)
    assert numbers == [1, 2.5, None]
    assert mapping == {"k": 3.0}


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_executed(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([np.zeros(2), Malicious()], protocol))
    with pytest.raises(InputError, match=r"asks for \w+\.mkdir, .* nothing was executed"):
        read_pickle(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cmultiarray\nscalar\n.", "multiarray.scalar"),
        (b"cnumpy.core.evil\nscalar\n.", "numpy.core.evil.scalar"),
        (b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.", "rot13"),
        (b"Ppid\n.", "objects outside it"),
        (b"nonsense", "not a pickle of numpy arrays"),
        (b"", "it ends too early"),
    ],
)
def test_other_globals_are_refused_by_name(tmp_path, text, name):
    (tmp_path / "x.pkl").write_bytes(text)
    with pytest.raises(InputError, match=name):
        read_pickle(tmp_path / "x.pkl")


@given(seed=st.integers(0, 2**16))
def test_poses_read_back_unchanged(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("pkl") / "poses.pkl"
    generator = np.random.default_rng(seed)
    rotations, shifts = random_rotations(4, generator), generator.uniform(-1, 1, (4, 2))
    write_poses_pickle(path, rotations, shifts)
    found = read_poses_pickle(path, 4)
    np.testing.assert_array_equal(found.rotations, rotations)
    np.testing.assert_array_equal(found.shift_fractions, shifts)
    np.savez(path.with_suffix(".npz"), rot=rotations, trans=shifts)
    np.testing.assert_array_equal(
        read_poses_pickle(path.with_suffix(".npz"), 4).rotations, rotations
    )


def test_rotations_alone_mean_no_shifts(tmp_path):
    write_pickle(tmp_path / "p.pkl", np.stack([np.eye(3)] * 2))
    assert not read_poses_pickle(tmp_path / "p.pkl", 2).shift_fractions.any()
    write_pickle(tmp_path / "q.pkl", (np.stack([np.eye(3)] * 2),))
    with pytest.raises(InputError, match="expected rotations of shape"):
        read_poses_pickle(tmp_path / "q.pkl", 2)


def test_wrong_poses_are_said(tmp_path):
    path = tmp_path / "p.pkl"
    write_poses_pickle(path, np.stack([np.eye(3)] * 3), np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"shape \(5, 3, 3\) for 5 images, found \(3, 3, 3\)"):
        read_poses_pickle(path, 5)
    write_poses_pickle(path, np.stack([np.eye(3)] * 3), np.full((3, 2), 7.5))
    with pytest.raises(InputError, match=r"found 7.5: they are in the pixel unit"):
        read_poses_pickle(path, 3)
    write_poses_pickle(path, np.stack([np.eye(3)] * 3), np.array([[0, 0], [np.nan, 0], [0, 0]]))
    with pytest.raises(InputError, match=r"row 2: expected finite shifts, found \[nan, 0.0\]"):
        read_poses_pickle(path, 3)
    write_pickle(path, "text")
    with pytest.raises(InputError, match="found values of type"):
        read_poses_pickle(path, 3)
    np.savez(tmp_path / "p.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="expected the arrays rot and trans, found other"):
        read_poses_pickle(tmp_path / "p.npz", 3)
    with pytest.raises(InputError, match="there is no such file"):
        read_poses_pickle(tmp_path / "none.pkl", 3)


def test_transfer_functions_read_back_unchanged(tmp_path, make_table):
    optics = make_table().optics
    write_ctf_pickle(tmp_path / "c.pkl", optics, 128, 1.5)
    rows = read_ctf_pickle(tmp_path / "c.pkl", 6)
    np.testing.assert_allclose(rows[:, :2], [[128, 1.5]] * 6)
    for name, value in vars(optics_from_ctf_rows(rows)).items():
        np.testing.assert_allclose(value, getattr(optics, name), rtol=1e-6, err_msg=name)
    np.savez(tmp_path / "c.npz", ctf=rows)
    np.testing.assert_array_equal(read_ctf_pickle(tmp_path / "c.npz", 6), rows)


def test_the_number_of_images_need_not_be_known(tmp_path, make_table):
    table = make_table()
    write_poses_pickle(tmp_path / "poses.pkl", table.rotations, table.shifts / 100)
    write_ctf_pickle(tmp_path / "ctf.pkl", table.optics, 8, 1.5)
    poses = read_poses_pickle(tmp_path / "poses.pkl")
    np.testing.assert_array_equal(poses.rotations, table.rotations)
    np.testing.assert_array_equal(poses.shift_fractions, table.shifts / 100)
    assert read_ctf_pickle(tmp_path / "ctf.pkl").shape == (6, 9)
    write_pickle(tmp_path / "rotations.pkl", table.rotations)
    np.testing.assert_array_equal(
        read_poses_pickle(tmp_path / "rotations.pkl").shift_fractions, np.zeros((6, 2))
    )
    for content in (np.float64(3), np.zeros((6, 8))):
        write_pickle(tmp_path / "wrong.pkl", content)
        with pytest.raises(InputError, match="expected CTF parameters of shape"):
            read_ctf_pickle(tmp_path / "wrong.pkl")
        with pytest.raises(InputError, match="expected rotations of shape"):
            read_poses_pickle(tmp_path / "wrong.pkl")


def test_wrong_transfer_functions_are_said(tmp_path):
    write_pickle(tmp_path / "c.pkl", np.ones((4, 9)))
    with pytest.raises(InputError, match=r"shape \(5, 9\) for 5 images, found \(4, 9\)"):
        read_ctf_pickle(tmp_path / "c.pkl", 5)
    write_pickle(tmp_path / "c.pkl", np.where(np.eye(4, 9, k=-1) > 0, np.nan, 1.0))
    with pytest.raises(InputError, match="row 2: expected finite CTF parameters"):
        read_ctf_pickle(tmp_path / "c.pkl", 4)
    signalling = np.full((4, 9), 0x7F800001, np.uint32).view(np.float32)
    write_pickle(tmp_path / "c.pkl", signalling)
    with pytest.raises(InputError, match="row 1: expected finite CTF parameters"):
        read_ctf_pickle(tmp_path / "c.pkl", 4)
    write_pickle(tmp_path / "c.pkl", {3: np.ones((4, 9))})
    with pytest.raises(InputError, match="expected the array ctf, found 3"):
        read_ctf_pickle(tmp_path / "c.pkl", 4)


@pytest.mark.parametrize(
    "content", [[3, 1], np.array([3, 1]), np.array([3.0, 1.0]), (np.int64(3), np.int64(1))]
)
def test_indices_keep_their_order(tmp_path, content):
    write_pickle(tmp_path / "i.pkl", content)
    assert read_indices(tmp_path / "i.pkl", 4).tolist() == [3, 1]


def test_indices_of_other_files_are_read(tmp_path):
    np.save(tmp_path / "i.npy", np.array([False, True, False, True]))
    assert read_indices(tmp_path / "i.npy", 4).tolist() == [1, 3]
    (tmp_path / "i.txt").write_text("3\n1\n")
    assert read_indices(tmp_path / "i.txt").tolist() == [3, 1]
    write_indices(tmp_path / "i.pkl", np.array([2]))
    assert read_indices(tmp_path / "i.pkl").tolist() == [2]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([0, 4], "expected indices from 0 to 3, found 4"),
        ([-1], "expected indices from 0 to 3, found -1"),
        ([1, 1], "expected each image once, found 1 more than once"),
        ([0.5], "expected whole numbers, found 0.5"),
        ([True, False], "expected a mask of 4 entries, one per image, found 2"),
        ([[1], [2]], "expected a list of indices"),
        ([[1], [2, 3]], "ragged list"),
        (["a"], "found values of type"),
    ],
)
def test_wrong_indices_are_said(tmp_path, content, sentence):
    write_pickle(tmp_path / "i.pkl", content)
    with pytest.raises(InputError, match=sentence):
        read_indices(tmp_path / "i.pkl", 4)


def test_half_sets_are_two_lists_without_overlap(tmp_path):
    path = tmp_path / "h.pkl"
    write_pickle(path, [np.array([0, 3]), np.array([1])])
    first, second = read_halfsets(path)
    assert (first.tolist(), second.tolist()) == ([0, 3], [1])
    for content, sentence in (
        ([[0]], "expected two lists"),
        ([[0], []], "found an empty one"),
        ([[0, 1], [1]], "image 1 is in both half sets"),
    ):
        write_pickle(path, content)
        with pytest.raises(InputError, match=sentence):
            read_halfsets(path)

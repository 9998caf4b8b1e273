"""Files that are broken, lie, or mean harm: every reader says so, and does nothing else."""

import importlib.util
import io
import os
import pickle
import resource
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.cli import main
from recovar.data.cryosparc import read_cs, read_csg
from recovar.data.legacy import (
    read_ctf_pickle,
    read_halfsets,
    read_indices,
    read_pickle,
    read_poses_pickle,
)
from recovar.data.mrc import read_header, read_volume
from recovar.data.numpy_files import read_npy, read_npz
from recovar.data.plain_arrays import read_array
from recovar.data.star import read_star_table
from recovar.errors import InputError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
READERS = {
    "p.star": read_star_table,
    "p.cs": read_cs,
    "p.csg": read_csg,
    "s.mrcs": read_header,
    "v.mrc": read_volume,
    "p.pkl": read_poses_pickle,
    "c.pkl": read_ctf_pickle,
    "h.pkl": read_halfsets,
    "i.txt": read_indices,
    "a.npy": read_array,
    "a.npz": read_array,
}
each_reader = pytest.mark.parametrize(("name", "read"), READERS.items(), ids=READERS)


@pytest.fixture(scope="module")
def fuzz():
    """The script, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz"]


@pytest.fixture(scope="module")
def trials(fuzz, tmp_path_factory):
    return {name: fuzz.prepare(name, tmp_path_factory.mktemp(name)) for name in fuzz.READERS}


@settings(max_examples=400)
@given(data=st.data())
def test_what_is_broken_at_random_is_read_or_refused_within_bounds(fuzz, trials, data):
    trial = trials[data.draw(st.sampled_from(sorted(fuzz.READERS)))]
    trial.is_read(data.draw(st.integers(0, 2**32)))


@given(data=st.data())
def test_files_may_end_at_any_byte(fuzz, trials, data):
    trial = trials[data.draw(st.sampled_from(sorted(fuzz.READERS)))]
    seed = data.draw(st.sampled_from(trial.readable))
    raw = seed.read_bytes()
    path = trial.folder / f"short{seed.suffix}"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        with fuzz.bounds():
            trial.reader.read(path)
    except InputError as error:
        assert str(path.parent) in str(error)  # noqa: PT017
    path.unlink()


@each_reader
def test_what_is_no_file_is_named(tmp_path, name, read):
    path = tmp_path / name
    with pytest.raises(InputError, match=rf"{name}, but there is no such file"):
        read(path)
    path.mkdir()
    with pytest.raises(InputError, match=rf"{name}, but that is a directory"):
        read(path)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(InputError, match=rf"{name}, but .*(a link that leads to no file|loop|Too)"):
        read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=rf"{name}, but that is a pipe or a device"):
        read(path)
    with pytest.raises(InputError, match="too long"):
        read(tmp_path / ("x" * 300 + path.suffix))


@each_reader
def test_files_that_cannot_be_read_are_named(tmp_path, name, read):
    path = tmp_path / name
    path.symlink_to("/proc/self/mem")  # whose first bytes nobody may read
    with pytest.raises(InputError, match=rf"{name}, but it cannot be read: Input/output error"):
        read(path)
    if os.geteuid():
        path.unlink()
        path.write_bytes(b"closed")
        path.chmod(0)
        with pytest.raises(InputError, match="cannot be read: Permission denied"):
            read(path)


@each_reader
def test_files_of_something_else_are_refused(tmp_path, name, read):
    path = tmp_path / name
    for content in (
        *(b"", b"\x00", b"\n\n", bytes(5000), b"\xff\xfe" * 1000, b"\xf0\x9f\xa7\xac" * 500),
        *(b"x" * 10**6, b"\n".join([b"y" * 100] * 1000), bytes(np.arange(256, dtype=np.uint8)) * 9),
    ):
        path.write_bytes(content)
        if name == "i.txt" and not content.strip():
            assert read(path).size == 0
            continue
        with pytest.raises(InputError, match=name):
            read(path)


@each_reader
def test_pointers_to_large_files_say_how_to_fetch_them(tmp_path, name, read):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / name).write_bytes(pointer)
    with pytest.raises(InputError, match=r"git-LFS pointer, .* `git lfs pull`"):
        read(tmp_path / name)


def npy(array, **changes):
    """Make a .npy file whose header may lie."""
    file = io.BytesIO()
    np.save(file, array)
    raw = file.getvalue()
    for old, new in changes.values():
        assert old in raw
        raw = raw.replace(old, new.ljust(len(old)))
    return raw


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (npy(np.zeros(10), s=(b"(10,), }         ", b"(1000000000000,),}")), "promises 8000000"),
        (npy(np.zeros(10), s=(b"(10,)", b"(-1,)")), "its header promises -8 bytes"),
        (npy(np.zeros(10), s=(b"'<f8'", b"'|O'")), "it holds Python objects"),
        (npy(np.zeros(10), s=(b"'<f8'", b"'?8'")), "found no array that can be read"),
        (npy(np.zeros(10))[:-1], "promises 80 bytes, 79 follow"),
        (b"\x93NUMPY\x07\x00" + bytes(100), r"version \(7, 0\) of the format is not known"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{", "found no array that can be read"),
        (b"\x93NUMPY\x02\x00\x40\x0d\x03\x00" + b"-" * 200000, "no sense"),
        (b"\x93NUMPY\x01\x00\xe8\x03" + b"(" * 1000, "found no array that can be read"),
    ],
)
def test_arrays_whose_headers_lie_are_refused(tmp_path, raw, sentence):
    (tmp_path / "a.npy").write_bytes(raw)
    with pytest.raises(InputError, match=sentence):
        read_npy(tmp_path / "a.npy", "an array")


@given(
    dtype=st.sampled_from(
        ["f4", ">f8", "i2", "?", "S3", "U2", [("uid", "u8"), ("a/b", "f4", (2,))]]
    ),
    shape=st.sampled_from([(), (0,), (3,), (2, 3), (4, 0, 2)]),
    fortran=st.booleans(),
)
def test_sound_arrays_are_read_as_they_are(tmp_path_factory, dtype, shape, fortran):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    array = np.asarray(np.ones(shape, dtype), order="F" if fortran else "C")
    np.save(path, array)
    np.testing.assert_array_equal(read_npy(path, "an array"), array)
    np.savez_compressed(path.with_suffix(".npz"), array=array, other=np.arange(3))
    both = read_npz(path.with_suffix(".npz"))
    np.testing.assert_array_equal(both["array"], array)
    assert both["other"].tolist() == [0, 1, 2]
    read_npy(path, "an array")[...] = 0  # and may be written to


def zipped(path, entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_archives_that_unpack_to_far_more_than_their_size_are_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(1 << 20)))
        archive.filelist[0].file_size = 3 << 30
    with pytest.raises(InputError, match=r"bomb\.npz: its \d+ bytes would unpack to 3221225472"):
        read_npz(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(10)))
        archive.filelist[0].file_size = 1 << 29
    with pytest.raises(InputError, match="cannot unpack to 536870912 bytes"):
        read_npz(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros(1 << 20)))
        archive.filelist[0].file_size = 1 << 16
    with pytest.raises(InputError, match=r"promises 8388608 bytes, 65408 follow"):
        read_npz(path)


def test_archives_that_are_not_plain_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    zipped(path, {"a.npy": npy(np.zeros(3))}, zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match=r"a\.npy is encrypted, or compressed in another way"):
        read_npz(path)
    zipped(path, {"a.npy": npy(np.array([{}], object), s=(b"'|O'", b"'|O'"))})
    with pytest.raises(InputError, match="holds Python objects"):
        read_npz(path)
    zipped(path, {"a.npy": b"text"})
    with pytest.raises(InputError, match=r"not an \.npz file of plain arrays"):
        read_npz(path)
    zipped(path, {"a.npy": npy(np.zeros(1000))}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(bytes(20), bytes(19) + b"\x01"))
    with pytest.raises(InputError, match=r"not an \.npz file of plain arrays"):
        read_npz(path)


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
TYPE = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    "program",
    [
        ARRAY + b"(I1\n(I1000000000000\nt" + TYPE + b"I0\nS''\ntb.",
        ARRAY + b"(I1\n(I-2\nt" + TYPE + b"I0\nS''\ntb.",
        ARRAY + b"(I1\n(I1\ntNI0\nS''\ntb.",
        ARRAY + b"(I1\n(I2\nt" + TYPE.replace(b"f8", b"O8") + b"I0\n(lI1\natb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        b"cnumpy\nndarray\n((I1000000000000\ntS'O'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(" + TYPE + b"S'123'\ntR.",
        b"cnumpy\ndtype\n(S'f8,O'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR(I3\nS'|'\nN(S'x'\nt(dI8\nI1\nI16\ntb.",
        b"cnumpy.core.multiarray\nscalar\n(N(dS'__defaults__'\n(I1\ntstb.",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc.",
        b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b"N}s.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fabc",
        b"I" + b"9" * 5000 + b"\n.",
    ],
)
def test_pickles_that_mean_harm_take_no_memory_and_are_refused(tmp_path, program):
    path = tmp_path / "x.pkl"
    path.write_bytes(program)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if program.startswith(b"\x80\x02]r"):
        assert read_pickle(path) == []
    else:
        with pytest.raises(InputError, match=r"x.pkl is not a pickle of numpy arrays"):
            read_pickle(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (100 << 10)


def test_lists_that_hold_themselves_are_no_indices(tmp_path):
    endless = []
    endless.append(endless)
    (tmp_path / "i.pkl").write_bytes(pickle.dumps(endless))
    with pytest.raises(InputError, match=r"i\.pkl: expected indices, found"):
        read_indices(tmp_path / "i.pkl")


def test_pickles_of_the_second_python_are_read(tmp_path):
    program = ARRAY + b"(I1\n(I2\nt" + TYPE + rb"I0" + b"\n" + rb"S'\x00\x00\x00\x00\x00\x00\xf0?"
    (tmp_path / "x.pkl").write_bytes(program + rb"\x00\x00\x00\x00\x00\x00\x00\xc0'" + b"\ntb.")
    assert read_pickle(tmp_path / "x.pkl").tolist() == [1, -2]


def test_objects_in_arrays_are_read_if_they_are_plain(tmp_path):
    halves = np.empty(2, object)
    halves[0], halves[1] = np.arange(3), np.array([4])
    (tmp_path / "h.pkl").write_bytes(pickle.dumps(halves))
    first, second = read_halfsets(tmp_path / "h.pkl")
    assert (first.tolist(), second.tolist()) == ([0, 1, 2], [4])


STAR = (
    "data_optics\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnMagMat00\n"
    "_rlnMagMat01\n_rlnMagMat10\n_rlnMagMat11\n{optics}\ndata_particles\nloop_\n_rlnImageName\n"
    "_rlnOpticsGroup\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginX\n_rlnOriginY\n"
    "1@a {row}\n"
)


@pytest.mark.parametrize(
    ("optics", "row", "sentence"),
    [
        ("", "1 1 2 3 0 0", "the table data_optics has no rows"),
        ("1 1.5 nan 1 0 0 1", "1 1 2 3 0 0", "expected _rlnImageSize in pixels, found nan"),
        ("1 1.5 1e300 1 0 0 1", "1 1 2 3 0 0", "expected _rlnImageSize in pixels, found 1e[+]300"),
    ],
)
def test_star_values_that_cannot_be_are_refused(tmp_path, optics, row, sentence):
    (tmp_path / "p.star").write_text(STAR.format(optics=optics, row=row))
    with pytest.raises(InputError, match=sentence):
        read_star_table(tmp_path / "p.star")


def test_star_values_that_are_not_finite_are_left_to_be_refused_where_used(tmp_path, caplog):
    (tmp_path / "p.star").write_text(
        STAR.format(optics="1 1e300 64 nan 0 0 1", row="1 inf 2 3 1e300 0")
    )
    table = read_star_table(tmp_path / "p.star")
    assert not np.isfinite(table.rotations).all()
    assert not np.isfinite(table.shifts).all()
    assert "magnification that is not finite" in caplog.text


@pytest.mark.parametrize(
    ("option", "name", "content"),
    [
        ("particles", "p.cs", b"\x93NUMPY\x01\x00"),
        ("particles", "p.csg", b"results:\n  blob:\n    metafile: '>none.cs'\n"),
        ("particles", "p.star", b"data_\nloop_\n_rlnImageName\n1@\xff\xfe.mrcs\n"),
        ("particles", "p.mrcs", b"\xff" * 2000),
        ("--mask", "m.mrc", b"\x1f\x8b" + bytes(2000)),
        ("--ind", "i.pkl", b"cos\nsystem\n(S'true'\ntR."),
        ("--poses", "p.npz", b"PK\x03\x04" + bytes(100)),
        ("--ctf", "c.pkl", b"\x80\x04"),
    ],
)
def test_the_program_refuses_broken_files_in_one_sentence(
    fuzz, tmp_path, capfd, option, name, content
):
    fuzz.make_files(tmp_path)
    (tmp_path / name).write_bytes(content)
    options = {"particles": tmp_path / "made.star", "--mask": "sphere", "--zdim": 1}
    options |= {option: tmp_path / name, "-o": tmp_path / "out"}
    given = [str(word) for pair in options.items() for word in pair if word != "particles"]
    assert main(["pipeline", *given]) == 2
    *_, said = capfd.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert name in said
    assert not (tmp_path / "out").exists()

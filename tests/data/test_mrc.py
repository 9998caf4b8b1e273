import bz2
import gzip
from contextlib import suppress

import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.data import mrc
from recovar.data.mrc import StackWriter, open_sections, read_header, read_volume, write_volume
from recovar.errors import InputError

MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}


def header_bytes(shape, mode, order="<", stamp=None, **fields):
    """Make a header with no help from the code under test."""
    header = np.zeros(256, order + "i4")
    header[:4] = *shape[::-1], mode
    header[7:10] = shape[::-1]
    header.view(order + "f4")[10:13] = np.array(shape[::-1]) * 1.5
    header[16:19] = fields.get("axes", (1, 2, 3))
    header[23] = fields.get("extended", 0)
    raw = bytearray(header.tobytes())
    for offset, values in fields.get("words", {}).items():
        raw[offset : offset + 4 * len(values)] = np.asarray(values, order + "f4").tobytes()
    for offset, values in fields.get("whole", {}).items():
        raw[offset : offset + 4 * len(values)] = np.asarray(values, order + "i4").tobytes()
    raw[212:216] = (
        stamp if stamp is not None else (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    )
    return bytes(raw)


def write_mrc(path, values, mode, order="<", stamp=None, **fields):
    raw = header_bytes(values.shape, mode, order, stamp, **fields)
    body = values.astype(order + MODES[mode]).tobytes()
    path.write_bytes(raw + bytes(fields.get("extended", 0)) + body)


@given(
    mode=st.sampled_from(sorted(MODES)),
    order=st.sampled_from("<>"),
    stamped=st.booleans(),
    extended=st.sampled_from([0, 160]),
    seed=st.integers(0, 2**16),
)
def test_values_of_any_type_and_byte_order_are_read(
    tmp_path_factory, mode, order, stamped, extended, seed
):
    path = tmp_path_factory.mktemp("mrc") / "stack.mrcs"
    values = np.random.default_rng(seed).integers(0, 100, (3, 4, 6))
    write_mrc(path, values, mode, order, None if stamped else bytes(4), extended=extended)
    header = read_header(path)
    assert header.shape == (3, 4, 6)
    assert header.voxel_size == pytest.approx(1.5)
    np.testing.assert_array_equal(open_sections(header), values)


@given(seed=st.integers(0, 2**16), size=st.sampled_from([2, 4, 8]))
def test_volumes_read_back_unchanged(tmp_path_factory, seed, size):
    path = tmp_path_factory.mktemp("mrc") / "map.mrc"
    values = np.random.default_rng(seed).standard_normal((size,) * 3).astype(np.float32)
    write_volume(path, values, 1.25)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.voxel_size == pytest.approx(1.25)
    assert list(path.parent.iterdir()) == [path]


@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(sum),
    dtype=st.sampled_from([np.float32, np.float16]),
)
def test_stacks_written_in_any_batches_read_back(tmp_path_factory, seed, sizes, dtype):
    path = tmp_path_factory.mktemp("mrc") / "stack.mrcs"
    images = np.random.default_rng(seed).standard_normal((sum(sizes), 4, 4)).astype(dtype)
    with StackWriter(path, 2.0, dtype) as writer:
        for batch in np.split(images, np.cumsum(sizes)[:-1]):
            writer.append(batch)
    header = read_header(path)
    np.testing.assert_array_equal(open_sections(header), images)
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data.reshape(images.shape), images)
        assert file.voxel_size.x == pytest.approx(2.0)
        assert file.header.dmean == pytest.approx(images.astype(float).mean(), rel=1e-3, abs=1e-6)
        assert file.header.rms == pytest.approx(images.astype(float).std(), rel=1e-3, abs=1e-6)
    assert mrcfile.validate(path)


def test_written_volumes_are_valid_mrc2014(tmp_path):
    write_volume(tmp_path / "map.mrc", np.ones((4, 4, 4), np.float32), 1.0)
    assert mrcfile.validate(tmp_path / "map.mrc")
    with mrcfile.open(tmp_path / "map.mrc") as file:
        assert file.is_volume()


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2), (2, 1, 3), (0, 0, 0)])
def test_permuted_axes_are_put_in_order(tmp_path, axes):
    values = np.arange(64.0).reshape(4, 4, 4)  # z y x
    stored = axes if any(axes) else (1, 2, 3)
    write_mrc(
        tmp_path / "map.mrc", values.transpose([3 - axis for axis in stored[::-1]]), 2, axes=axes
    )
    np.testing.assert_array_equal(read_volume(tmp_path / "map.mrc").values, values)


def test_a_short_file_gives_its_whole_images(tmp_path):
    path = tmp_path / "short.mrcs"
    write_mrc(path, np.ones((5, 4, 4)), 2)
    path.write_bytes(path.read_bytes()[:-100])
    header = read_header(path)
    assert header.truncated
    assert header.sections_in_file == 3
    with pytest.raises(InputError, match="expected a cubic volume"):
        read_volume(path)


def test_a_short_volume_is_refused(tmp_path):
    path = tmp_path / "short.mrc"
    write_mrc(path, np.ones((4, 4, 4)), 2)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="expected 4 sections, as its header promises, found 3"):
        read_volume(path)


@pytest.mark.parametrize("shape", [(4, 4, 6), (5, 5, 5)])
def test_volumes_that_are_not_cubic_and_even_are_refused(tmp_path, shape):
    write_mrc(tmp_path / "map.mrc", np.ones(shape), 2)
    with pytest.raises(InputError, match="cubic volume with an even number"):
        read_volume(tmp_path / "map.mrc")


@pytest.mark.parametrize(
    ("mode", "name"),
    [(3, "complex 16-bit"), (4, "complex 32-bit floats"), (101, "4-bit"), (9, "unknown")],
)
def test_other_types_are_refused_by_name(tmp_path, mode, name):
    path = tmp_path / "map.mrc"
    path.write_bytes(header_bytes((2, 2, 2), mode) + bytes(64))
    with pytest.raises(InputError, match=rf"found mode {mode} \({name}"):
        read_header(path)


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (b"\x1f\x8b", r"looks compressed \(gzip\)"),
        (b"version https://git-lfs", "git-LFS pointer"),
        (np.array([1, 64, 0, 0, 1], ">f4").tobytes(), "looks like a SPIDER file"),
        (b"\x06\0\0\x05" + np.array([8, 6, 8], "<i4").tobytes(), "looks like an EM file"),
        (b"\x89HDF\r\n", "looks like an HDF5 file"),
        (b"<!DOCTYPE html>", "looks like a web page"),
        (b"nonsense", "not an MRC file that can be read"),
    ],
)
def test_what_is_not_mrc_is_named(tmp_path, start, sentence):
    path = tmp_path / "map.mrc"
    path.write_bytes(start.ljust(2048, b"\xff"))
    with pytest.raises(InputError, match=sentence):
        read_header(path)


def test_missing_and_tiny_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_header(tmp_path / "none.mrc")
    (tmp_path / "tiny.mrc").write_bytes(b"abc")
    with pytest.raises(InputError, match="header of 1024 bytes, but the file has 3"):
        read_header(tmp_path / "tiny.mrc")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path, bad):
    values = np.ones((4, 4, 4), np.float32)
    values[1, 2, 3] = bad
    with pytest.raises(InputError, match="found NaN or infinity"):
        write_volume(tmp_path / "map.mrc", values, 1.0)
    assert not list(tmp_path.iterdir())
    write_mrc(tmp_path / "map.mrc", values, 2)
    with pytest.raises(InputError, match="found NaN or infinity"):
        read_volume(tmp_path / "map.mrc")


def test_values_too_large_for_float16_are_refused(tmp_path):
    with (
        pytest.raises(InputError, match="finite as float16"),
        StackWriter(tmp_path / "s.mrcs", 1.0, np.float16) as writer,
    ):
        writer.append(np.full((1, 4, 4), 1e6))
    assert not list(tmp_path.iterdir())


@given(seed=st.integers(0, 2**16), count=st.integers(1, 12))
def test_the_order_of_writing_does_not_show(tmp_path_factory, seed, count):
    folder = tmp_path_factory.mktemp("stacks")
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, 4, 4)).astype(np.float32)
    with StackWriter(folder / "a.mrcs", 2.0) as writer:
        writer.append(images)
    order = generator.permutation(count)
    with StackWriter(folder / "b.mrcs", 2.0) as writer:
        for rows in np.split(order, np.sort(generator.integers(0, count, 2))):
            writer.place(rows, images[rows])
    assert (folder / "a.mrcs").read_bytes() == (folder / "b.mrcs").read_bytes()
    with mrcfile.open(folder / "b.mrcs") as file:
        assert float(file.header.rms) == pytest.approx(images.std(), rel=1e-5)


@pytest.mark.parametrize("rows", [[0, 2], [0, 1, 1]])
def test_a_stack_with_gaps_is_not_left(tmp_path, rows):
    writer = StackWriter(tmp_path / "s.mrcs", 1.0)
    with (
        pytest.raises(ValueError, match=r"every image .* once, 1 were not"),
        writer,
    ):
        writer.place(np.array(rows), np.zeros((len(rows), 4, 4)))
    assert not list(tmp_path.iterdir())


def test_images_of_another_size_are_not_appended(tmp_path):
    with StackWriter(tmp_path / "s.mrcs", 1.0) as writer:
        writer.append(np.zeros((1, 4, 4)))
        with pytest.raises(InputError, match=r"expected images of \(4, 4\)"):
            writer.append(np.zeros((1, 6, 6)))
    assert read_header(tmp_path / "s.mrcs").shape == (1, 4, 4)


def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(InputError, match=r"does not exist. Create it."):
        mrc.write_stack(tmp_path / "none" / "s.mrcs", np.zeros((1, 4, 4)), 1.0)


def test_real_headers_are_understood(zoo):
    assert read_header(zoo / "cryodrgn/relion31.mrcs").shape == (5, 256, 256)
    assert read_volume(zoo / "maven/vol_018.mrc").voxel_size == pytest.approx(6.55)
    assert read_header(zoo / "mrcfile/EMD-3001.map").axes == (3, 1, 2)
    assert read_header(zoo / "ngl/3pqr-mode0.ccp4").dtype == np.int8
    assert read_header(zoo / "rosettasciio/HAADFscan.mrc").dtype == np.uint16
    tilts = next((zoo / "tomodrgn").glob("*/Unt_083/*.mrcs"))
    assert open_sections(read_header(tilts)).dtype == np.float16
    short = read_header(zoo / "drgnai/00256_Ribosomes_1.70A.mrcs")
    assert (short.shape[0], short.sections_in_file) == (11029, 1)
    with pytest.raises(InputError, match="SPIDER"):
        read_header(zoo / "xmipp/smallStack.stk")
    with pytest.raises(InputError, match="bzip2"):
        read_header(zoo / "mrcfile/EMD-3001.map.bz2")


@given(seed=st.integers(0, 2**16), kept=st.integers(0, 4))
def test_a_stack_that_is_gone_on_with_is_the_same_file(tmp_path_factory, seed, kept):
    folder = tmp_path_factory.mktemp("mrc")
    images = np.random.default_rng(seed).standard_normal((5, 4, 4)).astype(np.float32)
    unfinished, whole = folder / "unfinished.mrcs", folder / "whole.mrcs"
    with suppress(KeyboardInterrupt), StackWriter(unfinished, 2.0, in_place=True) as writer:
        writer.append(images[: kept + 1])
        raise KeyboardInterrupt
    with pytest.raises(InputError):
        read_header(unfinished)
    with StackWriter(unfinished, 2.0, in_place=True) as writer:
        writer.keep(kept, 4)
        writer.append(images[kept:])
    mrc.write_stack(whole, images, 2.0)
    assert unfinished.read_bytes() == whole.read_bytes()


def test_a_wrong_machine_stamp_is_overruled_by_sense(tmp_path):
    path = tmp_path / "map.mrc"
    values = np.arange(64.0).reshape(4, 4, 4)
    write_mrc(path, values, 2, ">", stamp=b"\x44\x44\0\0")
    np.testing.assert_array_equal(read_volume(path).values, values)


@pytest.mark.parametrize(("flags", "found"), [(0, 200), (1, -56)])
def test_bytes_of_imod_are_unsigned_unless_flagged(tmp_path, flags, found):
    values = np.full((4, 4, 4), 200, np.uint8)
    raw = header_bytes(values.shape, 0, whole={152: [1146047817, flags]})
    (tmp_path / "map.mrc").write_bytes(raw + values.tobytes())
    assert (read_volume(tmp_path / "map.mrc").values == found).all()


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_volumes_are_read(tmp_path, compress):
    values = np.random.default_rng(0).standard_normal((4, 4, 4)).astype(np.float32)
    write_volume(tmp_path / "map.mrc", values, 1.25)
    packed = compress((tmp_path / "map.mrc").read_bytes())
    path = tmp_path / "map.mrc.packed"
    path.write_bytes(packed)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, values)
    assert volume.voxel_size == pytest.approx(1.25)
    with pytest.raises(InputError, match="looks compressed"):
        read_header(path)
    path.write_bytes(packed[:-20])
    with pytest.raises(InputError, match=r"is damaged|cannot be read|expected 256 bytes"):
        read_volume(path)
    path.write_bytes(compress((tmp_path / "map.mrc").read_bytes()[:-4]))
    with pytest.raises(InputError, match=r"expected 256 bytes after its header, .* found 252"):
        read_volume(path)


def test_a_small_file_does_not_unpack_to_a_huge_volume(tmp_path):
    path = tmp_path / "map.mrc.gz"
    path.write_bytes(gzip.compress(header_bytes((4096, 4096, 4096), 2) + bytes(10**6)))
    with pytest.raises(InputError, match=r"would unpack to 274877906944, more than 100 times"):
        read_volume(path)


def test_headers_that_promise_more_than_memory_cost_nothing(tmp_path):
    path = tmp_path / "s.mrcs"
    path.write_bytes(header_bytes((10**6, 2**25, 2**25), 2) + bytes(100))
    assert read_header(path).sections_in_file == 0
    with pytest.raises(InputError, match="promises 1000000 images, the file holds none"):
        open_sections(read_header(path))
    write_mrc(path, np.ones((3, 4, 4)), 2)
    path.write_bytes(header_bytes((10**7, 4, 4), 2) + path.read_bytes()[1024:])
    assert len(open_sections(read_header(path))) == 3


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ((6, 6, 9), None),
        ((6, 8, 6), None),
        ((0, 0, 0), None),
        ((6, 6, 0), 1.5),
        ((6, 6, 6.03), 1.5),
    ],
)
def test_voxels_that_are_not_cubes_are_told_and_not_used(tmp_path, caplog, cell, found):
    write_mrc(tmp_path / "map.mrc", np.ones((4, 4, 4)), 2, words={40: cell})
    assert read_volume(tmp_path / "map.mrc").voxel_size == found
    assert ("not cubes" in caplog.text) == (found is None and any(cell))


def test_depth_of_a_volume_written_as_images_means_nothing(tmp_path):
    write_mrc(tmp_path / "map.mrc", np.ones((4, 4, 4)), 2, words={40: [6, 6, 1]}, whole={36: [1]})
    assert read_volume(tmp_path / "map.mrc").voxel_size == 1.5


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"words": {196: [10, 0, 0]}}, True),
        ({"whole": {16: [0, 5, 0]}}, True),
        ({"words": {196: [-3, -3, -3]}}, False),
        ({"whole": {16: [-2, -2, -2]}}, False),
    ],
)
def test_volumes_that_lie_elsewhere_are_told(tmp_path, caplog, fields, told):
    write_mrc(tmp_path / "map.mrc", np.ones((4, 4, 4)), 2, **fields)
    read_volume(tmp_path / "map.mrc")
    assert ("taken to lie on the same voxels" in caplog.text) == told


def test_axes_that_are_none_are_refused(tmp_path):
    write_mrc(tmp_path / "map.mrc", np.ones((4, 4, 4)), 2, axes=(1, 1, 3))
    with pytest.raises(InputError, match=r"axes 1, 2 and 3 in some order, found \(1, 1, 3\)"):
        read_volume(tmp_path / "map.mrc")

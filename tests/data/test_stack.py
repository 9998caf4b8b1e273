import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.data.mrc import write_stack
from recovar.data.particles import read_image_list
from recovar.data.stack import ImageReader, read_images, stream
from recovar.errors import InputError


def write_images(directory, seed=0):
    """Three stacks of 5 images each and a list of them."""
    images = np.random.default_rng(seed).standard_normal((15, 4, 4)).astype(np.float32)
    for k in range(3):
        write_stack(directory / f"{k}.mrcs", images[5 * k : 5 * k + 5], 1.0)
    (directory / "list.txt").write_text("0.mrcs\n1.mrcs\n2.mrcs\n")
    return images


@given(rows=st.lists(st.integers(0, 14), max_size=20), headers=st.integers(1, 3))
def test_images_come_in_the_order_asked_for(tmp_path_factory, rows, headers):
    directory = tmp_path_factory.mktemp("stack")
    images = write_images(directory)
    reader = ImageReader(read_image_list(directory / "list.txt"), headers)
    rows = np.array(rows, np.int64)
    found = reader.read(rows)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images[rows])


@given(order=st.permutations(range(15)), batch_size=st.integers(1, 16), prefetch=st.integers(0, 4))
def test_any_batches_give_the_same_images(tmp_path_factory, order, batch_size, prefetch):
    directory = tmp_path_factory.mktemp("stack")
    images = write_images(directory)
    particles = read_image_list(directory / "list.txt")
    batches = list(stream(particles, np.array(order), batch_size, prefetch))
    assert [len(rows) for rows, _ in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in batches]), order)
    np.testing.assert_array_equal(np.concatenate([read for _, read in batches]), images[order])


def test_the_thread_ends_when_the_consumer_stops(tmp_path):
    write_images(tmp_path)
    batches = stream(read_image_list(tmp_path / "list.txt"), np.arange(15), 2)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("recovar-images")]


def test_errors_of_the_thread_reach_the_consumer(tmp_path):
    write_images(tmp_path)
    particles = read_image_list(tmp_path / "list.txt")
    (tmp_path / "1.mrcs").unlink()
    with pytest.raises(InputError, match=r"Expected an MRC file at .*1.mrcs, but there is no such"):
        list(stream(particles, np.arange(15), 2))


def spoil(path, image, value):
    raw = bytearray(path.read_bytes())
    raw[1024 + image * 64 : 1028 + image * 64] = np.float32(value).tobytes()
    path.write_bytes(raw)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_named(tmp_path, value):
    write_images(tmp_path)
    spoil(tmp_path / "1.mrcs", 2, value)
    particles = read_image_list(tmp_path / "list.txt")
    with pytest.raises(InputError, match=r"1.mrcs: image 3 \(000003@1.mrcs\) has values that are"):
        read_images(particles, np.arange(15))


def test_large_finite_values_are_read(tmp_path):
    write_images(tmp_path)
    for image in range(2):
        spoil(tmp_path / "1.mrcs", image, 3e38)
    particles = read_image_list(tmp_path / "list.txt")
    assert np.isfinite(read_images(particles, np.arange(15))).all()


def test_stacks_that_changed_are_refused(tmp_path):
    write_images(tmp_path)
    particles = read_image_list(tmp_path / "list.txt")
    write_stack(tmp_path / "1.mrcs", np.zeros((2, 4, 4)), 1.0)
    with pytest.raises(InputError, match="expected at least 5 images, found 2"):
        read_images(particles, np.arange(15))
    write_stack(tmp_path / "1.mrcs", np.zeros((5, 6, 6)), 1.0)
    with pytest.raises(InputError, match="expected images of 4 × 4 pixels like the others"):
        read_images(particles, np.arange(15))


def test_a_real_file_cut_short_gives_the_image_it_holds(zoo):
    name = "00256_Ribosomes_1.70A.mrcs"
    particles = read_image_list(zoo / "drgnai" / name)
    assert len(particles) == 1
    assert read_images(particles, np.array([0])).std() > 0
    assert particles.stacks == (Path(zoo / "drgnai" / name),)

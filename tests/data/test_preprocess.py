from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovar.core import fourier
from recovar.data import preprocess
from recovar.data.mrc import open_sections, read_header, write_stack
from recovar.data.particles import read_image_list
from recovar.data.preprocess import (
    Preprocessing,
    background,
    downsample_images,
    preprocess_images,
    preprocess_volume,
)
from recovar.errors import InputError

SIZES = st.sampled_from([(32, 16), (24, 10), (26, 8), (64, 12), (18, 16)])


def draw_images(size, count=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, size, size)).astype(np.float32)


def write_images(tmp_path, images):
    write_stack(tmp_path / "images.mrcs", images, 1.5)
    return read_image_list(tmp_path / "images.mrcs")


@given(sizes=SIZES, seed=st.integers(0, 2**16))
def test_transforms_of_small_images_are_the_inner_parts_of_those_of_large_ones(sizes, seed):
    size, box = sizes
    images = draw_images(size, seed=seed)
    cropped = fourier.crop_spectrum(fourier.to_spectrum(images.astype(np.float64), 2), box, 2)
    found = fourier.to_spectrum(downsample_images(images, box), 2)
    np.testing.assert_allclose(found, cropped * (box / size) ** 2, atol=2e-4)


@given(seed=st.integers(0, 2**16))
def test_two_steps_are_one(seed):
    images = draw_images(48, seed=seed)
    twice = downsample_images(downsample_images(images, 32), 20)
    np.testing.assert_allclose(twice, downsample_images(images, 20), atol=1e-5)


def test_images_of_the_wanted_size_are_not_touched():
    images = draw_images(16)
    np.testing.assert_array_equal(downsample_images(images, 16), images)


def test_flat_images_stay_as_high_and_waves_stay_in_place():
    place = np.arange(48) - 24
    wave = np.cos(2 * np.pi * (3 * place[:, None] - 2 * place) / 48 + 0.3)
    small_place = np.arange(16) - 8
    small = np.cos(2 * np.pi * (3 * small_place[:, None] - 2 * small_place) / 16 + 0.3)
    images = np.stack([np.full((48, 48), 7.0), wave]).astype(np.float32)
    found = downsample_images(images, 16)
    np.testing.assert_allclose(found, [np.full((16, 16), 7.0), small], atol=1e-5)


def test_white_noise_stays_white_and_loses_what_is_cut_off():
    small = downsample_images(draw_images(64, 400), 16)
    assert small.var() == pytest.approx((15 / 64) ** 2, rel=0.02)
    power = np.square(np.abs(fourier.to_spectrum(small, 2)[:, 1:8, 1:8])).mean(0)
    np.testing.assert_allclose(power, power.mean(), rtol=0.25)


def test_volumes_shrink_as_images_do():
    volume = np.random.default_rng(0).standard_normal((24, 24, 24)).astype(np.float32)
    found = preprocess_volume(volume, 1.5, Preprocessing(crop=24, box=12))
    assert found.voxel_size == 3.0
    cropped = fourier.crop_spectrum(fourier.to_spectrum(volume), 12) / 8
    np.testing.assert_allclose(fourier.to_spectrum(found.values), cropped, atol=1e-3)
    same = preprocess_volume(volume, 1.5, Preprocessing(crop=24, box=24, inverted=True))
    np.testing.assert_array_equal(same.values, -volume)


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("start", [0, 3, 10, 11])
def test_neither_threads_nor_the_start_change_a_bit(tmp_path, monkeypatch, threads, start):
    monkeypatch.setattr(preprocess, "_BLOCK_BYTES", 4 * 4 * 24**2)
    particles = write_images(tmp_path, draw_images(24, 11))
    wanted = Preprocessing(crop=22, box=10, normalized=True, inverted=True)
    whole = np.concatenate(list(preprocess_images(particles, wanted, 2)))
    assert len(whole) == 11
    pieces = list(preprocess_images(particles, wanted, threads, start))
    np.testing.assert_array_equal(np.concatenate([whole[:0], *pieces]), whole[start:])


def test_crop_cuts_the_middle_out(tmp_path):
    images = draw_images(24, 2)
    wanted = Preprocessing(crop=16, box=16)
    (found,) = preprocess_images(write_images(tmp_path, images), wanted, 1)
    np.testing.assert_array_equal(found, images[:, 4:20, 4:20])
    assert wanted.scale == 1


def test_the_background_is_normalized(tmp_path):
    images = 5 + 3 * draw_images(32, 4)
    images[:, 10:22, 10:22] += 40
    wanted = Preprocessing(crop=32, box=32, normalized=True)
    (found,) = preprocess_images(write_images(tmp_path, images), wanted, 1)
    pixels = found[:, background(32)]
    np.testing.assert_allclose(pixels.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(pixels.std(1), 1, atol=1e-6)
    radius = np.hypot(*(np.indices((32, 32)) - 16))
    assert background(32)[radius > 12].all()
    assert not background(32)[radius <= 12].any()


def test_float16_that_overflows_is_refused(tmp_path):
    images = draw_images(16, 3)
    images[1, 4, 5] = 1e5
    particles = write_images(tmp_path, images)
    half = Preprocessing(crop=16, box=16, dtype="float16")
    with pytest.raises(InputError, match=r"image 2 \(000002@.*beyond ±65504.*--dtype float32"):
        list(preprocess_images(particles, half, 1))
    (found,) = preprocess_images(particles, replace(half, dtype="float32"), 1)
    assert found.max() == 1e5


def test_images_without_noise_cannot_be_normalized(tmp_path):
    images = draw_images(16, 3)
    images[2] = 4
    wanted = Preprocessing(crop=16, box=16, normalized=True)
    with pytest.raises(InputError, match=r"image 3 .* same value all over its background"):
        list(preprocess_images(write_images(tmp_path, images), wanted, 1))


def test_images_from_a_microscope_keep_their_low_frequencies(zoo):
    path = Path(zoo / "cryodrgn" / "empiar_10076_rows0-3.mrcs")
    images = np.array(open_sections(read_header(path)))
    small = downsample_images(images, 64)
    assert small.shape == (4, 64, 64)
    wide = fourier.to_spectrum(images, 2)[:, :20, :20]
    np.testing.assert_allclose(
        fourier.to_spectrum(small, 2)[:, :20, :20], wide * 0.04, atol=1e-5 * np.abs(wide).max()
    )

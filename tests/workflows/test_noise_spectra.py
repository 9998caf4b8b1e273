"""Which images of a run share the spectrum of their noise, and what a run keeps of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from two_states import COUNT, call

from recovar.cli import main
from recovar.core.noise_spectra import NoiseSpectra
from recovar.data.particles import Particles
from recovar.errors import InputError
from recovar.manifest import read_manifest
from recovar.noise import Noise
from recovar.run import read_result
from recovar.workflows.noise_groups import choose_noise_groups


def grouped(*sizes):
    """List images of optics groups of these sizes, numbered from 7."""
    rows = np.arange(sum(sizes))
    return Particles(
        stacks=(Path("particles.mrcs"),),
        stack_index=np.zeros(len(rows), np.int32),
        slice_index=rows,
        rotations=None,
        shifts=None,
        optics=None,
        box=32,
        pixel_size=2.0,
        particle=rows,
        half=None,
        identity=rows.astype(str),
        sources=(Path("particles.star"),),
        source_row=rows,
        optics_group=np.repeat(7 + np.arange(len(sizes)), sizes),
    )


def test_large_optics_groups_have_their_own_noise_and_small_ones_that_of_all():
    found = choose_noise_groups(grouped(600, 40, 500, 30), "automatic")
    assert found.own == 2
    assert found.why == "2 of 4 optics groups have 500 images or more"
    np.testing.assert_array_equal(found.number, np.repeat([0, 2, 1, 2], (600, 40, 500, 30)))


@pytest.mark.parametrize(
    ("sizes", "asked"), [((600, 400), "automatic"), ((600, 600), "all"), ((200,), "optics")]
)
def test_otherwise_all_images_share_a_spectrum(sizes, asked):
    found = choose_noise_groups(grouped(*sizes), asked)
    assert found.own == 0
    assert not found.number.any()


def test_small_groups_are_obeyed_if_asked_for_and_tiny_ones_refused():
    assert choose_noise_groups(grouped(60, 70), "optics").own == 2
    with pytest.raises(InputError, match=r"at least 50 images .* found 20 in the smallest of 2"):
        choose_noise_groups(grouped(60, 20), "optics")


def test_two_files_are_measured_each_by_itself(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "copy")
    files = [f"{place}/particles.star" for place in (data, copy)]
    options = ["--only-mean", "--mask", "sphere", "--noise-groups", "optics", "--no-noise-scale"]
    assert main(["pipeline", *files, "-o", f"{tmp_path}/run", *options, "--quiet"]) == 0
    found = read_result(tmp_path / "run", "noise_spectra", NoiseSpectra)
    whole = read_result(tmp_path / "run", "noise", Noise).variance
    assert found.profiles.shape == (3, len(whole))
    np.testing.assert_allclose(found.profiles, np.tile(whole, (3, 1)), rtol=1e-4)
    np.testing.assert_array_equal(found.group, np.repeat([0, 1], COUNT))
    assert (found.scale == 1).all()
    np.testing.assert_array_equal(
        np.load(tmp_path / "run/model/results.npz")["noise_scale"], found.scale
    )
    decisions = read_manifest(tmp_path / "run").stages["noise_spectra"].decisions
    assert decisions["spectrum of the noise"].value == "of 2 groups, each its own"


def test_an_added_constant_changes_nothing_where_the_zero_frequency_is_ignored(data, tmp_path):
    """Images with and without a baseline give the same mean, noise and scales."""
    spoilt = tmp_path / "data"
    spoilt.mkdir()
    for name in ("particles.star", "particles.mrcs"):
        (spoilt / name).write_bytes((data / name).read_bytes())
    pixels = np.memmap(spoilt / "particles.mrcs", "<f4", "r+", offset=1024).reshape(COUNT, -1)
    pixels += np.random.default_rng(0).normal(scale=3, size=(COUNT, 1)).astype(np.float32)
    options = ("--only-mean", "--mask", "sphere", "--ignore-zero-frequency", "--noise-scale")
    spectra = []
    for name, source in (("clean", data), ("spoilt", spoilt)):
        assert call(source, tmp_path / name, *options, "--quiet") == 0
        spectra.append(read_result(tmp_path / name, "noise_spectra", NoiseSpectra))
    clean, other = spectra
    assert np.isinf(clean.profiles[0, 0])
    np.testing.assert_allclose(other.profiles[:, 1:], clean.profiles[:, 1:], rtol=1e-3)
    np.testing.assert_allclose(other.scale, clean.scale, rtol=1e-3)
    np.testing.assert_allclose(
        np.load(tmp_path / "spoilt/model/mean.npz")["record.plain.fsc"],
        np.load(tmp_path / "clean/model/mean.npz")["record.plain.fsc"],
        atol=1e-3,
    )

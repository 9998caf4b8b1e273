from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import random_molecule
from scipy.signal import resample

from recovar.acquisition import Conditions, draw_truth
from recovar.compute.executors import LocalExecutor
from recovar.core.fourier import crop_spectrum, to_spectrum, to_volume
from recovar.core.grid import Grid
from recovar.data.bank import ImageBank
from recovar.data.grids import ImageKind, bring_to_grid, find_common_grid
from recovar.data.mrc import write_stack
from recovar.data.particles import read_particles, table_of
from recovar.data.stack import read_images
from recovar.data.star import write_particles
from recovar.data_sets import TrueStates, write_simulation
from recovar.homogeneous import estimate_mean
from recovar.regularization import fsc
from recovar.simulator import Simulation
from recovar.specimens import VolumeSpecimen


def kinds(*pairs):
    boxes, sizes = zip(*pairs, strict=True)
    return np.array(boxes), np.array(sizes, float)


def waves(places, side, seed=0, largest=5):
    """Images of a few waves of a field of this side, sampled at places in Å along both axes."""
    generator = np.random.default_rng(seed)
    numbers = np.arange(-largest, largest + 1)
    weights = generator.normal(size=(2, len(numbers), len(numbers)))
    phases = np.exp(2j * np.pi * np.outer(places, numbers) / side)
    return np.einsum("yk,kl,xl->yx", phases, weights[0] + 1j * weights[1], phases).real[None]


def places(kind):
    return (np.arange(kind.box) - kind.box // 2) * kind.pixel_size


@pytest.mark.parametrize(
    ("images", "target"),
    [
        (kinds((320, 1.31), (256, 1.6375)), ImageKind(256, 1.6375)),
        (kinds((320, 1.31), (300, 1.31)), ImageKind(300, 1.31)),
        (kinds((300, 1.31), (256, 1.6375)), ImageKind(240, 1.6375)),
        (kinds((320, 1.31), (256, 1.638)), ImageKind(256, 1.638)),
        (kinds((320, 1.0), (400, 1.0004), (500, 0.9996)), ImageKind(320, 1.0)),
        (kinds((257, 1.2), (257, 1.2)), ImageKind(256, 1.2)),
    ],
)
def test_the_grid_has_the_coarsest_pixels_and_the_smallest_field(images, target):
    found = find_common_grid(*images)
    assert found.target == target
    read = [found.kinds[kind] for kind in found.kind]
    assert [kind.box for kind in read] == images[0].tolist()
    assert [kind.pixel_size for kind in read] == pytest.approx(images[1], rel=1e-3)


@given(old=st.integers(4, 20), new=st.integers(2, 10), seed=st.integers(0, 2**16))
def test_a_whole_ratio_in_one_field_is_a_crop_of_the_transform(old, new, seed):
    old, new = 2 * old, 2 * min(new, old)
    images = np.random.default_rng(seed).normal(size=(3, old, old)).astype(np.float32)
    found = bring_to_grid(images, ImageKind(old, 1.2), ImageKind(new, 1.2 * old / new))
    if new == old:
        np.testing.assert_array_equal(found, images)
        return
    spectrum = crop_spectrum(to_spectrum(images, 2), new, 2)
    wanted = to_volume(spectrum * (new / old) ** 2, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@given(
    box=st.integers(24, 40),
    pixel_size=st.floats(0.8, 1.0),
    ratio=st.floats(1.002, 1.6),
    seed=st.integers(0, 2**16),
)
def test_waves_are_sampled_anew_at_any_ratio_about_the_same_centre(box, pixel_size, ratio, seed):
    old = ImageKind(box, pixel_size)
    target = find_common_grid(*kinds((box, pixel_size), (10 * box, ratio * pixel_size))).target
    side = box * pixel_size
    found = bring_to_grid(waves(places(old), side, seed), old, target)
    np.testing.assert_allclose(found, waves(places(target), side, seed), atol=2e-4)


@pytest.mark.parametrize("box", [20, 21])
def test_images_with_the_same_pixels_are_cut_out_about_the_centre(box):
    images = np.zeros((2, box, box), np.float32)
    images[:, box // 2, box // 2 + 1] = 1
    found = bring_to_grid(images, ImageKind(box, 1.3), ImageKind(16, 1.3))
    assert np.argwhere(found[0]).tolist() == [[8, 9]]


def test_what_is_flat_stays_as_high_as_it_was():
    images = np.full((40, 30, 30), 7, np.float32)
    found = bring_to_grid(images, ImageKind(30, 1.1), ImageKind(22, 1.37))
    np.testing.assert_allclose(found, 7, rtol=1e-5)


GRID, FINE, COUNT = Grid(20, 6.0), Grid(30, 4.0), 400


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Noisy images of a known molecule, all of one kind."""
    directory = tmp_path_factory.mktemp("kinds")
    truth = draw_truth(np.zeros((COUNT, 1)), GRID, Conditions(preferred=0.0), 0)
    molecule = VolumeSpecimen(random_molecule(0).volume(GRID.size)[None])
    simulation = Simulation(molecule, GRID, truth).at_signal_to_noise(0.5)
    states = TrueStates(np.zeros((1, 1)), np.ones(1), np.zeros((1, 1)))
    write_simulation(simulation, directory, states)
    return read_particles(directory / "particles.star")


def with_finer_half(plain, path, margin):
    """Write half of the images with pixels of 2/3 the size, and a margin all around."""
    rows = np.arange(COUNT) % 2
    fine = read_images(plain, np.flatnonzero(rows))
    for axis in (1, 2):
        fine = resample(fine, FINE.size, axis=axis)
    around = [(0, 0), (margin, margin), (margin, margin)]
    write_stack(path / "f.mrcs", np.pad(fine, around, mode="reflect"), FINE.voxel_size)
    coarse = read_images(plain, np.flatnonzero(rows == 0))
    write_stack(path / "c.mrcs", coarse, GRID.voxel_size)
    table = table_of(plain, ("c.mrcs", "f.mrcs"))
    table = replace(
        table,
        stack_index=rows.astype(np.int32),
        slice_index=np.arange(COUNT) // 2,
        box=np.where(rows, FINE.size + 2 * margin, GRID.size),
        pixel_size=np.where(rows, FINE.voxel_size, GRID.voxel_size),
    )
    write_particles(path / "p.star", replace(table, stacks=("c.mrcs", "f.mrcs")))
    return read_particles(path / "p.star")


def mean(particles):
    bank = ImageBank(particles, np.arange(COUNT) % 4 // 2, memory=0)
    return estimate_mean(bank, GRID, np.ones(GRID.shells), LocalExecutor()).volume


def test_finer_pixels_of_one_field_give_the_mean_of_one_kind(plain, tmp_path):
    particles = with_finer_half(plain, tmp_path, margin=0)
    assert particles.target == ImageKind(GRID.size, GRID.voxel_size)
    wanted = mean(plain)
    np.testing.assert_allclose(mean(particles), wanted, atol=1e-4 * wanted.std())


def test_finer_pixels_in_a_wider_field_give_nearly_the_mean_of_one_kind(plain, tmp_path):
    """Other noise around an image leaks a little into its edge."""
    particles = with_finer_half(plain, tmp_path, margin=3)
    assert particles.target == ImageKind(GRID.size, GRID.voxel_size)
    curve = fsc(to_spectrum(mean(particles)), to_spectrum(mean(plain)))
    assert curve[1 : GRID.shells - 1].min() > 0.99

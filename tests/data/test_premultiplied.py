"""Images that were multiplied by their transfer function become ordinary images again."""

from dataclasses import dataclass

import numpy as np
import pytest
from problems import ImageSource, random_molecule, random_noise
from scipy.spatial.transform import Rotation

from recovar.compute.executors import LocalExecutor
from recovar.core.batch import ImageBatch
from recovar.core.ctf import Optics, transfer_function
from recovar.core.fourier import to_spectrum, to_volume
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import Grid
from recovar.core.projection import centring_factors
from recovar.core.slicing_numba import NUMBA
from recovar.data.bank import ImageBank
from recovar.data.mrc import write_stack
from recovar.data.particles import Particles
from recovar.homogeneous import estimate_mean, mean_statistic
from recovar.noise import disc_shell_sums
from recovar.regularization import fsc

GRID = Grid(size=16, voxel_size=4.0)
DISC = Disc(GRID.size, GRID.largest_radius)
IMAGES, NOISE = 1000, 30.0
SHIFTS = np.tile([3.0, -5.0], (IMAGES, 1))
LARGE = 0.5
"""Where transfer functions are larger than this, the correction hardly shows: ε / C² < 0.1."""


@dataclass(frozen=True)
class Views:
    """The same noisy images, read from files of either kind."""

    ordinary: ImageBatch
    premultiplied: ImageBatch
    large: np.ndarray
    """Which pixels have a large transfer function."""
    noise: np.ndarray
    """The noise alone, as if it had been read from premultiplied images."""
    scale: float
    """Height of the transfer functions."""


def read_back(path, spectra, rotations, optics, *, premultiplied):
    """Write images to a file and read them through the bank."""
    images = to_volume(DISC.to_spectra(spectra), dimensions=2)
    write_stack(path, images.astype(np.float32), GRID.voxel_size)
    particles = Particles(
        stacks=(path,),
        stack_index=np.zeros(IMAGES, np.int32),
        slice_index=np.arange(IMAGES),
        rotations=rotations,
        shifts=SHIFTS,
        optics=optics,
        box=GRID.size,
        pixel_size=GRID.voxel_size,
        particle=np.arange(IMAGES),
        half=None,
        identity=np.arange(IMAGES, dtype=np.uint64),
        sources=(),
        source_row=np.arange(IMAGES),
        premultiplied=premultiplied,
    )
    (batch,) = ImageBank(particles, np.arange(IMAGES) % 2, memory=0).blocks()
    return batch


@pytest.fixture(scope="module", params=[1.0, 0.02], ids=["unit", "weak"])
def views(request, tmp_path_factory):
    """Images with transfer functions that cross zero, whose peaks are 1 or much smaller."""
    folder, scale = tmp_path_factory.mktemp("views"), request.param
    rng, one = np.random.default_rng(0), np.ones(IMAGES)
    rotations = Rotation.random(IMAGES, rng=rng).as_matrix()
    u = rng.uniform(8000, 30000, IMAGES)
    parts = u, u - 600, one / 3, 300 * one, 2.7 * one, 0.1 * one, 0 * one, 0 * one, scale * one
    optics = Optics(*(part.astype(np.float32) for part in parts))
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(optics, DISC.x * step, DISC.y * step)
    signal = random_molecule(3).project(rotations, DISC) / scale
    signal = signal * centring_factors(SHIFTS, DISC, GRID.voxel_size).conj()
    noise = random_noise(IMAGES, DISC, NOISE, rng)
    images = transfer * signal + noise
    ordinary, premultiplied, alone = (
        read_back(folder / name, spectra, rotations, optics, premultiplied=name != "ordinary.mrcs")
        for name, spectra in {
            "ordinary.mrcs": images,
            "premultiplied.mrcs": transfer * images,
            "noise.mrcs": transfer * noise,
        }.items()
    )
    return Views(ordinary, premultiplied, np.abs(transfer) > LARGE * scale, alone.values, scale)


def test_images_over_transfer_functions_are_those_of_ordinary_images(views):
    """So whatever fits values = transfer · slice to the one fits it to the other."""
    first, second = views.ordinary, views.premultiplied
    found, wanted = second.values * first.transfer, first.values * second.transfer
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


def test_where_transfer_functions_are_large_batches_are_those_of_ordinary_images(views):
    first, second, large = views.ordinary, views.premultiplied, views.large
    products = first.transfer * first.values, second.transfer * second.values
    np.testing.assert_allclose(second.transfer[large], first.transfer[large], rtol=0.1)
    np.testing.assert_allclose(second.values[large], first.values[large], rtol=0.1, atol=1e-3)
    np.testing.assert_allclose(products[1][large], products[0][large], rtol=0.1, atol=1e-3)


def test_their_noise_is_stationary_where_transfer_functions_are_large(views):
    power, ones = np.abs(views.noise) ** 2, views.large.astype(float)
    profile = disc_shell_sums(power * ones, DISC) / np.maximum(disc_shell_sums(ones, DISC), 1)
    counted = disc_shell_sums(ones, DISC) > 500
    assert counted.sum() >= 4
    # Between 1 − ε / (0.25 + ε) and 1, but for the spread of 500 exponentials.
    np.testing.assert_allclose(profile[counted], 0.96 * NOISE, rtol=0.1)


def test_they_give_the_mean_of_ordinary_images(views):
    def mean(batch):
        noise = np.full(GRID.size // 2, NOISE)
        return estimate_mean(ImageSource(batch), GRID, noise, LocalExecutor())

    first, second = mean(views.ordinary), mean(views.premultiplied)
    curve = fsc(*(to_spectrum(m.volume) for m in (first, second)))
    assert curve[1:-1].min() > 0.99
    truth = random_molecule(3).volume(GRID.size) / views.scale
    heights = [np.vdot(truth, m.volume) / np.vdot(truth, truth) for m in (first, second)]
    assert heights[1] == pytest.approx(heights[0], abs=0.02)
    np.testing.assert_allclose(second.fsc, first.fsc, atol=0.05)


def test_they_add_to_the_sums_of_the_mean_what_ordinary_images_add(views):
    ball = Ball(GRID.size, GRID.largest_radius)
    statistic = mean_statistic(np.ones(1), ball, NUMBA)
    first, second = (
        statistic.add(statistic.zeros(), batch) for batch in (views.ordinary, views.premultiplied)
    )
    for name in ("values", "weights"):
        wanted, found = (np.asarray(getattr(sums, name)) for sums in (first, second))
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        assert error < 0.1, name

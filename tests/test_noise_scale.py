"""The noise of single images is found where it differs, and nothing where it does not."""

from dataclasses import replace

import numpy as np
import pytest
from problems import ImageSource, observe, random_molecule

from recovar.compute.executors import LocalExecutor
from recovar.core.grid import Grid
from recovar.core.masks import solvent_mask
from recovar.core.noise_spectra import NoiseSpectra
from recovar.noise import estimate_group_noise, estimate_noise
from recovar.noise_scale import estimate_noise_scales, quiet_shells, shrink_scales

SIZE = 32
GRID = Grid(SIZE, 3.0)
PROFILE = 5.0 * (1 + 4 * np.exp(-np.arange(16) / 4))
MOLECULE = random_molecule(1, blobs=12, spread=2.0)
VOLUME = MOLECULE.volume(SIZE)
MASK = solvent_mask(VOLUME / VOLUME.max() > 0.05)
EXECUTOR = LocalExecutor()


def observe_unequal(scale, groups=None, shapes=(PROFILE,)):
    """Take images whose noise has the given scales, and in each group another shape."""
    group = np.zeros(len(scale), int) if groups is None else groups
    clean = observe([MOLECULE], GRID, len(scale))[0].images
    unit = observe([MOLECULE], GRID, len(scale), noise=1.0)[0].images.values - clean.values
    shells = np.minimum(clean.disc.shells, 15)
    variance = scale[:, None] * np.stack(shapes)[group][:, shells]
    values = (clean.values + np.sqrt(variance) * unit).astype(np.complex64)
    return ImageSource(
        type(clean)(clean.disc, values, clean.transfer, clean.rotations, clean.rows, clean.halves)
    )


def find_scales(source, group=None):
    noise = estimate_noise(source, VOLUME, MASK.dilated, EXECUTOR)
    profiles = noise.variance[None]
    if group is not None:
        each = estimate_group_noise(source, group, VOLUME, MASK.dilated, EXECUTOR)
        profiles = np.stack([one.variance for one in each])
    count = len(source)
    group = np.zeros(count, int) if group is None else group
    spectra = NoiseSpectra(profiles, group, np.ones(count, np.float32))
    return estimate_noise_scales(source, VOLUME, spectra, quiet_shells(noise), EXECUTOR)


def test_scales_of_images_are_found_to_their_statistical_error():
    scale = np.random.default_rng(0).lognormal(0, 0.5, 800)
    found = find_scales(observe_unequal(scale / scale.mean()))
    assert found.differ
    assert found.spread == pytest.approx(0.5, rel=0.06)
    relative = found.scale * scale.mean() / scale
    assert relative.std() < 1.1 * found.chance
    assert found.scale.mean() == pytest.approx(1, abs=1e-5)
    assert found.scale.dtype == np.float32


def test_equal_noise_gives_equal_scales():
    found = find_scales(observe_unequal(np.ones(800)))
    assert not found.differ
    assert found.observed == pytest.approx(found.chance, rel=0.1)
    assert found.scale.std() < 0.02 < found.chance


def test_groups_are_measured_each_by_itself_and_scales_within_them():
    rng = np.random.default_rng(1)
    group, scale = np.arange(1200) % 2, rng.lognormal(0, 0.4, 1200)
    shapes = (PROFILE, 3 * np.linspace(1, 2, 16))
    source = observe_unequal(scale, group, shapes)
    for number, noise in enumerate(
        estimate_group_noise(source, group, VOLUME, MASK.dilated, EXECUTOR)
    ):
        alone = estimate_noise(
            ImageSource(source.images.select(np.flatnonzero(group == number))),
            VOLUME, MASK.dilated, EXECUTOR,
        )  # fmt: skip
        np.testing.assert_allclose(noise.variance, alone.variance, rtol=1e-5)
        expected = shapes[number] * scale[group == number].mean()
        assert np.median(noise.variance / expected) == pytest.approx(1, abs=0.04)
    found = find_scales(source, group)
    assert np.corrcoef(np.log(found.scale), np.log(scale))[0, 1] > 0.98
    for number in (0, 1):
        assert found.scale[group == number].mean() == pytest.approx(1, abs=1e-5)


def test_measured_powers_are_trusted_as_far_as_they_exceed_chance():
    """True and chance variances that are equal leave half of each logarithm."""
    rng = np.random.default_rng(0)
    pixels = 400
    true = rng.normal(0, 1 / np.sqrt(pixels), 20_000)
    ratios = np.exp(true) * rng.gamma(pixels, 1 / pixels, 20_000)
    found = shrink_scales(ratios, pixels, np.zeros(20_000, int))
    slope = np.polyfit(np.log(ratios), np.log(found.scale), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.03)
    assert found.spread == pytest.approx(0.05, rel=0.06)


def test_an_image_without_noise_cannot_outweigh_all_others():
    ratios = np.r_[np.zeros(1), np.random.default_rng(0).gamma(400, 1 / 400, 999)]
    found = shrink_scales(ratios, 400, np.zeros(1000, int))
    assert found.scale.min() > 0.09


def test_heterogeneity_is_measured_around():
    """Shells where residuals hold more than noise say nothing about the noise of an image."""
    source = observe_unequal(np.ones(300))
    noise = estimate_noise(source, VOLUME, MASK.dilated, EXECUTOR)
    whole = noise.variance.copy()
    whole[10:] *= 1.5
    quiet = quiet_shells(replace(noise, whole=whole))
    np.testing.assert_array_equal(np.flatnonzero(quiet), [8, 9])

"""What half sets share of components: laws, and molecules that move or do not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import observe, random_molecule

from recovar import plots, trust_plots
from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.grid import Grid, volume_radii
from recovar.core.halves import Halves
from recovar.core.masks import spherical_mask
from recovar.held_out import HeldOut
from recovar.pca import PrincipalComponents
from recovar.posterior import ImageStatistics
from recovar.reproducibility import HalfFit, HalfFits, compare_halves, fit_halves
from recovar.subspace import Subspace

SIZE, RADIUS, COUNT = 20, 8, 4
GRID = Grid(24, 5.0)
NOISE = 2.0


def draw(rng, count=COUNT):
    """Smooth random volumes of up to `RADIUS` Fourier pixels."""
    keep = volume_radii(SIZE) <= RADIUS
    white = rng.normal(size=(count, SIZE, SIZE, SIZE))
    return np.stack([fourier.to_volume(fourier.to_spectrum(v) * keep) for v in white])


def half(volumes):
    components = PrincipalComponents(volumes, np.ones(len(volumes)))
    flat = np.zeros((SIZE,) * 3)
    return Subspace(flat, components, 0.0, np.ones(len(volumes)), flat, RADIUS)


def seen(pcs, seed=0, count=400, varies=True):
    """Images that tell much of every component, along which they vary or do not."""
    rng = np.random.default_rng(seed)
    gram = np.broadcast_to(20 * np.eye(pcs + 1), (count, pcs + 1, pcs + 1))
    response = rng.normal(scale=20**0.5, size=(count, pcs + 1))
    if varies:
        response += 20 * rng.normal(size=response.shape)
    return HeldOut(ImageStatistics(gram, response), 0.0, np.arange(count))


def pair(first, second, varies=True):
    """Fits that found these volumes, and images that vary along them or do not."""
    held = [seen(len(each), seed, varies=varies) for seed, each in enumerate((first, second))]
    return HalfFits(Halves(half(first), half(second)), Halves(*held))


@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_halves_that_found_the_same_share_all_of_it(seed):
    rng = np.random.default_rng(seed)
    volumes = draw(rng)
    turned = np.einsum("kl,lzyx->kzyx", rng.normal(size=(COUNT, COUNT)), volumes)
    found = compare_halves(volumes, pair(volumes, turned), RADIUS)
    for share in (found.shared, found.confirmed, found.first, found.second, found.cosines):
        np.testing.assert_allclose(share, 1, atol=1e-6)
    assert found.real.all()
    assert found.suggested_zdim == COUNT


@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_noise_that_all_images_took_from_both_halves_is_not_reproducible(seed):
    """Each component holds half of the noise of either half set, and is half within its span."""
    rng = np.random.default_rng(seed)
    first, second = draw(rng), draw(rng)
    found = compare_halves(first + second, pair(first, second), RADIUS)
    assert not found.real.any()
    assert np.abs(found.shared).max() < 0.05
    np.testing.assert_allclose(found.first, 0.5, atol=0.1)


def test_noise_in_place_of_a_half_is_exceeded_in_one_case_of_a_hundred():
    chances, angles = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        volumes = draw(rng)
        found = compare_halves(volumes, pair(volumes, draw(rng)), RADIUS, seed)
        chances.append(found.chance)
        angles.append(found.cosines > found.cosines_null)
    # 40 cases each, not quite independent of each other.
    assert np.sum(np.array(chances) <= 0.01) <= 3
    assert np.sum(angles) <= 4
    assert 0.25 < np.mean(chances) < 0.75


def test_components_are_compared_at_low_resolution_in_any_box():
    volumes = draw(np.random.default_rng(0))
    finer = np.stack([
        fourier.to_volume(fourier.pad_spectrum(fourier.to_spectrum(v), 32)) for v in volumes
    ])  # fmt: skip
    detail = np.random.default_rng(1).normal(size=finer.shape)
    beyond = volume_radii(32) > RADIUS + 0.5
    finer += [10 * fourier.to_volume(fourier.to_spectrum(v) * beyond) for v in detail]
    found = compare_halves(finer, pair(volumes, volumes), RADIUS)
    np.testing.assert_allclose(found.shared, 1, atol=1e-6)


def test_a_half_that_found_nothing_shares_nothing():
    volumes = draw(np.random.default_rng(0))
    found = compare_halves(volumes, pair(volumes, volumes[:0]), RADIUS)
    np.testing.assert_array_equal(found.shared, 0)
    assert not found.real.any()


def test_what_images_of_the_other_half_deny_is_not_real():
    volumes = draw(np.random.default_rng(0))
    found = compare_halves(volumes, pair(volumes, volumes, varies=False), RADIUS)
    np.testing.assert_allclose(found.shared, 1, atol=1e-6)
    np.testing.assert_array_equal(found.confirmed, 0)
    assert not found.real.any()
    assert found.suggested_zdim == 0
    assert np.isnan(found.variance).all()


def test_variances_that_were_fitted_are_compared_with_those_of_images_held_out():
    volumes = draw(np.random.default_rng(0))
    found = compare_halves(volumes, pair(volumes, volumes), RADIUS)
    np.testing.assert_allclose(found.variance, 1, atol=0.2)


def images_of(moving: bool):
    body = random_molecule(3, blobs=30, spread=2.0)
    other = random_molecule(3, blobs=30, spread=2.0)
    if moving:
        np.add(body.positions[:6], [0.0, 3.0, 2.0], out=other.positions[:6])
    return observe([body, other], GRID, 600, noise=NOISE, seed=1)[0], (body, other)


def fit(source):
    options = HalfFit(np.arange(600), 3, 9, False, 600, 0)
    executor = LocalExecutor()
    mask = spherical_mask(GRID.size).mask
    return fit_halves(source, GRID, np.full(12, NOISE), mask, options, executor), options


@pytest.mark.parametrize("moving", [True, False])
def test_a_motion_is_found_by_both_halves_and_where_there_is_none_nothing_is(moving):
    source, (body, other) = images_of(moving)
    fits, options = fit(source)
    noise = np.random.default_rng(0).normal(size=(2, *GRID.volume_shape))
    motion = body.volume(24) - other.volume(24)
    candidates = np.concatenate([motion[None] if moving else noise[:1], noise])
    found = compare_halves(candidates, fits, options.radius)
    assert found.real.tolist() == [moving, False, False]
    assert (found.shared[0] > 0.7) == moving
    own = compare_halves(fits.models.first.components.volumes, fits, options.radius)
    assert own.real.sum() == moving


def test_half_sets_are_fitted_to_their_own_images_only():
    """What the second half shows does not change what is found in the first."""
    source, _ = images_of(True)
    second = source.images.halves == 1
    values = np.where(second[:, None], source.images.values[::-1], source.images.values)
    other = replace(
        source, images=type(source.images)(
            source.images.disc, values, source.images.transfer, source.images.rotations,
            source.images.rows, source.images.halves,
        ),
    )  # fmt: skip
    one, another = (fit(each)[0].models.map(lambda m: m.components) for each in (source, other))
    np.testing.assert_array_equal(one.first.volumes, another.first.volumes)
    assert not np.array_equal(one.second.volumes, another.second.volumes)


def test_of_many_images_some_are_drawn():
    options = HalfFit(np.arange(1000), 20, 30, True, 100, 3)
    rows = options.draw_images()
    assert len(set(rows.tolist())) == 100
    assert options.subspace.components == 10
    assert options.radius == 21
    assert options.with_at_most(7).most_images == 7


def test_a_picture_is_drawn(tmp_path):
    volumes = draw(np.random.default_rng(0))
    found = compare_halves(volumes, pair(volumes, volumes), RADIUS)
    plots.save_figure(trust_plots.draw_reproducibility(found), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

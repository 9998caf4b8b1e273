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
from recovar.pca import PrincipalComponents
from recovar.reproducibility import HalfFit, compare_halves, fit_halves
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


@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_halves_that_found_the_same_share_all_of_it(seed):
    rng = np.random.default_rng(seed)
    volumes = draw(rng)
    turned = np.einsum("kl,lzyx->kzyx", rng.normal(size=(COUNT, COUNT)), volumes)
    found = compare_halves(volumes, Halves(half(volumes), half(turned)), RADIUS)
    for share in (found.shared, found.first, found.second, found.cosines):
        np.testing.assert_allclose(share, 1, atol=1e-6)
    assert found.reproducible.all()


@settings(max_examples=5)
@given(seed=st.integers(0, 2**16))
def test_noise_that_all_images_took_from_both_halves_is_not_reproducible(seed):
    """Each component holds half of the noise of either half set, and is half within its span."""
    rng = np.random.default_rng(seed)
    first, second = draw(rng), draw(rng)
    found = compare_halves(first + second, Halves(half(first), half(second)), RADIUS)
    assert not found.reproducible.any()
    assert np.abs(found.shared).max() < 0.05
    np.testing.assert_allclose(found.first, 0.5, atol=0.1)


def test_noise_in_place_of_a_half_is_exceeded_in_one_case_of_twenty():
    exceeded = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        volumes = draw(rng)
        found = compare_halves(volumes, Halves(half(volumes), half(draw(rng))), RADIUS, seed)
        exceeded.append(found.shared > found.null)
    # 40 cases with an expectation of 2, not quite independent of each other.
    assert np.sum(exceeded) <= 7


def test_components_are_compared_at_low_resolution_in_any_box():
    volumes = draw(np.random.default_rng(0))
    finer = np.stack([
        fourier.to_volume(fourier.pad_spectrum(fourier.to_spectrum(v), 32)) for v in volumes
    ])  # fmt: skip
    detail = np.random.default_rng(1).normal(size=finer.shape)
    beyond = volume_radii(32) > RADIUS + 0.5
    finer += [10 * fourier.to_volume(fourier.to_spectrum(v) * beyond) for v in detail]
    found = compare_halves(finer, Halves(half(volumes), half(volumes)), RADIUS)
    np.testing.assert_allclose(found.shared, 1, atol=1e-6)


def test_a_half_that_found_nothing_shares_nothing():
    volumes = draw(np.random.default_rng(0))
    found = compare_halves(volumes, Halves(half(volumes), half(volumes[:0])), RADIUS)
    np.testing.assert_array_equal(found.shared, 0)
    assert not found.reproducible.any()


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
    halves, options = fit(source)
    noise = np.random.default_rng(0).normal(size=(2, *GRID.volume_shape))
    motion = body.volume(24) - other.volume(24)
    candidates = np.concatenate([motion[None] if moving else noise[:1], noise])
    found = compare_halves(candidates, halves, options.radius)
    assert found.reproducible.tolist() == [moving, False, False]
    assert (found.shared[0] > 0.7) == moving
    own = compare_halves(halves.first.components.volumes, halves, options.radius)
    assert own.reproducible.sum() == moving


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
    one, another = fit(source)[0], fit(other)[0]
    np.testing.assert_array_equal(one.first.components.volumes, another.first.components.volumes)
    assert not np.array_equal(one.second.components.volumes, another.second.components.volumes)


def test_of_many_images_some_are_drawn():
    options = HalfFit(np.arange(1000), 20, 30, True, 100, 3)
    rows = options.draw_images()
    assert len(set(rows.tolist())) == 100
    assert options.subspace.components == 10
    assert options.radius == 21
    assert options.with_at_most(7).most_images == 7


def test_a_picture_is_drawn(tmp_path):
    volumes = draw(np.random.default_rng(0))
    found = compare_halves(volumes, Halves(half(volumes), half(volumes)), RADIUS)
    plots.save_figure(trust_plots.draw_reproducibility(found), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

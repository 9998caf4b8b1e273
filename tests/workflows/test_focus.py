"""Parts of a molecule have coordinates of their own, which the rest does not change."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import Molecule, observe, random_molecule
from two_states import COUNT, SIZE, call

from recovar.compute.executors import LocalExecutor
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.core.masks import soft_edge, sphere
from recovar.core.noise_spectra import NoiseSpectra
from recovar.core.volumes import to_ball
from recovar.data.mrc import read_volume, write_volume
from recovar.embedding import embed
from recovar.errors import InputError
from recovar.manifest import read_manifest
from recovar.maximization import LatentMoments, Update, orthogonalize
from recovar.pca import PrincipalComponents
from recovar.posterior import ImageStatistics, image_statistics
from recovar.records import load_arrays
from recovar.subspace import Region, SubspaceOptions, estimate_subspace
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.focus import embed_region

GRID = Grid(32, 4.0)
RADIUS = 11
NOISE = 3.0


def some_components(counts, rng):
    return tuple(
        PrincipalComponents(np.zeros((k, 2, 2, 2)), np.sort(rng.uniform(0.5, 3, k))[::-1])
        for k in counts
    )


@given(seed=st.integers(0, 2**16), region=st.integers(0, 2))
def test_what_other_regions_do_is_noise_to_the_coordinates_of_one(seed, region):
    """Integrating over other coordinates first, or after all are inferred, is the same."""
    rng = np.random.default_rng(seed)
    counts, zdim, pixels = (3, 2, 2), 2, 30
    regions = some_components(counts, rng)
    variances = np.concatenate([each.eigenvalues for each in regions])
    factors = rng.normal(size=(4, pixels, 1 + sum(counts)))
    images = rng.normal(size=(4, pixels))
    statistics = ImageStatistics(
        np.einsum("npi,npj->nij", factors, factors), np.einsum("npi,np->ni", factors, images)
    )
    found = embed_region(statistics, regions, region, zdim, embed)
    members = np.repeat([0, 1, 2], counts)
    own = np.flatnonzero(members == region)[:zdim]
    others = np.flatnonzero(members != region)
    for image, factor, row in zip(images, factors[:, :, 1:], range(4), strict=True):
        noise = np.eye(pixels) + (factor[:, others] * variances[others]) @ (factor[:, others].T)
        seen = factor[:, own].T @ np.linalg.inv(noise)
        pull = seen @ (image - factors[row, :, 0])
        precision = seen @ factor[:, own]
        bounded = np.linalg.inv(precision + np.diag(1 / variances[own]))
        np.testing.assert_allclose(found.covariance[row], bounded, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.coordinates[row], bounded @ pull, rtol=1e-3, atol=1e-3)
        free = np.linalg.inv(precision)
        np.testing.assert_allclose(found.covariance_noreg[row], free, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.coordinates_noreg[row], free @ pull, rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 2**16))
def test_components_of_different_regions_are_not_mixed(seed):
    rng = np.random.default_rng(seed)
    members = np.array([0, 0, 1, 1, 1])
    volumes = rng.normal(size=(6, 4, 4, 4)).astype(np.float32)
    volumes[1:3, :2] = 0
    volumes[3:, 2:] = 0
    drawn = rng.normal(size=(50, 5))
    latents = LatentMoments(
        np.ones((3, 6)), drawn.T @ drawn, 5 * np.eye(5), np.array([50.0, 50, 50, 0])
    )
    model = orthogonalize(Update(volumes, np.ones((4, 4, 4)), latents, members))
    assert not model.volumes[1:3, :2].any()
    assert not model.volumes[3:, 2:].any()
    for block in (slice(1, 3), slice(3, 6)):
        flat = model.volumes[block].reshape(-1, 64)
        gram = flat @ flat.T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-3 * gram.max())
        assert (np.diff(np.diag(gram)) <= 1e-5).all()


@pytest.fixture(scope="module")
def two_motions():
    """A blob that is there or not, and a stronger one beside it that jumps."""
    body = random_molecule(3, blobs=24, spread=2.5).positions
    blob = np.array([[8.0, 0, 0], [8, 2, 0]])
    jump = np.array([[-7.0, 1, 0], [-8, 0, 1], [-7, 1, -1.5], [-8, 0, -0.5]])
    shift = np.array([0, 5.0, 0])
    states = [
        Molecule(np.concatenate([body, *([blob] if here else []), jump + there * shift]))
        for there in (0, 1)
        for here in (0, 1)
    ]
    source, state = observe(states, GRID, 900, noise=NOISE, seed=1)
    axis = np.arange(GRID.size) - GRID.size // 2
    focus = soft_edge((axis > 4) & sphere(GRID.size), 3).astype(np.float32)
    return source, state % 2, state // 2, focus


@pytest.fixture(scope="module")
def fitted(two_motions):
    source, *_, focus = two_motions
    return estimate_subspace(
        source,
        GRID,
        np.full(16, NOISE),
        sphere(GRID.size).astype(np.float32),
        SubspaceOptions(first_radius=RADIUS, iterations=(8,), shrinkage_start=3),
        LocalExecutor(),
        last_radius=RADIUS,
        regions=(Region(focus, 2), Region(1 - focus, 2)),
    )


def test_components_vanish_outside_their_region(two_motions, fitted):
    focus = two_motions[-1]
    both = (fitted.components, *fitted.beside)
    for components, part in zip(both, (focus, 1 - focus), strict=True):
        power = components.eigenvalues @ (components.volumes**2).reshape(
            len(components.eigenvalues), -1
        )
        # Edges of a coarser box ring a little on the finer one.
        assert power[part.ravel() < 0.01].sum() < 0.01 * power.sum()


def test_a_strong_motion_outside_does_not_enter_the_coordinates(two_motions, fitted):
    source, here, there, _ = two_motions
    regions = (fitted.components, *fitted.beside)
    ball = Ball(GRID.size, RADIUS)
    volumes = np.concatenate([fitted.mean[None], *(each.volumes for each in regions)])
    batch = source.images.at_radius(ball.size, RADIUS).whitened(
        NoiseSpectra.of_all(np.full(16, NOISE), len(source))
    )
    spectra = np.stack([to_ball(volume, ball) for volume in volumes], axis=1)
    statistics = image_statistics(batch, spectra, ball, LocalExecutor().operators)
    inside = embed_region(statistics, regions, 0, 1, embed).coordinates[:, 0]
    outside = embed_region(statistics, regions, 1, 1, embed).coordinates[:, 0]
    assert regions[1].eigenvalues[0] > 2 * regions[0].eigenvalues[0]
    assert np.corrcoef(inside, here)[0, 1] ** 2 > 0.7
    assert np.corrcoef(outside, there)[0, 1] ** 2 > 0.7
    # The standard deviation of a chance correlation of 900 images is 1/30.
    assert abs(np.corrcoef(inside, there)[0, 1]) < 0.1


def write_focus(path, condition):
    write_volume(path, soft_edge(sphere(SIZE) & condition, 2).astype(np.float32), 6.0)
    return path


@pytest.fixture(scope="module")
def halves_of_the_box(tmp_path_factory):
    place = tmp_path_factory.mktemp("masks")
    axis = np.arange(SIZE) - SIZE // 2
    return [
        write_focus(place / "right.mrc", axis > 2),
        write_focus(place / "left.mrc", axis < -2),
    ]


def test_every_focus_and_the_rest_have_components_and_coordinates(
    data, halves_of_the_box, tmp_path
):
    right, left = halves_of_the_box
    options = ("--mask", "sphere", "--zdim", "1,2", "--no-reproducibility", "--quiet")
    assert call(data, tmp_path / "run", *options, "--focus-mask", f"{right},{left}") == 0
    volumes = tmp_path / "run/output/volumes"
    for prefix, count in (("", 2), ("focus2_", 2), ("complement_", 6)):
        found = list(volumes.glob(f"{prefix}eigen_pos*.mrc"))
        assert 1 <= len(found) <= count
    for name, mask in (("focus_mask", right), ("focus2_mask", left)):
        given = read_volume(mask).values
        np.testing.assert_array_equal(read_volume(volumes / f"{name}.mrc").values, given)
    for name in ("zdim1", "focus2_zdim1"):
        found = load_arrays(tmp_path / f"run/output/embedding/{name}.npz")
        assert found["z"].shape == (COUNT, 1)
        np.testing.assert_array_equal(found["row"], np.arange(COUNT))
    decisions = read_manifest(tmp_path / "run").stages["subspace"].decisions
    assert decisions["components outside the focus"].value == 6


def test_masks_that_cannot_be_focus_masks_are_refused(data, halves_of_the_box, tmp_path, capsys):
    right, left = halves_of_the_box
    axis = np.arange(SIZE) - SIZE // 2
    within = write_focus(tmp_path / "within.mrc", axis > 4)
    small = tmp_path / "small.mrc"
    write_volume(small, np.ones((12, 12, 12), np.float32), 6.0)
    empty = tmp_path / "empty.mrc"
    write_volume(empty, np.full((SIZE, SIZE, SIZE), 0.3, np.float32), 6.0)
    for masks, sentence in [
        ([small], "a box of 20 voxels"),
        ([right, empty], "values above 0.5 for --focus-mask, found none above 0.3"),
        ([right, within], "100% of one is in the other"),
        ([left, left], "100% of one is in the other"),
    ]:
        assert call(data, tmp_path / "run", "--focus-mask", ",".join(map(str, masks))) == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_focus_mask_outside_the_molecule_is_refused(data, halves_of_the_box, tmp_path, capsys):
    right, left = halves_of_the_box
    options = ("--mask", left, "--focus-mask", right, "--quiet")
    assert call(data, tmp_path / "run", *options) == 2
    assert "all of it is outside the solvent mask" in capsys.readouterr().err


def test_a_complement_is_fitted_with_em_and_a_focus_mask_only(tmp_path):
    options = {"particles": (tmp_path / "a.star",), "output": tmp_path / "run"}
    focus = PipelineConfig(**options, focus_mask=(tmp_path / "a.mrc",))
    assert focus.fitted_by_region == (focus.fitted_components, 6)
    assert replace(focus, use_complement_mask=False).fitted_by_region == (20,)
    assert PipelineConfig(**options).fitted_by_region == (20,)
    with pytest.raises(InputError, match="Give both, or neither"):
        PipelineConfig(**options, use_complement_mask=True)
    with pytest.raises(InputError, match="got several focus masks"):
        replace(
            focus,
            focus_mask=(tmp_path / "a.mrc", tmp_path / "b.mrc"),
            use_complement_mask=None,
            subspace="columns",
        )
    with pytest.raises(InputError, match="got --use-complement-mask"):
        replace(focus, subspace="columns")

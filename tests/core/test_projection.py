import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.core.ctf import Optics
from recovar.core.fourier import to_spectrum, to_volume
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.poses import random_rotations
from recovar.core.projection import centring_factors, project

GRID = Grid(16, 2.0)
DISC = Disc(16, 7)
IMAGES = 3
seeds = st.integers(0, 2**16)


def flat_optics(count=IMAGES):
    """A microscope that transfers everything."""
    ones, zeros = np.ones(count), np.zeros(count)
    return Optics(zeros, zeros, zeros, 300 * ones, zeros, -ones, zeros, zeros, ones)


def blobs(points, size, width):
    """Sum of Gaussians of unit mass at points (x y z) in voxels from the origin."""
    axis = np.arange(size) - size // 2
    x, y, z = (np.exp(-((axis - p[:, None]) ** 2) / (2 * width**2)) for p in np.transpose(points))
    return np.einsum("nz,ny,nx->zyx", z, y, x) / (2 * np.pi * width**2) ** 1.5


def exact_images(points, rotations, disc, width):
    """Fourier sums of the same Gaussians over their positions in the image plane."""
    k = np.stack([disc.x, disc.y], axis=1)
    places = np.einsum("iab,nb->ina", rotations[:, :2], points)
    waves = np.exp(-2j * np.pi * np.einsum("pa,ina->ipn", k, places) / disc.size)
    return waves.sum(-1) * np.exp(-2 * (np.pi * width * disc.radii / disc.size) ** 2)


def random_points(generator, count, radius):
    points = generator.normal(size=(count, 3))
    return points * (radius * generator.random(count) / np.linalg.norm(points, axis=1))[:, None]


def relative_error(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@given(seed=seeds)
def test_images_of_blobs_near_the_centre_are_exact_to_four_per_cent(seed):
    # Blobs of 1.2 voxels within a quarter of the box; the error is that of trilinear
    # interpolation at twofold oversampling, measured 0.9 to 3.0 % over 300 seeds.
    generator = np.random.default_rng(seed)
    points = random_points(generator, 10, GRID.size / 4)
    rotations = random_rotations(IMAGES, generator)
    volume = blobs(points, GRID.size, 1.2).astype(np.float32)
    found = project(volume, rotations.astype(np.float32), np.zeros((3, 2)), flat_optics(), GRID)
    assert relative_error(found, exact_images(points, rotations, DISC, 1.2)) < 0.04


@given(seed=seeds)
def test_turning_the_volume_turns_the_poses(seed):
    # Q turns the molecule; an image at rotation R of the turned one is that at R Q. Both are
    # interpolated, and differ by 0.5 to 1.7 % over 300 seeds.
    generator = np.random.default_rng(seed)
    turn, *rotations = random_rotations(1 + IMAGES, generator)
    rotations = np.array(rotations)
    points = random_points(generator, 10, GRID.size / 4)
    volume, turned = (
        blobs(p, GRID.size, 1.2).astype(np.float32) for p in (points, points @ turn.T)
    )
    still = np.zeros((IMAGES, 2))
    of_turned = project(turned, rotations.astype(np.float32), still, flat_optics(), GRID)
    at_turned = project(volume, (rotations @ turn).astype(np.float32), still, flat_optics(), GRID)
    assert relative_error(of_turned, at_turned) < 0.03


@given(seed=seeds)
def test_projecting_is_linear_in_the_volume(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, 16, 16, 16)).astype(np.float32)
    poses = random_rotations(IMAGES, generator).astype(np.float32), np.ones((IMAGES, 2))
    parts = [project(v, *poses, flat_optics(), GRID) for v in (first, second, first - 2 * second)]
    np.testing.assert_allclose(parts[0] - 2 * parts[1], parts[2], atol=2e-3)


@given(seed=seeds, x=st.integers(-3, 3), y=st.integers(-3, 3))
def test_moving_an_image_by_its_shift_centres_it(seed, x, y):
    generator = np.random.default_rng(seed)
    volume = blobs(random_points(generator, 5, 2), 16, 1.2).astype(np.float32)
    rotations = random_rotations(1, generator).astype(np.float32)
    shift = GRID.voxel_size * np.array([[x, y]])
    centred = project(volume, rotations, 0 * shift, flat_optics(1), GRID)
    shifted = project(volume, rotations, shift, flat_optics(1), GRID)
    image = to_volume(DISC.to_spectra(np.asarray(shifted)), 2)[0]
    moved = DISC.from_spectra(to_spectrum(np.roll(image, (y, x), axis=(0, 1)), 2))
    np.testing.assert_allclose(moved, centred[0], atol=1e-4)
    by_factors = shifted * centring_factors(shift, DISC, GRID.voxel_size)
    np.testing.assert_allclose(by_factors, centred, atol=1e-4)


@given(seed=seeds)
def test_shifts_in_angstrom_do_not_depend_on_the_pixel(seed):
    shifts = np.random.default_rng(seed).normal(size=(4, 2)) * 5
    fine, coarse = Disc(16, 3), Disc(8, 3)
    np.testing.assert_allclose(
        centring_factors(shifts, fine, 1.5), centring_factors(shifts, coarse, 3.0), atol=1e-5
    )


def test_centring_factors_of_jax_and_numpy_arrays_agree():
    shifts = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    on_device = centring_factors(jnp.asarray(shifts), DISC, 1.5)
    np.testing.assert_allclose(on_device, centring_factors(shifts, DISC, 1.5), atol=1e-5)


def test_the_transfer_function_multiplies_the_image():
    generator = np.random.default_rng(0)
    volume = blobs(random_points(generator, 5, 2), 16, 1.2).astype(np.float32)
    poses = random_rotations(IMAGES, generator).astype(np.float32), np.zeros((IMAGES, 2))
    plain = project(volume, *poses, flat_optics(), GRID)
    scaled = eqx.tree_at(lambda o: o.scale, flat_optics(), np.array([1.0, -0.5, 2.0]))
    damped = eqx.tree_at(lambda o: o.b_factor, scaled, np.full(IMAGES, 40.0))
    found = project(volume, *poses, damped, GRID)
    envelope = np.exp(-40 * (DISC.radii / (GRID.size * GRID.voxel_size)) ** 2 / 4)
    np.testing.assert_allclose(found, plain * scaled.scale[:, None] * envelope, atol=1e-4)


def scene(seed):
    """Inputs of `project` on the device, and images to compare with."""
    generator = np.random.default_rng(seed)
    points = random_points(generator, 6, 3)
    volume = jnp.asarray(blobs(points, GRID.size, 1.5))
    rotations = jnp.asarray(random_rotations(IMAGES, generator))
    shifts = jnp.asarray(generator.normal(size=(IMAGES, 2)))
    optics = jax.tree.map(jnp.asarray, flat_optics())
    optics = eqx.tree_at(
        lambda o: (o.defocus_u, o.amplitude_contrast),
        optics,
        (jnp.full(IMAGES, 5000.0), jnp.full(IMAGES, 0.1)),
    )
    target = generator.normal(size=(2, IMAGES, len(DISC)))
    return (volume, rotations, shifts, optics), jnp.asarray(target[0] + 1j * target[1])


@jax.jit
def similarity(inputs, target):
    """Inner product of predicted images with others: smooth in every input."""
    return jnp.vdot(target, project(*inputs, GRID)).real


@pytest.mark.parametrize(
    ("place", "step"),
    [(0, 0.1), (1, 1e-6), (2, 0.02), (3, 20.0)],
    ids=["volume", "rotations", "shifts", "defocus"],
)
@settings(max_examples=4)
@given(seed=seeds)
def test_gradients_equal_finite_differences(place, step, seed):
    # Slices bend at grid planes: in float64 a rotation's step is too small to meet one.
    with jax.enable_x64(True):
        inputs, target = scene(seed)
        gradient = jax.grad(similarity)(inputs, target)[place]
        generator = np.random.default_rng(seed)
        (first, *rest), structure = jax.tree.flatten(inputs[place])
        direction = jnp.asarray(generator.normal(size=first.shape))

        def moved(distance):
            part = jax.tree.unflatten(structure, [first + distance * direction, *rest])
            return (*inputs[:place], part, *inputs[place + 1 :])

        slope = jnp.vdot(jax.tree.leaves(gradient)[0], direction)
        difference = (similarity(moved(step), target) - similarity(moved(-step), target)) / 2 / step
        scale = float(jnp.linalg.norm(jax.tree.leaves(gradient)[0]))
        np.testing.assert_allclose(slope, difference, atol=2e-3 * scale)

"""Columns of the covariance against slow sums over full planes, and their laws."""

import numpy as np
import pytest

from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball, Disc
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA
from recovar.covariance import (
    ColumnOptions,
    VarianceMap,
    arrange_blocks,
    bytes_per_column,
    choose_columns,
    column_statistic,
    estimate_columns,
    estimate_variance,
    plan_passes,
    regularize_columns,
    row_filter,
    stack_blocks,
)
from recovar.covariance_core import centre_on, compute_residuals
from recovar.errors import InputError

SIZE = 20
OPTIONS = ColumnOptions(row_radius=6, count=8, last_shell=5, prior_factor=1.0)
FREQUENCIES = np.array([[0, 0, 0], [1, 0, 0], [0, 2, -1], [3, 1, 2], [2, -3, 0]], np.int32)
BLOCKS = stack_blocks(FREQUENCIES, [np.array([0, 1, 2]), np.array([3, 4])])


class Bank:
    """Images in memory."""

    def __init__(self, batch, block=7):
        self.batch, self.block = batch, block

    def __len__(self):
        return len(self.batch)

    def blocks(self, start=0):
        for first in range(start, len(self.batch), self.block):
            yield self.batch.select(np.arange(first, min(first + self.block, len(self.batch))))


class Memory:
    """A checkpoint that stays in memory."""

    def __init__(self):
        self.saved = None

    def save(self, **arrays):
        self.saved = {name: np.array(array) for name, array in arrays.items()}

    def load(self):
        return self.saved


def random_rotations(generator, count):
    turns, _ = np.linalg.qr(generator.normal(size=(count, 3, 3)))
    turns[:, 2] *= np.linalg.det(turns)[:, None]
    return turns.astype(np.float32)


def random_images(count=6, seed=0, size=SIZE):
    generator = np.random.default_rng(seed)
    disc = Disc(size, size // 2 - 1)
    shape = (count, len(disc))
    values = generator.normal(size=shape) + 1j * generator.normal(size=shape)
    values[:, 0] = values[:, 0].real
    return ImageBatch(
        disc,
        values.astype(np.complex64),
        generator.uniform(0.3, 1, shape).astype(np.float32),
        random_rotations(generator, count),
        np.arange(count),
        np.arange(count) % 2,
    )


def images_of(values_of_volume, signs, seed=1):
    """Make images, without noise, of multiples of a volume with a constant real spectrum."""
    images = random_images(len(signs), seed)
    values = (images.transfer * values_of_volume * np.array(signs)[:, None]).astype(np.complex64)
    return ImageBatch(
        images.disc, values, images.transfer, images.rotations, images.rows, images.halves
    )


def centring(*, masked=False, noise=1.0, contrast=None):
    axis = np.arange(SIZE) - SIZE // 2
    radii = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + (axis - 1) ** 2)
    mask = (radii < 5).astype(np.float32) if masked else None
    zero = np.zeros((SIZE,) * 3, np.float32)
    return centre_on(zero, np.array([noise]), SIZE // 2 - 1, contrast, mask)


def full_plane(disc, values):
    x = np.concatenate([disc.x, -disc.x[1:]])
    y = np.concatenate([disc.y, -disc.y[1:]])
    return x, y, np.concatenate([values, values[1:].conj()]).astype(np.complex128)


def slow_columns(images, model, width=2.0):
    """Sum f·conj(p) − η and C²·c over full planes into a full cube, in float64."""
    residual = compute_residuals(images, model, SIZE // 2 - 1, NUMBA)
    masks = np.ones((len(images), SIZE, SIZE))
    if model.masks:
        masks = model.masks.image_masks(images.rotations, NUMBA.slice_volumes, windowed=True)
    reach = OPTIONS.row_radius + 1
    side = 2 * reach + 1
    products = np.zeros((len(FREQUENCIES), side, side, side), np.complex128)
    weights = np.zeros_like(products)
    for i in range(len(images)):
        x, y, f = full_plane(residual.disc, residual.values[i])
        _, _, c = full_plane(residual.disc, residual.transfer[i])
        rotation = images.rotations[i].astype(np.float64)
        points = x[:, None] * rotation[0] + y[:, None] * rotation[1]
        spread = np.fft.fft2(np.fft.ifftshift(masks[i].astype(np.float64) ** 2)) / SIZE**2
        noise = spread[y[:, None] - y, x[:, None] - x]
        rows = x**2 + y**2 <= OPTIONS.row_radius**2
        base = np.floor(points).astype(int)
        for j, point in enumerate(FREQUENCIES):
            kernel = np.maximum(0, 1 - np.abs(points - point) / width).prod(1)
            eta = c * (noise @ (c * kernel))
            terms = (f * np.conj(kernel @ f) - eta)[rows]
            squares = (c**2 * (kernel @ c**2))[rows]
            for corner in np.ndindex(2, 2, 2):
                share = np.where(corner, points - base, 1 - points + base).prod(1)[rows]
                place = tuple((base[rows] + corner + reach).T[::-1])
                np.add.at(products[j], place, share * terms)
                np.add.at(weights[j], place, share * squares)
    ball = Ball(SIZE, OPTIONS.row_radius, 1)
    cells = tuple(ball.coordinates + reach)
    return products[(slice(None), *cells)].T, weights[(slice(None), *cells)].T.real


def fast_columns(images, model, operators=NUMBA):
    statistic = column_statistic(model, BLOCKS, OPTIONS, operators)
    sums = statistic.add(statistic.zeros(), images)
    ball = Ball(SIZE, OPTIONS.row_radius, 1)
    products = [ball.fold(part) for part in sums.products.sum(0)]
    weights = [ball.fold(part) for part in sums.weights.sum(0)]
    pairs = np.concatenate([products[0], products[1][:, :4]], axis=1)
    columns = pairs[:, ::2] - 1j * pairs[:, 1::2]
    return columns, np.concatenate([weights[0], weights[1][:, :2]], axis=1)


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def test_columns_without_masks_are_the_sums_over_full_planes():
    images, model = random_images(), centring()
    products, weights = fast_columns(images, model)
    expected, expected_weights = slow_columns(images, model)
    assert distance(products, expected) < 1e-5
    assert distance(weights, expected_weights) < 1e-5


def test_columns_with_masks_are_the_sums_over_full_planes():
    # The noise beyond the window of 10 pixels is left out.
    images, model = random_images(), centring(masked=True)
    products, weights = fast_columns(images, model)
    expected, expected_weights = slow_columns(images, model)
    assert distance(products, expected) < 1e-3
    assert distance(weights, expected_weights) < 1e-5


def test_noise_alone_adds_nothing_on_average():
    # The masked noise of 600 images scatters by 0.004; its square would leave 0.018 to 0.032.
    generator = np.random.default_rng(4)
    images = random_images(600, seed=4)
    grey = generator.normal(size=(600, SIZE, SIZE)).astype(np.float32) / SIZE
    noise = images.disc.from_spectra(fourier.to_spectrum(grey, dimensions=2))
    images = ImageBatch(
        images.disc, noise, images.transfer, images.rotations, images.rows, images.halves
    )
    products, weights = fast_columns(images, centring(masked=True))
    assert np.abs(products.sum(0) / weights.sum(0)).max() < 0.01


def test_compiled_sums_are_those_of_the_reference_operators():
    images, model = random_images(), centring(masked=True)
    products, weights = fast_columns(images, model)
    expected, expected_weights = fast_columns(images, model, REFERENCE)
    assert distance(products, expected) < 1e-5
    assert distance(weights, expected_weights) < 1e-5


def test_columns_of_a_constant_spectrum_are_recovered_exactly():
    images = images_of(3.0, [1, -1, 1, -1, 1, 1, -1, -1])
    # The noise that is subtracted is made negligible, as there is none.
    images = ImageBatch(
        images.disc,
        1e4 * images.values,
        images.transfer,
        images.rotations,
        images.rows,
        images.halves,
    )
    products, weights = fast_columns(images, centring())
    seen = weights > 1e-3 * weights.max()
    assert np.abs(products[seen] / weights[seen] / 9e8 - 1).max() < 1e-4


def test_columns_do_not_depend_on_how_images_are_split():
    images, model = random_images(9), centring(masked=True)
    statistic = column_statistic(model, BLOCKS, OPTIONS, NUMBA)
    whole = statistic.add(statistic.zeros(), images)
    parts = statistic.zeros()
    for block in Bank(images, 2).blocks():
        parts = statistic.add(parts, block)
    np.testing.assert_allclose(parts.products, whole.products, atol=1e-4)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-4)


def test_less_memory_means_more_passes_and_the_same_columns():
    bank, model = Bank(random_images(40)), centring()
    ball = Ball(SIZE, 8, 1)
    options = ColumnOptions(row_radius=6, count=40, exclusion=1.0)
    ones = np.ones(len(ball))
    frequencies = choose_columns(VarianceMap(np.exp(-ball.radii), ones, ball), options)
    memory = 16 * bytes_per_column(options.row_radius, SIZE)
    assert len(plan_passes(arrange_blocks(frequencies), 6, SIZE, memory)) == 3
    whole = estimate_columns(bank, model, frequencies, options, LocalExecutor())
    split = estimate_columns(bank, model, frequencies, options, LocalExecutor(), memory=memory)
    assert distance(split.values, whole.values) < 1e-4
    np.testing.assert_allclose(split.fsc, whole.fsc, atol=1e-3)


def test_a_finished_pass_is_not_repeated():
    bank, model = Bank(random_images(20)), centring()
    places = {}

    def place(name):
        return places.setdefault(name, Memory())

    first = estimate_columns(bank, model, FREQUENCIES, OPTIONS, LocalExecutor(), place=place)
    empty = Bank(random_images(20, seed=9))
    again = estimate_columns(empty, model, FREQUENCIES, OPTIONS, LocalExecutor(), place=place)
    np.testing.assert_array_equal(first.values, again.values)


def test_contrast_is_part_of_the_transfer_function():
    images = random_images()
    contrast = np.array([0.8, 1.1, 1.0, 0.9, 1.2, 1.3])
    scaled = ImageBatch(
        images.disc,
        images.values,
        (images.transfer * contrast[:, None]).astype(np.float32),
        images.rotations,
        images.rows,
        images.halves,
    )
    products, weights = fast_columns(images, centring(contrast=contrast))
    expected, expected_weights = fast_columns(scaled, centring())
    assert distance(products, expected) < 1e-5
    assert distance(weights, expected_weights) < 1e-5


def test_the_prior_converges_to_the_variance_of_the_signal():
    generator = np.random.default_rng(0)
    rows = row_filter(32, 12)
    ball = rows.ball

    def noise():
        cubes = generator.normal(size=(16, ball.size, ball.size, ball.size)).astype(np.float32)
        spectra = np.moveaxis(fourier.to_spectrum(cubes), 0, -1) / ball.size**1.5
        return ball.from_cube(spectra)

    truth = 4.0
    weights = np.full((2, len(ball), 8), 0.5, np.float32)
    signal = noise() * truth**0.5
    products = np.array([0.5 * signal + 0.5**0.5 * noise() for _ in range(2)], np.complex64)
    _, _, prior = regularize_columns(products, weights, rows, OPTIONS)
    assert np.abs(np.median(prior[:, 5:11]) / truth - 1) < 0.25


def test_variance_of_a_constant_spectrum_is_recovered():
    images = images_of(3e4, [1, -1, 1, -1, 1, 1, -1, -1])
    variance = estimate_variance(Bank(images), centring(), 6, LocalExecutor())
    inside = (variance.ball.radii < 6) & (variance.coverage > 0.05)
    assert np.abs(variance.variance[inside] / 9e8 - 1).max() < 1e-3


def test_columns_are_chosen_apart_and_never_as_mirror_images():
    ball = Ball(SIZE, 8, 1)
    ones = np.ones(len(ball))
    chosen = choose_columns(VarianceMap(np.exp(-ball.radii), ones, ball), OPTIONS)
    assert len(chosen) == OPTIONS.count
    assert (chosen[0] == 0).all()
    assert (chosen[:, 0] >= 0).all()
    both = np.concatenate([chosen, -chosen[1:]])
    gaps = np.linalg.norm(both[:, None] - both, axis=-1) + 9 * np.eye(len(both))
    assert gaps.min() > OPTIONS.exclusion
    assert np.linalg.norm(chosen, axis=1).max() < OPTIONS.last_shell + 0.5


def test_blocks_hold_every_column_once():
    frequencies = np.random.default_rng(0).integers(-9, 9, (53, 3)).astype(np.int32)
    blocks = arrange_blocks(frequencies, 8)
    assert max(len(block) for block in blocks) <= 8
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(53))


def test_memory_for_no_column_is_refused():
    with pytest.raises(InputError, match="--memory"):
        plan_passes([np.arange(16)], 6, SIZE, 999)

"""The choice among estimates is what a slow one finds, and errs less than any of them."""

import numpy as np
import pytest

from recovar.core import fourier
from recovar.core.grid import volume_radii
from recovar.core.halves import Halves
from recovar.local_choice import choose_locally

SIZE = 32


def noise(rng, *shape):
    return rng.normal(size=(*shape, SIZE, SIZE, SIZE)).astype(np.float32)


def box(side):
    mask = np.zeros((SIZE,) * 3, np.float32)
    inner = slice(SIZE // 2 - side // 2, SIZE // 2 + side // 2)
    mask[inner, inner, inner] = 1
    return mask


def flat():
    ones = np.ones((SIZE, SIZE, SIZE // 2 + 1), np.float32)
    return Halves(ones, ones)


def random_weights(rng):
    """Weights as half-complex volumes have them: equal for mates, and smooth."""
    shape = 1 + np.exp(-volume_radii(SIZE) / 8)
    scale = rng.uniform(1, 3)
    return (scale * shape).astype(np.float32)


def slow_errors(estimates, weights, centre, radius):
    """Compare balls in double precision on the full spectrum of a cube, shell by shell."""
    side = 6 * radius
    half = side // 2
    places = np.indices((SIZE,) * 3)
    inside = np.sum((places - centre[:, None, None, None]) ** 2, axis=0) < radius**2
    frequency = np.fft.fftfreq(side, 1 / side) ** 2
    radii = np.sqrt(frequency[:, None, None] + frequency[:, None] + frequency)
    shells = np.minimum(np.rint(radii), half - 1)

    def transform(volume):
        cube = np.zeros((side,) * 3)
        for place in np.argwhere(inside):
            cube[tuple(place - centre + half)] = volume[tuple(place)]
        return np.fft.fftn(cube)

    def smooth(known):
        full = np.fft.fftshift(np.fft.irfftn(known.astype(np.float64)))
        middle = slice(SIZE // 2 - half, SIZE // 2 + half)
        near = np.fft.ifftshift(full[middle, middle, middle])
        return np.maximum(np.fft.fftn(near).real, 0)

    spectra = [[transform(level) for level in each] for each in estimates]
    known = [smooth(each) for each in weights]
    errors = np.zeros((len(estimates.first), half))
    for level in range(len(errors)):
        for own, other in ((0, 1), (1, 0)):
            apart = np.abs(spectra[own][0] - spectra[other][level]) ** 2
            for shell in range(half):
                members = shells == shell
                errors[level, shell] += np.sum(known[own][members] * apart[members])
    return errors


@pytest.mark.parametrize("seed", [0, 1])
def test_every_window_takes_what_has_the_least_error_in_double_precision(seed):
    rng = np.random.default_rng(seed)
    truth = noise(rng)
    levels = [
        [truth + 0.3 * level * blurred + noise(rng) / (1 + level) for level in range(4)]
        for blurred in [noise(rng)] * 2
    ]
    estimates = Halves(*(np.stack(each) for each in levels))
    weights = Halves(random_weights(rng), random_weights(rng))
    chosen = choose_locally(estimates, weights, box(4))
    assert len(np.unique(chosen.levels)) > 1
    for number in range(0, len(chosen.centres), 23):
        errors = slow_errors(estimates, weights, chosen.centres[number], radius=2)
        taken = errors[chosen.levels[number], np.arange(errors.shape[1])]
        np.testing.assert_allclose(taken, errors.min(0), rtol=1e-5)


def test_equal_estimates_are_given_back_everywhere():
    rng = np.random.default_rng(2)
    halves = Halves(noise(rng), noise(rng))
    chosen = choose_locally(halves.map(lambda each: np.stack([each] * 3)), flat(), box(6))
    for found, expected in zip(chosen.halves, halves, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_wide_kernel_is_chosen_where_it_errs_less_and_a_narrow_one_elsewhere():
    """The wide one has no noise, but lost the left side and all that is fine."""
    rng = np.random.default_rng(3)
    x = np.arange(SIZE) - SIZE // 2
    coarse = volume_radii(SIZE) < 6
    truth = 8 * fourier.to_volume(fourier.to_spectrum(noise(rng)) * coarse)
    narrow = [truth + noise(rng) for _ in range(2)]
    wide = np.where(x < 0, 0, truth).astype(np.float32)
    estimates = Halves(*(np.stack([each, wide]).astype(np.float32) for each in narrow))
    chosen = choose_locally(estimates, flat(), box(20))
    low = chosen.levels[:, :2]
    left, right = (sign * (chosen.centres[:, 2] - SIZE // 2) > 4 for sign in (-1, 1))
    assert low[left].mean() < 0.2
    assert low[right].mean() > 0.7
    inside = box(20) > 0
    found = 0.5 * (chosen.halves.first + chosen.halves.second)
    errors = [
        np.linalg.norm((volume - truth)[inside]) for volume in (found, wide, 0.5 * sum(narrow))
    ]
    assert errors[0] < min(errors[1:])


def test_away_from_the_mask_the_widest_kernel_stands():
    rng = np.random.default_rng(4)
    estimates = Halves(noise(rng, 2), noise(rng, 2))
    chosen = choose_locally(estimates, flat(), box(4))
    np.testing.assert_array_equal(chosen.halves.first[0], estimates.first[1][0])
    assert np.any(chosen.halves.first[16] != estimates.first[1][16])


def test_an_empty_mask_leaves_the_widest_kernel():
    rng = np.random.default_rng(5)
    estimates = Halves(noise(rng, 2), noise(rng, 2))
    chosen = choose_locally(estimates, flat(), 0 * box(4))
    assert len(chosen.levels) == 0
    np.testing.assert_array_equal(chosen.halves.second, estimates.second[1])

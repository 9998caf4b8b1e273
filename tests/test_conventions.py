from dataclasses import replace

import numpy as np
import pytest
from problems import random_molecule, random_noise
from scipy.spatial.transform import Rotation

from recovar.conventions import Odds, Reading, Sample, compare, weigh
from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid
from recovar.core.projection import centring_factors
from recovar.core.slicing import REFERENCE
from recovar.core.slicing_numba import NUMBA

GRID = Grid(20, 6.0)
COUNT = 160


def make_problem(form: str = "plain", noise: float = 2.0, seed: int = 0) -> tuple[Sample, Reading]:
    """Take images of a molecule off the centre, with what was done to them before."""
    rng = np.random.default_rng(seed)
    disc = Disc(GRID.size, GRID.largest_radius)
    rotations = Rotation.random(COUNT, rng=rng).as_matrix()
    shifts = rng.normal(scale=9.0, size=(COUNT, 2))
    one = np.ones(COUNT)
    u = rng.uniform(20_000, 50_000, COUNT)
    optics = Optics(u, u, 0 * one, 300 * one, 2.7 * one, 0.1 * one, 0 * one, 0 * one, one)
    step = 1 / (GRID.size * GRID.voxel_size)
    transfer = transfer_function(optics, disc.x * step, disc.y * step)
    images = -random_molecule(seed).project(rotations, disc) * transfer
    images = images * centring_factors(shifts, disc, GRID.voxel_size).conj()
    images = images + random_noise(COUNT, disc, noise, rng)
    done = {"plain": 1.0, "flipped": np.sign(transfer), "premultiplied": transfer}
    values = (images * done[form]).astype(np.complex64)
    sample = Sample(GRID, values, np.arange(COUNT) % 2, np.arange(COUNT))
    return sample, Reading(rotations, shifts, optics, GRID.voxel_size, np.arange(COUNT))


WRONG = {
    "shifts negated": lambda r: replace(r, shifts=-r.shifts),
    "shifts ignored": lambda r: replace(r, shifts=0 * r.shifts),
    "shifts in other units": lambda r: replace(r, shifts=r.shifts / 6),
    "rotations transposed": lambda r: replace(r, rotations=r.rotations.swapaxes(1, 2)),
    "phases flipped": lambda r: replace(r, form="flipped"),
    "premultiplied": lambda r: replace(r, form="premultiplied"),
    "corrected": lambda r: replace(r, form="corrected"),
    "pixels larger": lambda r: replace(r, pixel_size=2 * r.pixel_size),
    "rows shifted": lambda r: replace(r, order=np.roll(r.order, 1)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_wrong_readings_predict_worse(change):
    sample, reading = make_problem()
    right, wrong = (weigh(sample, each, NUMBA) for each in (reading, change(reading)))
    assert compare(right.likelihood - wrong.likelihood, sample.particle).log10 > 3


@pytest.mark.parametrize("form", ["flipped", "premultiplied"])
def test_what_was_done_to_images_is_seen(form):
    sample, reading = make_problem(form)
    forms = ("plain", "flipped", "premultiplied", "corrected")
    found = {each: weigh(sample, replace(reading, form=each), NUMBA).likelihood for each in forms}
    best = max(found, key=lambda each: found[each].sum())
    assert best == form


def test_noise_has_no_favourite_among_poses():
    sample, reading = make_problem()
    rng = np.random.default_rng(1)
    noise = random_noise(COUNT, sample.disc, 2.0, rng).astype(np.complex64)
    nothing = Sample(GRID, noise, sample.halves, sample.particle)
    base = weigh(nothing, reading, NUMBA)
    for name in ("shifts negated", "shifts ignored", "rotations transposed", "rows shifted"):
        other = weigh(nothing, WRONG[name](reading), NUMBA)
        assert abs(compare(other.likelihood - base.likelihood, nothing.particle).deviations) < 4


def test_the_hand_cannot_be_seen():
    sample, reading = make_problem()
    mirrored = replace(reading, rotations=reading.rotations @ np.diag([1.0, 1.0, -1.0]))
    first, second = (weigh(sample, each, NUMBA) for each in (reading, mirrored))
    # Interpolation treats the mirror a little differently; wrong poses cost a thousand times more.
    assert abs(compare(first.likelihood - second.likelihood, sample.particle).ratio) < 3


def test_the_scale_of_images_does_not_matter():
    sample, reading = make_problem()
    scaled = replace(sample, values=100 * sample.values)
    wrong = WRONG["shifts negated"](reading)
    odds = [
        compare(
            weigh(each, reading, NUMBA).likelihood - weigh(each, wrong, NUMBA).likelihood,
            each.particle,
        )
        for each in (sample, scaled)
    ]
    assert odds[1].ratio == pytest.approx(odds[0].ratio, rel=1e-3)


def test_operators_agree():
    sample, reading = make_problem()
    first, second = (weigh(sample, reading, each) for each in (NUMBA, REFERENCE))
    np.testing.assert_allclose(first.likelihood, second.likelihood, rtol=1e-3)


def test_images_of_one_particle_are_not_independent():
    gains = np.repeat(np.random.default_rng(0).normal(0.2, 1.0, 50), 4)
    alone = compare(gains, np.arange(200))
    together = compare(gains, np.repeat(np.arange(50), 4))
    assert together.ratio == pytest.approx(alone.ratio)
    assert together.deviations == pytest.approx(alone.deviations / 2, rel=0.02)


def test_odds_are_no_larger_than_the_spread_between_images_allows():
    assert Odds(ratio=1000.0, deviations=2.0).log10 == pytest.approx(2 / np.log(10))
    assert Odds(ratio=-1.0, deviations=-9.0).log10 == -1.0


def test_readings_that_differ_by_nothing_are_the_same():
    _, reading = make_problem()
    assert reading.says_the_same(replace(reading, rotations=reading.rotations + 1e-7))
    assert not any(change(reading).says_the_same(reading) for change in WRONG.values())

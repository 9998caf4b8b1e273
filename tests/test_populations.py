import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from recovar.errors import InputError
from recovar.populations import (
    NAMED,
    Mixture,
    draw_categories,
    draw_paths,
    name_population,
    uneven_weights,
)

CASES = [(name, d) for name, densities in NAMED.items() for d in densities]
LOW, HIGH = np.array([-3.0, 10.0]), np.array([1.0, 12.0])


def named(name, dimensions):
    return name_population(name, LOW[:dimensions], HIGH[:dimensions])


def midpoints(population, cells):
    """Centres of equal cells that fill the box, and the volume of one."""
    axes = [
        low + (high - low) * (np.arange(cells) + 0.5) / cells
        for low, high in zip(population.low, population.high, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return points, np.prod((population.high - population.low) / cells)


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_densities_integrate_to_one(name, dimensions):
    population = named(name, dimensions)
    points, cell = midpoints(population, 400)
    density = population.density(points)
    assert (density >= 0).all()
    # Midpoints err by the square of the cell, 1/20 of the narrowest peak.
    assert density.sum() * cell == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_drawn_states_have_the_density(name, dimensions):
    population = named(name, dimensions)
    states = population.draw(20_000, np.random.default_rng(0))
    assert (states >= population.low).all()
    assert (states <= population.high).all()
    edges = [np.linspace(a, b, 13) for a, b in zip(population.low, population.high, strict=True)]
    found = np.histogramdd(states, edges)[0].ravel()
    points, cell = midpoints(population, 12 * 20)
    shape = [n for _ in range(dimensions) for n in (12, 20)]
    fine = population.density(points).reshape(shape)
    expected = cell * fine.sum(tuple(range(1, 2 * dimensions, 2))).ravel()
    expected *= found.sum() / expected.sum()
    assert chisquare(found, expected).pvalue > 1e-3


@given(
    seed=st.integers(0, 2**16),
    spread=st.floats(0.01, 50.0),
    place=st.floats(0, 1),
)
def test_cut_gaussians_have_their_own_distribution(seed, spread, place):
    # What is below a point in the box is the integral of the density up to there.
    mean = -3 + 4 * place
    population = Mixture(*np.array([[-3.0], [1.0], [1.0]]), *np.array([[[mean]], [[spread]]]))
    states = population.draw(2000, np.random.default_rng(seed))[:, 0]
    points = np.linspace(-3, 1, 40_001)
    density = population.density(0.5 * (points[1:] + points[:-1])[:, None])
    below = np.concatenate([[0.0], np.cumsum(density) * 1e-4])
    assert below[-1] == pytest.approx(1, abs=1e-5)
    middle = np.interp(np.sort(states), points, below)
    # Kolmogorov: above 3/√n once in 30 million.
    assert np.abs(middle - (np.arange(2000) + 0.5) / 2000).max() < 3 / 2000**0.5


def test_nothing_is_outside_the_box():
    points = np.array([[-3.01, 11.0], [0.0, 12.01], [0.0, 9.0]])
    np.testing.assert_array_equal(named("gaussian", 2).density(points), 0)


def test_a_carried_density_has_the_same_shape():
    unit, there = NAMED["crescent"][2], named("crescent", 2)
    points = np.random.default_rng(0).random((50, 2))
    found = there.density(LOW + points * (HIGH - LOW))
    np.testing.assert_allclose(found * 8.0, unit.density(points), rtol=1e-9)
    drawn = there.draw(50, np.random.default_rng(1))
    same = LOW + unit.draw(50, np.random.default_rng(1)) * (HIGH - LOW)
    np.testing.assert_allclose(drawn, same, rtol=1e-12)


def test_shapes_are_as_they_are_called():
    line = np.linspace(-3, 1, 401)[:, None]
    peaks = {"uniform": 0, "gaussian": 1, "slope": 0, "two-wells": 2, "three-wells": 3}
    for name, count in peaks.items():
        density = named(name, 1).density(line)
        inner = (density[1:-1] > density[:-2]) & (density[1:-1] > density[2:])
        assert inner.sum() == count
    assert (np.diff(named("slope", 1).density(line)) > 0).all()
    centre, rim = np.array([[-1.0, 11.0]]), np.array([[-1.0, 11.66], [-1.0, 10.34]])
    ring, crescent = (named(name, 2) for name in ("ring", "crescent"))
    assert (ring.density(rim) > 20 * ring.density(centre)).all()
    assert crescent.density(rim)[0] > 20 * crescent.density(centre)[0]
    assert crescent.density(np.array([[-0.3, 10.5]]))[0] < 0.1 * crescent.density(rim)[0]


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_the_first_states_do_not_depend_on_how_many_follow(name, dimensions):
    population = named(name, dimensions)
    many, few = (population.draw(n, np.random.default_rng(4)) for n in (1000, 7))
    np.testing.assert_array_equal(few, many[:7])


def test_the_first_categories_do_not_depend_on_how_many_follow():
    many, few = (draw_categories(n, np.ones(5), np.random.default_rng(4)) for n in (1000, 7))
    np.testing.assert_array_equal(few, many[:7])


def test_categories_occur_as_often_as_they_weigh():
    weights = np.array([4.0, 0.0, 1.0, 3.0, 0.0])
    found = np.bincount(draw_categories(8000, weights, np.random.default_rng(0)), minlength=5)
    assert found[1] == found[4] == 0
    there = weights > 0
    assert chisquare(found[there], 1000 * weights[there]).pvalue > 1e-3


def test_weights_fall_by_their_rank_or_are_equal():
    np.testing.assert_allclose(uneven_weights(4, 0.0), 0.25)
    steep = uneven_weights(4, 2.0)
    assert steep.sum() == pytest.approx(1)
    np.testing.assert_allclose(steep / steep[0], [1, 1 / 4, 1 / 9, 1 / 16])


@pytest.mark.parametrize("weights", [[1.0, -0.5], [0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0]])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(InputError, match="not negative nor all zero"):
        draw_categories(3, np.array(weights), np.random.default_rng(0))


def test_unknown_populations_are_refused_with_those_that_are_known():
    with pytest.raises(InputError, match=r"no population 'ring' of 1 .*There are: gaussian, slope"):
        name_population("ring", LOW[:1], HIGH[:1])
    with pytest.raises(InputError, match=r"of 3 degrees of freedom\. There are: none"):
        name_population("uniform", np.zeros(3), np.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.array([0.7])}, "sum to 1"),
        ({"weights": np.array([1.5]), "background": -0.5}, "not negative"),
        ({"means": np.array([[2.0]])}, "centres between"),
        ({"spreads": np.array([[0.0]])}, "positive spreads"),
        ({"high": np.array([0.0])}, "a box"),
    ],
)
def test_what_is_no_density_is_refused(change, message):
    right = {
        "low": np.zeros(1),
        "high": np.ones(1),
        "weights": np.ones(1),
        "means": np.array([[0.5]]),
        "spreads": np.ones((1, 1)),
    }
    with pytest.raises(InputError, match=message):
        Mixture(**{**right, **change})


def test_paths_forget_exponentially_and_keep_their_variance():
    many = np.stack([draw_paths(40, 50, 8.0, np.random.default_rng(i)) for i in range(200)])
    # 10,000 independent paths: four standard errors.
    for row in (0, 20, 39):
        assert many[:, row].var() == pytest.approx(1, abs=4 * (2 / 10_000) ** 0.5)
    for gap in (1, 8, 24):
        found = (many[:, 10] * many[:, 10 + gap]).mean()
        assert found == pytest.approx(np.exp(-gap / 8), abs=4 * 2**0.5 / 100)


def test_the_first_part_of_a_path_does_not_depend_on_its_length():
    many, few = (draw_paths(n, 3, 20.0, np.random.default_rng(4)) for n in (1000, 7))
    np.testing.assert_array_equal(few, many[:7])

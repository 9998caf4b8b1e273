import numpy as np
import pytest

from recovar.density.deconvolution import deconvolve, draw_weights, find_bands
from recovar.density.errors import Observations, group_errors, observe
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.likelihood import make_likelihood
from recovar.density.published import deconvolve_as_published, find_knee
from recovar.density.shape import estimate_shape, make_grid
from recovar.density.smoothness import make_model
from recovar.density.states import climb, find_published_states, find_states


def two_peaks(count, seed=0, error=0.5):
    """Peaks at ±1.5 of width 0.5 with 60 and 40 %, seen with errors of different size."""
    rng = np.random.default_rng(seed)
    true = np.where(rng.random(count) < 0.6, -1.5, 1.5) + 0.5 * rng.normal(size=count)
    sizes = error * np.exp(0.3 * rng.normal(size=count))
    seen = true + sizes * rng.normal(size=count)
    return Observations(seen[:, None], sizes[:, None, None] ** 2)


def true_peaks(axis):
    peaks = np.exp(-2 * (axis - np.array([[-1.5], [1.5]])) ** 2) / np.sqrt(np.pi / 2)
    return np.array([0.6, 0.4]) @ peaks


def correlated(count, seed=0):
    """Two coordinates whose errors differ in size and direction."""
    rng = np.random.default_rng(seed)
    roots = np.eye(2) * 0.5 + 0.15 * rng.normal(size=(count, 2, 2))
    errors = np.einsum("nij,nj->ni", roots, rng.normal(size=(count, 2)))
    return Observations(rng.normal(size=(count, 2)) + errors, roots @ roots.swapaxes(1, 2))


@pytest.fixture(scope="module")
def found():
    return deconvolve(two_peaks(2000), replicates=50, points=64)


def test_the_likelihood_is_that_of_every_image_when_each_has_its_class():
    seen = correlated(40)
    grid = make_grid(seen, estimate_shape(seen), 60)
    likelihood = make_likelihood(seen, grid, len(seen))
    rng = np.random.default_rng(1)
    centre = 0.5 * (grid.low + grid.high)
    mesh = np.stack(np.meshgrid(*grid.axes, indexing="ij"), -1)
    inside = np.exp(-np.sum((mesh - centre) ** 2, -1)) * (1 + 0.3 * rng.random(grid.points))
    inside /= inside.sum()
    found, _ = likelihood.evaluate(inside, likelihood.count(np.ones(len(seen))))
    direct = 0.0
    for value, covariance in zip(seen.values, seen.covariances, strict=True):
        rest = mesh - value
        square = np.einsum("...i,ij,...j->...", rest, np.linalg.inv(covariance), rest)
        height = np.exp(-0.5 * square) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
        share = float((height * inside).sum() * np.prod(grid.spacing))
        direct += np.log(0.999 * share + 0.001 / np.prod(grid.shape))
    # Sharing out an image blurs its likelihood by less than h²/4 per coordinate.
    assert found == pytest.approx(direct, abs=0.01 * len(seen))


def test_the_derivatives_of_the_cost_are_those_of_the_cost():
    seen = correlated(60)
    shape = estimate_shape(seen)
    likelihood = make_likelihood(seen, make_grid(seen, shape, 16), 3)
    model, counts = make_model(likelihood, shape, 0.5), likelihood.count(np.ones(len(seen)))
    rng = np.random.default_rng(0)
    noise, step = rng.normal(size=(2, *likelihood.grid.shape))
    _, slope = model._cost(noise, counts, np.zeros_like(noise))
    ends = [model._cost(noise + h * step, counts, np.zeros_like(noise))[0] for h in (1e-4, -1e-4)]
    assert (ends[0] - ends[1]) / 2e-4 == pytest.approx(float(slope @ step.ravel()), rel=1e-5)


def test_classes_keep_alike_errors_together():
    sizes = np.repeat([0.1, 1.0, 5.0], 20)
    grouped = group_errors(sizes[:, None, None] * np.eye(2), 3)
    np.testing.assert_allclose(np.sort(grouped.covariances[:, 0, 0]), [0.1, 1.0, 5.0])


def test_coordinates_that_are_left_out_take_nothing_from_the_others():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(5, 3, 3))
    errors, values = roots @ roots.swapaxes(1, 2), rng.normal(size=(5, 3))
    kept = observe(values, errors, np.array([1.0, 2.0, 3.0]), 1)
    # The same from the normal equations: the precision gains that of the prior of the others.
    precision = np.linalg.inv(errors)
    joint = np.linalg.inv(precision + np.diag([0, 1 / 2, 1 / 3]))
    means = np.einsum("nij,njk,nk->ni", joint, precision, values)
    np.testing.assert_allclose(kept.values, means[:, :1], rtol=1e-6)
    np.testing.assert_allclose(kept.covariances, joint[:, :1, :1], rtol=1e-6)


def test_the_density_is_nearer_to_the_truth_than_a_kernel_density(found):
    true = true_peaks(found.density.axes[0])
    raw = estimate_kernel_density(two_peaks(2000).values, found.density.axes)
    ours, theirs = (
        0.5 * found.density.cell * np.abs(each.values - true).sum() for each in (found.density, raw)
    )
    assert ours < 0.4 * theirs
    low, high = np.asarray(found.density.bands)
    assert np.mean((low <= true) & (true <= high)) > 0.85


def test_both_peaks_are_states_with_their_populations(found):
    states = find_states(found)
    assert len(states) == 2
    for state, place, population in zip(states, (-1.5, 1.5), (0.6, 0.4), strict=True):
        assert state.position[0] == pytest.approx(place, abs=0.3)
        low, high = state.interval or (0.0, 0.0)
        assert low < population < high
        assert (state.confidence or 0) >= 0.97


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_one_peak_or_no_movement_is_one_state(spread):
    rng = np.random.default_rng(3)
    values = spread * rng.normal(size=(1500, 1)) + rng.normal(size=(1500, 1))
    found = deconvolve(Observations(values, np.ones((1500, 1, 1))), replicates=20, points=48)
    assert len(find_states(found)) == 1
    assert found.moves == (spread > 0)


def test_two_coordinates_keep_their_covariance():
    found = deconvolve(correlated(1000), replicates=8, points=20)
    for axis in (0, 1):
        marginal = found.density.marginal((axis,))
        places = marginal.axes[0]
        variance = (marginal.values * places**2).sum() * marginal.cell
        # 1000 images tell a variance of 1 seen with errors of 0.3 to 6 %.
        assert variance == pytest.approx(1, abs=0.25)


def test_images_of_a_particle_are_drawn_together():
    owner = np.array([3, 0, 1, 1, 2, 3, 0, 3] * 50)
    weights = draw_weights(owner, np.random.default_rng(0))
    for particle in range(4):
        assert len(np.unique(weights[owner == particle])) == 1
    assert len(np.unique(draw_weights(np.arange(400), np.random.default_rng(0)))) > 1


def test_bands_hold_the_density_and_end_at_zero_where_nothing_is():
    values = np.array([0.0, 1e-4, 1.0])
    low, high = find_bands(values, np.array([[0.001, 0.002, 0.4], [0.003, 0.001, 0.6]]))
    np.testing.assert_array_equal(low[:2], 0)
    assert (low <= values).all()
    assert (values <= high).all()


def test_every_cell_climbs_to_its_peak():
    values = np.array([[3.0, 2, 1, 2], [2, 1, 2, 5]])
    np.testing.assert_array_equal(climb(values), [[0, 0, 7, 7], [0, 0, 7, 7]])


def test_the_published_deconvolution_sharpens_and_finds_as_many_states_as_asked_for():
    seen = two_peaks(2000)
    axes = (np.linspace(-4, 4, 80),)
    result = deconvolve_as_published(seen, axes)
    raw = estimate_kernel_density(seen.values, axes)
    true = true_peaks(axes[0])
    assert np.abs(result.knee.values - true).sum() < np.abs(raw.values - true).sum()
    assert (np.diff(result.costs) <= 1e-9).all()
    assert len(find_published_states(result.knee, 3)) == 3


def test_the_knee_is_the_corner_of_a_falling_curve():
    assert find_knee(10.0 ** np.array([4.0, 3, 2, 1, 0.9, 0.8, 0.7])) == 3

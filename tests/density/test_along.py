import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.stats import norm

from recovar.density.along import density_along
from recovar.density.curve import Curve, make_curve, make_curve_likelihood
from recovar.density.errors import Observations
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.states import find_states


def arc(angle):
    """A bent curve in four coordinates, nearly of constant speed."""
    bend = 0.5 * np.sin(2 * angle)
    return np.stack([-5 * np.cos(angle), 5 * np.sin(angle), bend, 0.3 * bend**2], axis=1)


PATH = arc(np.linspace(0, np.pi, 400))
ARC = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(PATH, axis=0), axis=1))])
CENTRES, WIDTH = (0.25, 0.7), 0.1
"""Of two states, as shares of the path."""


def draw(count, seed=0, off=0.0):
    """Images of two states along the path, with errors of different size in each direction."""
    rng = np.random.default_rng(seed)
    share = np.where(rng.random(count) < 0.6, *CENTRES) + WIDTH * rng.normal(size=count)
    places = np.clip(share, 0, 1) * ARC[-1]
    true = np.stack([np.interp(places, ARC, column) for column in PATH.T], axis=1)
    roots = np.diag([0.5, 0.8, 0.4, 0.6]) + 0.1 * rng.normal(size=(count, 4, 4))
    seen = true + np.einsum("nij,nj->ni", roots, rng.normal(size=(count, 4)))
    seen += off * rng.normal(size=(count, 4))
    return Observations(seen, roots @ roots.swapaxes(1, 2))


@pytest.fixture(scope="module")
def along():
    return density_along(draw(2000), PATH, ARC, replicates=60)


def test_the_density_along_an_arc_is_the_true_one_within_its_bands(along):
    density = along.found.density
    places = density.axes[0]
    true = np.array([0.6, 0.4]) @ norm.pdf(places / ARC[-1], np.array([CENTRES]).T, WIDTH) / ARC[-1]
    nearest = ARC[KDTree(PATH).query(draw(2000).values)[1]]
    raw = estimate_kernel_density(nearest[:, None], density.axes)
    ours, theirs = (
        0.5 * density.cell * np.abs(each - true).sum() for each in (density.values, raw.values)
    )
    assert ours < 0.06
    assert ours < 0.5 * theirs
    low, high = np.asarray(density.bands)
    assert np.mean((low <= true) & (true <= high)) > 0.85


def test_both_states_along_an_arc_are_found_with_their_populations(along):
    states = find_states(along.found)
    assert [state.position[0] / ARC[-1] for state in states] == pytest.approx(CENTRES, abs=0.04)
    assert states[0].population == pytest.approx(0.6, abs=0.04)


def test_the_misfit_tells_whether_molecules_keep_to_the_path(along):
    assert along.misfit == pytest.approx(1, abs=0.06)
    assert density_along(draw(500, off=1.5), PATH, ARC, replicates=4).misfit > 2
    other_way = PATH * np.array([1, -1, 1, 1])
    assert density_along(draw(500), other_way, ARC, replicates=4).misfit > 1.3


def test_a_path_that_lies_too_far_in_is_moved_to_the_images():
    middle = PATH.mean(0)
    curve = make_curve(draw(2000), middle + 0.85 * (PATH - middle), 0.85 * ARC, 128)
    inner = (curve.arc > 0.1 * curve.arc[-1]) & (curve.arc < 0.85 * curve.arc[-1])
    before = np.sqrt(np.mean((0.15 * (PATH - middle)) ** 2) * 4)
    assert KDTree(PATH).query(curve.points[inner])[0].mean() < 0.25 * before


def test_images_beyond_an_end_are_seen_beyond_it():
    rng = np.random.default_rng(0)
    line = np.linspace([0.0, 0.0], [10.0, 0.0], 50)
    values = np.stack([rng.uniform(-1, 11, 3000), np.zeros(3000)], axis=1) + rng.normal(
        size=(3000, 2)
    )
    seen = Observations(values, np.tile(np.eye(2), (3000, 1, 1)))
    density = density_along(seen, line, line[:, 0], replicates=4).found.density
    beyond = (density.axes[0] < 0) | (density.axes[0] > 10)
    assert density.values[beyond].sum() * density.cell == pytest.approx(1 / 6, abs=0.04)
    assert density.values[density.axes[0] < -2].sum() * density.cell < 0.02


def test_along_a_line_the_likelihood_is_that_of_every_image():
    seen = draw(30)
    curve = Curve(np.linspace(0, 3, 16), np.linspace(PATH[0], PATH[50], 16))
    likelihood = make_curve_likelihood(seen, curve)
    shares = np.random.default_rng(0).dirichlet(np.ones(16))
    direct = 0.0
    for value, covariance in zip(
        seen.values, seen.covariances + 0.2**2 / 12 * np.eye(4), strict=True
    ):
        squares = [rest @ np.linalg.solve(covariance, rest) for rest in value - curve.points]
        direct += np.log(shares @ (np.exp(-0.5 * np.array(squares)) + np.exp(-likelihood.far / 2)))
    found, slope = likelihood.evaluate(shares, np.ones(30))
    assert found == pytest.approx(direct, rel=1e-4)
    # Probabilities that are all scaled by one factor change the logarithm for every image by it.
    assert shares @ slope == pytest.approx(30, rel=1e-4)

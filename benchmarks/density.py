"""Compare estimated densities with true ones.

    python benchmarks/density.py [--seeds 4] [--run RUN TRUTH ...]

Coordinates are drawn from known densities of one coordinate, errors are added, and the density is
estimated: by a kernel, by the published deconvolution, and by ours, which also gives bands.

With --run the density along paths through the latent space of runs on a hinge is compared with the
true one, which `make_bench.py` draws the latent of the hinge from. Where on a path a true state is
follows from the mean of the images given the truth.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.polynomial.legendre import legvander
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist
from scipy.stats import gamma, norm
from sklearn.cluster import KMeans

from recovar.density.along import density_along
from recovar.density.curve import Curve
from recovar.density.deconvolution import deconvolve
from recovar.density.errors import Observations, observe
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.published import deconvolve_as_published
from recovar.density.states import find_states
from recovar.trajectory import find_path

NAMES = (
    "kernel",
    "published",
    "ours",
    "coverage",
    "coverage inside",
    "width",
    "states",
    "seconds",
)


@dataclass(frozen=True)
class Shape:
    """A true density."""

    feature: float
    """Standard deviation of its features."""
    states: int
    draw: object
    density: object


def _draw_two(count, rng):
    centres = np.where(rng.random(count) < 0.6, -1.5, 1.5)
    return centres + 0.5 * rng.normal(size=count)


def _draw_three(count, rng):
    centres = rng.choice([-2.0, 0.0, 2.0], count, p=[0.5, 0.3, 0.2])
    return centres + 0.4 * rng.normal(size=count)


def _draw_unequal(count, rng):
    narrow = rng.random(count) < 0.7
    return np.where(narrow, -1, 1.2) + np.where(narrow, 0.25, 0.8) * rng.normal(size=count)


SHAPES = {
    "two peaks": Shape(
        0.5, 2, _draw_two, lambda x: 0.6 * norm.pdf(x, -1.5, 0.5) + 0.4 * norm.pdf(x, 1.5, 0.5)
    ),
    "box": Shape(
        3**-0.5, 1, lambda n, rng: rng.uniform(-1, 1, n), lambda x: 0.5 * (np.abs(x) <= 1)
    ),
    "skew": Shape(
        0.5**0.5, 1, lambda n, rng: rng.gamma(2.0, 0.5, n), lambda x: gamma.pdf(x, 2, scale=0.5)
    ),
    "three peaks": Shape(
        0.4,
        3,
        _draw_three,
        lambda x: (
            0.5 * norm.pdf(x, -2, 0.4) + 0.3 * norm.pdf(x, 0, 0.4) + 0.2 * norm.pdf(x, 2, 0.4)
        ),
    ),
    "unequal": Shape(
        0.25,
        2,
        _draw_unequal,
        lambda x: 0.7 * norm.pdf(x, -1, 0.25) + 0.3 * norm.pdf(x, 1.2, 0.8),
    ),
    "normal": Shape(1.0, 1, lambda n, rng: rng.normal(size=n), norm.pdf),
    "point": Shape(1.0, 1, lambda n, _: np.zeros(n), None),
}


def observe_shape(shape, count, error, rng):
    """Draw coordinates, and errors that differ from image to image."""
    sizes = np.exp(0.3 * rng.normal(size=count))
    sizes *= error * shape.feature / np.sqrt(np.mean(sizes**2))
    values = shape.draw(count, rng) + sizes * rng.normal(size=count)
    return Observations(values[:, None], sizes[:, None, None] ** 2)


def judge(seen, truth, seed):
    """Give distances in total variation, coverage and width of bands, states and time."""
    start = time.process_time()
    found = deconvolve(seen, seed=seed)
    states = find_states(found)
    seconds = time.process_time() - start
    axis, cell = found.density.axes[0], found.density.cell
    row = {"states": len(states), "seconds": seconds, "moves": found.moves}
    if truth is None:
        return row
    true = truth(axis)
    distance = lambda values: 0.5 * cell * np.abs(values - true).sum()  # noqa: E731
    kernel = estimate_kernel_density(seen.values, found.density.axes)
    published = deconvolve_as_published(seen, found.density.axes)
    low, high = np.asarray(found.density.bands)
    within = (low <= true) & (true <= high)
    there = true > 0.01 * true.max()
    return row | {
        "kernel": distance(kernel.values),
        "published": distance(published.knee.at(axis[:, None])),
        "ours": distance(found.density.values),
        "coverage": within.mean(),
        "coverage inside": within[there].mean(),
        "width": (high - low)[there].mean() / true.max(),
    }


def average(rows):
    """Average what all rows have."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def tell(name, row, names=NAMES):
    """Print a row of a table."""
    texts = [[f"{each:.3g}" for each in np.atleast_1d(row.get(name, []))] for name in names]
    print(f"| {name} | {' | '.join(map(', '.join, texts))} |", flush=True)


def head(name, names=NAMES):
    """Print the head of a table."""
    print(f"\n| {name} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}", flush=True)


PATH_NAMES = (
    "misfit",
    "nearest",
    "ours",
    "coverage",
    "coverage inside",
    "width",
    "populations",
    "seconds",
)
TRUE_STATES = 0.35 * norm.cdf(-0.1, -0.55, 0.15) + 0.3 * norm.cdf(-0.1, 0.4, 0.2) + 0.35 * 0.45
"""Share of molecules below -0.1, where the density is lowest."""


def hinge(places):
    """Give the density that the latent of the hinge is drawn from."""
    wells = 0.35 * norm.pdf(places, -0.55, 0.15) + 0.3 * norm.pdf(places, 0.4, 0.2)
    return (wells + 0.35 / 2) * (np.abs(places) <= 1)


def find_ends(coordinates, truth, seed):
    """Take the centres of clusters whose images are at either end of the truth."""
    centres = KMeans(20, random_state=seed, n_init=3).fit(coordinates).cluster_centers_
    nearest = KDTree(coordinates).query(centres, 50)[1]
    order = np.argsort(truth[nearest].mean(1))
    return centres[order[0]], centres[order[-1]]


def place_on_path(seen, truth, curve, places):
    """Find where on a curve the mean of images of each true place is nearest to it."""
    precisions = np.linalg.inv(seen.covariances)
    basis = legvander(truth, 9)
    size = basis.shape[1] * seen.dimensions
    matrix = np.einsum("nk,nij,nl->kilj", basis, precisions, basis, optimize=True)
    pull = np.einsum("nk,nij,nj->ki", basis, precisions, seen.values, optimize=True)
    weights = np.linalg.solve(matrix.reshape(size, size), pull.ravel())
    means = legvander(places, 9) @ weights.reshape(-1, seen.dimensions)
    scale = np.linalg.cholesky(precisions.mean(0))
    nearest = curve.arc[cdist(means @ scale, curve.points @ scale).argmin(1)]
    pad = len(places) // 8
    wide = np.pad(np.maximum.accumulate(nearest), pad, "reflect", reflect_type="odd")
    smooth = gaussian_filter1d(wide, pad / 10)[pad:-pad]
    return np.maximum.accumulate(smooth) + 1e-6 * np.arange(len(places))


def judge_path(run, truth, zdim, method, seed):
    """Compare the density along a path with the true one."""
    with np.load(run / "output" / "embedding" / f"zdim{zdim}.npz") as each:
        seen = observe(each["z_noreg"], each["covariance_noreg"], each["eigenvalues"], zdim)
        coordinates, covariance, row = each["z"], each["covariance"], each["row"]
    with np.load(truth / "per_image.npz") as each:
        latent = each["latent"][row]
    ends = find_ends(coordinates, latent, seed)
    path = find_path(coordinates, *ends, method=method, covariance=covariance)
    start = time.process_time()
    along = density_along(seen, path.points, path.arc_length, seed=seed)
    states = find_states(along.found)
    seconds = time.process_time() - start
    density = along.found.density
    axis, cell = density.axes[0], density.cell
    curve = Curve(axis, along.points)
    places = np.linspace(-1, 1, 2001)
    reached = place_on_path(seen, latent, curve, places)
    shares = np.cumsum(hinge(places))
    edges = np.append(axis - cell / 2, axis[-1] + cell / 2)
    true = np.diff(np.interp(edges, reached, shares / shares[-1], left=0, right=1)) / cell
    kernel = estimate_kernel_density(along.nearest[:, None], density.axes)
    low, high = np.asarray(density.bands)
    within, there = (low <= true) & (true <= high), true > 0.01 * true.max()
    return {
        "misfit": along.misfit,
        "nearest": 0.5 * cell * np.abs(kernel.values - true).sum(),
        "ours": 0.5 * cell * np.abs(density.values - true).sum(),
        "coverage": within.mean(),
        "coverage inside": within[there].mean(),
        "width": (high - low)[there].mean() / true.max(),
        "populations": [
            state.population for state in sorted(states, key=lambda state: float(state.position[0]))
        ],
        "seconds": seconds,
    }


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--run", nargs="*", type=Path, default=[], metavar="RUN TRUTH")
    arguments = parser.parse_args()
    if arguments.shapes:
        head("density, images, error / feature")
    for name in arguments.shapes:
        shape = SHAPES[name]
        for count in (2000, 10_000):
            for error in (0.3, 1.0):
                rows = [
                    judge(
                        observe_shape(shape, count, error, np.random.default_rng(seed)),
                        shape.density,
                        seed,
                    )
                    for seed in range(arguments.seeds)
                ]
                tell(f"{name}, {count:,}, {error:g}", average(rows))
    if arguments.run:
        true = f"{TRUE_STATES:.3f}, {1 - TRUE_STATES:.3f}"
        head(f"run, coordinates, path; true populations: {true}", PATH_NAMES)
    for run, truth in zip(arguments.run[::2], arguments.run[1::2], strict=True):
        for zdim, method in ((4, "graph"), (4, "grid"), (4, "line"), (10, "graph"), (20, "graph")):
            row = judge_path(run, truth, zdim, method, 0)
            tell(f"{run.name}, {zdim}, {method}", row, PATH_NAMES)


if __name__ == "__main__":
    main()

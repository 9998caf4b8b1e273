"""Compare estimated densities with true ones.

    python benchmarks/density.py [--seeds 4] [--run RUN TRUTH ...]

Coordinates are drawn from known densities of one coordinate, errors are added, and the density is
estimated: by a kernel, by the published deconvolution, and by ours, which also gives bands.
With --run the same is done for the first coordinate of runs, where the true density is that of the
coordinates that an image would have without noise: those of its true state.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import gamma, norm

from recovar.density.deconvolution import deconvolve
from recovar.density.errors import Observations, observe
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.published import deconvolve_as_published
from recovar.density.states import find_states

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
    start = time.perf_counter()
    found = deconvolve(seen, seed=seed)
    states = find_states(found)
    seconds = time.perf_counter() - start
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


def tell(name, row):
    """Print a row of the table."""
    cells = " | ".join(f"{row[each]:.3g}" if each in row else "" for each in NAMES)
    print(f"| {name} | {cells} |", flush=True)


def judge_run(run, truth):
    """Judge the first coordinate of a run, along which the true states are put by least squares."""
    with np.load(run / "output" / "embedding" / "zdim4.npz") as each:
        seen = observe(each["z_noreg"], each["covariance_noreg"], each["eigenvalues"], 1)
    with np.load(truth / "per_image.npz") as each:
        state = each["latent"]
    precision = 1 / seen.covariances[:, 0, 0]
    curve = np.polynomial.Polynomial.fit(state, seen.values[:, 0], 9, w=np.sqrt(precision))
    places = curve(state)

    def density(axis):
        cell = axis[1] - axis[0]
        edges = np.append(axis - cell / 2, axis[-1] + cell / 2)
        return np.histogram(places, edges)[0] / (len(places) * cell)

    return seen, density


def main():
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--run", nargs="*", type=Path, default=[], metavar="RUN TRUTH")
    arguments = parser.parse_args()
    print(
        f"| density, images, error / feature | {' | '.join(NAMES)} |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for name, shape in SHAPES.items():
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
    for run, truth in zip(arguments.run[::2], arguments.run[1::2], strict=True):
        tell(run.name, judge(*judge_run(run, truth), 0))


if __name__ == "__main__":
    main()

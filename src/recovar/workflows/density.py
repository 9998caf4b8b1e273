"""The command `density`: how molecules are distributed over their states."""

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from recovar.compute.progress import Reporter
from recovar.density.deconvolution import deconvolve, find_bands
from recovar.density.errors import Observations, observe
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.published import ALPHAS, deconvolve_as_published
from recovar.density.record import Density, sum_to, write_density
from recovar.density.states import StableState, find_published_states, find_states
from recovar.density_plots import draw_density, draw_density_pair
from recovar.embedding import determined_share
from recovar.errors import InputError
from recovar.plots import save_figure
from recovar.records import save_arrays
from recovar.run import Stage
from recovar.workflows.densities.config import DensityConfig
from recovar.workflows.finished import FinishedRun, open_finished
from recovar.workflows.run_embedding import RunEmbedding
from recovar.workflows.workplace import open_workplace

logger = logging.getLogger(__name__)

_MOST_DEFAULT = 3
_LEAST_SHARE = 0.5
"""Coordinates that images determine less are not used unless asked for."""

Write = Callable[[str], AbstractContextManager[Path]]


@dataclass(frozen=True)
class StatesOfRun:
    """Stable states as latent points."""

    points: Float64[np.ndarray, "states zdim"]
    populations: Float64[np.ndarray, " states"]


@dataclass(frozen=True)
class _Landscape:
    """What there is to write."""

    density: Density
    marginals: tuple[Density, ...]
    """Along each coordinate."""
    states: tuple[StableState, ...]
    facts: dict[str, Any]
    """What else populations.json tells."""
    others: dict[str, np.ndarray]
    """Further arrays, for a file of their own."""


def run_density(config: DensityConfig, reporter: Reporter) -> None:
    """Estimate how molecules are distributed over their states, errors taken away.

    Raises:
        InputError: If the run has no such embedding, or an option does not fit it.
    """
    finished = open_finished(config.run)
    embedding = _choose_embedding(config, finished)
    dims = _choose_dims(config, embedding)
    zdim = embedding.coordinates.shape[1]
    directory = config.output or finished.path / "output" / f"density_{zdim}"
    options = {
        name: getattr(config, name)
        for name in ("points", "replicates", "method", "n_states", "seed")
    }
    with open_workplace(directory, config, finished, {"zdim": zdim}, reporter) as place:

        def compute(stage: Stage) -> StatesOfRun:
            seen = observe(
                embedding.coordinates_noreg,
                embedding.covariance_noreg,
                embedding.eigenvalues,
                dims,
            )
            found = _estimate(config, finished, seen, stage, reporter)
            return _write(found, seen, embedding, lambda name: stage.write(place.files + name))

        place.stage("states", StatesOfRun, compute, options={"dims": dims, **options})
        logger.info("Results are in %s", place.directory)


def _choose_embedding(config: DensityConfig, finished: FinishedRun) -> RunEmbedding:
    if config.zdim is None and len(finished.zdims) > 1:
        raise InputError(
            f"{config.run} has several embeddings. Choose one with --zdim, of "
            f"{', '.join(map(str, finished.zdims))} coordinates."
        )
    return finished.embedding(config.zdim)


def _choose_dims(config: DensityConfig, embedding: RunEmbedding) -> int:
    zdim = embedding.coordinates.shape[1]
    if config.dims is None:
        shares = determined_share(embedding.covariance, embedding.eigenvalues)
        known = int(np.argmin(np.append(shares >= _LEAST_SHARE, False)))
        return max(1, min(known, _MOST_DEFAULT))
    if config.dims > zdim:
        raise InputError(
            f"Expected at most {zdim} for --dims, as the embedding has so many coordinates, got "
            f"{config.dims}."
        )
    return config.dims


def _estimate(
    config: DensityConfig,
    finished: FinishedRun,
    seen: Observations,
    stage: Stage,
    reporter: Reporter,
) -> _Landscape:
    dims = seen.dimensions
    if config.method == "published":
        found = deconvolve_as_published(seen, seed=config.seed)
        stage.decide("weight of gradients", ALPHAS[found.chosen], "the costs have their knee there")
        return _Landscape(
            found.knee,
            tuple(found.knee.marginal((axis,)) for axis in range(dims)),
            find_published_states(found.knee, config.n_states),
            {"method": config.method, "alpha": ALPHAS[found.chosen]},
            {
                "alphas": np.array(ALPHAS),
                "costs": np.array(found.costs),
                "densities": np.stack([density.values for density in found.densities]),
            },
        )
    found = deconvolve(
        seen,
        finished.inputs.particles.particle,
        points=config.points,
        replicates=config.replicates,
        seed=config.seed,
        progress=reporter,
    )
    stage.decide(
        "smoothness",
        found.length,
        "none smoother foretells the other half of the particles as well; bands allow down to "
        f"{min(found.admissible):g} standard deviations",
    )
    if found.left_out:
        logger.info("%d images lie too far off and are left out", found.left_out)
    states = find_states(found)
    _tell(states, moves=found.moves)
    marginals = []
    for axis in range(dims):
        plain = found.density.marginal((axis,))
        replicates = sum_to(found.replicates, (axis,), dims)
        drawn = replicates * np.float32(found.density.cell / plain.cell)
        marginals.append(Density(plain.axes, plain.values, find_bands(plain.values, drawn)))
    facts = {
        "method": config.method,
        "moves": found.moves,
        "smoothness": found.length,
        "admissible_smoothness": list(found.admissible),
        "images_left_out": found.left_out,
    }
    return _Landscape(found.density, tuple(marginals), states, facts, {})


def _tell(states: tuple[StableState, ...], *, moves: bool) -> None:
    if not moves:
        logger.info("No movement is seen: coordinates vary by no more than their errors.")
    if len(states) == 1:
        logger.info("One state: no second peak is beyond doubt.")
        return
    logger.info("%d stable states, and their share of the molecules:", len(states))
    for number, state in enumerate(states):
        if state.interval is not None:
            low, high = (100 * end for end in state.interval)
            logger.info("  %2d %5.1f%% (%.1f to %.1f%%)", number, 100 * state.population, low, high)


def _write(
    found: _Landscape, seen: Observations, embedding: RunEmbedding, write: Write
) -> StatesOfRun:
    points = np.stack([_complete(state.position, embedding) for state in found.states])
    with write("density.npz") as partial:
        write_density(partial, found.density)
    if found.others:
        with write("all_densities.npz") as partial:
            save_arrays(partial, **found.others)
    with write("stable_states.txt") as partial:
        np.savetxt(partial, points, fmt="%.8g")
    with write("populations.json") as partial:
        partial.write_text(json.dumps({**found.facts, "states": _list(found.states)}, indent=1))
    for axis, marginal in enumerate(found.marginals):
        raw = estimate_kernel_density(seen.values[:, [axis]], marginal.axes)
        with write(f"density_{axis + 1}.png") as partial:
            save_figure(draw_density(marginal, raw, found.states, axis), partial)
    for pair in combinations(range(seen.dimensions), 2):
        with write(f"density_{pair[0] + 1}_{pair[1] + 1}.png") as partial:
            figure = draw_density_pair(found.density.marginal(pair), found.states, pair)
            save_figure(figure, partial)
    return StatesOfRun(points, np.array([state.population for state in found.states]))


def _complete(
    position: Float64[np.ndarray, " dims"], embedding: RunEmbedding
) -> Float64[np.ndarray, " zdim"]:
    """Add the coordinates that the density is not over: those of the images that are near.

    Images count by the likelihood of the position, and their other coordinates by precision.
    """
    dims, zdim = len(position), len(embedding.eigenvalues)
    if dims == zdim:
        return position
    near = embedding.coordinates_noreg[:, :dims] - position
    errors = embedding.covariance_noreg[:, :dims, :dims]
    distances = np.einsum("ni,ni->n", near, np.linalg.solve(errors, near[..., None])[..., 0])
    logs = -0.5 * (distances + np.linalg.slogdet(errors)[1])
    weights = np.exp(logs - logs.max())
    precisions = np.linalg.inv(embedding.covariance_noreg[:, dims:, dims:])
    total = np.einsum("n,nij->ij", weights, precisions) + np.diag(1 / embedding.eigenvalues[dims:])
    pull = np.einsum("n,nij,nj->i", weights, precisions, embedding.coordinates_noreg[:, dims:])
    return np.concatenate([position, np.linalg.solve(total, pull)])


def _list(states: tuple[StableState, ...]) -> list[dict[str, Any]]:
    return [
        {
            "position": state.position.tolist(),
            "population": state.population,
            "interval_95": state.interval,
            "confidence": state.confidence,
        }
        for state in states
    ]

"""How much of a simulated data set's truth a run has recovered."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.metrics import (
    Population,
    captured_variance,
    classification_accuracy,
    compare_contrasts,
    compare_maps,
    explained_variance,
)
from recovar.noise import Noise
from recovar.run import read_result
from recovar.simulator import Simulation
from recovar.workflows.components import Components
from recovar.workflows.heterogeneity import Embeddings
from recovar.workflows.mean import Means

ZDIM = 4
"""Latent coordinates that the result is judged by."""
_HALF = 0.5
"""Correlation down to which an estimate agrees with the truth; also between absent and present."""


@dataclass(frozen=True)
class Molecules:
    """The true molecules in the images of a `HingedMolecule`."""

    states: Float[np.ndarray, "states 2"]
    """Distinct ones: bend, and whether the domain is there."""
    volumes: Float[np.ndarray, "states z y x"]
    population: Population
    """All of them, each as often as it was seen."""


@dataclass(frozen=True)
class Recovered:
    """What a run has found, as far as it is compared with the truth."""

    mean: Float[np.ndarray, "z y x"]
    components: Float[np.ndarray, "pcs z y x"]
    eigenvalues: Float[np.ndarray, " pcs"]
    coordinates: Float[np.ndarray, "images zdim"]
    contrast: Float[np.ndarray, " images"]
    noise: Float[np.ndarray, " shells"]


@dataclass(frozen=True)
class Scores:
    """How much of the truth was recovered."""

    resolution: float
    """Å, where the mean's correlation with the true one falls below one half."""
    finest: float
    """Å, the best that the pixels allow."""
    noise: float
    """Estimated over true variance, median over frequencies."""
    contrast: float
    """Correlation of estimated and true contrasts."""
    bend: float
    """Share of the variance of the arm's bend that neighbours in latent space predict."""
    presence: float
    """Share of images of which neighbours in latent space tell whether the domain is there."""
    guessing: float
    """The same for whoever always says what is commoner."""
    components: int
    """Number of components that are judged."""
    captured: float
    """Share of the variance of the true volumes along the components found."""
    possible: float
    """The most that so many components can hold."""


def read_recovered(run: Path) -> Recovered:
    """Read from a run what is compared with the truth; its images are in the order of the data."""
    components = read_result(run, "subspace", Components).principal
    embeddings = read_result(run, "embedding", Embeddings).each
    embedding = next((e for e in embeddings if e.coordinates.shape[1] == ZDIM), embeddings[-1])
    count = embedding.coordinates.shape[1]
    return Recovered(
        mean=read_result(run, "volumes", Means).masked.regularized,
        components=components.volumes[:count],
        eigenvalues=components.eigenvalues[:count],
        coordinates=embedding.coordinates,
        contrast=embedding.contrast,
        noise=read_result(run, "noise", Noise).variance,
    )


def score(found: Recovered, simulation: Simulation, population: Population) -> Scores:
    """Compare what was found with what is known."""
    grid, truth = simulation.grid, simulation.truth
    bend, present = truth.states[:, 0], truth.states[:, 1] > _HALF
    return Scores(
        resolution=compare_maps(found.mean, population.mean, grid).resolution(_HALF),
        finest=grid.resolution(grid.largest_radius),
        noise=float(np.median(found.noise / truth.noise)),
        contrast=compare_contrasts(found.contrast, truth.contrast).correlation,
        bend=explained_variance(found.coordinates, bend),
        presence=classification_accuracy(found.coordinates, present),
        guessing=float(max(present.mean(), 1 - present.mean())),
        components=len(found.components),
        captured=float(captured_variance(found.components, population)[-1]),
        possible=float(population.shares[: len(found.components)][-1]),
    )


def describe_scores(scores: Scores) -> list[str]:
    """Write a small table: what, how good, and what that means."""
    count = scores.components
    best = f"no {count} could hold more than {scores.possible:.1%}"
    rows = {
        "Mean volume": (
            f"{scores.resolution:.1f} Å",
            f"is how far the mean agrees with the true one; pixels end at {scores.finest:.1f} Å",
        ),
        "Noise": (f"{scores.noise:.3f}", "times its true variance, median over frequencies"),
        "Contrast": (
            f"{scores.contrast:.2f}",
            "is the correlation with the true contrasts of images",
        ),
        "Arm": (f"{scores.bend:.1%}", "of the variance of its bend follow from latent coordinates"),
        "Domain": (
            f"{scores.presence:.1%}",
            f"of images tell whether it is there; guessing is right in {scores.guessing:.1%}",
        ),
        "Components": (
            f"{scores.captured:.1%}",
            f"of what differs between molecules lies along the first {count}; {best}",
        ),
    }
    return [f"  {name:<12}{figure:>8}  {meaning}" for name, (figure, meaning) in rows.items()]

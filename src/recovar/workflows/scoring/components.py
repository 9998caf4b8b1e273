"""Scores of principal components: what they span, and how much variance they claim."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from recovar.metrics import align, describe_population, low_pass
from recovar.workflows.scoring.files import Found
from recovar.workflows.scoring.table import Score, Section
from recovar.workflows.scoring.truth import Truth

_RANKS = (1, 2, 3, 4, 6, 10, 20)
"""Numbers of components that are judged."""
_ANGLES = 4
"""Numbers of components whose angles are told."""
_WHERE = {
    "unmasked": "share of what differs in the span of so many components",
    "masked": "the same within the mask",
    "ball": "the same up to the largest frequency of images",
    "lowpass": "the same up to half of it",
}

Prepare = Callable[[Float[np.ndarray, "n z y x"]], Float[np.ndarray, "n z y x"]]


def score_components(truth: Truth, found: Found) -> Section:
    """Compare principal components with how the true volumes differ."""
    title = "Components"
    if found.components is None:
        return Section(title, (), skipped=("components: no pc_0000.mrc",))
    if len(truth.volumes) < 2:
        return Section(title, (), skipped=("components: all true volumes are alike",))
    components = found.components[: max(_RANKS)]
    scores: list[Score] = []
    curves: dict[str, Float[np.ndarray, " points"]] = {}
    for name, prepare in _variants(truth).items():
        population = describe_population(prepare(truth.volumes), truth.weights)
        alignment = align(prepare(components), population)
        captured, shares = alignment.captured, population.shares
        possible = np.append(shares, np.ones(len(captured)))[: len(captured)]
        scores += [
            Score(f"pcs.{name}.captured", _at_ranks(captured), _WHERE[name]),
            Score(f"pcs.{name}.optimal", _at_ranks(possible), "the most that so many could hold"),
        ]
        ranks = range(1, min(_ANGLES, len(captured), len(shares)) + 1)
        scores += [
            Score(
                f"pcs.{name}.cos_angles.{rank}",
                {str(i): float(c) for i, c in enumerate(alignment.cosines(rank), 1)},
            )
            for rank in ranks
        ]
        meaning = "sine of the largest angle between so many found and true components"
        scores.append(
            Score(
                f"pcs.{name}.largest_sine",
                {str(rank): float(alignment.sines[rank - 1]) for rank in ranks},
                meaning if name == "masked" else "",
                0.0,
            )
        )
        curves |= {f"captured, {name}": captured, f"possible, {name}": possible}
    if found.eigenvalues is not None:
        scores += _score_eigenvalues(truth, components, found.eigenvalues)
    return Section(title, tuple(scores), curves)


def _variants(truth: Truth) -> dict[str, Prepare]:
    """List what is done to volumes before they are compared."""
    mask, largest = truth.mask, truth.grid.largest_radius / (truth.grid.size / 2)
    if mask is None:
        return {
            "unmasked": lambda volumes: volumes,
            "ball": lambda volumes: low_pass(volumes, largest),
            "lowpass": low_pass,
        }
    return {
        "unmasked": lambda volumes: volumes,
        "masked": lambda volumes: volumes * mask,
        "ball": lambda volumes: low_pass(volumes, largest) * mask,
        "lowpass": lambda volumes: low_pass(volumes) * mask,
    }


def _at_ranks(values: Float[np.ndarray, " pcs"], most: int | None = None) -> dict[str, float]:
    count = len(values) if most is None else min(most, len(values))
    return {str(rank): float(values[rank - 1]) for rank in _RANKS if rank <= count}


def _score_eigenvalues(
    truth: Truth, components: Float[np.ndarray, "pcs z y x"], eigenvalues: Float[np.ndarray, " all"]
) -> Iterator[Score]:
    """Judge variances, which need the scale of the images.

    Beyond the number of true components ratios mean nothing, so they are left out.
    """
    count = min(len(components), len(eigenvalues))
    population = describe_population(truth.scale * truth.volumes, truth.weights)
    alignment = align(components[:count], population)
    eigenvalues = eigenvalues[:count]
    most = len(population.variances)
    yield Score(
        "pcs.calibration",
        _at_ranks(alignment.calibration(eigenvalues), most),
        "estimated variance along a component over the true one along it; below 1 is too cautious",
        1.0,
    )
    yield Score(
        "pcs.sorted_calibration",
        _at_ranks(alignment.sorted_calibration(eigenvalues), most),
        "estimated over true eigenvalue of the same rank",
        1.0,
    )
    yield Score(
        "pcs.covariance_error",
        alignment.covariance_error(eigenvalues),
        "norm of the error of the covariance over its own; 1 is what no components have",
        0.0,
    )

"""Whether latent coordinates follow what a molecule knows nothing of: defocus, view, micrograph.

Images say more of some molecules than of others, and posterior means are drawn towards 0 where they
say little. So their distribution, and with it their ranks, depend on defocus and view in a perfect
analysis; their mean does not, nor does the mean of their square over the variance that the image
determined. These two are what is asked for here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Shaped
from numpy.polynomial import legendre
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

LEVEL = 0.05
"""Chance of any flag at all where nothing depends on anything."""
LEAST_SHARE, LEAST_SPREAD_SHARE = 0.01, 0.05
"""Dependences of coordinates and of their spread that explain less are not flagged, however certain
they are; errors of posteriors are never exactly as stated."""
PERMUTATIONS = 199

_DEGREE = 3
"""Of the polynomials of numbers."""
_FEW_GROUPS = 20
"""Of more groups, sums are taken instead of products with functions."""
_LEAST_BLOCKS = 20
"""Fewer micrographs than this cannot be permuted to tell what chance does."""
_TAIL = 0.005
"""Share of the images at either end whose coordinates are moved to where the rest ends."""
_MOST_SQUARE = 10.0
"""Standardized squares above this are taken as this; normal ones are in 0.2 % of the images."""
_LEAST_DETERMINED = 0.02
"""Share of a coordinate's variance that an image is taken to determine at least."""
_LEAST_DIRECTION = 1e-3
"""Functions that are nearly sums of others add nothing."""


@dataclass(frozen=True)
class Nuisance:
    """Something known of every image that the conformation of its molecule should not follow."""

    name: str
    values: Float64[np.ndarray, "images functions"] | Int[np.ndarray, " images"]
    """Functions that are fitted to coordinates, or the group of every image."""
    in_blocks: bool = True
    """Whether images of one micrograph stay together when chance is measured; they cannot where
    the micrograph itself is the question."""


def from_number(name: str, values: Float[np.ndarray, " images"]) -> Nuisance:
    """Ask for a smooth dependence on a number, whatever its distribution.

    Example:
        >>> from_number("defocus", np.array([1e4, 1e9, 2e4])).values[:, 0].tolist()
        [-1.0, 1.0, 0.0]
    """
    ranks = rankdata(values.astype(np.float64)) - 1  # SciPy 1.18 keeps single precision
    places = 2 * ranks / max(len(values) - 1, 1) - 1
    return Nuisance(name, legendre.legvander(places, _DEGREE)[:, 1:])


def from_direction(name: str, directions: Float[np.ndarray, "images 3"]) -> Nuisance:
    """Ask for a dependence on a direction: all spherical harmonics up to degree 4.

    Homogeneous polynomials of degree 3 and 4 are the same functions on the sphere.
    """
    return Nuisance(name, np.concatenate([_monomials(directions, 3), _monomials(directions, 4)], 1))


def from_turn(name: str, rotations: Float[np.ndarray, "images 3 3"]) -> Nuisance:
    """Ask for a dependence on how the molecule is turned within the image plane.

    What changes with the in-plane angle once or twice per turn, without the poles that the angle
    itself has: where the axes of the image point in the molecule, and the traceless squares of
    these, which astigmatism or a drift of the stage would follow.
    """
    x, y = rotations[:, 0], rotations[:, 1]
    rows, columns = np.triu_indices(3)
    squares = x[:, rows] * x[:, columns] - y[:, rows] * y[:, columns]
    mixed = x[:, rows] * y[:, columns] + x[:, columns] * y[:, rows]
    return Nuisance(name, np.concatenate([x, y, squares, mixed], axis=1).astype(np.float64))


def from_groups(
    name: str, labels: Shaped[np.ndarray, " images"], *, in_blocks: bool = True
) -> Nuisance:
    """Ask whether groups of images have means of their own.

    Example:
        >>> from_groups("half set", np.array([1, 0, 1])).values.tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    distinct, groups = np.unique(labels, return_inverse=True)
    groups = groups.reshape(-1)
    if len(distinct) > _FEW_GROUPS:
        return Nuisance(name, groups, in_blocks)
    return Nuisance(name, np.eye(len(distinct))[groups], in_blocks)


def _monomials(
    vectors: Float[np.ndarray, "images 3"], degree: int
) -> Float64[np.ndarray, "images monomials"]:
    axes = combinations_with_replacement(range(3), degree)
    return np.stack([vectors[:, each].prod(axis=1, dtype=np.float64) for each in axes], axis=1)


@dataclass(frozen=True)
class Dependence:
    """How much of something about each coordinate is explained by each nuisance."""

    share: Float64[np.ndarray, "nuisances pcs"]
    """Share of the variance, without what as many functions explain by chance: about 0 where
    there is no dependence, and then below 0 as often as above."""
    chance: Float64[np.ndarray, "nuisances pcs"]
    """Probability that any coordinate depends so clearly on any nuisance where none does."""
    least: float
    """Smaller shares are not flagged."""

    @property
    def flagged(self) -> Bool[np.ndarray, "nuisances pcs"]:
        """Tell which are clear and not small."""
        return (self.chance <= LEVEL) & (self.share >= self.least)


@dataclass(frozen=True)
class Flag:
    """A dependence that somebody should look at."""

    coordinate: int
    """From 1."""
    nuisance: str
    kind: Literal["mean", "spread"]
    share: float
    chance: float

    @property
    def text(self) -> str:
        """Say it in words."""
        if self.kind == "mean":
            return (
                f"Coordinate {self.coordinate} follows {self.nuisance} (R² {self.share:.2f}): look "
                "before you believe it."
            )
        return (
            f"How widely coordinate {self.coordinate} spreads depends on {self.nuisance} "
            f"(R² {self.share:.2f}): its errors differ from what they are said to be."
        )


@dataclass(frozen=True)
class Audit:
    """How latent coordinates depend on what they should not."""

    names: tuple[str, ...]
    """Of the nuisances."""
    functions: Int[np.ndarray, " nuisances"]
    """Independent functions that were fitted for each."""
    mean: Dependence
    """Of the coordinates themselves."""
    spread: Dependence
    """Of their squares, over the variance that each image determined."""
    images: int
    """Images that were asked."""
    blocks: int
    """Micrographs that were permuted as a whole to measure chance; 0 if images were."""

    @property
    def flags(self) -> list[Flag]:
        """List what somebody should look at, the largest shares first, means before spreads."""
        found = []
        kinds: tuple[tuple[Literal["mean", "spread"], Dependence], ...]
        kinds = (("mean", self.mean), ("spread", self.spread))
        for kind, each in kinds:
            places = np.argwhere(each.flagged)
            for i, k in places[np.argsort(-each.share[each.flagged], kind="stable")].tolist():
                share, chance = float(each.share[i, k]), float(each.chance[i, k])
                found.append(Flag(k + 1, self.names[i], kind, share, chance))
        return found


def audit(
    coordinates: Float[np.ndarray, "images pcs"],
    variances: Float[np.ndarray, "images pcs"],
    nuisances: Sequence[Nuisance],
    micrograph: Int[np.ndarray, " images"] | None = None,
    seed: int = 0,
) -> Audit:
    """Measure what nuisances explain of coordinates, and what they would explain by chance.

    Chance is measured by giving images the coordinates of others. Micrographs may hold molecules
    of their own kind, and every image of one has nearly the same defocus; so whole micrographs are
    exchanged where they are known.

    Args:
        coordinates: Posterior means.
        variances: Posterior variances.
        nuisances: What is asked for; what does not vary is left out.
        micrograph: Which micrograph an image is from.
        seed: Of the permutations.

    Source: the share is the adjusted R², (R² − E)/(1 − E) with the mean E of R² over permutations
    in place of p/(n − 1), which it is where images are independent. Chances are corrected by the
    distribution of the largest of all studentized ∛R² (`Westfall & Young 1993`, single step),
    which are nearly normal for few functions and for many (`Wilson & Hilferty 1931`).
    """
    responses = np.concatenate(
        [_winsorized(coordinates), _standardized_squares(coordinates, variances)], axis=1
    )
    responses = _normalized(responses)
    asked = [(each, fit) for each in nuisances if (fit := _fit(each)).functions]
    random = np.random.default_rng(seed)
    shuffle, blocks = _shuffles(len(coordinates), micrograph, random)

    def explain(
        together: Float32[np.ndarray, "images n"], apart: Float32[np.ndarray, "images n"]
    ) -> Float64[np.ndarray, "nuisances n"]:
        fits = (fit.explained(together if each.in_blocks else apart) for each, fit in asked)
        return np.array(list(fits)).reshape(len(asked), responses.shape[1])

    with threadpool_limits(1, "blas"):  # such narrow products are slower on several threads
        null = [
            explain(responses[shuffle()], responses[random.permutation(len(responses))])
            for _ in range(PERMUTATIONS)
        ]
    every = np.stack([explain(responses, responses), *null])
    roots = np.cbrt(every)
    spread = np.maximum(roots.std(0), np.finfo(np.float32).tiny)
    clearness = (roots - roots.mean(0)) / spread
    largest = np.sort(clearness.max(axis=(1, 2), initial=-np.inf))
    chance = 1 - np.searchsorted(largest, clearness[0]) / len(largest)
    by_chance = np.mean(null, axis=0)
    share = (every[0] - by_chance) / (1 - by_chance)
    pcs = coordinates.shape[1]
    return Audit(
        tuple(each.name for each, _ in asked),
        np.array([fit.functions for _, fit in asked], np.int64),
        Dependence(share[:, :pcs], chance[:, :pcs], LEAST_SHARE),
        Dependence(share[:, pcs:], chance[:, pcs:], LEAST_SPREAD_SHARE),
        len(coordinates),
        blocks,
    )


def _winsorized(values: Float[np.ndarray, "images pcs"]) -> Float64[np.ndarray, "images pcs"]:
    low, high = np.quantile(values, (_TAIL, 1 - _TAIL), axis=0)
    return np.clip(values, low, high).astype(np.float64)


def _standardized_squares(
    coordinates: Float[np.ndarray, "images pcs"], variances: Float[np.ndarray, "images pcs"]
) -> Float64[np.ndarray, "images pcs"]:
    """Divide squares by what they should be: total variance less that which an image left open."""
    total = (coordinates.astype(np.float64) ** 2 + variances).mean(0)
    determined = np.maximum(total - variances, _LEAST_DETERMINED * total)
    squares = np.divide(
        coordinates**2, determined, out=np.zeros(coordinates.shape), where=determined > 0
    )
    return np.minimum(squares, _MOST_SQUARE)


def _normalized(responses: Float64[np.ndarray, "images n"]) -> Float32[np.ndarray, "images n"]:
    """Give all a mean of 0 and a sum of squares of 1; constants become 0."""
    centred = responses - responses.mean(0)
    lengths = np.linalg.norm(centred, axis=0)
    scale = np.abs(responses).max(0, initial=0) * len(responses) ** 0.5
    centred[:, lengths <= 1e-6 * scale] = 0
    return (centred / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)


@dataclass(frozen=True)
class _Functions:
    """Functions made ready: R² of normalized responses is a sum of squares."""

    basis: Float32[np.ndarray, "images functions"]
    """Orthonormal, with a mean of 0."""

    @property
    def functions(self) -> int:
        return self.basis.shape[1]

    def explained(self, responses: Float32[np.ndarray, "images n"]) -> Float64[np.ndarray, " n"]:
        return np.square(self.basis.T @ responses, dtype=np.float64).sum(0)


@dataclass(frozen=True)
class _Groups:
    """Groups made ready, for the same."""

    order: Int[np.ndarray, " images"]
    """Images group by group."""
    starts: Int[np.ndarray, " groups"]
    """Where groups start in `order`."""

    @staticmethod
    def of(labels: Int[np.ndarray, " images"]) -> "_Groups":
        order = np.argsort(labels, kind="stable")
        return _Groups(order, np.flatnonzero(np.diff(labels[order], prepend=labels.min() - 1)))

    @property
    def sizes(self) -> Int[np.ndarray, " groups"]:
        return np.diff(self.starts, append=len(self.order))

    @property
    def functions(self) -> int:
        """Groups of hardly more than one image each have no means to compare."""
        groups = len(self.starts)
        return groups - 1 if 2 * groups <= len(self.order) else 0

    def explained(self, responses: Float32[np.ndarray, "images n"]) -> Float64[np.ndarray, " n"]:
        sums = np.add.reduceat(responses[self.order], self.starts, axis=0)
        return np.sum(np.square(sums, dtype=np.float64) / self.sizes[:, None], axis=0)


def _fit(nuisance: Nuisance) -> _Functions | _Groups:
    values = nuisance.values
    return _Functions(_orthonormal(values)) if values.ndim == 2 else _Groups.of(values)


def _orthonormal(
    functions: Float64[np.ndarray, "images functions"],
) -> Float32[np.ndarray, "images independent"]:
    centred = functions - functions.mean(0)
    lengths = np.linalg.norm(centred, axis=0)
    centred = centred[:, lengths > 1e-9 * len(functions) ** 0.5]
    centred /= np.linalg.norm(centred, axis=0)
    squares, turn = np.linalg.eigh(centred.T @ centred)
    kept = squares > _LEAST_DIRECTION**2 * squares.max(initial=0)
    return (centred @ (turn[:, kept] / np.sqrt(squares[kept]))).astype(np.float32)


def _shuffles(
    images: int, micrograph: Int[np.ndarray, " images"] | None, random: np.random.Generator
) -> tuple[Callable[[], Int[np.ndarray, " images"]], int]:
    """Give what draws a permutation, and how many micrographs it moves as a whole."""
    blocks = None if micrograph is None else _Groups.of(micrograph)
    if blocks is None or not _LEAST_BLOCKS <= len(blocks.starts) < images:
        return lambda: random.permutation(images), 0
    order, starts, sizes = blocks.order, blocks.starts, blocks.sizes

    def shuffle() -> Int[np.ndarray, " images"]:
        which = random.permutation(len(sizes))
        ends = np.cumsum(sizes[which])
        places = np.repeat(starts[which] - ends + sizes[which], sizes[which]) + np.arange(images)
        rows = np.empty(images, np.int64)
        rows[order] = order[places]
        return rows

    return shuffle, len(sizes)

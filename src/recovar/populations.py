"""How often the states of a molecule occur: densities over its degrees of freedom.

Every draw spends the same count of random numbers, row by row. So the first rows do not depend
on how many follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri

from recovar.errors import InputError


@dataclass(frozen=True)
class Mixture:
    """Gaussians, each cut off at a box and scaled up to a total of 1, over a uniform background."""

    low: Float[np.ndarray, " coordinates"]
    """Lower corner of the box."""
    high: Float[np.ndarray, " coordinates"]
    """Upper corner."""
    weights: Float[np.ndarray, " peaks"]
    """Shares of the Gaussians; together with the background they sum to 1."""
    means: Float[np.ndarray, "peaks coordinates"]
    """Centres, within the box."""
    spreads: Float[np.ndarray, "peaks coordinates"]
    """Standard deviations along the axes, before the cut."""
    background: float = 0.0
    """Share of the uniform density."""

    def __post_init__(self) -> None:
        """Refuse what is no density."""
        total = self.weights.sum() + self.background
        if abs(total - 1) > 1e-9 or self.background < 0 or (self.weights < 0).any():
            raise InputError(
                "Expected shares that are not negative and sum to 1, got "
                f"{self.weights.tolist()} and a background of {self.background:g}."
            )
        if not (self.low < self.high).all():
            raise InputError(f"Expected a box, got corners {self.low} and {self.high}.")
        if ((self.means < self.low) | (self.means > self.high)).any():
            raise InputError(
                f"Expected centres between {self.low} and {self.high}, got {self.means.tolist()}."
            )
        if not (self.spreads > 0).all():
            raise InputError(f"Expected positive spreads, got {self.spreads.tolist()}.")

    @property
    def dimensions(self) -> int:
        """Count the degrees of freedom."""
        return len(self.low)

    def draw(
        self, count: int, generator: np.random.Generator
    ) -> Float[np.ndarray, "count coordinates"]:
        """Draw states independently.

        The first rows are the same whatever the count.
        """
        chance = generator.random((count, 1 + self.dimensions))
        place = chance[:, 1:]
        states = self.low + place * (self.high - self.low)
        if not len(self.weights):
            return states
        # Shares are laid side by side, the background last.
        peak = np.searchsorted(np.cumsum(self.weights), chance[:, 0], side="right")
        within = peak < len(self.weights)
        peak = peak[within]
        below, above = (side[peak] for side in self._cuts())
        quantile = ndtri(below + place[within] * (above - below))
        drawn = self.means[peak] + self.spreads[peak] * quantile
        states[within] = np.clip(drawn, self.low, self.high)
        return states

    def density(self, points: Float[np.ndarray, "points coordinates"]) -> np.ndarray:
        """Evaluate the density, whose integral over the box is 1; outside the box it is 0."""
        below, above = self._cuts()
        standard = (points[:, None] - self.means) / self.spreads
        heights = np.exp(-0.5 * standard**2) / ((2 * np.pi) ** 0.5 * self.spreads * (above - below))
        inside = ((points >= self.low) & (points <= self.high)).all(1)
        volume = np.prod(self.high - self.low)
        return inside * (heights.prod(2) @ self.weights + self.background / volume)

    def scaled(
        self, low: Float[np.ndarray, " coordinates"], high: Float[np.ndarray, " coordinates"]
    ) -> "Mixture":
        """Carry the whole density to another box."""
        factor = (high - low) / (self.high - self.low)
        means = np.clip(low + (self.means - self.low) * factor, low, high)
        return Mixture(low, high, self.weights, means, self.spreads * factor, self.background)

    def _cuts(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the shares of the uncut Gaussians below the box and below its upper end."""
        below, above = (ndtr((side - self.means) / self.spreads) for side in (self.low, self.high))
        return below, above


def _unit_box(
    means: Sequence[Sequence[float]], shares: Sequence[float], spread: float, background: float
) -> Mixture:
    """Make a density on the unit box; the peaks share what the background leaves."""
    centres, weights = np.array(means), np.array(shares)
    return Mixture(
        low=np.zeros(centres.shape[1]),
        high=np.ones(centres.shape[1]),
        weights=(1 - background) * weights / weights.sum(),
        means=centres,
        spreads=np.full(centres.shape, spread),
        background=background,
    )


def _flat(dimensions: int) -> Mixture:
    none = np.zeros((0, dimensions))
    return Mixture(np.zeros(dimensions), np.ones(dimensions), none.sum(1), none, none, 1.0)


def _arc(turns: float, fade: float) -> Mixture:
    """Line up narrow peaks on a circle, each weaker than the last by the factor `fade`."""
    angles = 2 * np.pi * turns * np.arange(32) / 32
    means = 0.5 + 0.33 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _unit_box(means.tolist(), (fade ** np.arange(32)).tolist(), 0.05, 0.02)


NAMED: Mapping[str, Mapping[int, Mixture]] = {
    "uniform": {1: _flat(1), 2: _flat(2)},
    "gaussian": {
        1: _unit_box([[0.5]], [1.0], 0.17, 0.0),
        2: _unit_box([[0.5, 0.5]], [1.0], 0.17, 0.0),
    },
    "slope": {
        1: _unit_box([[1.0]], [1.0], 0.45, 0.05),
        2: _unit_box([[1.0, 1.0]], [1.0], 0.5, 0.05),
    },
    "two-wells": {
        1: _unit_box([[0.23], [0.75]], [0.6, 0.4], 0.09, 0.1),
        2: _unit_box([[0.25, 0.3], [0.72, 0.75]], [0.6, 0.4], 0.1, 0.1),
    },
    "three-wells": {
        1: _unit_box([[0.15], [0.5], [0.85]], [0.5, 0.3, 0.2], 0.06, 0.05),
        2: _unit_box([[0.22, 0.25], [0.76, 0.35], [0.45, 0.8]], [0.5, 0.3, 0.2], 0.08, 0.05),
    },
    "crescent": {2: _arc(0.65, 0.95)},
    "ring": {2: _arc(1.0, 1.0)},
}
"""Densities on the unit box by name and degrees of freedom."""


def name_population(
    name: str,
    low: Float[np.ndarray, " coordinates"],
    high: Float[np.ndarray, " coordinates"],
) -> Mixture:
    """Look up a density, and carry it to a box.

    Args:
        name: One of `NAMED`.
        low: Lower corner of the box; its length says how many degrees of freedom there are.
        high: Upper corner.

    Raises:
        InputError: If there is none of that name with as many degrees of freedom.
    """
    known = sorted(shape for shape, densities in NAMED.items() if len(low) in densities)
    if name not in known:
        raise InputError(
            f"There is no population {name!r} of {len(low)} degrees of freedom. "
            f"There are: {', '.join(known) or 'none'}."
        )
    return NAMED[name][len(low)].scaled(low, high)


def uneven_weights(count: int, exponent: float = 1.0) -> Float[np.ndarray, " count"]:
    """Make shares that fall as 1, 1/2, 1/3 … to a power; exponent 0 makes them equal.

    Example:
        >>> uneven_weights(3).round(3).tolist()
        [0.545, 0.273, 0.182]
    """
    weights = np.arange(1, count + 1) ** -float(exponent)
    return weights / weights.sum()


def draw_categories(
    count: int, weights: Float[np.ndarray, " categories"], generator: np.random.Generator
) -> Int[np.ndarray, " count"]:
    """Draw numbers of categories independently; the first are the same whatever the count.

    Args:
        count: How many to draw.
        weights: How often each category occurs, up to a common factor.
        generator: Source of one random number for each.

    Raises:
        InputError: If weights are negative or all zero.
    """
    ends = np.cumsum(weights)
    if (weights < 0).any() or not 0 < ends[-1] < np.inf:
        raise InputError(f"Expected weights that are not negative nor all zero, got {weights}.")
    return np.searchsorted(ends, ends[-1] * generator.random(count), side="right")


def draw_paths(
    count: int, dimensions: int, memory: float, generator: np.random.Generator
) -> Float[np.ndarray, "count dimensions"]:
    """Draw states along Ornstein-Uhlenbeck paths, one for each degree of freedom.

    Each coordinate is normal with variance 1, and its correlation over a time t is
    exp(−t / memory), as in simulations of dynamics. The first rows are the same whatever the count.

    Args:
        count: Length of the paths.
        dimensions: How many paths.
        memory: Time, counted in rows, in which the correlation falls to 1/e.
        generator: Source of one number for each value.
    """
    kept = np.exp(-1 / memory)
    kicks = generator.standard_normal((count, dimensions))
    kicks[1:] *= np.sqrt(1 - kept**2)
    return np.asarray(lfilter([1.0], [1.0, -kept], kicks, axis=0))

"""What a reconstruction says about a reference map and a mask: hand, axes, and sign."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from jaxtyping import Float

from recovar.conventions import Evidence, Odds, compare
from recovar.core import fourier
from recovar.core.grid import volume_radii
from recovar.core.halves import Halves
from recovar.core.masks import mask_from_halfmaps
from recovar.homogeneous import density_is_inverted
from recovar.regularization import fsc

_AGREEING = 0.5
"""Half-maps that agree less than this are not compared with anything."""
_LEAST_RADIUS = 3
_MOST_CORRELATION = 1 - 1e-3
_ALIGNED = 0.25
"""A reference that correlates less lies in another orientation, or is of another molecule."""

Volume = Float[np.ndarray, "z y x"]


@dataclass(frozen=True)
class Orientation:
    """One of the 48 ways to exchange and turn round the axes of a map."""

    axes: tuple[int, int, int]
    """Axes of the file, z y x from 0, that become z y x."""
    flipped: tuple[bool, bool, bool]
    """Which of the new axes then run the other way."""

    @property
    def is_mirror(self) -> bool:
        """Whether this changes the hand."""
        odd = sum(a > b for i, a in enumerate(self.axes) for b in self.axes[i + 1 :]) % 2
        return bool((odd + sum(self.flipped)) % 2)

    @property
    def is_identity(self) -> bool:
        """Whether this changes nothing."""
        return self == _AS_IT_IS

    def apply(self, volume: Volume) -> Volume:
        """Exchange axes and turn them round about the origin at index size/2."""
        volume = np.transpose(volume, self.axes)
        for axis in np.flatnonzero(self.flipped).tolist():
            volume = np.roll(np.flip(volume, axis), 1, axis)
        return np.ascontiguousarray(volume)

    def __str__(self) -> str:
        """Tell in words what is done to the file."""
        parts = []
        if self.axes != (0, 1, 2):
            parts.append(f"its axes z y x taken from {' '.join('zyx'[a] for a in self.axes)}")
        if any(self.flipped):
            turned = [name for name, turn in zip("zyx", self.flipped, strict=True) if turn]
            parts.append(f"{' and '.join(turned)} turned round")
        return ", then ".join(parts) or "as it is"


_AS_IT_IS = Orientation((0, 1, 2), (False, False, False))


def orientations() -> Iterator[Orientation]:
    """List all 48, that which changes nothing first."""
    for (z, y, x), turned in product(permutations((0, 1, 2)), range(8)):
        yield Orientation((z, y, x), (turned >= 4, turned % 4 >= 2, turned % 2 == 1))


@dataclass(frozen=True)
class HandFound:
    """How a reference map fits the reconstruction."""

    orientation: Orientation
    """Of the reference where it fits best, mirrors included."""
    correlation: float
    """Mean correlation of Fourier coefficients there, up to where half-maps agree."""
    other: float
    """The same for the best one of the other hand."""
    inverted: bool
    """Whether dense matter of the reconstruction is negative, if that of the reference is not."""
    log10_odds: float
    """Decimal logarithm of the odds of the hand against the other."""

    @property
    def is_aligned(self) -> bool:
        """Whether the reference fits at all."""
        return self.correlation >= _ALIGNED


@dataclass(frozen=True)
class MaskFound:
    """Which order of axes puts a mask where the molecule is."""

    orientation: Orientation
    """The best one, or the file's if that cannot be told from it."""
    inside: float
    """Share of the power common to both half-maps that is inside then."""
    stated: float
    """The same with the axes as they are."""
    odds: Odds
    """Of the best order of axes against that of the file, or of this against the next best."""


def agreeing_radius(curve: Float[np.ndarray, " shells"]) -> int:
    """Give the last shell up to which half-maps agree well, at least a few."""
    below = np.flatnonzero(curve[1:] < _AGREEING)
    last = int(below[0]) if below.size else len(curve) - 1
    return max(last, min(_LEAST_RADIUS, len(curve) - 1))


def find_sign(halves: Halves[Volume]) -> int:
    """Tell the sign of dense matter; 0 if the two half-maps do not agree about it."""
    first, second = halves.map(density_is_inverted)
    return 0 if first != second else -1 if first else 1


def find_hand(evidence: Evidence, reference: Volume) -> HandFound:
    """Compare a reconstruction with a reference in 24 orientations of both hands and signs."""
    spectrum = fourier.to_spectrum(evidence.volume)
    radius = agreeing_radius(evidence.curve)
    weights = _independent(evidence)[1 : radius + 1]
    best: dict[bool, tuple[float, float, bool, Orientation]] = {}
    for orientation in orientations():
        curve = fsc(spectrum, fourier.to_spectrum(orientation.apply(reference)))[1 : radius + 1]
        for inverted, signed in ((False, curve), (True, -curve)):
            limited = np.clip(signed, 0, _MOST_CORRELATION)
            likelihood = -0.5 * float(weights @ np.log1p(-(limited**2)))
            mean = float(weights @ signed / weights.sum())
            entry = (likelihood, mean, inverted, orientation)
            previous = best.get(orientation.is_mirror)
            if previous is None or likelihood > previous[0]:
                best[orientation.is_mirror] = entry
    chosen, other = sorted(best.values(), key=lambda each: -each[0])
    log10_odds = (chosen[0] - other[0]) / np.log(10)
    return HandFound(chosen[3], chosen[1], other[1], chosen[2], float(log10_odds))


def _independent(evidence: Evidence) -> Float[np.ndarray, " shells"]:
    """Count the independent numbers of each shell; the molecule fills only a part of the box."""
    size = len(evidence.volume)
    sign = find_sign(evidence.halves) or 1
    body = mask_from_halfmaps(evidence.halves.map(lambda half: sign * half)).binary
    shells = np.arange(size // 2)
    return 4 * np.pi * np.maximum(shells, 0.5) ** 2 * float(np.clip(body.mean(), 0.01, 1))


def find_mask_axes(evidence: Evidence, mask: Volume, convincing: float) -> MaskFound:
    """Find the order of the mask's axes with which half-maps predict each other best.

    Args:
        evidence: The reconstruction.
        mask: The mask, on the same grid, between 0 and 1.
        convincing: Decimal logarithm of the odds from which another order is preferred.
    """
    radius = agreeing_radius(evidence.curve)
    halves = evidence.halves.map(lambda half: _low_passed(half, radius))
    listed = list(orientations())
    masks = [orientation.apply(mask) for orientation in listed]
    common = halves.first * halves.second
    inside = [float((common * each).sum() / common.sum()) for each in masks]
    errors = [_errors(halves, each) for each in masks]
    totals = np.array([error.sum() for error in errors])
    best = int(np.argmin(totals))
    if listed[best].is_identity:
        differs = [i for i, each in enumerate(masks) if i != best and not np.allclose(each, mask)]
        rival = min(differs, key=lambda i: totals[i], default=None)
        odds = Odds(0.0, 0.0) if rival is None else _mask_odds(errors, best, rival, radius)
        return MaskFound(listed[best], inside[best], inside[0], odds)
    odds = _mask_odds(errors, best, 0, radius)
    chosen = best if odds.log10 >= convincing else 0
    return MaskFound(listed[chosen], inside[chosen], inside[0], odds)


def _errors(halves: Halves[Volume], mask: Volume) -> Volume:
    first, second = halves
    return (second - mask * first) ** 2 + (first - mask * second) ** 2


def _mask_odds(errors: list[Volume], one: int, other: int, radius: int) -> Odds:
    """Compare errors, summed over blocks as large as the resolution."""
    size = len(errors[one])
    width = max(1, round(size / (2 * radius)))
    place = np.arange(size) // width
    side = int(place[-1]) + 1
    block = (place[:, None, None] * side + place[:, None]) * side + place
    independent = 4 / 3 * np.pi * radius**3 / size**3
    variance = errors[one].mean()
    gains = 0.5 * independent * (errors[other] - errors[one]) / variance
    return compare(gains.ravel().astype(np.float64), block.ravel())


def _low_passed(volume: Volume, radius: int) -> Volume:
    spectrum = fourier.to_spectrum(volume)
    return fourier.to_volume(spectrum * (volume_radii(len(volume)) <= radius))

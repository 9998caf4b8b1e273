"""Find the reading of files that the images support best, and by what odds."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from recovar.compute.progress import Progress
from recovar.conventions import Evidence, Odds, Reading, Sample, compare, weigh
from recovar.core.slicing import Operators
from recovar.workflows.checking.alternatives import (
    Alternative,
    Stated,
    is_possible,
    list_alternatives,
)

logger = logging.getLogger(__name__)

CONVINCING = 5.0
"""Decimal logarithm of odds from which one reading is preferred to another."""
_HOPELESS = 6.0
"""The same, beyond which a few images suffice to give a reading up."""
_SCREENED = 800
"""Images that every reading is tried on first."""
_ROUNDS = 4
"""Mistakes that are looked for on top of each other."""


@dataclass(frozen=True)
class Judged:
    """A reading with its odds."""

    alternative: Alternative
    """What it changes."""
    odds: Odds
    """Of this reading against the one that was found, so below 1 if that is right."""
    images: int
    """Images that the odds come from."""
    evidence: Evidence | None
    """Made of the images that every reading was tried on; kept for the likeliest of a factor."""


@dataclass(frozen=True)
class Found:
    """The reading that images support best, and all that it was compared with."""

    reading: Reading
    changes: tuple[Alternative, ...]
    """What must be changed in the files; empty if they are right."""
    evidence: Evidence
    """Made of all images."""
    support: Odds
    """Against images that were dealt to the poses at random."""
    against_stated: Odds | None
    """Against what the files say; None if they are right or say what is impossible."""
    shown: tuple[tuple[str, Evidence], ...]
    """Maps of the reading and of what the files say, of as many images as those of `judged`."""
    judged: tuple[Judged, ...]
    """All single changes of `reading`, the likeliest first."""

    @property
    def is_supported(self) -> bool:
        """Whether images predict each other at all."""
        return self.support.log10 >= CONVINCING

    @property
    def rivals(self) -> tuple[Judged, ...]:
        """Readings that cannot be told from the one that was found."""
        return tuple(each for each in self.judged if each.odds.log10 > -CONVINCING)


@dataclass(frozen=True)
class _Search:
    """Images, and what was tried on them."""

    sample: Sample
    """All images."""
    screen: Int[np.ndarray, " screened"]
    """The images that every reading is tried on."""
    stated: Stated
    operators: Operators

    def weigh(self, reading: Reading) -> Evidence:
        """Judge a reading by all images."""
        return weigh(self.sample, reading, self.operators)

    def weigh_some(self, reading: Reading) -> Evidence:
        """Judge a reading by some of the images."""
        sample, rows = self.sample, self.screen
        chosen = reading.select(rows)
        part = Sample(
            sample.grid,
            sample.values[chosen.order],
            sample.halves[rows],
            sample.particle[rows],
        )
        return weigh(part, replace(chosen, order=np.arange(len(rows))), self.operators)

    def apply(self, changes: Iterable[Alternative]) -> Reading:
        """Change what files say."""
        reading = self.stated.reading
        for change in changes:
            reading = change.change(reading)
        return reading


def find_reading(
    sample: Sample,
    stated: Stated,
    operators: Operators,
    progress: Progress,
    seed: int = 0,
    *,
    rounds: int = _ROUNDS,
    main_only: bool = False,
) -> Found:
    """Compare what files say with the mistakes that they are known for.

    Every mistake is tried alone; the best one, if it is convincing, is taken back, and all others
    are tried again. First few images are used, and all of them for what is not out of the question.

    Args:
        sample: Images, in the order of rows of the table that lie together.
        stated: What files say about them.
        operators: Implementation of slicing and backprojection.
        progress: Told how far the search is.
        seed: Of the random order of images that serves as the worst case.
        rounds: Mistakes that are looked for on top of each other.
        main_only: Look only at mistakes that cost a run everything.
    """
    count = len(sample)
    start = max(0, (count - _SCREENED) // 2)
    search = _Search(sample, np.arange(start, min(start + _SCREENED, count)), stated, operators)
    listed = [a for a in list_alternatives(stated) if a.is_main or not main_only]
    changes: dict[str, Alternative] = {}
    if not is_possible(stated.reading):
        forced = next(a for a in listed if is_possible(a.change(stated.reading)))
        changes[forced.factor] = forced
    with progress.task("Readings of the files", rounds * len(listed), "readings") as advance:
        for _ in range(rounds):
            evidence, judged = _try_all(search, changes, listed, advance)
            better = [each for each in judged if each.odds.log10 >= CONVINCING]
            if not better:
                break
            # Odds are capped by how alike particles gain; what images gain in all is not.
            best = max(better, key=lambda each: each.odds.ratio / each.images)
            logger.debug("%s: odds of 10^%.1f", best.alternative.name, best.odds.log10)
            changes = _changed(changes, best.alternative)
        else:
            evidence, judged = _try_all(search, changes, listed, advance)
    return _conclude(search, changes, evidence, judged, seed)


def _changed(changes: Mapping[str, Alternative], change: Alternative) -> dict[str, Alternative]:
    rest = {factor: each for factor, each in changes.items() if factor != change.factor}
    return rest if change.change is _nothing else {**rest, change.factor: change}


def _nothing(reading: Reading) -> Reading:
    return reading


def _try_all(
    search: _Search,
    changes: Mapping[str, Alternative],
    listed: list[Alternative],
    advance: Callable[[int], None],
) -> tuple[Evidence, list[Judged]]:
    """Try every single change of a reading, and taking back those that were made."""
    reading = search.apply(changes.values())
    whole, some = search.weigh(reading), search.weigh_some(reading)
    back = [
        Alternative(factor, f"not so: {each.name}", "", _nothing)
        for factor, each in changes.items()
    ]
    tried = [_Tried(None, reading, some)]
    for alternative in [*listed, *back]:
        advance(1)
        changed = search.apply(_changed(changes, alternative).values())
        if alternative not in changes.values() and not changed.says_the_same(reading):
            tried.append(_Tried(alternative, changed, _weigh_if_possible(search, changed)))
    judged = list(_judge(search, tried, whole))
    judged.sort(key=lambda each: -each.odds.log10)
    return whole, judged


@dataclass(frozen=True)
class _Tried:
    """A reading, and what some of the images say about it."""

    alternative: Alternative | None
    reading: Reading
    evidence: Evidence | None
    """None where it is impossible."""


def _weigh_if_possible(search: _Search, reading: Reading) -> Evidence | None:
    return search.weigh_some(reading) if is_possible(reading) else None


def _judge(search: _Search, tried: Sequence[_Tried], whole: Evidence) -> Iterator[Judged]:
    """Compare readings with the first one; all images are asked about the promising ones."""
    particle, rows = search.sample.particle, search.screen
    seen = [each.evidence.likelihood for each in tried if each.evidence is not None]
    best = max(seen, key=np.sum)
    for each in tried[1:]:
        if each.alternative is None:
            continue
        if each.evidence is None:
            yield Judged(each.alternative, Odds(-np.inf, -np.inf), 0, None)
            continue
        likelihood = each.evidence.likelihood
        odds, count = compare(likelihood - seen[0], particle[rows]), len(rows)
        is_near_best = compare(likelihood - best, particle[rows]).log10 >= -_HOPELESS
        promising = is_near_best or abs(odds.log10) <= _HOPELESS
        if promising and count < len(search.sample):
            likelihood = search.weigh(each.reading).likelihood
            odds, count = compare(likelihood - whole.likelihood, particle), len(search.sample)
        yield Judged(each.alternative, odds, count, each.evidence)


def _conclude(
    search: _Search,
    changes: Mapping[str, Alternative],
    evidence: Evidence,
    judged: list[Judged],
    seed: int,
) -> Found:
    sample, reading = search.sample, search.apply(changes.values())
    shuffled = np.random.default_rng(seed).permutation(len(sample))
    null = search.weigh(replace(reading, order=shuffled))
    support = compare(evidence.likelihood - null.likelihood, sample.particle)
    against = None
    shown = [("; and ".join(each.name for each in changes.values()), search.weigh_some(reading))]
    if not changes:
        shown = [("as stated", shown[0][1])]
    elif is_possible(search.stated.reading):
        stated = search.weigh(search.stated.reading)
        against = compare(evidence.likelihood - stated.likelihood, sample.particle)
        shown.append(("as stated", search.weigh_some(search.stated.reading)))
    return Found(
        reading,
        tuple(changes.values()),
        evidence,
        support,
        against,
        tuple(shown),
        tuple(_without_maps(judged)),
    )


def _without_maps(judged: Iterable[Judged]) -> Iterator[Judged]:
    """Drop all maps but that of the likeliest reading of each factor."""
    seen = set()
    for each in judged:
        factor = each.alternative.factor
        yield replace(each, evidence=None) if factor in seen else each
        seen.add(factor)

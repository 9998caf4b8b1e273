"""Every estimator is a sum over images, or a function of each image; how it is run is no matter."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int

from recovar.core.batch import ImageBatch

Sums = TypeVar("Sums")


@dataclass(frozen=True)
class Statistic(Generic[Sums]):
    """A sum over images. Partial sums combine by addition, so images may be split any way."""

    zeros: Callable[[], Sums]
    """Makes the empty sum: a record (or tuple) of arrays."""
    add: Callable[[Sums, ImageBatch], Sums]
    """Folds one batch of images into a sum, which it may change in place."""


def together(*statistics: Statistic[Any]) -> Statistic[tuple[Any, ...]]:
    """Join statistics so that they share one pass over the images."""
    return Statistic(
        zeros=lambda: tuple(statistic.zeros() for statistic in statistics),
        add=lambda sums, batch: tuple(
            statistic.add(part, batch) for statistic, part in zip(statistics, sums, strict=True)
        ),
    )


def apart(
    statistic: Statistic[Sums], group: Int[np.ndarray, " images"]
) -> Statistic[tuple[Sums, ...]]:
    """Sum each group of images by itself, in one pass.

    Args:
        statistic: What every image adds to the sum of its group.
        group: Group of every image, by row, from 0.
    """

    def add(sums: tuple[Sums, ...], batch: ImageBatch) -> tuple[Sums, ...]:
        added = list(sums)
        for number in np.unique(group[batch.rows]):
            members = np.flatnonzero(group[batch.rows] == number)
            added[number] = statistic.add(added[number], batch.select(members))
        return tuple(added)

    groups = int(group.max()) + 1
    return Statistic(lambda: tuple(statistic.zeros() for _ in range(groups)), add)


@runtime_checkable
class Images(Protocol):
    """Anything that gives images block by block, such as `data.bank.ImageBank`."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        """Visit all images once in a fixed order, leaving out the first `start`."""
        ...


@dataclass(frozen=True)
class Prepared:
    """Images with the same preparation applied to every batch, such as whitening."""

    images: Images
    prepare: Callable[[ImageBatch], ImageBatch]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.images)

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        """Visit all images once, leaving out the first `start`."""
        return map(self.prepare, self.images.blocks(start))


@dataclass(frozen=True)
class Selection:
    """Some of the images; they keep their row numbers."""

    images: Images
    rows: Int[np.ndarray, " chosen"]
    """Rows of the chosen images, each once."""

    def __len__(self) -> int:
        """Count the chosen images."""
        return len(self.rows)

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        """Visit the chosen images once, leaving out the first `start`."""
        wanted = np.zeros(len(self.images), bool)
        wanted[self.rows] = True
        for batch in self.images.blocks():
            keep = np.flatnonzero(wanted[batch.rows])[start:]
            start -= min(start, int(wanted[batch.rows].sum()))
            if len(keep):
                yield batch.select(keep)

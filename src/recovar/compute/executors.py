"""Who runs a sum over images. Estimators ask an executor and do not know which it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from recovar.compute.accumulate import Images, Statistic
from recovar.compute.progress import NoProgress, Progress
from recovar.core.batch import ImageBatch
from recovar.core.slicing import Operators
from recovar.core.slicing_numba import NUMBA

Sums = TypeVar("Sums")
Result = TypeVar("Result")


@runtime_checkable
class Checkpoint(Protocol):
    """A place where the state of a long sum outlives the process."""

    def save(self, **arrays: Any) -> None:
        """Replace what was saved before, whole or not at all."""
        ...

    def load(self) -> dict[str, np.ndarray] | None:
        """Return what was saved last, or nothing."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Runs everything in this process, on all its cores."""

    operators: Operators = NUMBA
    """The implementation of slicing and backprojection."""
    progress: Progress = NoProgress()
    """Told how far each pass is."""
    checkpoint_seconds: float = 120.0
    """How often the state of a long sum is saved."""

    def accumulate(
        self,
        title: str,
        statistic: Statistic[Sums],
        images: Images,
        checkpoint: Checkpoint | None = None,
    ) -> Sums:
        """Sum a statistic over all images.

        Args:
            title: What is computed, for the progress display.
            statistic: What every image adds.
            images: The images, visited once.
            checkpoint: Where to save partial sums; a sum found there is continued.
        """
        sums, done = _restore(statistic.zeros(), checkpoint)
        saved = time.monotonic()
        with self.progress.task(title, total=len(images)) as advance:
            advance(done)
            for batch in images.blocks(done):
                sums = statistic.add(sums, batch)
                done += len(batch)
                advance(len(batch))
                if checkpoint and time.monotonic() - saved > self.checkpoint_seconds:
                    _save(sums, done, checkpoint)
                    saved = time.monotonic()
        return sums

    def map_images(
        self, title: str, function: Callable[[ImageBatch], Result], images: Images
    ) -> Result:
        """Compute a record of arrays for every image.

        Args:
            title: What is computed, for the progress display.
            function: From a batch to a record whose arrays have the batch's images first.
            images: The images, visited once.

        Returns:
            One record for all images, in the order of their rows.
        """
        rows, results = [], []
        with self.progress.task(title, total=len(images)) as advance:
            for batch in images.blocks():
                rows.append(batch.rows)
                results.append(function(batch))
                advance(len(batch))
        order = np.argsort(np.concatenate(rows))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *results)


def _restore(zeros: Sums, checkpoint: Checkpoint | None) -> tuple[Sums, int]:
    saved = checkpoint.load() if checkpoint else None
    if saved is None:
        return zeros, 0
    leaves, structure = jax.tree.flatten(zeros)
    restored = [saved[f"sum{i:04d}"] for i in range(len(leaves))]
    return jax.tree.unflatten(structure, restored), int(saved["done"])


def _save(sums: Any, done: int, checkpoint: Checkpoint) -> None:
    leaves = jax.tree.leaves(sums)
    checkpoint.save(done=done, **{f"sum{i:04d}": leaf for i, leaf in enumerate(leaves)})

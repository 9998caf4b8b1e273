import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovar.compute.accumulate import Prepared, Selection, Statistic, together
from recovar.compute.executors import LocalExecutor
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Disc
from recovar.records import load_arrays, save_arrays

DISC = Disc(8, 3)
seeds = st.integers(0, 2**16)


@dataclass
class BlockList:
    """Images in memory, cut at given places, that count how often they are visited."""

    images: ImageBatch
    cuts: tuple[int, ...] = ()
    fails_at: int | None = None
    passes: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        self.passes += 1
        edges = [start, *sorted(cut for cut in self.cuts if cut > start), len(self)]
        for first, end in itertools.pairwise(edges):
            if self.fails_at is not None and end > self.fails_at:
                raise KeyboardInterrupt
            yield self.images.select(np.arange(first, end))


@dataclass(frozen=True)
class FileCheckpoint:
    path: Path

    def save(self, **arrays) -> None:
        save_arrays(self.path, **arrays)

    def load(self):
        return load_arrays(self.path) if self.path.exists() else None


class Moments(NamedTuple):
    total: np.ndarray
    power: np.ndarray


def random_images(seed, count=20):
    generator = np.random.default_rng(seed)
    parts = generator.normal(size=(2, count, len(DISC))).astype(np.float32)
    return ImageBatch(
        DISC,
        parts[0] + 1j * parts[1],
        generator.normal(size=(count, len(DISC))).astype(np.float32),
        np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
        generator.permutation(count),
        np.arange(count) % 2,
    )


def add_moments(sums: Moments, batch: ImageBatch) -> Moments:
    """Change the first array in place and replace the second, as statistics may."""
    np.add(sums.total, batch.values.sum(0), out=sums.total)
    return Moments(sums.total, sums.power + (np.abs(batch.values) ** 2).sum(0))


MOMENTS = Statistic(
    zeros=lambda: Moments(np.zeros(len(DISC), np.complex128), np.zeros(len(DISC))),
    add=add_moments,
)
COUNT = Statistic(zeros=lambda: np.zeros(2), add=lambda n, b: n + np.bincount(b.halves, None, 2))

cuts = st.lists(st.integers(1, 19), unique=True, max_size=6).map(tuple)


@given(seed=seeds, cuts=cuts)
def test_any_split_of_the_images_gives_the_same_sum(seed, cuts):
    images = random_images(seed)
    sums = LocalExecutor().accumulate("Moments", MOMENTS, BlockList(images, cuts))
    np.testing.assert_allclose(sums.total, images.values.sum(0), atol=1e-4)
    np.testing.assert_allclose(sums.power, (np.abs(images.values) ** 2).sum(0), rtol=1e-5)


def test_statistics_share_one_pass():
    images = BlockList(random_images(0), cuts=(3, 11))
    moments, count = LocalExecutor().accumulate("Both", together(MOMENTS, COUNT), images)
    assert images.passes == 1
    assert count.tolist() == [10, 10]
    alone = LocalExecutor().accumulate("Moments", MOMENTS, images)
    np.testing.assert_array_equal(moments.total, alone.total)
    np.testing.assert_array_equal(moments.power, alone.power)


@settings(max_examples=6)
@given(seed=seeds, fails_at=st.integers(1, 19))
def test_a_sum_that_was_interrupted_goes_on_where_it_was_saved(tmp_path_factory, seed, fails_at):
    checkpoint = FileCheckpoint(tmp_path_factory.mktemp("sum") / "sum.npz")
    images, cuts = random_images(seed), tuple(range(1, 20))
    executor = LocalExecutor(checkpoint_seconds=-1.0)
    statistic = together(MOMENTS, COUNT)
    with pytest.raises(KeyboardInterrupt):
        executor.accumulate("Sum", statistic, BlockList(images, cuts, fails_at), checkpoint)
    saved = checkpoint.load()
    assert saved["done"] == fails_at
    resumed = executor.accumulate("Sum", statistic, BlockList(images, cuts), checkpoint)
    whole = executor.accumulate("Sum", statistic, BlockList(images, cuts))
    assert isinstance(resumed[0], Moments)
    np.testing.assert_array_equal(resumed[0].total, whole[0].total)
    np.testing.assert_array_equal(resumed[0].power, whole[0].power)
    np.testing.assert_array_equal(resumed[1], whole[1])


def test_nothing_is_saved_before_it_is_time(tmp_path):
    checkpoint = FileCheckpoint(tmp_path / "sum.npz")
    LocalExecutor().accumulate("Sum", MOMENTS, BlockList(random_images(0), (5,)), checkpoint)
    assert checkpoint.load() is None


@given(seed=seeds, cuts=cuts)
def test_a_map_of_images_is_in_the_order_of_their_rows(seed, cuts):
    images = random_images(seed)

    def describe(batch):
        return Moments(total=batch.rows, power=np.abs(batch.values) ** 2)

    found = LocalExecutor().map_images("Describe", describe, BlockList(images, cuts))
    np.testing.assert_array_equal(found.total, np.arange(20))
    np.testing.assert_array_equal(found.power[images.rows], np.abs(images.values) ** 2)


@given(seed=seeds, cuts=cuts, start=st.integers(0, 21))
def test_prepared_images_are_the_images_prepared(seed, cuts, start):
    images, noise = random_images(seed), np.array([1.0, 4.0])
    prepared = Prepared(BlockList(images, cuts), lambda batch: batch.whitened(noise))
    assert len(prepared) == 20
    found = list(prepared.blocks(start))
    expected = images.whitened(noise)
    assert [row for batch in found for row in batch.rows] == images.rows[start:].tolist()
    if found:
        values = np.concatenate([batch.values for batch in found])
        np.testing.assert_array_equal(values, expected.values[start:])


@given(
    seed=seeds,
    cuts=cuts,
    chosen=st.sets(st.integers(0, 19), min_size=1),
    start=st.integers(0, 21),
)
def test_a_selection_gives_its_images_only_in_the_same_order(seed, cuts, chosen, start):
    images = random_images(seed)
    some = Selection(BlockList(images, cuts), np.array(list(chosen)))
    assert len(some) == len(chosen)
    found = list(some.blocks(start))
    assert all(len(batch) for batch in found)
    kept = np.flatnonzero(np.isin(images.rows, list(chosen)))[start:]
    assert [row for batch in found for row in batch.rows] == images.rows[kept].tolist()
    if found:
        values = np.concatenate([batch.values for batch in found])
        np.testing.assert_array_equal(values, images.values[kept])


def test_a_sum_over_a_selection_goes_on_where_it_was_saved(tmp_path):
    checkpoint = FileCheckpoint(tmp_path / "sum.npz")
    images, rows = random_images(0), np.arange(0, 20, 3)
    executor = LocalExecutor(checkpoint_seconds=-1.0)
    whole = executor.accumulate("Sum", MOMENTS, Selection(BlockList(images, (4, 9)), rows))
    broken = Selection(BlockList(images, (4, 9), fails_at=10), rows)
    with pytest.raises(KeyboardInterrupt):
        executor.accumulate("Sum", MOMENTS, broken, checkpoint)
    again = Selection(BlockList(images, (4, 9)), rows)
    resumed = executor.accumulate("Sum", MOMENTS, again, checkpoint)
    np.testing.assert_array_equal(resumed.total, whole.total)

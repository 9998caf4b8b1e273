"""What every stage of a command works with."""

from dataclasses import dataclass

from recovar.compute.executors import LocalExecutor
from recovar.compute.memory import default_budget, format_bytes, parse_bytes, peak_rss
from recovar.compute.progress import Reporter
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid
from recovar.data.bank import BLOCK_BYTES, ImageBank
from recovar.errors import InputError
from recovar.maximization import bytes_of_sums
from recovar.run import Run
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.inputs import Inputs

_TEMPORARY_BYTES = 256 << 20
_BYTES_PER_SLICE = 20
"""What every pixel takes for every volume that is sliced there."""
_SLOWEST_SHARE = 16
"""Parts that the sums of the fit are made in at most; each takes two passes over the images."""


@dataclass(frozen=True)
class Work:
    """A run in progress."""

    config: PipelineConfig
    inputs: Inputs
    run: Run
    executor: LocalExecutor
    budget: int
    """Bytes of memory that may be used."""

    @property
    def temporary(self) -> int:
        """Bytes that one block of images may take with its slices of all volumes."""
        return min(_TEMPORARY_BYTES, self.budget // 8)

    def bank(self, sign: float) -> ImageBank:
        """Make the stream of images, kept in memory where they fit beside the largest sums.

        Args:
            sign: Multiplies the images.
        """
        channels = 1 if self.config.only_mean else 1 + sum(self.config.fitted_by_region)
        sums = min(_sums_bytes(self.config, self.inputs.grid), self.budget // 2)
        block = min(BLOCK_BYTES, int(self.temporary * 12 / (12 + _BYTES_PER_SLICE * channels)))
        return ImageBank(
            self.inputs.particles,
            self.inputs.halves,
            memory=max(0, self.budget - self.temporary - sums),
            sign=sign,
            block_bytes=max(block, 1),
            box=self.inputs.grid.size,
        )

    def room(self, images: ImageBank) -> int:
        """Give the bytes that sums may take beside the images that are kept."""
        kept = len(images) * images.bytes_per_image if images.fits else 0
        return max(0, self.budget - self.temporary - kept)


def start_work(config: PipelineConfig, inputs: Inputs, run: Run, reporter: Reporter) -> Work:
    """Set up the work of a run."""
    return Work(config, inputs, run, LocalExecutor(progress=reporter), memory_budget(config))


def memory_budget(config: PipelineConfig) -> int:
    """Give the bytes that may be used besides those that the program itself takes."""
    if config.memory is None:
        return default_budget()
    return max(0, parse_bytes(config.memory) - peak_rss())


def check_memory(config: PipelineConfig, grid: Grid) -> None:
    """Refuse a ceiling under which the run would not fit or take many times as long.

    Raises:
        InputError: If the memory cannot suffice.
    """
    if config.memory is None:
        return
    needed = _mean_bytes(grid)
    if config.subspace == "em" and not config.only_mean:
        needed = max(needed, _sums_bytes(config, grid) // _SLOWEST_SHARE + maps_bytes(config, grid))
    needed = int(1.2 * needed) + peak_rss()
    if parse_bytes(config.memory) < needed:
        raise InputError(
            f"Expected at least {format_bytes(needed)} for --memory with images of {grid.size} "
            f"pixels and --zdim {max(config.zdim)}, got {config.memory}. Raise it, shrink the "
            "images with --downsample, or ask for fewer coordinates."
        )


def _sums_bytes(config: PipelineConfig, grid: Grid) -> int:
    """Predict the largest sums over images of the run."""
    if config.only_mean or config.subspace == "columns":
        return _mean_bytes(grid)
    fit = bytes_of_sums(Ball(grid.size, grid.largest_radius), sum(config.fitted_by_region))
    return max(_mean_bytes(grid), fit)


def maps_bytes(config: PipelineConfig, grid: Grid) -> int:
    """Predict the memory of all volumes of the fit: maps, their transforms, and both halves."""
    channels = sum(config.fitted_by_region) + 1
    return channels * (24 * len(Ball(grid.size, grid.largest_radius)) + 12 * grid.size**3)


def _mean_bytes(grid: Grid) -> int:
    """Predict the memory of a mean: sums of both halves, folded, total, and maps."""
    return 12 * 2 * 3 * len(Ball(grid.size, grid.largest_radius)) + 150 * grid.size**3

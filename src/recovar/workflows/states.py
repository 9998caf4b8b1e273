"""Volumes at latent points of a finished run: the part that several commands share."""

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Prepared
from recovar.compute.executors import LocalExecutor
from recovar.compute.memory import default_budget, format_bytes, parse_bytes, peak_rss
from recovar.compute.progress import Progress
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.halves import Halves
from recovar.data.bank import BLOCK_BYTES, ImageBank
from recovar.data.mrc import write_volume
from recovar.embedding import LEAST_RELIABILITY
from recovar.errors import InputError
from recovar.expectation import Moments, moments_statistic
from recovar.fsc_curves import FscCurves, masked_fsc
from recovar.homogeneous import fold_means, mean_statistic
from recovar.kernel_regression import (
    LinearModel,
    Regression,
    bytes_of_regression,
    finish_states,
    regress,
)
from recovar.latent_weights import (
    LatentPosterior,
    choose_bandwidths,
    kernel_weights,
    quantile_of_deviations,
    within_quantile,
)
from recovar.local_resolution import filter_locally, local_resolution, sharpen, state_windows
from recovar.maximization import Maximizer, bytes_of_sums
from recovar.posterior import Latents
from recovar.published_states import (
    Binned,
    bin_images,
    bytes_of_bins,
    bytes_of_choice,
    choose_states,
    sampling_distances,
    sum_bins,
)
from recovar.subspace import SubspaceOptions
from recovar.workflows.finished import FinishedRun
from recovar.workflows.reconstructing.sources import Source, open_source
from recovar.workflows.run_embedding import RunEmbedding
from recovar.workflows.state_options import StateOptions

logger = logging.getLogger(__name__)

Write = Callable[[str], AbstractContextManager[Path]]
"""Gives a temporary path for a file of that name; `Stage.write` is one."""

_MOST_PCS = 10
"""Components that images are moved along; those that images determine."""
_TEMPORARY_BYTES = 256 << 20
_QUANTILE = 0.95
"""Of the first release."""
_LEAST_IMAGES = 100
"""Fewer images than this in effect make a state that is told of with a warning."""


@dataclass(frozen=True)
class StateFiles:
    """Names of the files of one state."""

    volume: str
    """The best guess: masked, noise taken out region by region."""
    half_maps: tuple[str, str]
    """Of both half sets, neither masked nor filtered."""
    local_resolution: str
    fsc: str
    """Table of correlations by shell."""


@dataclass(frozen=True)
class StateSummary:
    """What there is to tell of one state."""

    point: tuple[float, ...]
    resolution: float
    """In the mask, in Å, at a correlation of 1/7 of the half-maps, corrected for the mask."""
    images: float
    """How many equally weighted images the narrowest kernel holds."""
    volume: str
    """Name of its file."""


def reweight_names(directory: str) -> Callable[[int], StateFiles]:
    """Name files as the first release did, in a directory."""

    def names(state: int) -> StateFiles:
        halves = tuple(f"{directory}/reweight_halfmap{half}_{state:03d}.mrc" for half in (0, 1))
        return StateFiles(
            f"{directory}/reweight_{state:03d}.mrc",
            (halves[0], halves[1]),
            f"{directory}/local_resolution_{state:03d}.mrc",
            f"{directory}/fsc_{state:03d}.txt",
        )

    return names


def vol_names(state: int) -> StateFiles:
    """Name the files of a state in a directory of its own."""
    return StateFiles(
        f"vol{state:03d}/state.mrc",
        (f"vol{state:03d}/state_half1.mrc", f"vol{state:03d}/state_half2.mrc"),
        f"vol{state:03d}/local_resolution.mrc",
        f"vol{state:03d}/fsc.txt",
    )


@dataclass(frozen=True)
class _Found:
    """One state."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    volume: Float[np.ndarray, "z y x"] | None
    """The best guess, if it is other than the mean of the half-maps filtered locally."""
    images: float


def make_states(
    finished: FinishedRun,
    zdim: int,
    points: Float[np.ndarray, "states zdim"],
    options: StateOptions,
    progress: Progress,
    write: Write,
    names: Callable[[int], StateFiles],
) -> list[StateSummary]:
    """Reconstruct volumes at latent points, all in as few passes as memory allows.

    Args:
        finished: The run.
        zdim: Number of coordinates of the embedding.
        points: Latent points.
        options: How volumes are made.
        progress: Told how far each pass is.
        write: Gives temporary paths for the files.
        names: Names the files of a state.

    Raises:
        InputError: If points, images or memory do not do.
    """
    source = open_source(finished, options.particles)
    embedding = finished.embedding(zdim)
    work = _Work(source, embedding, options, LocalExecutor(progress=progress))
    work.posterior.check(points)
    summaries = []
    for number, (point, found) in enumerate(zip(points, work.make(points), strict=True)):
        files = names(number)
        curves = _write_state(found, files, source, options, write)
        summary = StateSummary(
            tuple(map(float, point)), curves.resolution(), found.images, files.volume
        )
        logger.info(
            "State %d of %d: %.3g Å in the mask, about %.0f images next to the point; %s",
            number + 1,
            len(points),
            summary.resolution,
            summary.images,
            files.volume,
        )
        summaries.append(summary)
    _warn_of_few(summaries)
    return summaries


def _warn_of_few(summaries: list[StateSummary]) -> None:
    few = [str(n) for n, each in enumerate(summaries) if each.images < _LEAST_IMAGES]
    if few:
        logger.warning(
            "Fewer than %d images lie next to the points of states %s: details there rest on few "
            "images, or on the linear model.",
            _LEAST_IMAGES,
            ", ".join(few),
        )


def _write_state(
    found: _Found, files: StateFiles, source: Source, options: StateOptions, write: Write
) -> FscCurves:
    grid = source.grid
    curves = masked_fsc(found.halves, source.mask, grid)
    local = local_resolution(found.halves, grid, state_windows(grid), source.mask)
    if found.volume is None:
        mean = 0.5 * (found.halves.first + found.halves.second)
        volume = filter_locally(mean, local, options.Bfactor)
    else:
        volume = sharpen(found.volume, grid, options.Bfactor) if options.Bfactor else found.volume
    for name, values in (
        (files.volume, volume),
        *zip(files.half_maps, found.halves, strict=True),
        (files.local_resolution, local.map),
    ):
        with write(name) as partial:
            write_volume(partial, values.astype(np.float32), grid.voxel_size)
    with write(files.fsc) as partial:
        shells = np.arange(len(curves.masked))
        table = [shells, shells / (grid.size * grid.voxel_size)]
        table += [curves.unmasked, curves.masked, curves.corrected]
        header = "shell  1/A  FSC  FSC_in_mask  FSC_corrected"
        np.savetxt(partial, np.stack(table, axis=1), "%g", header=header)
    return curves


@dataclass(frozen=True)
class _Work:
    """Everything that passes over the images need."""

    source: Source
    embedding: RunEmbedding
    options: StateOptions
    executor: LocalExecutor

    @property
    def posterior(self) -> LatentPosterior:
        each = self.embedding
        return LatentPosterior(each.coordinates, each.covariance, each.eigenvalues)

    @property
    def contrast(self) -> Float[np.ndarray, " images"]:
        return self.embedding.contrast / self.embedding.contrast.mean()

    def make(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[_Found]:
        """Reconstruct all states, in groups that fit in memory."""
        makers = {
            "regression": self._regress,
            "published": self._publish,
            "quantile": self._select,
        }
        return makers[self.options.selection](points)

    def _regress(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[_Found]:
        source, posterior = self.source, self.posterior
        noise = source.noise(self.executor)
        bandwidths = choose_bandwidths(posterior, self.options.bandwidths)
        pcs = min(int((posterior.reliability > LEAST_RELIABILITY).sum()), _MOST_PCS)
        if pcs == 0:
            logger.warning(
                "The images determine none of the %d coordinates, so all states are the mean.",
                len(posterior.variances),
            )
        else:
            logger.info(
                "Images within %s of the coordinates' variances around a point count, and are "
                "moved to it along %d components.",
                ", ".join(f"{width:.3g}" for width in bandwidths),
                pcs,
            )
        ball = Ball(source.grid.size, source.grid.largest_radius)
        each = bytes_of_regression(ball, 1, len(bandwidths))
        each += 4 * len(posterior) * len(bandwidths)
        room, images = self._room(each, len(points), len(bandwidths) + pcs)
        model = self._fit_components(pcs, images, noise, room)
        for group in _groups(len(points), room // each):
            kernel = kernel_weights(posterior, points[group], bandwidths)
            regression = Regression(
                ball,
                noise,
                self.contrast,
                posterior.means,
                kernel,
                model,
                self.executor.operators,
            )
            sums = regress(images, regression, self.executor)
            mixtures = finish_states(
                sums, regression, points[group], source.mask, source.heterogeneity
            )
            for mixed, count in zip(mixtures, kernel.effective_images[:, 0], strict=True):
                yield _Found(mixed.halves, mixed.volume, float(count))

    def _fit_components(
        self, pcs: int, images: ImageBank, noise: Float[np.ndarray, " shells"], room: int
    ) -> LinearModel:
        """Fit the components of each half set by itself, so that half-maps stay independent."""
        source = self.source
        whole = source.components(pcs)
        if pcs == 0:
            return LinearModel(Halves(whole, whole), whole)
        ball = Ball(source.grid.size, source.finished.components().radius)
        posterior, contrast = self.posterior, self.contrast

        def infer(batch: ImageBatch) -> Latents:
            rows = batch.rows
            return Latents(
                posterior.means[rows, :pcs],
                posterior.covariances[rows, :pcs, :pcs],
                contrast[rows],
                np.zeros(len(rows)),
            )

        def collect(band: Ball) -> Moments:
            statistic = moments_statistic(infer, pcs, band, self.executor.operators)
            return self.executor.accumulate("Components of half sets", statistic, whitened)

        whitened = Prepared(
            images, lambda batch: batch.at_radius(ball.size, ball.radius).whitened(noise)
        )
        bands = min(-(-bytes_of_sums(ball, pcs) // max(room, 1)), ball.reach + 1)
        halves = Maximizer(ball, source.mask, bands).maximize_halves(
            collect, SubspaceOptions().shell_prior
        )
        weight = np.float32(1) if source.heterogeneity is None else source.heterogeneity
        return LinearModel(halves.map(lambda volumes: volumes[1:] * weight), whole)

    def _publish(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[_Found]:
        """Choose between kernels of images as the published program does."""
        source, count = self.source, self.options.bandwidths
        noise, halves = source.noise(self.executor), source.finished.inputs.halves
        ball = Ball(source.grid.size, source.grid.largest_radius)
        each = bytes_of_bins(ball, count) + 4 * len(halves) * count
        extra = bytes_of_choice(source.grid.size, count)
        room, images = self._room(each, len(points), 1, extra)
        for group in _groups(len(points), room // each):
            distances = sampling_distances(self.posterior, points[group])
            bins = bin_images(distances, halves, count)
            binned = Binned(ball, noise, self.contrast, bins, self.executor.operators)
            sums = sum_bins(images, binned, self.executor)
            for state, chosen in enumerate(choose_states(sums, binned, source.mask)):
                yield _Found(chosen.halves, None, float(bins.nearest(state)))
            del sums  # before there are those of the next group

    def _select(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[_Found]:
        """Average the nearest images, all alike, as the first release did."""
        options, source, posterior = self.options, self.source, self.posterior
        quantile = _QUANTILE if options.q is None else options.q
        if options.n_std is not None:
            quantile = quantile_of_deviations(options.n_std)
        noise = source.noise(self.executor)
        ball = Ball(source.grid.size, source.grid.largest_radius)
        each = 24 * len(ball) + 4 * len(posterior)
        room, images = self._room(each, len(points), 1)
        for group in _groups(len(points), room // each):
            weights = within_quantile(posterior, points[group], quantile)
            counts = weights.sum(0)
            if not counts.all():
                empty = group.start + int(np.argmin(counts))
                raise InputError(
                    f"No image lies within the quantile {quantile:g} of point {empty}. Raise --q, "
                    "or choose points where images are."
                )
            statistic = mean_statistic(noise, ball, self.executor.operators, self.contrast, weights)
            sums = self.executor.accumulate("States", statistic, images)
            for state, count in zip(fold_means(sums, ball), counts, strict=True):
                halves = state.halves()
                curves = masked_fsc(halves, source.mask, source.grid)
                volume = state.volume(state.prior(curves.masked)) * source.mask
                yield _Found(halves, volume, float(count))

    def _room(self, each: int, states: int, slices: int, extra: int = 0) -> tuple[int, ImageBank]:
        """Share memory between sums and images.

        Args:
            each: Bytes that the sums of a state take.
            states: How many there are.
            slices: Volumes and values that every pixel of a block is computed for.
            extra: Bytes that finishing a state takes beyond the usual.
        """
        grid = self.source.grid
        budget = (
            default_budget()
            if self.options.memory is None
            else max(0, parse_bytes(self.options.memory) - peak_rss())
        )
        temporary = min(_TEMPORARY_BYTES, budget // 8)
        maps = 4 * grid.size**3 * 60 + extra
        least = each + maps + temporary
        if least > budget:
            raise InputError(
                f"Expected at least {format_bytes(int(1.1 * least) + peak_rss())} of memory for a "
                f"state of {grid.size} voxels along a side, got "
                f"{self.options.memory or format_bytes(budget)}. Raise --memory, or choose fewer "
                "--n-bandwidths."
            )
        sums = min(each * states, max(each, (budget - maps - temporary) * 3 // 4))
        kept = max(0, budget - maps - temporary - sums)
        block = min(BLOCK_BYTES, max(1, int(temporary * 12 / (12 + 16 * slices))))
        return sums, self.source.images(kept, block)


def _groups(states: int, fit: int) -> Iterator[slice]:
    """Divide states into as few groups as possible, of nearly equal size."""
    groups = -(-states // max(fit, 1))
    edges = np.linspace(0, states, groups + 1).astype(int)
    return (slice(int(a), int(b)) for a, b in itertools.pairwise(edges))

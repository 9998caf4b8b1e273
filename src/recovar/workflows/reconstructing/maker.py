"""Volumes at latent points from passes over images, by the rule that the options name."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Prepared
from recovar.compute.executors import LocalExecutor
from recovar.compute.memory import default_budget, format_bytes, parse_bytes, peak_rss
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.halves import Halves
from recovar.core.noise_spectra import ImageNoise
from recovar.data.bank import BLOCK_BYTES, ImageBank
from recovar.embedding import LEAST_RELIABILITY
from recovar.errors import InputError
from recovar.expectation import Moments, moments_statistic
from recovar.fsc_curves import masked_fsc
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
from recovar.workflows.reconstructing.sources import Source
from recovar.workflows.run_embedding import RunEmbedding
from recovar.workflows.state_options import StateOptions

logger = logging.getLogger(__name__)

_MOST_PCS = 10
"""Components that images are moved along; those that images determine."""
_TEMPORARY_BYTES = 256 << 20
_QUANTILE = 0.95
"""Of the first release."""


@dataclass(frozen=True)
class FoundState:
    """One state."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    """Of both half sets, neither masked nor filtered."""
    volume: Float[np.ndarray, "z y x"]
    """The best guess, or what is to be filtered to it."""
    is_filtered: bool
    """Whether noise is taken out of `volume` already; otherwise it is to be filtered locally."""
    images: float
    """How many equally weighted images lie next to the point."""


@dataclass(frozen=True)
class StateMaker:
    """Everything that passes over the images need."""

    source: Source
    embedding: RunEmbedding
    options: StateOptions
    executor: LocalExecutor

    @property
    def posterior(self) -> LatentPosterior:
        """Where every image lies, and how sure that is."""
        each = self.embedding
        return LatentPosterior(each.coordinates, each.covariance, each.eigenvalues)

    @property
    def contrast(self) -> Float[np.ndarray, " images"]:
        """Factor on every image's signal, 1 on average."""
        return self.embedding.contrast / self.embedding.contrast.mean()

    def make(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[FoundState]:
        """Reconstruct all states, in groups that fit in memory."""
        makers = {
            "regression": self._regress,
            "published": self._publish,
            "quantile": self._select,
        }
        return makers[self.options.selection](points)

    def _regress(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[FoundState]:
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
        before = bytes_of_sums(Ball(source.grid.size, source.finished.components().radius), pcs)
        room, images = self._room(each, len(points), len(bandwidths) + pcs, before=before)
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
                yield FoundState(mixed.halves, mixed.volume, False, float(count))
            del sums, mixtures  # before there are those of the next group

    def _fit_components(
        self, pcs: int, images: ImageBank, noise: ImageNoise, room: int
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

    def _publish(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[FoundState]:
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
                mean = 0.5 * (chosen.halves.first + chosen.halves.second)
                yield FoundState(chosen.halves, mean, False, float(bins.nearest(state)))
            del sums  # before there are those of the next group

    def _select(self, points: Float[np.ndarray, "states zdim"]) -> Iterator[FoundState]:
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
                yield FoundState(halves, volume, True, float(count))

    def _room(
        self, each: int, states: int, slices: int, extra: int = 0, before: int = 0
    ) -> tuple[int, ImageBank]:
        """Share memory between sums and images.

        Args:
            each: Bytes that the sums of a state take.
            states: How many there are.
            slices: Volumes and values that every pixel of a block is computed for.
            extra: Bytes that finishing a state takes beyond the usual.
            before: Bytes that other sums would take before, if there is room.
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
        sums = min(max(each * states, before), max(each, (budget - maps - temporary) * 3 // 4))
        kept = max(0, budget - maps - temporary - sums)
        block = min(BLOCK_BYTES, max(1, int(temporary * 12 / (12 + 16 * slices))))
        return sums, self.source.images(kept, block)


def _groups(states: int, fit: int) -> Iterator[slice]:
    """Divide states into as few groups as possible, of nearly equal size."""
    groups = -(-states // max(fit, 1))
    edges = np.linspace(0, states, groups + 1).astype(int)
    return (slice(int(a), int(b)) for a, b in itertools.pairwise(edges))

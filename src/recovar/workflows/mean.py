"""The stages of the pipeline that treat all molecules as one: mean, mask, noise, resolution."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Images, Selection
from recovar.compute.executors import Checkpoint
from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.grid import Grid, expand_shells, volume_radii
from recovar.core.halves import Halves
from recovar.core.masks import (
    SolventMask,
    mask_from_halfmaps,
    mask_from_volume,
    no_mask,
    spherical_mask,
)
from recovar.core.noise_spectra import NoiseSpectra
from recovar.data.bank import ImageBank
from recovar.data.legacy import write_pickle
from recovar.data.mrc import write_volume
from recovar.homogeneous import correlate, density_is_inverted, fold_means, mean_statistic
from recovar.noise import Noise, estimate_noise, estimate_power
from recovar.run import Stage
from recovar.workflows.inputs import check_focus, describe_inputs, original_halfsets
from recovar.workflows.noise_spectra import Molecule, find_spectra, prepare_for_noise
from recovar.workflows.work import Work

logger = logging.getLogger(__name__)

LEAST_FSC = 0.143
"""Half-maps that agree less than this say nothing."""
_NOISE_IMAGES = 10_000
"""Images that the noise is measured on."""


@dataclass(frozen=True)
class Start:
    """What is known after the first look at all images."""

    power: Float[np.ndarray, " shells"]
    """Power of the images, signal and noise."""


@dataclass(frozen=True)
class FirstMean:
    """The mean before the noise is known, shrunk by its prior; dense matter is positive."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    volume: Float[np.ndarray, "z y x"]
    sign: float
    """Multiplies the images."""


@dataclass(frozen=True)
class PlainMean:
    """The mean of all images in the whole box."""

    halves: Halves[Float[np.ndarray, "z y x"]]
    """Independent least-squares maps of the two half sets."""
    fsc: Float[np.ndarray, " shells"]
    """Correlation of `halves`."""


@dataclass(frozen=True)
class MaskedMean:
    """The mean of all images, multiplied by the solvent mask."""

    volume: Float[np.ndarray, "z y x"]
    """Least-squares map."""
    regularized: Float[np.ndarray, "z y x"]
    """The same, shrunk by the prior that `fsc` implies: the best guess."""
    fsc: Float[np.ndarray, " shells"]
    """Correlation of the masked half-maps."""


@dataclass(frozen=True)
class Means:
    """The mean of all images, with and without its mask."""

    masked: MaskedMean
    plain: PlainMean
    radius: int
    """Largest frequency at which the half-maps agree, in Fourier pixels."""


@dataclass(frozen=True)
class Homogeneous:
    """All that is known of the molecule as a whole."""

    images: ImageBank
    """With the right sign."""
    power: Float[np.ndarray, " shells"]
    mask: SolventMask
    noise: Noise
    """Of all images together."""
    spectra: NoiseSpectra
    """Of every image."""
    means: Means


def analyse_mean(work: Work) -> Homogeneous:
    """Run the stages up to the mean with its mask and noise."""
    config, inputs = work.config, work.inputs
    images = work.bank(1.0)
    power = work.run.stage(
        "inputs",
        Start,
        lambda stage: _start(stage, work, images),
        options=describe_inputs(config, inputs),
    ).power
    first = work.run.stage(
        "first_mean",
        FirstMean,
        lambda stage: _first_mean(stage, work, images, power),
        options={
            "uninvert_data": config.uninvert_data,
            "ignore_zero_frequency": config.ignore_zero_frequency,
        },
        depends=["inputs"],
    )
    if first.sign < 0:
        images = work.bank(first.sign)
    mask = work.run.stage(
        "mask",
        SolventMask,
        lambda stage: _mask(stage, work, first.halves),
        options={
            "mask": config.solvent,
            "file": inputs.solvent,
            "dilate": config.mask_dilate_iter,
            "focus": inputs.focus,
        },
        depends=["first_mean"],
    )
    noise = work.run.stage(
        "noise",
        Noise,
        lambda stage: _noise(stage, work, images, first.volume, mask),
        options={
            "model": config.noise_model,
            "method": config.noise_method,
            "seed": config.seed,
        },
        depends=["first_mean", "mask"],
    )
    spectra = work.run.stage(
        "noise_spectra",
        NoiseSpectra,
        lambda stage: find_spectra(
            stage, work, images, Molecule(first.volume, mask.dilated), noise
        ),
        options={
            "groups": work.inputs.noise_groups.number,
            "scale": config.noise_scale,
            "model": config.noise_model,
            "seed": config.seed,
        },
        depends=["first_mean", "mask", "noise"],
    )
    means = work.run.stage(
        "mean",
        Means,
        lambda stage: _mean(stage, work, images, spectra, mask),
        depends=["noise_spectra", "mask"],
    )
    return Homogeneous(images, power, mask, noise, spectra, means)


def _start(stage: Stage, work: Work, images: ImageBank) -> Start:
    inputs = work.inputs
    counts = np.bincount(inputs.halves, minlength=2)
    stage.decide("half sets", f"{counts[0]} and {counts[1]} images", inputs.why_halves)
    if counts.min() == 0:
        logger.warning("One half set is empty: resolutions mean nothing.")
    power = estimate_power(
        images, inputs.grid.size, work.executor, stage.checkpoint("power spectrum")
    )
    with stage.write("model/halfsets.pkl") as partial:
        write_pickle(partial, original_halfsets(inputs))
    return Start(power)


def _first_mean(
    stage: Stage, work: Work, images: Images, power: Float[np.ndarray, " shells"]
) -> FirstMean:
    grid = work.inputs.grid
    ball = Ball(grid.size, grid.largest_radius)
    noise = NoiseSpectra.of_all(power, len(images))
    if work.config.ignore_zero_frequency:
        noise = noise.without_shell(0)
    statistic = mean_statistic(noise, ball, work.executor.operators)
    sums = work.executor.accumulate("First mean", statistic, images, stage.checkpoint("sums"))
    whole = next(fold_means(sums, ball))
    prior = whole.prior(correlate(whole.halves()))
    halves, volume = whole.halves(prior), whole.volume(prior)
    asked = work.config.uninvert_data
    inverted = density_is_inverted(volume) if asked == "automatic" else asked == "true"
    why = (
        f"the mean of the images as they are has {'negative' if inverted else 'positive'} density"
        if asked == "automatic"
        else f"--uninvert-data is {asked}"
    )
    stage.decide("sign of the images", "flipped" if inverted else "kept", why)
    if inverted:
        return FirstMean(halves.map(np.negative), -volume, -1.0)
    return FirstMean(halves, volume, 1.0)


def _mask(stage: Stage, work: Work, halves: Halves[Float[np.ndarray, "z y x"]]) -> SolventMask:
    grid, config, solvent = work.inputs.grid, work.config, work.inputs.solvent
    if solvent is not None:
        mask = mask_from_volume(solvent, config.mask_dilate_iter)
        why = "--mask names a file"
    elif config.solvent == "from_halfmaps":
        mask = mask_from_halfmaps(halves)
        if config.mask_dilate_iter:
            mask = mask_from_volume(mask.binary.astype(np.float32), config.mask_dilate_iter)
        why = "it holds the largest body of the blurred half-maps, with a margin"
    else:
        mask = spherical_mask(grid.size) if config.solvent == "sphere" else no_mask(grid.size)
        why = "--mask asks for it"
    stage.decide("solvent mask", f"{config.solvent}, {mask.binary.mean():.1%} of the box", why)
    check_focus(config, work.inputs, mask.dilated)
    maps = {"mask": mask.mask, "dilated_mask": mask.dilated}
    for number, focus in enumerate(work.inputs.focus, 1):
        maps["focus_mask" if number == 1 else f"focus{number}_mask"] = focus
    for name, values in maps.items():
        write_map(stage, name, values, grid)
    return mask


def write_map(stage: Stage, name: str, values: Float[np.ndarray, "z y x"], grid: Grid) -> None:
    """Write a map to where users look for it."""
    with stage.write(f"output/volumes/{name}.mrc") as partial:
        write_volume(partial, values, grid.voxel_size)


def _noise(
    stage: Stage,
    work: Work,
    images: Images,
    mean: Float[np.ndarray, "z y x"],
    mask: SolventMask,
) -> Noise:
    if len(images) > _NOISE_IMAGES:
        generator = np.random.default_rng(work.config.seed)
        images = Selection(images, np.sort(generator.permutation(len(images))[:_NOISE_IMAGES]))
    noise = estimate_noise(
        prepare_for_noise(images, work.config),
        mean,
        mask.dilated,
        work.executor,
        method=work.config.noise_method or "residual",
        model=work.config.noise_model,
        checkpoint=stage.checkpoint("sums"),
    )
    size = work.inputs.grid.size
    levels = noise.variance[1:] / size**2
    stage.decide(
        "noise",
        f"variance per pixel from {levels.min():.4g} to {levels.max():.4g}",
        f"residuals of {len(images)} images say so, {work.config.noise_model} model",
    )
    ratio = float(np.mean(noise.power[1:]) / np.mean(noise.variance[1:]))
    logger.info("Images have %.3g times the power of their noise", ratio)
    return noise


def _mean(
    stage: Stage, work: Work, images: Images, noise: NoiseSpectra, mask: SolventMask
) -> Means:
    means = make_means(work, images, noise, mask, None, stage.checkpoint("sums"))
    grid = work.inputs.grid
    stage.decide(
        "largest frequency of the components",
        f"{means.radius} Fourier pixels, {grid.resolution(means.radius):.3g} Å",
        f"half-maps correlate less than {LEAST_FSC} beyond"
        if means.radius < grid.largest_radius
        else "half-maps agree up to the last shell of the images",
    )
    return means


def make_means(
    work: Work,
    images: Images,
    noise: NoiseSpectra,
    mask: SolventMask,
    contrast: Float[np.ndarray, " images"] | None,
    checkpoint: Checkpoint,
) -> Means:
    """Reconstruct the mean with and without the mask, in one pass."""
    grid = work.inputs.grid
    ball = Ball(grid.size, grid.largest_radius)
    statistic = mean_statistic(noise, ball, work.executor.operators, contrast)
    sums = work.executor.accumulate("Mean", statistic, images, checkpoint)
    whole = next(fold_means(sums, ball))
    halves = whole.halves()
    plain = PlainMean(halves, correlate(halves))
    curve = correlate(halves.map(lambda half: half * mask.mask))
    prior = whole.prior(curve)
    masked = MaskedMean(whole.volume() * mask.mask, whole.volume(prior) * mask.mask, curve)
    below = np.flatnonzero(curve[1:] < LEAST_FSC)
    radius = int(below[0]) if below.size else grid.largest_radius
    return Means(
        masked, plain, int(np.clip(radius, min(4, grid.largest_radius), grid.largest_radius))
    )


def write_means(stage: Stage, means: Means, grid: Grid) -> None:
    """Write the maps of the mean, and its correlations as plain text."""
    maps = {
        "mean": means.masked.regularized,
        "mean_half1": means.plain.halves.first,
        "mean_half2": means.plain.halves.second,
        "mean_filtered": filter_by_agreement(means),
    }
    for name, values in maps.items():
        write_map(stage, name, values, grid)
    with stage.write("output/fsc.txt") as partial:
        shells = np.arange(len(means.plain.fsc))
        frequency = shells / (grid.size * grid.voxel_size)
        np.savetxt(
            partial,
            np.stack([shells, frequency, means.plain.fsc, means.masked.fsc], axis=1),
            "%g",
            header="shell  1/A  FSC  FSC_in_mask",
        )


def filter_by_agreement(means: Means) -> Float[np.ndarray, "z y x"]:
    """Weigh the masked least-squares mean by how well its half-maps agree, for display.

    Source: Rosenthal & Henderson 2003, √(2·FSC / (1 + FSC)) is the correlation with the truth.
    """
    curve = np.clip(means.masked.fsc, 0, 1)
    spectrum = fourier.to_spectrum(means.masked.volume)
    weights = expand_shells(np.sqrt(2 * curve / (1 + curve)), volume_radii(spectrum.shape[0]))
    return fourier.to_volume(spectrum * weights)

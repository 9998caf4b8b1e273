"""The stage of the pipeline that tells the noise of optics groups and of single images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from recovar.compute.accumulate import Images, Prepared, Selection
from recovar.core.noise_spectra import NoiseSpectra
from recovar.noise import Noise, estimate_group_noise
from recovar.noise_scale import estimate_noise_scales, quiet_shells
from recovar.run import Stage
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.noise_groups import NoiseGroups
from recovar.workflows.work import Work

_MEASURED = 2_000
"""Images of a group that are measured at least, where there are as many."""
_MEASURED_IN_ALL = 10_000


@dataclass(frozen=True)
class Molecule:
    """What images show beside noise, as far as it is known."""

    mean: Float[np.ndarray, "z y x"]
    mask: Float[np.ndarray, "z y x"]
    """Generous."""


def find_spectra(
    stage: Stage,
    work: Work,
    images: Images,
    molecule: Molecule,
    noise: Noise,
) -> NoiseSpectra:
    """Tell the noise of every image from that of all.

    Args:
        stage: The stage that is being computed.
        work: The run.
        images: All images.
        molecule: What is not noise.
        noise: Of all images together.
    """
    config = work.config
    groups = work.inputs.noise_groups
    profiles = noise.variance[None]
    if groups.own:
        own = _measure_groups(stage, work, images, molecule, groups)
        profiles = np.concatenate([own, profiles])
    if groups.why:
        value = f"of {groups.own} groups, each its own" if groups.own else "the same for all images"
        stage.decide("spectrum of the noise", value, groups.why)
    if config.ignore_zero_frequency:
        profiles = profiles.copy()
        profiles[:, 0] = np.inf
        stage.decide("zero frequency", "ignored", "--ignore-zero-frequency asks for it")
    spectra = NoiseSpectra(profiles, groups.number, np.ones(len(images), np.float32))
    if config.noise_scale is False:
        return spectra
    quiet = quiet_shells(noise)
    found = estimate_noise_scales(
        images, molecule.mean * molecule.mask, spectra, quiet, work.executor
    )
    used = found.differ if config.noise_scale is None else True
    stage.decide(
        "noise of single images",
        "estimated" if used else "alike",
        f"its variances spread by {found.observed:.1%} about those of the groups, and "
        f"{found.chance:.1%} would be chance"
        if config.noise_scale is None
        else "--noise-scale asks for it",
    )
    return NoiseSpectra(profiles, groups.number, found.scale) if used else spectra


def prepare_for_noise(images: Images, config: PipelineConfig) -> Images:
    """Take the zero frequency out of images where it is ignored, before masks spread it."""
    if not config.ignore_zero_frequency:
        return images
    return Prepared(images, lambda batch: batch.whitened(np.array([np.inf, 1.0])))


def _measure_groups(
    stage: Stage, work: Work, images: Images, molecule: Molecule, groups: NoiseGroups
) -> Float[np.ndarray, "groups shells"]:
    config, generator = work.config, np.random.default_rng(work.config.seed)
    most = max(_MEASURED, _MEASURED_IN_ALL // groups.own)
    chosen = [
        generator.permutation(np.flatnonzero(groups.number == number))[:most]
        for number in range(groups.own)
    ]
    found = estimate_group_noise(
        prepare_for_noise(Selection(images, np.sort(np.concatenate(chosen))), config),
        groups.number,
        molecule.mean,
        molecule.mask,
        work.executor,
        method=config.noise_method or "residual",
        model=config.noise_model,
        checkpoint=stage.checkpoint("groups"),
    )
    return np.stack([noise.variance for noise in found])

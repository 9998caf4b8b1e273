"""From the files that a user names to images with half sets, checked before anything is written."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recovar.core.grid import Grid
from recovar.data.legacy import read_halfsets
from recovar.data.mrc import read_volume
from recovar.data.particles import Particles, assign_halves, read_particles
from recovar.data.stack import read_images
from recovar.errors import InputError
from recovar.manifest import fingerprint
from recovar.workflows.configs import MASK_KEYWORDS, PipelineConfig
from recovar.workflows.noise_groups import NoiseGroups, choose_noise_groups

logger = logging.getLogger(__name__)

_LOOKED_AT = 16
"""Images of every kind whose strengths are compared."""
_LARGEST_RATIO = 2.0
"""Of standard deviations, above which something is said."""
_LARGEST_OVERLAP = 0.5
"""Share of a focus mask that may be in another one."""


@dataclass(frozen=True)
class Inputs:
    """What the user gave, read and checked."""

    particles: Particles
    """The images that are used."""
    halves: Int[np.ndarray, " images"]
    """Half set of every image, 0 or 1."""
    grid: Grid
    """Of the images as they are analysed, shrunk if asked for."""
    solvent: Float[np.ndarray, "z y x"] | None
    """Solvent mask from a file."""
    focus: tuple[Float[np.ndarray, "z y x"], ...]
    """Focus masks from files."""
    why_halves: str
    """Where the half sets come from."""
    noise_groups: NoiseGroups
    """Images whose noise has the same spectrum."""


def read_inputs(config: PipelineConfig) -> Inputs:
    """Read everything that the options name.

    Raises:
        InputError: If something is missing or contradicts itself.
    """
    particles = read_particles(
        config.particles,
        poses=config.poses,
        ctf=config.ctf,
        datadir=config.datadir,
        strip_prefix=config.strip_prefix,
        passthrough=config.passthrough,
        ind=config.ind,
        pixel_size=config.pixel_size,
    )
    if particles.premultiplied:
        logger.info(
            "%s: images were multiplied by their transfer functions. Their noise is made "
            "stationary again, and they are used like ordinary images.",
            config.source,
        )
    _compare_noise(particles)
    particles, halves, why = _split(particles, config)
    if config.n_images is not None:
        chosen = first_of_halves(halves, config.n_images)
        particles, halves = particles.select(chosen), halves[chosen]
    grid = Grid(particles.box, particles.pixel_size)
    if config.downsample is not None:
        if config.downsample > grid.size:
            raise InputError(
                f"Expected at most the {grid.size} pixels of the images for --downsample, got "
                f"{config.downsample}."
            )
        grid = grid.cropped(config.downsample)
    solvent = None
    if config.solvent not in MASK_KEYWORDS:
        solvent = read_mask(Path(config.solvent), grid, "--mask")
    focus = _read_focus(config.focus_mask, grid)
    groups = choose_noise_groups(particles, config.noise_groups or "automatic")
    return Inputs(particles, halves, grid, solvent, focus, why, groups)


def _read_focus(paths: Sequence[Path], grid: Grid) -> tuple[Float[np.ndarray, "z y x"], ...]:
    """Read focus masks, which must be apart from each other."""
    masks = [read_mask(path, grid, "--focus-mask") for path in paths]
    for first, second in itertools.combinations(range(len(masks)), 2):
        inside, among = masks[first] > 0.5, masks[second] > 0.5
        shared = (inside & among).sum() / min(inside.sum(), among.sum())
        if shared > _LARGEST_OVERLAP:
            raise InputError(
                f"{paths[first]} and {paths[second]}: expected parts of the molecule that are "
                f"apart from each other for --focus-mask, but {shared:.0%} of one is in the "
                "other. Make them smaller, or join them to one."
            )
    return tuple(masks)


def check_focus(
    config: PipelineConfig, inputs: Inputs, solvent: Float[np.ndarray, "z y x"]
) -> None:
    """Refuse a focus mask that has nothing of the molecule."""
    for path, mask in zip(config.focus_mask, inputs.focus, strict=True):
        if (mask * solvent).max() <= 0.5:
            raise InputError(
                f"{path}: expected a --focus-mask within the molecule, but all of it is outside "
                f"the solvent mask ({config.solvent}). Both count voxels from the same corner; "
                "move the focus mask, or give a larger --mask."
            )


def _compare_noise(particles: Particles) -> None:
    """Say when images of different files or kinds are of very different strength."""
    kind = np.zeros(len(particles), np.int64) if particles.kind is None else particles.kind
    groups = particles.source * len(particles.kinds_in_files) + kind
    names, levels = [], []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        rows = members[:: max(1, len(members) // _LOOKED_AT)][:_LOOKED_AT]
        of = particles.kinds_in_files[kind[rows[0]]]
        levels.append(float(np.median(read_images(particles, rows).std(axis=(1, 2)))))
        names.append(f"{particles.sources[particles.source[rows[0]]]} ({of.box} px)")
    low, high = int(np.argmin(levels)), int(np.argmax(levels))
    if levels[high] > _LARGEST_RATIO * levels[low]:
        logger.warning(
            "Images of %s have a standard deviation of %.3g, those of %s of %.3g. Noise is "
            "measured for each, but the molecule is taken to be as strong in all. Normalize them "
            "in the same way.",
            names[high],
            levels[high],
            names[low],
            levels[low],
        )


def _split(
    particles: Particles, config: PipelineConfig
) -> tuple[Particles, Int[np.ndarray, " images"], str]:
    """Give every image its half set, and leave out those that have none."""
    if config.halfsets is None:
        halves = assign_halves(particles, config.seed)
        given = particles.half is not None and np.array_equal(halves, particles.half)
        where = f"they are in {config.source}" if given else f"of the seed {config.seed}"
        return particles, halves.astype(np.int64), where
    first, second = read_halfsets(config.halfsets)
    rows = particles.source_row
    members = np.isin(rows, first), np.isin(rows, second)
    if not all(member.any() for member in members):
        raise InputError(
            f"{config.halfsets}: expected images of {config.source} in both half sets, found "
            f"{members[0].sum()} and {members[1].sum()}. Indices count the images of these "
            "files from 0, one file after the other."
        )
    chosen = np.flatnonzero(members[0] | members[1])
    missing = len(first) + len(second) - len(chosen)
    if missing and config.ind is None:
        logger.warning("%s: %d indices are of no image.", config.halfsets, missing)
    halves = members[1][chosen].astype(np.int64)
    return particles.select(chosen), halves, f"they are in {config.halfsets}"


def first_of_halves(halves: Int[np.ndarray, " images"], count: int) -> Int[np.ndarray, " chosen"]:
    """Choose the first images of each half set, `count` in all where there are as many.

    Example:
        >>> first_of_halves(np.array([0, 0, 0, 1, 1, 0]), 4).tolist()
        [0, 1, 3, 4]
    """
    wanted = count - count // 2, count // 2
    parts = [np.flatnonzero(halves == half)[: wanted[half]] for half in (0, 1)]
    return np.sort(np.concatenate(parts))


def read_mask(path: Path, grid: Grid, option: str) -> Float[np.ndarray, "z y x"]:
    """Read a mask, which must have the box of the images as they are analysed."""
    values = read_volume(path).values
    if len(values) != grid.size:
        raise InputError(
            f"{path}: expected a box of {grid.size} voxels for {option}, like the images, found "
            f"{len(values)}. Scale or crop the mask."
        )
    if values.max() <= 0.5:
        raise InputError(
            f"{path}: expected a mask with values above 0.5 for {option}, found none above "
            f"{values.max():.3g}. Scale the mask so that it is 1 inside."
        )
    return values


def describe_inputs(config: PipelineConfig, inputs: Inputs) -> dict[str, object]:
    """List everything that the images depend on, for the manifest."""
    particles = inputs.particles
    files = {
        str(path): fingerprint(path)
        for path in (*config.particles, *config.passthrough, config.poses, config.ctf)
        if path is not None and path.suffix not in (".mrc", ".mrcs")
    }
    return {
        "files": files,
        "stacks": _stack_marks(particles.stacks),
        "rows": particles.source_row,
        "halves": inputs.halves,
        "pixel_size": inputs.grid.voxel_size,
        "box": inputs.grid.size,
    }


def _stack_marks(stacks: Sequence[Path]) -> np.ndarray:
    """Tell sizes and times of change; reading many stacks takes as long as using them."""
    status = [path.stat() for path in stacks]
    return np.array([[each.st_size, each.st_mtime_ns] for each in status], np.int64)


def original_halfsets(inputs: Inputs) -> list[np.ndarray]:
    """Give the rows of both half sets in the files that the images were read from."""
    rows = inputs.particles.source_row
    return [np.sort(rows[inputs.halves == half]) for half in (0, 1)]


def with_halves(inputs: Inputs) -> Particles:
    """Give the particles with the half sets that are used, for exports."""
    return replace(inputs.particles, half=inputs.halves.astype(np.int8))

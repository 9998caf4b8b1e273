"""The command `check`: what the images themselves say about poses, shifts, CTFs, hand and mask."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar import plots
from recovar.compute.progress import Progress, Reporter
from recovar.core.grid import Grid
from recovar.core.resampling import resample
from recovar.core.slicing_numba import NUMBA
from recovar.data.mrc import read_volume
from recovar.data.particles import Particles, read_particles
from recovar.errors import InputError
from recovar.manifest import to_plain
from recovar.records import write_whole
from recovar.workflows.checking.config import LEAST_IMAGES, CheckConfig
from recovar.workflows.checking.maps import find_hand, find_mask_axes, find_sign
from recovar.workflows.checking.picture import draw_check
from recovar.workflows.checking.report import Checked, table, to_tree, verdict
from recovar.workflows.checking.sample import (
    choose_rows,
    read_sample,
    sample_grid,
    stated_reading,
)
from recovar.workflows.checking.search import CONVINCING, Found, find_reading

logger = logging.getLogger(__name__)

_FINEST, _LARGEST = 4.0, 72
"""Pixels of images that are tried: at least so many Å, at most so many along a side."""


def run_check(config: CheckConfig, reporter: Reporter) -> None:
    """Find the conventions that images support, and leave a verdict, check.json and check.png.

    Raises:
        InputError: If images, map or mask cannot be read, or there are too few images.
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
    checked = check(particles, config, reporter)
    with write_whole(config.output / "check.json") as partial:
        tree = {**to_tree(checked), "options": to_plain(asdict(config))}
        partial.write_text(json.dumps(tree, indent=1) + "\n")
    with write_whole(config.output / "check.png") as partial:
        plots.save_figure(draw_check(checked), partial)
    for line in table(checked.found):
        logger.info("%s", line)
    for sentence in verdict(checked):
        logger.info("%s", sentence)
    logger.info("All numbers are in check.json, and a picture in check.png, in %s", config.output)


def check(particles: Particles, config: CheckConfig, progress: Progress) -> Checked:
    """Try everything on some of the images."""
    if len(particles) < LEAST_IMAGES:
        raise InputError(
            f"Expected at least {LEAST_IMAGES} images to check, found {len(particles)} in "
            f"{', '.join(map(str, config.particles))}. Select more."
        )
    grid = sample_grid(particles, _FINEST, _LARGEST)
    volumes = [
        None if path is None else _read_map(path, particles, grid)
        for path in (config.volume, config.mask)
    ]
    rows = choose_rows(len(particles), config.n_images)
    logger.info(
        "%d of %d images, shrunk to %d pixels of %.3g Å",
        len(rows),
        len(particles),
        grid.size,
        grid.voxel_size,
    )
    sample = read_sample(particles, rows, grid, progress)
    stated = stated_reading(particles, rows, grid)
    found = find_reading(sample, stated, NUMBA, progress, config.seed)
    return _look_at_maps(found, grid, len(rows), *volumes)


def _look_at_maps(
    found: Found,
    grid: Grid,
    images: int,
    reference: Float[np.ndarray, "z y x"] | None,
    mask: Float[np.ndarray, "z y x"] | None,
) -> Checked:
    evidence = found.evidence
    return Checked(
        found,
        grid,
        images,
        find_sign(evidence.halves),
        None if reference is None else find_hand(evidence, reference),
        None if mask is None else find_mask_axes(evidence, mask, CONVINCING),
    )


def _read_map(path: Path, particles: Particles, grid: Grid) -> Float[np.ndarray, "z y x"]:
    """Read a map and bring it to the grid of the sample.

    A map with the box of the images is taken to have their pixels, as its header often has not.
    """
    read = read_volume(path)
    voxel_size = read.voxel_size
    if len(read.values) == particles.box or voxel_size is None:
        voxel_size = particles.pixel_size
    return resample(read.values, voxel_size, grid)

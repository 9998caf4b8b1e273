"""The command `export`: take particles back out of a run, by where they lie or what they are."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from recovar.compute.progress import Reporter
from recovar.errors import InputError
from recovar.workflows.exporting.config import ExportConfig
from recovar.workflows.exporting.images import RunImages, read_run_images
from recovar.workflows.exporting.outputs import plan_files, refuse_to_overwrite, write_files
from recovar.workflows.exporting.selection import (
    Labels,
    draw_some,
    find_labels,
    keep_present,
    list_conditions,
)

logger = logging.getLogger(__name__)


def run_export(config: ExportConfig, _: Reporter) -> None:
    """Write the images that meet all conditions, in the form that the name of the file asks for.

    Raises:
        InputError: If a condition or a file makes no sense, no image is left, or something that
            is there would be replaced.
    """
    images = read_run_images(config.run, config.zdim, config.original)
    logger.info(
        "%d images in %s, with %d coordinates each",
        len(images),
        config.run,
        images.embedding.coordinates.shape[1],
    )
    if images.original is None:
        logger.info("Rows are those that the run has noted: %s.", images.why_not)
    labels = find_labels(config, images) if config.uses_labels else None
    chosen = keep_present(config, images, _choose(config, images, labels))
    files = plan_files(config, images, labels, chosen)
    refuse_to_overwrite(files, images, config)
    write_files(files)
    logger.info(
        "Wrote %d of %d images to %s",
        len(chosen),
        len(images),
        ", ".join(str(file.path) for file in reversed(files)),
    )
    _tell_of_names(config, images)


def _choose(
    config: ExportConfig, images: RunImages, labels: Labels | None
) -> Int64[np.ndarray, " chosen"]:
    """Apply all conditions, and tell what each one leaves."""
    holds = np.ones(len(images), bool)
    for condition in list_conditions(config, images, labels):
        holds = holds & condition.holds
        logger.info(
            "  %s: %d images; %d are left", condition.what, condition.holds.sum(), holds.sum()
        )
    if config.invert:
        holds = ~holds
        logger.info("  inverted: %d are left", holds.sum())
    if config.random is not None:
        holds = draw_some(holds, config.random, config.seed)
        logger.info("  by chance: %d are left", holds.sum())
    if not holds.any():
        raise InputError(
            f"None of the {len(images)} images in {config.run} is left, so nothing was written. "
            "Change the conditions."
        )
    return np.flatnonzero(holds)


def _tell_of_names(config: ExportConfig, images: RunImages) -> None:
    """Say what names of image files are relative to, where a STAR file has left their directory."""
    original = images.original
    if config.output.suffix != ".star" or config.absolute_paths or original is None:
        return
    if original.text is None or original.path.resolve().parent == config.output.resolve().parent:
        return
    names = original.text.particles.columns["rlnImageName"]
    if not Path(str(names[0]).rpartition("@")[2]).is_absolute():
        logger.info(
            "Names of image files are as in %s: relative to the project directory, not to the "
            "file. Give --datadir to read it elsewhere, or --absolute-paths here.",
            original.path,
        )

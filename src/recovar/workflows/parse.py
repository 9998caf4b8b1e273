"""The parse commands: poses and CTF parameters of tables, as the pickles that other programs read.

Image files are not needed, so that tables can be parsed where the images are not.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from recovar import plots
from recovar.compute.progress import Reporter
from recovar.data import ImageTable
from recovar.data.cryosparc import read_cs_table
from recovar.data.cryosparc_tables import read_tables
from recovar.data.legacy import (
    ctf_rows,
    read_ctf_pickle,
    read_poses_pickle,
    write_pickle,
    write_poses_pickle,
)
from recovar.data.star import read_star_table
from recovar.data.star_blocks import read_star
from recovar.errors import InputError
from recovar.records import save_arrays, write_whole
from recovar.workflows.outputs import refuse_overwriting
from recovar.workflows.parse_configs import (
    ParseConfig,
    ParseCtfCsparcConfig,
    ParseCtfStarConfig,
    ParsePoseCsparcConfig,
    ParsePoseStarConfig,
)

logger = logging.getLogger(__name__)

_DIFFERENCE = 0.01
"""Of pixel sizes that count as the same."""


def run_parse_pose_star(config: ParsePoseStarConfig, reporter: Reporter) -> None:
    """Write the poses of a STAR file.

    Raises:
        InputError: If the file has none, or contradicts an option.
    """
    refuse_overwriting(config.output, [config.particles], overwrite=config.overwrite)
    _write_poses(config, _read_star(config, {}))


def run_parse_pose_csparc(config: ParsePoseCsparcConfig, reporter: Reporter) -> None:
    """Write the poses of a cryoSPARC table.

    Raises:
        InputError: If the table has none, or contradicts an option.
    """
    inputs = [config.particles, *config.passthrough]
    refuse_overwriting(config.output, inputs, overwrite=config.overwrite)
    table = _read_cs(config)
    tables = read_tables(config.particles, config.passthrough)
    groups = tables.pose_groups()
    if config.abinit and not any(group.startswith("alignments_class") for group in groups):
        raise InputError(
            f"{config.particles}: expected poses of an ab initio job, such as "
            f"alignments_class_0/pose, found {', '.join(groups) or 'none'}. Leave out --abinit."
        )
    if config.hetrefine and table.shifts is not None:
        if all(tables.get(f"{group}/psize_A") is None for group in groups):
            table = replace(table, shifts=2 * table.shifts)
        else:
            logger.info(
                "%s states the pixel size of its alignment; --hetrefine changes nothing.",
                config.particles,
            )
    _write_poses(config, table)


def run_parse_ctf_star(config: ParseCtfStarConfig, reporter: Reporter) -> None:
    """Write the CTF parameters of a STAR file.

    Raises:
        InputError: If one is missing, or contradicts an option.
    """
    for output in filter(None, (config.output, config.png)):
        refuse_overwriting(output, [config.particles], overwrite=config.overwrite)
    given = {
        "rlnVoltage": config.voltage,
        "rlnSphericalAberration": config.spherical_aberration,
        "rlnAmplitudeContrast": config.amplitude_contrast,
        "rlnPhaseShift": config.phase_shift,
    }
    known = {label: value for label, value in given.items() if value is not None}
    _write_ctf(config, _read_star(config, known))


def run_parse_ctf_csparc(config: ParseCtfCsparcConfig, reporter: Reporter) -> None:
    """Write the CTF parameters of a cryoSPARC table.

    Raises:
        InputError: If one is missing, or contradicts an option.
    """
    inputs = [config.particles, *config.passthrough]
    for output in filter(None, (config.output, config.png)):
        refuse_overwriting(output, inputs, overwrite=config.overwrite)
    _write_ctf(config, _read_cs(config))


def _read_star(
    config: ParsePoseStarConfig | ParseCtfStarConfig, given: Mapping[str, float]
) -> ImageTable:
    path = config.particles
    if config.relion31 and not any("rlnOpticsGroup" in block for block in read_star(path)):
        raise InputError(
            f"{path}: expected a file of RELION 3.1 or later, but it has no optics groups. Leave "
            "out --relion31."
        )
    table = read_star_table(path, given)
    if table.pixel_size is None and config.pixel_size is not None:
        table = read_star_table(path, {**given, "rlnImagePixelSize": config.pixel_size})
    return table


def _read_cs(config: ParsePoseCsparcConfig | ParseCtfCsparcConfig) -> ImageTable:
    table = read_cs_table(config.particles, config.passthrough, images_named=False)
    if table.pixel_size is None and config.pixel_size is not None:
        table = read_cs_table(
            config.particles, config.passthrough, config.pixel_size, images_named=False
        )
    return table


def _boxes(config: ParseConfig, table: ImageTable) -> Int64[np.ndarray, " images"]:
    """Take the box of every image from the file, or from the option where it says nothing."""
    if table.box is None and config.box is None:
        raise InputError(f"{table.source} does not state the size of its images. Give it with -D.")
    if table.box is None:
        return np.full(len(table), config.box)
    if config.box is not None and (table.box != config.box).any():
        found = ", ".join(map(str, np.unique(table.box)[:5]))
        raise InputError(
            f"{table.source} states images of {found} pixels, -D says {config.box}. Give the size "
            "of the images that the file is of, whatever they were shrunk to since."
        )
    return table.box


def _pixel_sizes(config: ParseConfig, table: ImageTable) -> Float64[np.ndarray, " images"]:
    """Take the pixel size of every image from the option, once it agrees with the file."""
    stated, given = table.pixel_size, config.pixel_size
    if stated is None:
        raise InputError(f"{table.source} states no pixel size. Give it with --Apix (Å).")
    if given is None:
        return stated
    if (np.abs(stated - given) > _DIFFERENCE * stated).any():
        found = ", ".join(f"{size:g}" for size in np.unique(stated)[:5])
        raise InputError(
            f"{table.source} states {found} Å per pixel, --Apix says {given:g} Å. Give that of the "
            "images that the file is of, or leave it out."
        )
    return np.full(len(table), given)


def _write_poses(config: ParseConfig, table: ImageTable) -> None:
    """Write rotations, and shifts as fractions of the box."""
    rotations, shifts = table.rotations, table.shifts
    if rotations is None or shifts is None:
        raise InputError(f"{table.source} has no poses: {table.no_poses}.")
    boxes = _boxes(config, table)
    _pixel_sizes(config, table)
    fractions = shifts / (table.pixel_size * boxes)[:, None]
    _refuse_infinite(table, rotations.reshape(len(table), -1), "rotation")
    _refuse_infinite(table, fractions, "shift")
    far = np.flatnonzero((np.abs(fractions) > 1).any(axis=1))
    if far.size:
        raise InputError(
            f"{table.source}, row {far[0] + 1}: expected a shift within the box, found "
            f"{np.abs(fractions[far[0]]).max():.3g} boxes ({far.size} rows are so). Check that the "
            "file has the unit that its columns say, pixels or Å."
        )

    def write(partial: Path) -> None:
        if partial.suffix == ".npz":
            save_arrays(partial, rot=rotations, trans=fractions)
        else:
            write_poses_pickle(partial, rotations, fractions)

    def is_right(partial: Path) -> bool:
        read = read_poses_pickle(partial, len(table))
        return np.array_equal(read.rotations, rotations) and np.array_equal(
            read.shift_fractions, fractions
        )

    _write_checked(config.output, write, is_right)
    largest = np.abs(shifts).max()
    logger.info(
        "%s: poses of %d images, with shifts of up to %.4g Å", config.output, len(table), largest
    )


def _write_ctf(config: ParseCtfStarConfig | ParseCtfCsparcConfig, table: ImageTable) -> None:
    """Write nine CTF parameters of each image."""
    if table.optics is None:
        raise InputError(
            f"{table.source} has no transfer functions: {table.no_optics}. Give the file of a job "
            "that knows them."
        )
    rows = ctf_rows(table.optics, _boxes(config, table), _pixel_sizes(config, table))
    _refuse_infinite(table, rows, "CTF")

    def write(partial: Path) -> None:
        if partial.suffix == ".npz":
            save_arrays(partial, ctf=rows)
        else:
            write_pickle(partial, rows)

    def is_right(partial: Path) -> bool:
        return np.array_equal(read_ctf_pickle(partial, len(table)), rows)

    _write_checked(config.output, write, is_right)
    logger.info("%s: CTF parameters of %d images", config.output, len(table))
    if np.asarray(table.optics.b_factor).any() or (np.asarray(table.optics.scale) != 1).any():
        logger.warning(
            "%s: B-factors and scales of images have no place in such a file.", table.source
        )
    if config.png is not None:
        figure = plots.draw_transfer_function(table.optics[:1], float(rows[0, 1]))
        with write_whole(config.png) as partial:
            plots.save_figure(figure, partial)


def _write_checked(
    path: Path, write: Callable[[Path], None], is_right: Callable[[Path], bool]
) -> None:
    """Give a file its name once it is read back as it was meant."""
    with write_whole(path) as partial:
        write(partial)
        if not is_right(partial):
            raise InputError(
                f"{path} was not read back as it was written, so it was not kept. Check the disk."
            )


def _refuse_infinite(
    table: ImageTable, values: Float64[np.ndarray, "images columns"], what: str
) -> None:
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if wrong.size:
        raise InputError(
            f"{table.source}, row {wrong[0] + 1}: expected a finite {what}, found "
            f"{values[wrong[0]].tolist()} ({wrong.size} rows are so). Correct or leave out the row."
        )

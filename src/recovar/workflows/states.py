"""Volumes at latent points of a finished run: the part that several commands share."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import NoneType

import numpy as np
from jaxtyping import Float

from recovar.compute.executors import LocalExecutor
from recovar.compute.progress import Progress
from recovar.data.mrc import write_volume
from recovar.fsc_curves import FscCurves, masked_fsc
from recovar.local_resolution import filter_locally, local_resolution, sharpen, state_windows
from recovar.workflows.finished import FinishedRun
from recovar.workflows.picturing.states import PicturedStates, write_state_pictures
from recovar.workflows.reconstructing.maker import FoundState, StateMaker
from recovar.workflows.reconstructing.sources import Source, open_source
from recovar.workflows.state_options import StateOptions
from recovar.workflows.workplace import Workplace

logger = logging.getLogger(__name__)

Write = Callable[[str], AbstractContextManager[Path]]
"""Gives a temporary path for a file of that name; `Stage.write` is one."""

_LEAST_IMAGES = 100
"""Fewer images than this in effect make a state that is told of with a warning."""


@dataclass(frozen=True)
class StateFiles:
    """Names of the files of one state."""

    volume: str
    """The best guess: filtered by the local resolution, and sharpened if asked for."""
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
    """Name of its file, as it was given."""


@dataclass(frozen=True)
class States:
    """What there is to tell of all states."""

    each: tuple[StateSummary, ...]


def reweight_names(directory: str) -> Callable[[int], StateFiles]:
    """Name files as the first release did, in a directory."""

    def names(state: int) -> StateFiles:
        place = PurePosixPath(directory)
        first, second = (str(place / f"reweight_halfmap{half}_{state:03d}.mrc") for half in (0, 1))
        return StateFiles(
            str(place / f"reweight_{state:03d}.mrc"),
            (first, second),
            str(place / f"local_resolution_{state:03d}.mrc"),
            str(place / f"fsc_{state:03d}.txt"),
        )

    return names


def vol_names(directory: str) -> Callable[[int], StateFiles]:
    """Name files so that every state has a directory of its own in a directory."""

    def names(state: int) -> StateFiles:
        place = PurePosixPath(directory) / f"vol{state:03d}"
        return StateFiles(
            str(place / "state.mrc"),
            (str(place / "state_half1.mrc"), str(place / "state_half2.mrc")),
            str(place / "local_resolution.mrc"),
            str(place / "fsc.txt"),
        )

    return names


def make_states(
    finished: FinishedRun,
    zdim: int,
    points: Float[np.ndarray, "states zdim"],
    options: StateOptions,
    progress: Progress,
    write: Write,
    names: Callable[[int], StateFiles],
) -> States:
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
    maker = StateMaker(source, embedding, options, LocalExecutor(progress=progress))
    maker.posterior.check(points)
    summaries = []
    for number, (point, found) in enumerate(zip(points, maker.make(points), strict=True)):
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
    return States(tuple(summaries))


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
    found: FoundState, files: StateFiles, source: Source, options: StateOptions, write: Write
) -> FscCurves:
    grid = source.grid
    curves = masked_fsc(found.halves, source.mask, grid)
    local = local_resolution(found.halves, grid, state_windows(grid), source.mask)
    if found.is_filtered:
        volume = sharpen(found.volume, grid, options.Bfactor)
    else:
        volume = filter_locally(found.volume, local, options.Bfactor)
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


def draw_states(
    place: Workplace,
    finished: FinishedRun,
    states: Sequence[StateSummary],
    made_by: str,
    directory: str = "",
    *,
    along_path: bool = False,
) -> None:
    """Draw states together, in a stage of its own.

    Args:
        place: Where they are.
        finished: The run that they are of.
        states: What there is to tell of them.
        made_by: Stage that made them.
        directory: Where pictures are written, in the place; the place itself by default.
        along_path: Whether neighbours in the list are neighbours on a path.
    """
    volumes, prefix = finished.path / "output" / "volumes", f"{directory}/" if directory else ""
    pictured = PicturedStates(
        volumes=[place.run.path / state.volume for state in states],
        directory=place.directory / directory,
        labels=[
            f"{number}\n{state.resolution:.3g} Å, {state.images:.0f} images"
            for number, state in enumerate(states)
        ],
        mean=volumes / "mean.mrc",
        mask=volumes / "mask.mrc",
        variance=volumes / "variance4.mrc",
        along_path=along_path,
    )
    place.stage(
        f"{prefix}pictures",
        NoneType,
        lambda stage: write_state_pictures(
            pictured, lambda name: stage.write(f"{place.files}{prefix}{name}")
        ),
        options={},
        depends=[made_by],
    )

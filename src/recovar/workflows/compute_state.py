"""The command `compute-state`: volumes at latent points."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recovar.compute.memory import format_bytes, peak_rss
from recovar.compute.progress import Reporter
from recovar.data.plain_arrays import read_array
from recovar.errors import InputError
from recovar.workflows.finished import FinishedRun, open_finished
from recovar.workflows.reconstructing.config import ComputeStateConfig
from recovar.workflows.state_options import follow_preset
from recovar.workflows.states import States, draw_states, make_states, vol_names
from recovar.workflows.workplace import open_workplace

logger = logging.getLogger(__name__)


def run_compute_state(config: ComputeStateConfig, reporter: Reporter) -> None:
    """Reconstruct volumes at latent points.

    Raises:
        InputError: If points and run do not fit each other, or an option is impossible.
    """
    started = time.monotonic()
    finished = open_finished(config.run)
    config = follow_preset(config, finished.config.preset)
    points = read_points(config.latent_points, finished.zdims)
    zdim = choose_zdim(finished, config.zdim, points, str(config.latent_points))
    place = config.output or finished.path / "output" / "compute_state"
    with open_workplace(place, config, finished, {"zdim": zdim}, reporter) as work:
        logger.info("%d states of %d coordinates", len(points), zdim)
        states = work.stage(
            "states",
            States,
            lambda stage: make_states(
                finished, zdim, points, config, reporter, stage.write, vol_names(work.files)
            ),
            options={"points": points, **config.described()},
        )
        draw_states(work, finished, states.each, "states")
        work.refresh_report(finished)
        logger.info(
            "Done in %.0f s with at most %s of memory. The volumes of %d states are in %s.",
            time.monotonic() - started,
            format_bytes(peak_rss()),
            len(states.each),
            work.directory,
        )


def read_points(path: Path, zdims: Sequence[int]) -> Float64[np.ndarray, "states zdim"]:
    """Read latent points: a text file with a point per line, or an array (.npy, .npz, .pkl).

    A plain list of numbers is one point if there is an embedding of so many coordinates, and
    otherwise points of one coordinate.

    Args:
        path: The file.
        zdims: Numbers of coordinates that there are embeddings of.

    Raises:
        InputError: If there are no finite points in the file.
    """
    values = np.asarray(read_array(path), np.float64)
    if values.ndim == 1:
        values = values.reshape((1, -1) if len(values) in zdims else (-1, 1))
    if values.ndim != 2 or not values.size:
        raise InputError(
            f"{path}: expected a latent point per row, found an array of shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite latent points, found some that are not.")
    return values


def choose_zdim(
    finished: FinishedRun, asked: int | None, points: Float64[np.ndarray, "states zdim"], where: str
) -> int:
    """Find the embedding that points belong to.

    Args:
        finished: The run.
        asked: Number of coordinates that the user asked for, if any.
        points: Latent points.
        where: File that they are from.

    Raises:
        InputError: If there is no such embedding.
    """
    zdim = points.shape[1]
    if asked not in (None, zdim):
        raise InputError(
            f"{where}: expected points of {asked} coordinates as --zdim says, found {zdim}."
        )
    if zdim not in finished.zdims:
        raise InputError(
            f"{where}: expected points of {' or '.join(map(str, finished.zdims))} coordinates, "
            f"like the embeddings of {finished.path}, found {zdim}."
        )
    return zdim

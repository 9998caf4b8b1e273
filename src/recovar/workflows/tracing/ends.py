"""Where a trajectory starts and ends, in whatever way the user tells."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recovar.errors import InputError
from recovar.trajectory import outer_points
from recovar.workflows.compute_state import choose_zdim, read_points
from recovar.workflows.finished import FinishedRun
from recovar.workflows.tracing.config import ComputeTrajectoryConfig


def find_ends(
    config: ComputeTrajectoryConfig, finished: FinishedRun
) -> Float64[np.ndarray, "2 zdim"]:
    """Read the ends, or choose them where there is one coordinate only.

    Raises:
        InputError: If they are not given, cannot be read, or have no embedding.
    """
    if config.z_st is not None and config.z_end is not None:
        start, end = (read_points(path, finished.zdims) for path in (config.z_st, config.z_end))
        if start.shape != end.shape or len(start) != 1:
            raise InputError(
                f"Expected one latent point in each of {config.z_st} and {config.z_end}, found "
                f"arrays of shapes {start.shape} and {end.shape}."
            )
        zdim = choose_zdim(finished, config.zdim, end, str(config.z_end))
        return np.concatenate([start, end])[:, :zdim]
    if config.endpts is not None or config.kmeans_ind:
        return _choose_rows(config, finished)
    zdim = config.zdim or (finished.zdims[0] if len(finished.zdims) == 1 else None)
    if zdim == 1:
        return np.stack(outer_points(finished.embedding(1).coordinates))
    raise InputError(
        "Expected the ends of the trajectory. Give clusters with --kmeans-ind, a file of points "
        "with --endpts, or a file for each end with --z-st and --z-end; with --zdim 1 alone they "
        "are known."
    )


def _choose_rows(
    config: ComputeTrajectoryConfig, finished: FinishedRun
) -> Float64[np.ndarray, "2 zdim"]:
    path = config.endpts or _find_centres(config, finished)
    points = read_points(path, finished.zdims)
    choose_zdim(finished, config.zdim, points, str(path))
    rows = config.kmeans_ind or (0, 1)
    if not config.kmeans_ind and len(points) != 2:
        raise InputError(
            f"{path}: expected two latent points, found {len(points)}. Choose two rows with --ind, "
            "as in --ind 0,3."
        )
    if max(rows) >= len(points):
        raise InputError(
            f"{path}: expected at least {max(rows) + 1} points, as --kmeans-ind asks for number "
            f"{max(rows)}, found {len(points)}; they are numbered from 0."
        )
    return points[list(rows)]


def _find_centres(config: ComputeTrajectoryConfig, finished: FinishedRun) -> Path:
    """Find the centres of clusters of the only analysis that fits."""
    zdim = "*" if config.zdim is None else str(config.zdim)
    files = sorted(finished.path.glob(f"output/analysis_{zdim}/kmeans_*/centers.txt"))
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(
            f"--kmeans-ind may mean clusters of any of {', '.join(map(str, files))}. Name one with "
            "--endpts."
        )
    raise InputError(
        f"--kmeans-ind numbers clusters of an analysis, and {finished.path} has none"
        f"{'' if config.zdim is None else f' of {zdim} coordinates'}. Run recovar analyze first, "
        "or give points with --endpts."
    )

"""The density of molecules along a path, without the errors of coordinates."""

import json
import logging

import numpy as np
from jaxtyping import Int64, Shaped

from recovar.compute.progress import NoProgress, Progress
from recovar.density.along import PathDensity, density_along
from recovar.density.errors import observe
from recovar.density.kernel_density import estimate_kernel_density
from recovar.density.record import write_density
from recovar.density.states import find_states
from recovar.density_plots import draw_path_density
from recovar.plots import save_figure
from recovar.trajectory import LatentPath
from recovar.workflows.run_embedding import RunEmbedding
from recovar.workflows.states import Write

logger = logging.getLogger(__name__)

_MISFIT = 1.3
"""Where more than errors brings images off a path; along paths of a simulated hinge it is below
that, and above 1 as errors are not known exactly."""


def write_density_along(
    write: Write,
    path: LatentPath,
    chosen: Int64[np.ndarray, " states"],
    embedding: RunEmbedding,
    particles: Shaped[np.ndarray, " images"],
    progress: Progress = NoProgress(),
) -> PathDensity:
    """Write density_along_path.npz, .json and .png.

    Args:
        write: Gives temporary paths for these names.
        path: The path.
        chosen: Points of it that volumes are made at.
        embedding: Coordinates that the path is in.
        particles: Which particle an image shows.
        progress: Told how far the work is.
    """
    seen = observe(
        embedding.coordinates_noreg,
        embedding.covariance_noreg,
        embedding.eigenvalues,
        path.points.shape[1],
    )
    along = density_along(seen, path.points, path.arc_length, particles, progress=progress)
    density = along.found.density
    with write("density_along_path.npz") as partial:
        write_density(partial, density)
    length, stops = float(path.arc_length[-1]), path.arc_length[chosen]
    with write("density_along_path.json") as partial:
        partial.write_text(json.dumps(_describe(along, length), indent=1) + "\n", encoding="utf-8")
    raw = estimate_kernel_density(along.nearest[:, None], density.axes)
    with write("density_along_path.png") as partial:
        save_figure(draw_path_density(along, raw, length, stops), partial)
    logger.info(
        "Squared distances of images from the path are %.2f times those of their errors%s.",
        along.misfit,
        ": molecules are elsewhere as well" if along.misfit > _MISFIT else "",
    )
    return along


def _describe(along: PathDensity, length: float) -> dict[str, object]:
    """List what is found; peaks beyond the ends are molecules that the path does not reach."""
    states = find_states(along.found)
    inside = [state for state in states if 0 <= state.position[0] <= length]
    return {
        "misfit": along.misfit,
        "smoothness": along.found.length,
        "admissible_smoothness": list(along.found.admissible),
        "images_left_out": along.found.left_out,
        "beyond_ends": max(0.0, 1 - sum(state.population for state in inside)),
        "states": [
            {
                "arc_length": float(state.position[0]),
                "population": state.population,
                "interval_95": state.interval,
                "confidence": state.confidence,
            }
            for state in inside
        ],
    }

"""What is written of a trajectory: path.json and pictures."""

import itertools
import json

import numpy as np
from jaxtyping import Int64

from recovar.plots import save_figure
from recovar.trajectory import LatentPath
from recovar.trajectory_plots import draw_density_along, draw_path_over
from recovar.workflows.states import Write


def write_path(write: Write, path: LatentPath, chosen: Int64[np.ndarray, " states"]) -> None:
    """Write path.json, path_density_t.png, and density/density_01.png … for pairs of coordinates.

    Args:
        write: Gives temporary paths for these names.
        path: The path.
        chosen: Points of it that volumes are made at.
    """
    with write("path.json") as partial:
        partial.write_text(json.dumps(_describe(path, chosen), indent=1) + "\n", encoding="utf-8")
    with write("path_density_t.png") as partial:
        save_figure(draw_density_along(path, chosen), partial)
    for pair in itertools.combinations(range(path.landscape.dimensions), 2):
        with write(f"density/density_{pair[0]}{pair[1]}.png") as partial:
            save_figure(draw_path_over(path, pair, chosen), partial)


def _describe(path: LatentPath, chosen: Int64[np.ndarray, " states"]) -> dict[str, object]:
    return {
        "kind": path.kind,
        "remark": path.remark,
        "method": path.method,
        "cost": path.cost,
        "density_coordinates": path.landscape.dimensions,
        "largest_density": float(path.landscape.values.max()),
        "path": path.points.tolist(),
        "arc_length": path.arc_length.tolist(),
        "density": path.density.tolist(),
        "path_subsampled": path.points[chosen].tolist(),
        "arc_length_subsampled": path.arc_length[chosen].tolist(),
        "density_subsampled": path.density[chosen].tolist(),
    }

"""Stages of an analysis that reconstruct states and draw them, at centres and along paths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recovar.run import Stage
from recovar.workflows.analyzing.work import Analysis
from recovar.workflows.states import (
    StateFiles,
    States,
    draw_states,
    make_states,
    reweight_names,
)


@dataclass(frozen=True)
class Group:
    """States whose volumes lie in one directory."""

    directory: str
    """Within the analysis."""
    points: Float64[np.ndarray, "states zdim"]
    stage: str
    """Stage that the points are from."""
    along_path: bool = False
    """Whether neighbours in the list are neighbours on a path."""


def reconstruct(work: Analysis, groups: Sequence[Group]) -> States:
    """Reconstruct the states of all groups together, and draw those of each."""
    depends = sorted({group.stage for group in groups})

    def compute(stage: Stage) -> States:
        points = np.concatenate([group.points for group in groups])
        names = _names(work, groups)
        return make_states(
            work.finished,
            work.zdim,
            points,
            work.config,
            work.reporter,
            stage.write,
            names.__getitem__,
        )

    options = {
        "groups": [group.directory for group in groups],
        **work.config.described(),
    }
    states = work.place.stage(
        f"{work.kmeans}/states", States, compute, options=options, depends=depends
    )
    start = 0
    for group in groups:
        summaries = states.each[start : start + len(group.points)]
        draw_states(
            work.place,
            work.finished,
            summaries,
            f"{work.kmeans}/states",
            group.directory,
            along_path=group.along_path,
        )
        start += len(group.points)
    return states


def _names(work: Analysis, groups: Sequence[Group]) -> list[StateFiles]:
    """Name the files of the states of all groups, each counted from 0 in its own directory."""
    makers = [(reweight_names(work.place.files + g.directory), len(g.points)) for g in groups]
    return [make(number) for make, count in makers for number in range(count)]

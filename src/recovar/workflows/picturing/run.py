"""The mean of a run and its components, drawn as surfaces and as a script for ChimeraX."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from recovar.picture_sheets import Row, rows_used, save_picture, sheet
from recovar.rendering import ValueColours, default_level, draw_surface, face, make_surface
from recovar.workflows.picturing.chimerax import Colouring, RunScript, describe_run

_TILE = 300
"""Pixels along the sides of a picture."""
_VIEWS = {"front": 0.0, "turned by 120°": 2 * np.pi / 3, "turned by 240°": 4 * np.pi / 3}
_COMPONENTS = 4
"""Most components in a script."""
_COMPONENT_LEVEL = 0.3
"""Contour of a component, of its largest value."""
_SPREADS = "OrRd"
_VARIANCE = "variance4.mrc"


@dataclass(frozen=True)
class PicturedRun:
    """Maps of a run, as they lie in `directory`."""

    directory: Path
    """Where `mean.mrc`, `eigen_pos000.mrc` … and `variance4.mrc` are."""
    mean: Float[np.ndarray, "z y x"]
    mask: Float[np.ndarray, "z y x"]
    components: Float[np.ndarray, "pcs z y x"]
    eigenvalues: Float[np.ndarray, " pcs"]


def write_run_pictures(
    run: PicturedRun, write: Callable[[str], AbstractContextManager[Path]]
) -> None:
    """Write `output/plots/surface.png` and `output/volumes/chimerax.cxc`.

    Args:
        run: What is drawn.
        write: Gives a temporary path for a name relative to the run.
    """
    level = default_level(run.mean, run.mask)
    spread = np.sqrt(np.einsum("k,kzyx->zyx", run.eigenvalues[:4], run.components[:4] ** 2))
    largest = largest_on_surface(spread, run.mean, level)
    with write("output/plots/surface.png") as path:
        save_picture(_draw(run, level, spread, largest), path)
    count = range(min(_COMPONENTS, len(run.components)))
    script = RunScript(
        run.directory,
        run.directory / "mean.mrc",
        level,
        tuple(
            (run.directory / f"eigen_pos{k:03d}.mrc", run.directory / f"eigen_neg{k:03d}.mrc")
            for k in count
        ),
        tuple(_COMPONENT_LEVEL * float(np.abs(run.components[k]).max()) for k in count),
        Colouring(run.directory / _VARIANCE, largest**2),
    )
    with write("output/volumes/chimerax.cxc") as path:
        path.write_text(describe_run(script))


def largest_on_surface(
    values: Float[np.ndarray, "z y x"], volume: Float[np.ndarray, "z y x"], level: float
) -> float:
    """Give the value that few points near a contour exceed; 1 if there is none above 0."""
    near = values[(volume >= 0.8 * level) & (volume < 1.6 * level)]
    return (float(np.percentile(near, 98)) if near.size else 0.0) or 1.0


def _draw(
    run: PicturedRun, level: float, spread: Float[np.ndarray, "z y x"], largest: float
) -> UInt8[np.ndarray, "h w 3"]:
    view = face(run.mean, level)
    rows = []
    for name, surface in (
        ("mean", make_surface(run.mean, level)),
        (
            f"spread, 0 to {largest:.2g}",
            make_surface(run.mean, level, ValueColours(spread, (0.0, largest), _SPREADS)),
        ),
    ):
        pictures = [draw_surface(surface, view.turned(turn), _TILE) for turn in _VIEWS.values()]
        tall = rows_used(pictures)
        rows.append(Row(name, [picture[tall] for picture in pictures], list(_VIEWS)))
    return sheet(rows)

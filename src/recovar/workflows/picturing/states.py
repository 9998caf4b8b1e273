r"""Volumes of several states to pictures that let eyes compare them.

Call `write_state_pictures` once all volumes are on disk. In a stage of a run:

    write_state_pictures(
        PicturedStates(
            volumes=[run / name for name in names],  # reweight_000.mrc … in one directory
            labels=["state 0\n8.2 Å, 412 images", …],
            mean=run / "output/volumes/mean.mrc",
            mask=run / "output/volumes/mask.mrc",
            variance=run / "output/volumes/variance4.mrc",
        ),
        lambda name: stage.write(f"output/analysis_4/kmeans_40/{name}"),
    )
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from recovar.core.grid import Grid
from recovar.core.resampling import resample
from recovar.data.mrc import read_volume
from recovar.errors import InputError
from recovar.picture_sheets import (
    Row,
    colour_values,
    rows_used,
    save_animation,
    save_picture,
    sheet,
)
from recovar.records import write_whole
from recovar.rendering import (
    Surface,
    ValueColours,
    View,
    default_level,
    draw_surface,
    face,
    make_surface,
    turn,
)
from recovar.workflows.picturing.chimerax import (
    Colouring,
    StateScript,
    describe_movie,
    describe_states,
)
from recovar.workflows.picturing.run import largest_on_surface

_COLUMNS = 8
"""Most states in a row of the montage."""
_TILE = 220
"""Pixels along the sides of a picture of the montage."""
_TURNING = 6
"""Most states that are turned."""
_TURNS = 20
"""Pictures of a full turn."""
_TURNING_TILE = 190
_PASSING_TILE = 320
_SECONDS = {"turn": 0.12, "pass": 0.25}
_SIGNED = "RdBu_r"


@dataclass(frozen=True, kw_only=True)
class PicturedStates:
    """Volumes that belong together; they share one box, one contour and one view."""

    volumes: Sequence[Path]
    """MRC files, in order."""
    directory: Path | None = None
    """Where pictures are written; the directory of the volumes by default."""
    labels: Sequence[str] = ()
    """What is written above each; "0", "1" … by default."""
    mean: Path | None = None
    """What states are compared with; the mean of the states by default."""
    mask: Path | None = None
    """Solvent mask, for the choice of the contour."""
    variance: Path | None = None
    """Variance of every voxel, which the script for ChimeraX can colour by."""
    along_path: bool = False
    """Whether neighbours in the list are neighbours on a path."""


@dataclass(frozen=True)
class _Compared:
    """States with what they share."""

    volumes: Float32[np.ndarray, "states z y x"]
    mean: Float32[np.ndarray, "z y x"]
    voxel_size: float
    level: float
    view: View
    most: float
    """Difference from the mean at the ends of the colour scale."""
    labels: Sequence[str]


def write_state_pictures(
    states: PicturedStates,
    write: Callable[[str], AbstractContextManager[Path]] | None = None,
) -> None:
    """Write `montage.png`, `turntable.gif`, `states.gif`, `chimerax.cxc` and `chimerax_movie.cxc`.

    The montage has every state as a surface, coloured by its difference from the mean, with
    slices of it and of the difference below. The turntable shows up to six states while they turn;
    `states.gif` passes through all states and back.

    Args:
        states: The volumes.
        write: Gives a temporary path for a name such as `montage.png`, in a context that moves it
            beside the volumes; by default files are written there whole.

    Raises:
        InputError: If there are no volumes, or boxes of different sizes.
    """
    directory = _directory_of(states)
    put = write or (lambda name: write_whole(directory / name))
    compared = _compare(states)
    surfaces = [_surface(compared, volume) for volume in compared.volumes]
    with put("montage.png") as path:
        save_picture(_draw_montage(compared, surfaces), path)
    with put("turntable.gif") as path:
        save_animation(_turn(compared, surfaces), path, _SECONDS["turn"])
    with put("states.gif") as path:
        save_animation(_pass_through(compared, surfaces), path, _SECONDS["pass"])
    script = StateScript(
        directory, tuple(states.volumes), compared.level, _colouring(states, compared),
        states.along_path,
    )  # fmt: skip
    with put("chimerax.cxc") as path:
        path.write_text(describe_states(script))
    if len(states.volumes) > 1:
        with put("chimerax_movie.cxc") as path:
            path.write_text(describe_movie(script))


def _directory_of(states: PicturedStates) -> Path:
    if states.directory is not None:
        return states.directory
    directories = {path.parent for path in states.volumes}
    if len(directories) != 1:
        raise InputError(
            f"Expected volumes in one directory, found {len(states.volumes)} in "
            f"{len(directories)} directories."
        )
    return directories.pop()


def _compare(states: PicturedStates) -> _Compared:
    maps = [read_volume(path) for path in states.volumes]
    sizes = {len(each.values) for each in maps}
    if len(sizes) > 1:
        raise InputError(f"Expected volumes of one size, found boxes of {sorted(sizes)} voxels.")
    volumes = np.stack([each.values for each in maps])
    grid = Grid(volumes.shape[-1], maps[0].voxel_size or 1.0)
    mean = volumes.mean(0) if states.mean is None else _read_on(grid, states.mean)
    mask = None if states.mask is None else _read_on(grid, states.mask)
    level = default_level(mean, mask)
    differences = np.abs(volumes - mean)[np.broadcast_to(mean >= level, volumes.shape)]
    most = float(np.percentile(differences, 99.5)) if differences.size else 0.0
    return _Compared(
        volumes,
        mean,
        grid.voxel_size,
        level,
        face(volumes.max(0), level),
        max(most, 0.5 * level),
        states.labels or [str(number) for number in range(len(volumes))],
    )


def _read_on(grid: Grid, path: Path) -> Float32[np.ndarray, "z y x"]:
    """Read a map, sampled as the states are."""
    found = read_volume(path)
    if len(found.values) == grid.size:
        return found.values
    return resample(found.values, found.voxel_size or grid.voxel_size, grid)


def _colouring(states: PicturedStates, compared: _Compared) -> Colouring | None:
    """Let the scale end where the variance at the surface is nearly largest."""
    if states.variance is None:
        return None
    grid = Grid(len(compared.mean), compared.voxel_size)
    variance = _read_on(grid, states.variance)
    return Colouring(states.variance, largest_on_surface(variance, compared.mean, compared.level))


def _surface(compared: _Compared, volume: Float32[np.ndarray, "z y x"]) -> Surface:
    limits = (-1.5 * compared.level, 1.5 * compared.level)
    colours = ValueColours(volume - compared.mean, limits, _SIGNED)
    return make_surface(volume, compared.level, colours)


def _draw_montage(compared: _Compared, surfaces: Sequence[Surface]) -> UInt8[np.ndarray, "h w 3"]:
    rotation, cut = compared.view.rotation, _crop(compared)
    mean = turn(compared.mean, rotation)
    turned = [turn(volume, rotation) for volume in compared.volumes]
    change = sum(((volume - mean) ** 2).sum((1, 2)) for volume in turned)
    plane = int(np.argmax(change if np.max(change) > 0 else mean.sum((1, 2))))
    slices = np.stack([volume[plane][cut] for volume in turned])
    bright = float(np.percentile(slices, 99.8)) or 1.0
    signed = (-compared.most, compared.most)
    drawn = [draw_surface(surface, compared.view, _TILE) for surface in surfaces]
    tall = rows_used(drawn)
    rows = []
    columns = ceil(len(turned) / ceil(len(turned) / _COLUMNS))
    for start in range(0, len(turned), columns):
        chosen = range(start, min(start + columns, len(turned)))
        rows += [
            Row("surface", [drawn[k][tall] for k in chosen], [compared.labels[k] for k in chosen]),
            Row("slice", [
                colour_values(slices[k], (-0.1 * bright, bright), "gray", _TILE)[tall]
                for k in chosen
            ]),
            Row("slice − mean", [
                colour_values(slices[k] - mean[plane][cut], signed, _SIGNED, _TILE)[tall]
                for k in chosen
            ]),
        ]  # fmt: skip
    return sheet(rows)


def _crop(compared: _Compared) -> tuple[slice, slice]:
    """Find the part of slices that pictures show."""
    size, view = compared.volumes.shape[-1], compared.view
    half = max(2, round(0.5 * view.width * size))
    right, up = size // 2 + np.rint(size * (view.rotation @ view.centre)[:2]).astype(int)
    rows, columns = (slice(max(0, int(at) - half), int(at) + half) for at in (up, right))
    return rows, columns


def _turn(compared: _Compared, surfaces: Sequence[Surface]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Turn some states side by side."""
    spread = np.linspace(0, len(surfaces) - 1, _TURNING)
    chosen: list[int] = sorted({round(float(place)) for place in spread})
    for angle in np.arange(_TURNS) * (2 * np.pi / _TURNS):
        view = compared.view.turned(float(angle))
        pictures = [draw_surface(surfaces[k], view, _TURNING_TILE) for k in chosen]
        half = 3 if len(chosen) > 4 else len(chosen)
        yield sheet(
            [
                Row(
                    "",
                    pictures[at : at + half],
                    [compared.labels[k] for k in chosen[at : at + half]],
                )
                for at in range(0, len(chosen), half)
            ]
        )


def _pass_through(
    compared: _Compared, surfaces: Sequence[Surface]
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Show all states one after the other, and back."""
    pictures = [
        sheet([Row("", [draw_surface(surface, compared.view, _PASSING_TILE)], [label])])
        for surface, label in zip(surfaces, compared.labels, strict=True)
    ]
    yield from pictures
    yield from pictures[-2:0:-1]

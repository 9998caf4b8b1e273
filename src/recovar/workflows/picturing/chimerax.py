"""Scripts that open maps in UCSF ChimeraX: one contour, soft light, colours, morphs, movies.

They were written from the public documentation of ChimeraX 1.x, with the simplest commands that do
the work. Names of files are relative: ChimeraX runs a script in the directory that it lies in.

Source: Meng et al. 2023, UCSF ChimeraX; commands open, volume, color, lighting, graphics, view,
hide, show, turn, wait and movie of its user guide.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_COLOURS = ("tan", "plum", "salmon", "khaki", "turquoise", "orchid", "coral", "silver")
_PALETTE = "blue:white:red"
_MORPH_FRAMES = 25
"""Pictures between two neighbouring states."""
_TURN_FRAMES = 90
"""Pictures of a full turn."""


@dataclass(frozen=True)
class Colouring:
    """A map that surfaces are coloured by."""

    path: Path
    largest: float
    """Value at the red end of the scale; the blue end is 0."""


@dataclass(frozen=True)
class StateScript:
    """States that a script shows."""

    directory: Path
    """Where the script will lie."""
    volumes: tuple[Path, ...]
    level: float
    """Contour in the units of the maps."""
    variance: Colouring | None = None
    along_path: bool = False
    """Whether neighbours in the list are neighbours on a path."""


@dataclass(frozen=True)
class RunScript:
    """The mean of a run and its components, which a script shows."""

    directory: Path
    """Where the script will lie."""
    mean: Path
    level: float
    """Contour of the mean in the units of the maps."""
    components: tuple[tuple[Path, Path], ...]
    """Each with its own sign and with the other one."""
    component_levels: tuple[float, ...]
    variance: Colouring | None = None


def quote(name: str) -> str:
    """Write a file name so that ChimeraX reads it as one word.

    Example:
        >>> print(quote("mean.mrc"), quote("my map.mrc"), quote('2" map.mrc'))
        mean.mrc "my map.mrc" '2" map.mrc'
    """
    if name[:1] != "-" and all(letter.isalnum() or letter in "._-/" for letter in name):
        return name
    mark = "'" if '"' in name else '"'
    return f"{mark}{name}{mark}"


def describe_states(script: StateScript) -> str:
    """Write a script that opens states with one contour; the first is shown."""
    count = len(script.volumes)
    lines = [
        f"# {count} state{'s' * (count > 1)} with one contour. Open this file in ChimeraX.",
        *_set_stage(),
        *_open_states(script),
    ]
    if script.variance is not None:
        lines += [
            "# Colours: variance of every voxel over all images, from none (blue) to most (red).",
            *_colour(script.directory, script.variance, _models(1, count), count + 1),
        ]
    if count > 1:
        lines += [
            "# Only the first is shown; others are a click away in the Models panel.",
            f"hide {_models(2, count)} models",
        ]
    return _text([*lines, "view"])


def describe_movie(script: StateScript) -> str:
    """Write a script that records a movie: a morph along a path, or one state after the other."""
    count, film = len(script.volumes), "states.mp4"
    lines = [
        f"# Records {film} beside the maps. Open this file in ChimeraX and wait until it is done.",
        *_set_stage(),
        *_open_states(script),
        "view",
        f"hide {_models(2, count)} models",
        "movie record",
    ]
    if script.along_path:
        frames = _MORPH_FRAMES * (count - 1)
        lines += [
            f"volume morph {_models(1, count)} frames {frames} playStep {1 / frames:.6f}",
            f"wait {frames}",
            f"turn y {360 / _TURN_FRAMES:g} {_TURN_FRAMES}",
            f"wait {_TURN_FRAMES}",
        ]
    else:
        for number in range(1, count + 1):
            lines += [
                f"show #{number} models",
                f"turn y {360 / _TURN_FRAMES:g} {_TURN_FRAMES}",
                f"wait {_TURN_FRAMES}",
                f"hide #{number} models",
            ]
    return _text([*lines, f"movie encode {film}"])


def describe_run(script: RunScript) -> str:
    """Write a script that opens the mean, coloured by variance, and the components within it."""
    lines = [
        "# The mean of the run and the ways in which molecules differ from it.",
        *_set_stage(),
        *_open(script.directory, script.mean),
        f"volume #1 style surface step 1 level {script.level:.6g}",
        "color #1 silver",
    ]
    model = 2
    if script.variance is not None:
        lines += [
            "# Colours: variance of every voxel over all images, from none (blue) to most (red).",
            *_colour(script.directory, script.variance, "#1", model),
        ]
        model += 1
    first = model
    for number, (pair, level) in enumerate(
        zip(script.components, script.component_levels, strict=True)
    ):
        lines.append(f"# Component {number}: what is gained (red) and lost (blue) along it.")
        for path, colour in zip(pair, ("red", "blue"), strict=True):
            lines += [
                *_open(script.directory, path),
                f"volume #{model} style surface step 1 level {level:.6g}",
                f"color #{model} {colour}",
            ]
            model += 1
    if script.components:
        shown = _models(first, first + 1)
        lines += [
            f"# They are hidden. To see the first: show {shown} models; transparency #1 60",
            f"hide {_models(first, model - 1)} models",
        ]
    return _text([*lines, "view"])


def _set_stage() -> list[str]:
    return [
        "close session",
        "set bgColor white",
        "windowsize 900 900",
        "lighting soft",
        "graphics silhouettes true",
    ]


def _open_states(script: StateScript) -> list[str]:
    lines = [line for path in script.volumes for line in _open(script.directory, path)]
    count = len(script.volumes)
    lines.append(f"volume {_models(1, count)} style surface step 1 level {script.level:.6g}")
    return lines + [
        f"color #{number + 1} {_COLOURS[number % len(_COLOURS)]}" for number in range(count)
    ]


def _open(directory: Path, path: Path) -> list[str]:
    return [f"open {quote(os.path.relpath(path, directory).replace(os.sep, '/'))}"]


def _colour(directory: Path, colouring: Colouring, surfaces: str, model: int) -> list[str]:
    return [
        *_open(directory, colouring.path),
        f"hide #{model} models",
        f"color sample {surfaces} map #{model} palette {_PALETTE} range 0,{colouring.largest:.6g}",
    ]


def _models(first: int, last: int) -> str:
    return f"#{first}" if first == last else f"#{first}-{last}"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"

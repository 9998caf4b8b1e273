"""Volumes to pictures: sums along rays, and shaded surfaces that need no display.

Pictures show a volume as programs for molecules do: x to the right, y up, z towards the viewer.
Their first row is the upper one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage

from recovar.core.grid import Grid
from recovar.core.masks import otsu_threshold
from recovar.core.rays_numba import block_maxima, first_crossings, interpolate, normals
from recovar.core.resampling import resample

_BELOW_OTSU = 0.85
_LEAST_NOISE = 3.0
_SAMPLES = 128
"""Side of the box that surfaces are looked for in."""
_MARGIN = 8
"""Voxels around a surface in which its shadows are computed."""
_OVERSAMPLING = 2
"""Rays along each side of a pixel."""
_KEY, _FILL = (-0.45, 0.65, 0.9), (0.9, -0.1, 0.45)
"""Directions to the lights, right up front."""
_AMBIENT, _KEY_STRENGTH, _FILL_STRENGTH, _GLOSS = 0.50, 0.48, 0.16, 0.10
_CAVITIES = ((0.03, 0.9), (0.1, 0.9))
"""Radii, in widths of the molecule, at which surroundings cast shadows, and how dark these are."""
_FLAT = 0.159
"""Part of a blurred half-space that is seen one standard deviation above it."""
_FADING = 0.18
"""How much paler the far end is than the near one."""
_LINE = 0.45
"""Brightness of outlines."""
_JUMP = 0.035
"""Widths of the molecule between two things of which the nearer gets an outline."""

GREY = (0.72, 0.76, 0.80)


@dataclass(frozen=True)
class View:
    """From where a volume is seen."""

    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    """Rows are the directions right, up and towards the viewer, in x y z."""
    width: float = 1.0
    """Side of the picture in sides of the box."""
    centre: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    """Point in the middle of the picture, x y z, from the origin in sides of the box."""

    def turned(self, angle: float) -> "View":
        """Turn what is seen about the picture's vertical axis, its front to the right; radians."""
        c, s = np.cos(angle), np.sin(angle)
        return replace(self, rotation=np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ self.rotation)


FRONT = View()
"""Nothing is turned."""


@dataclass(frozen=True)
class ValueColours:
    """Colours for a surface by the values of a second volume there."""

    values: Float[np.ndarray, "z y x"]
    limits: tuple[float, float]
    """Values at both ends of the colour map."""
    colour_map: str = "viridis"
    """A name that matplotlib knows."""


@dataclass(frozen=True)
class Surface:
    """A contour of a volume, ready to be seen from anywhere."""

    field: Float32[np.ndarray, "z y x"]
    """Part of the volume around the contour; below the level on its faces."""
    maxima: Float32[np.ndarray, "blocks_z blocks_y blocks_x"]
    level: float
    origin: Float[np.ndarray, " 3"]
    """Origin of the volume, in voxels of `field`, z y x."""
    side: int
    """Of the box of the volume, in voxels of `field`."""
    surroundings: tuple[Float32[np.ndarray, "z y x"], ...]
    """How much of the molecule is near each point, for every radius of `_CAVITIES`."""
    painted: Float32[np.ndarray, "z y x"] | None
    """Values that the surface is coloured by."""
    colours: ValueColours | tuple[float, float, float]

    @property
    def width(self) -> float:
        """Largest side of the field in voxels."""
        return float(max(self.field.shape))


def default_level(
    volume: Float[np.ndarray, "z y x"], mask: Float[np.ndarray, "z y x"] | None = None
) -> float:
    """Choose the value of a contour that shows the molecule, weaker parts included.

    Otsu's threshold splits the values within the mask, or the positive values where there is none,
    into solvent and molecule; the contour lies at 0.85 of it. Where noise is left beyond the mask,
    the contour is at least three of its standard deviations above 0.

    Args:
        volume: Map, of density above 0.
        mask: Where the molecule may be; above 0.5 is inside, below 0.01 outside.
    """
    inside = volume > 0 if mask is None else mask > 0.5
    values = volume[inside].astype(np.float64)
    if values.size == 0:
        return 0.0
    solvent = np.zeros(1) if mask is None else volume[mask < 0.01]
    noise = float(np.std(solvent, dtype=np.float64)) if solvent.size else 0.0
    return max(_BELOW_OTSU * otsu_threshold(values), _LEAST_NOISE * noise)


def face(volume: Float[np.ndarray, "z y x"], level: float, margin: float = 1.08) -> View:
    """Look at a molecule's broad side, with its length from left to right.

    The width of the view holds what is above the level, also while it is turned.
    """
    size = len(volume)
    places = (np.argwhere(volume >= level) - size // 2)[:, ::-1].astype(float)
    if len(places) < 2:
        return FRONT
    axes = np.linalg.svd(places - places.mean(0), full_matrices=False)[2]
    axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]
    axes[2] = np.cross(axes[0], axes[1])
    along = places @ axes.T
    low, high = np.percentile(along, (0.1, 99.9), axis=0)
    middle = 0.5 * (low + high)
    beside = np.percentile(np.hypot(*(along - middle)[:, [0, 2]].T), 99.9)
    radius = max(float(beside), 0.5 * float(high[1] - low[1])) + 1
    return View(axes, min(1.0, 2 * margin * radius / size), middle @ axes / size)


def project(volume: Float[np.ndarray, "z y x"], view: View = FRONT) -> Float[np.ndarray, "y x"]:
    """Sum a volume along the direction of view.

    Returns:
        Picture of the size of the volume, with y upwards in the first axis as in images: the sum
        over z where nothing is turned. `view.width` is not used.
    """
    return turn(volume, view.rotation).sum(0)


def turn(
    volume: Float[np.ndarray, "z y x"], rotation: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "z y x"]:
    """Turn a volume about its origin until the rows of a rotation are its axes x, y and z."""
    if np.array_equal(rotation, np.eye(3)):
        return volume
    matrix = rotation.T[::-1, ::-1]
    centre = np.full(3, len(volume) // 2)
    offset: Any = centre - matrix @ centre
    return ndimage.affine_transform(volume, matrix, offset, order=1)


def make_surface(
    volume: Float[np.ndarray, "z y x"],
    level: float,
    colours: ValueColours | tuple[float, float, float] = GREY,
    dust: float = 0.005,
) -> Surface:
    """Find a contour, once for all views.

    The volume is sampled anew on 128 voxels a side by its waves, which makes coarse maps smooth
    and large ones quick.

    Args:
        volume: Map.
        level: Value of the contour.
        colours: One colour, or values of another volume.
        dust: Parts of less than this fraction of the largest part's volume are not drawn.
    """
    fine = _without_dust(_sample(volume), level, dust)
    inside = fine >= level
    if not inside.any():
        empty = np.full((2, 2, 2), level - 1 - abs(level), np.float32)
        return Surface(
            empty, empty[:1, :1, :1], level, np.zeros(3), _SAMPLES, (empty, empty), None, GREY
        )
    box = tuple(
        slice(max(int(place.start) - _MARGIN, 0), int(place.stop) + _MARGIN)
        for place in ndimage.find_objects(inside.astype(np.int8))[0]
    )
    low = level - (float(fine.max()) - level) - 1e-6 * abs(level)
    part = np.pad(fine[box], 1, constant_values=low)
    origin = np.array([len(fine) // 2 - place.start + 1 for place in box], float)
    painted = None
    if isinstance(colours, ValueColours):
        painted = np.pad(_sample(colours.values)[box], 1, "edge")
    body = (part >= level).astype(np.float32)
    width = max(part.shape)
    return Surface(
        part,
        block_maxima(part),
        level,
        origin,
        len(fine),
        tuple(
            ndimage.gaussian_filter(body, radius * width, mode="constant", truncate=3.0)
            for radius, _ in _CAVITIES
        ),
        painted,
        colours,
    )


def _sample(volume: Float[np.ndarray, "z y x"]) -> Float32[np.ndarray, "fine fine fine"]:
    if len(volume) == _SAMPLES:
        return np.ascontiguousarray(volume, np.float32)
    return resample(volume, 1.0, Grid(_SAMPLES, len(volume) / _SAMPLES))


def _without_dust(
    fine: Float32[np.ndarray, "z y x"], level: float, dust: float
) -> Float32[np.ndarray, "z y x"]:
    """Lower what is in small parts below the level."""
    labels = np.zeros(fine.shape, np.int32)
    ndimage.label(fine >= level, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = sizes[1:].max(initial=0)
    small = (sizes < dust * sizes[0])[labels]
    return np.where(small, np.minimum(2 * level - fine, np.float32(level) - 1e-6), fine)


def draw_surface(
    surface: Surface, view: View = FRONT, pixels: int = 300
) -> UInt8[np.ndarray, "pixels pixels 4"]:
    """Draw a surface with light, shadow and outlines.

    Returns:
        Red, green, blue and opacity; nothing where there is no surface.
    """
    size = _OVERSAMPLING * pixels
    right, up, towards = view.rotation[:, ::-1]  # z y x
    step = view.width * surface.side / size
    reach = 2.0 * surface.side
    middle = 0.5 * (size - 1) * step
    centre = surface.origin + surface.side * view.centre[::-1]
    corner = centre - middle * right + middle * up + reach * towards
    distance = first_crossings(
        surface.field, surface.maxima, surface.level, corner, step * right, -step * up, -towards,
        size,
    )  # fmt: skip
    hit = np.isfinite(distance)
    sheet = np.zeros((size, size, 4), np.float32)
    if hit.any():
        rows, columns = np.nonzero(hit)
        depths = distance[hit]
        along = np.stack([step * right, -step * up, -towards]).astype(np.float32)
        points = np.stack([columns, rows, depths], 1, dtype=np.float32) @ along
        points += corner.astype(np.float32)
        paint = _shade(surface, points, view)
        far = (depths - depths.min()) / surface.width
        paint += (_FADING * far)[:, None] * (1 - paint)
        sheet[hit, :3] = paint * _outline(distance, _JUMP * surface.width)[hit, None]
        sheet[hit, 3] = 1
    return _average(sheet, pixels)


def render_surface(
    volume: Float[np.ndarray, "z y x"],
    level: float,
    view: View = FRONT,
    colours: ValueColours | tuple[float, float, float] = GREY,
    pixels: int = 300,
) -> UInt8[np.ndarray, "pixels pixels 4"]:
    """Draw one view of a contour; `make_surface` and `draw_surface` are quicker for several."""
    return draw_surface(make_surface(volume, level, colours), view, pixels)


def turntable(
    surface: Surface, view: View = FRONT, frames: int = 36, pixels: int = 300
) -> Iterator[UInt8[np.ndarray, "pixels pixels 4"]]:
    """Draw a surface while it turns once about the vertical axis."""
    for angle in np.arange(frames) * (2 * np.pi / frames):
        yield draw_surface(surface, view.turned(angle), pixels)


def _shade(
    surface: Surface, points: Float[np.ndarray, "points 3"], view: View
) -> Float[np.ndarray, "points 3"]:
    """Light points of a surface from two sides and all around."""
    outward = normals(surface.field, points)
    openness = np.ones(len(points), np.float32)
    for blurred, (radius, strength) in zip(surface.surroundings, _CAVITIES, strict=True):
        near = interpolate(blurred, points + np.float32(radius * surface.width) * outward)
        openness *= np.clip(1 - strength * (near - _FLAT), 0.25, 1.1)
    seen = outward[:, ::-1] @ view.rotation.T.astype(np.float32)  # right, up, towards the viewer
    key, fill = (_direction(light) for light in (_KEY, _FILL))
    light = (
        _AMBIENT + _KEY_STRENGTH * np.maximum(seen @ key, 0)
        + _FILL_STRENGTH * np.maximum(seen @ fill, 0)
    )  # fmt: skip
    gloss = np.maximum(seen @ _direction(key + _direction((0.0, 0.0, 1.0))), 0) ** 32
    shine = (_GLOSS * gloss * openness)[:, None]
    return np.clip(_paint(surface, points) * (light * openness)[:, None] + shine, 0, 1)


def _direction(vector: Sequence[float] | Float[np.ndarray, " 3"]) -> Float32[np.ndarray, " 3"]:
    return np.asarray(np.divide(vector, np.linalg.norm(vector)), np.float32)


def _paint(surface: Surface, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "..."]:
    """Give the colours of a surface before light falls on it."""
    if not isinstance(surface.colours, ValueColours) or surface.painted is None:
        return np.asarray(surface.colours, np.float32)
    low, high = surface.colours.limits
    values = (interpolate(surface.painted, points) - low) / max(high - low, 1e-30)
    return matplotlib.colormaps[surface.colours.colour_map](np.clip(values, 0, 1))[:, :3]


def _outline(
    distance: Float[np.ndarray, "rows columns"], jump: float
) -> Float[np.ndarray, "rows columns"]:
    """Darken what lies in front of something much farther away, or of nothing."""
    farthest = ndimage.maximum_filter(distance, size=3, mode="nearest")
    with np.errstate(invalid="ignore"):
        return np.where(farthest - distance > jump, np.float32(_LINE), np.float32(1))


def _average(
    sheet: Float32[np.ndarray, "rows columns 4"], pixels: int
) -> UInt8[np.ndarray, "pixels pixels 4"]:
    """Average the rays of every pixel, weighing colours by opacity."""
    sums = sheet[::2, ::2] + sheet[1::2, ::2] + sheet[::2, 1::2] + sheet[1::2, 1::2]
    sums[..., :3] /= np.maximum(sums[..., 3:], 1)
    sums[..., 3] /= _OVERSAMPLING**2
    return np.rint(255 * sums).astype(np.uint8)

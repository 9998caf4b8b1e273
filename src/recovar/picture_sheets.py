"""Pictures side by side with words beside them, as PNG files and as animations."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from recovar.errors import InputError

_INK = "#1f2933"
_RESOLUTION = 100
"""Pixels per inch that sizes of letters refer to."""
_LETTERS = 8
"""Size of letters in points."""
_LINE = 15
"""Pixels that a line of words takes."""
_GAP = 6
"""Pixels between pictures."""
_SMALLER = 0.8
"""Factor on the sides of animations that are too large."""


@dataclass(frozen=True)
class Row:
    """Pictures of one size, with what they are."""

    name: str
    """Written at the left."""
    pictures: Sequence[UInt8[np.ndarray, "y x colours"]]
    labels: Sequence[str] = ()
    """Written above the pictures; may have several lines."""


def on_white(picture: UInt8[np.ndarray, "y x colours"]) -> UInt8[np.ndarray, "y x 3"]:
    """Put a picture on a white page."""
    if picture.shape[2] == 3:
        return picture
    opacity = picture[..., 3:].astype(np.float32) / 255
    return np.rint(picture[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)


def colour_values(
    image: Float[np.ndarray, "y x"], limits: tuple[float, float], colour_map: str, pixels: int
) -> UInt8[np.ndarray, "pixels pixels 3"]:
    """Colour a square image whose first row is the lowest, enlarged smoothly."""
    low, high = limits
    enlarged = Image.fromarray(image[::-1].astype(np.float32)).resize(
        (pixels, pixels), Image.Resampling.BICUBIC
    )
    values = np.clip((np.asarray(enlarged) - low) / max(high - low, 1e-30), 0, 1)
    return np.rint(255 * matplotlib.colormaps[colour_map](values)[..., :3]).astype(np.uint8)


def rows_used(pictures: Sequence[UInt8[np.ndarray, "y x 4"]]) -> slice:
    """Find the rows in which any of some transparent pictures shows something, with a margin."""
    rows = np.flatnonzero(np.max([picture[..., 3].max(1) for picture in pictures], axis=0))
    if rows.size == 0:
        return slice(None)
    margin = len(pictures[0]) // 20
    return slice(max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin)


def sheet(rows: Sequence[Row]) -> UInt8[np.ndarray, "height width 3"]:
    """Put rows of pictures below each other, with their words."""
    left = _LINE if any(row.name for row in rows) else 0
    width = left + max(sum(p.shape[1] + _GAP for p in row.pictures) for row in rows) - _GAP
    heads = [
        _LINE * max((label.count("\n") + 1 for label in row.labels), default=0) for row in rows
    ]
    heights = [head + row.pictures[0].shape[0] for head, row in zip(heads, rows, strict=True)]
    page = np.full((sum(heights) + _GAP * (len(rows) - 1), width, 3), 255, np.uint8)
    words = []
    top = 0
    for row, head, height in zip(rows, heads, heights, strict=True):
        words.append(_Words(row.name, _LINE / 2, top + (head + height) / 2, sideways=True))
        x = left
        for number, picture in enumerate(row.pictures):
            high, wide = picture.shape[:2]
            page[top + head : top + head + high, x : x + wide] = on_white(picture)
            if number < len(row.labels):
                words.append(_Words(row.labels[number], x + wide / 2, top + head / 2))
            x += wide + _GAP
        top += height + _GAP
    return _write_words(page, [word for word in words if word.text])


@dataclass(frozen=True)
class _Words:
    text: str
    x: float
    y: float
    sideways: bool = False


def _write_words(
    page: UInt8[np.ndarray, "height width 3"], words: Sequence[_Words]
) -> UInt8[np.ndarray, "height width 3"]:
    if not words:
        return page
    height, width = page.shape[:2]
    figure = Figure((width / _RESOLUTION, height / _RESOLUTION), dpi=_RESOLUTION)
    figure.patch.set_alpha(0)
    canvas = FigureCanvasAgg(figure)
    for word in words:
        figure.text(
            word.x / width, 1 - word.y / height, word.text, fontsize=_LETTERS, color=_INK,
            ha="center", va="center", rotation=90 if word.sideways else 0, parse_math=False,
        )  # fmt: skip
    canvas.draw()
    letters = np.asarray(canvas.buffer_rgba())
    opacity = letters[..., 3:].astype(np.float32) / 255
    return np.rint(letters[..., :3] * opacity + page * (1 - opacity)).astype(np.uint8)


def save_picture(picture: UInt8[np.ndarray, "y x colours"], path: Path) -> None:
    """Write a picture as a PNG file."""
    Image.fromarray(picture).save(path, format="PNG", optimize=True)


def save_animation(
    frames: Iterable[UInt8[np.ndarray, "y x colours"]],
    path: Path,
    seconds: float = 0.1,
    most_bytes: int = 3_000_000,
) -> None:
    """Write pictures that follow each other without end, as GIF or WebP by the name of the file.

    Args:
        frames: Pictures of one size.
        path: File to write; it ends in `.gif` or `.webp`.
        seconds: How long each picture is shown.
        most_bytes: A larger file is written again with smaller pictures until it is not.

    Raises:
        InputError: If the name ends otherwise.
    """
    encoders: dict[str, Callable[[list[Image.Image], int], bytes]] = {
        ".gif": _encode_gif, ".webp": _encode_webp,
    }  # fmt: skip
    if path.suffix not in encoders:
        raise InputError(f"Expected a name that ends in .gif or .webp, got {path.name}.")
    pictures = [Image.fromarray(on_white(frame)) for frame in frames]
    milliseconds = round(1000 * seconds)
    encoded = encoders[path.suffix](pictures, milliseconds)
    while len(encoded) > most_bytes and min(pictures[0].size) > _LINE:
        width, height = (max(1, round(_SMALLER * side)) for side in pictures[0].size)
        pictures = [
            picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures
        ]
        encoded = encoders[path.suffix](pictures, milliseconds)
    path.write_bytes(encoded)


def _encode_gif(pictures: list[Image.Image], milliseconds: int) -> bytes:
    """Encode with one palette for all pictures, so that colours do not flicker."""
    shown = pictures[:: max(1, len(pictures) // 6)]
    strip = Image.fromarray(np.concatenate([np.asarray(picture) for picture in shown]))
    palette = strip.quantize(255)
    colours = (palette.getpalette() or [])[: 3 * 255]
    palette.putpalette([*colours, *[0] * (3 * 255 - len(colours)), 255, 255, 255])
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    return _encode(flat, "GIF", milliseconds)


def _encode_webp(pictures: list[Image.Image], milliseconds: int) -> bytes:
    return _encode(pictures, "WEBP", milliseconds, quality=85)


def _encode(pictures: list[Image.Image], kind: str, milliseconds: int, **options: int) -> bytes:
    file = io.BytesIO()
    pictures[0].save(
        file, kind, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0,
        **options,
    )  # fmt: skip
    return file.getvalue()

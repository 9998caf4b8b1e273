"""Volumes as small pictures that a page can hold: slices, projections and outlines of masks."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from contourpy import contour_generator
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image, ImageSequence

from recovar.workflows.reporting.markup import Markup, element, figure

_MOST_PIXELS = 192
"""Along a side of a picture; larger ones are shrunk."""
_QUALITY = 82
_MOVING_WIDTH = 640
"""Of pictures that move."""
_LEAST_WIDTH = 200
_MOST_BYTES = 1_000_000
"""Of one picture as text; a larger one is made smaller."""
AXES = "zyx"


@dataclass(frozen=True)
class Shade:
    """How numbers become grey levels or colours."""

    low: float
    high: float
    colours: str = "gray"
    """Name of a colour map of matplotlib."""

    def paint(self, image: Float[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x rgb"]:
        """Give the colours of an image."""
        share = (image - self.low) / ((self.high - self.low) or 1.0)
        return np.asarray(colormaps[self.colours](np.clip(share, 0, 1), bytes=True))[..., :3]


def grey_shade(images: Sequence[Float[np.ndarray, "y x"]]) -> Shade:
    """Choose grey levels that leave out extremes of some images."""
    low, high = np.percentile(np.stack(images), (0.5, 99.8))
    return Shade(float(low), float(high))


def signed_shade(images: Sequence[Float[np.ndarray, "y x"]]) -> Shade:
    """Choose colours that are white at 0 and fair to both signs."""
    limit = float(np.percentile(np.abs(np.stack(images)), 99.9)) or 1.0
    return Shade(-limit, limit, "RdBu_r")


def heat_shade(images: Sequence[Float[np.ndarray, "y x"]]) -> Shade:
    """Choose colours for what is 0 or above."""
    return Shade(0.0, float(np.percentile(np.stack(images), 99.9)) or 1.0, "magma")


def slices_of(
    volume: Float[np.ndarray, "z y x"], centre: Sequence[int] | None = None
) -> list[Float[np.ndarray, "y x"]]:
    """Cut a volume across its axes, through the middle or where it is said."""
    places = [side // 2 for side in volume.shape] if centre is None else centre
    return [np.take(volume, int(place), axis) for axis, place in enumerate(places)]


def encode_picture(image: UInt8[np.ndarray, "y x rgb"]) -> str:
    """Give an image as an address that holds all of it; the first row is the lowest one."""
    picture = Image.fromarray(np.ascontiguousarray(image[::-1]))
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.LANCZOS)
    return _encode([picture])


def encode_turning(images: Iterable[UInt8[np.ndarray, "y x rgba"]], seconds: float) -> str:
    """Give pictures that follow each other without end, each shown for so long, as an address."""
    return _encode([Image.fromarray(image) for image in images], round(1000 * seconds))


def embed_picture(file: Path, caption: str, most_width: int = 1400) -> Markup:
    """Show a picture from a file, made smaller if it is wide; some move."""
    with Image.open(file) as picture:
        milliseconds = int(picture.info.get("duration", 0))
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
    width = most_width if len(frames) == 1 else _MOVING_WIDTH
    address = _encode(_shrunk(frames, width), milliseconds)
    while len(address) > _MOST_BYTES and width > _LEAST_WIDTH:
        width = round(0.8 * width)
        address = _encode(_shrunk(frames, width), milliseconds)
    return figure(element("img", src=address, alt=caption), caption, "picture")


def _shrunk(frames: Sequence[Image.Image], width: int) -> list[Image.Image]:
    """Make pictures so narrow, if they are wider."""
    share = min(1.0, width / frames[0].width)
    size = (round(share * frames[0].width), max(1, round(share * frames[0].height)))
    return [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]


def _encode(frames: Sequence[Image.Image], milliseconds: int = 0) -> str:
    """Give a picture, or several that follow each other, as an address that holds all of it."""
    buffer = io.BytesIO()
    moving = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    frames[0].save(
        buffer, format="WEBP", quality=_QUALITY, method=2, **(moving if len(frames) > 1 else {})
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def tile(
    image: Float[np.ndarray, "y x"],
    shade: Shade,
    caption: str,
    outlines: Sequence[tuple[Float[np.ndarray, "y x"], float]] = (),
) -> Markup:
    """Show one image with its caption.

    Args:
        image: Numbers; the first row is the lowest one.
        shade: How they are painted.
        caption: What is seen.
        outlines: Further images, and the value whose contour is drawn on top.
    """
    height, width = image.shape
    drawing = element(
        "svg",
        element("title", caption),
        element(
            "image", href=encode_picture(shade.paint(image)), width=width, height=height,
            preserveAspectRatio="none",
        ),
        [
            element("path", d=trace_outline(other, level), class_=f"outline o{number}")
            for number, (other, level) in enumerate(outlines)
        ],
        viewBox=f"0 0 {width} {height}",
        role="img",
    )  # fmt: skip
    return element("figure", drawing, element("figcaption", caption), class_="tile")


def tiles(parts: Sequence[str]) -> Markup:
    """Set pictures beside each other."""
    return element("div", parts, class_="tiles")


def trace_outline(image: Float[np.ndarray, "y x"], level: float) -> str:
    """Follow the contour of an image, as the path of an SVG whose units are pixels."""
    if not image.min() < level < image.max():
        return ""
    lines = contour_generator(z=image).lines(level)
    height = len(image)
    words = []
    for line in lines:
        corners = (f"{x + 0.5:.1f} {height - y - 0.5:.1f}" for x, y in np.asarray(line))
        words.append("M" + "L".join(corners))
    return "".join(words)

"""Images of several boxes and pixel sizes, brought to one grid when they are read."""

from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64, Int16, Int64

_SAME = 1e-3
"""Pixel sizes that agree this far are rounded values of one: a wide particle, 300 pixels across,
would be drawn 0.15 pixels too large or too small on either side."""
_BEYOND = 0.5
"""Pixels by which the grid may reach beyond the smallest field, as pixel sizes are rounded."""
_IMAGES = 32
"""Images that are resampled at a time."""


@dataclass(frozen=True)
class ImageKind:
    """Box and pixel size of images as files hold them."""

    box: int
    """Pixels along a side, even or odd; the origin is at box // 2."""
    pixel_size: float
    """Å."""


KindOfImages: TypeAlias = Int16[np.ndarray, " images"]


@dataclass(frozen=True)
class CommonGrid:
    """The grid of images, and which of them are brought to it from where."""

    target: ImageKind
    kinds: tuple[ImageKind, ...] = ()
    """Kinds of images in the files; empty if all are on the grid."""
    kind: KindOfImages | None = None
    """Which of `kinds` each image is of."""


def find_common_grid(
    box: Int64[np.ndarray, " images"], pixel_size: Float64[np.ndarray, " images"]
) -> CommonGrid:
    """Choose the grid of images: the coarsest pixels, in the smallest field of view.

    So nothing is invented: no frequency that some images lack, and no pixel around their edges.
    Images with an odd number of pixels lose the last row and column.
    """
    if box.min() == box.max() and pixel_size.max() <= (1 + _SAME) * pixel_size.min():
        only = ImageKind(int(box[0]), float(np.median(pixel_size)))
        if only.box % 2 == 0:
            return CommonGrid(only)
        target = ImageKind(only.box - 1, only.pixel_size)
        return CommonGrid(target, (only,), np.zeros(len(box), np.int16))
    sizes, size_of = _rounded_alike(pixel_size)
    boxes, box_of = np.unique(box, return_inverse=True)
    pairs, kind = np.unique(size_of * len(boxes) + box_of.reshape(-1), return_inverse=True)
    kinds = tuple(
        ImageKind(int(boxes[pair % len(boxes)]), float(sizes[pair // len(boxes)])) for pair in pairs
    )
    coarsest = max(each.pixel_size for each in kinds)
    field = min(each.box * each.pixel_size for each in kinds) / coarsest
    target = ImageKind(2 * int((field + _BEYOND) / 2), coarsest)
    return CommonGrid(target, kinds, kind.reshape(-1).astype(np.int16))


def _rounded_alike(
    pixel_size: Float64[np.ndarray, " images"],
) -> tuple[Float64[np.ndarray, " sizes"], Int64[np.ndarray, " images"]]:
    """Group pixel sizes that are one but for rounding, and give each group its median."""
    distinct, which = np.unique(pixel_size, return_inverse=True)
    group, first, groups = 0, distinct[0], np.zeros(len(distinct), np.int64)
    for k, size in enumerate(distinct):
        if size > (1 + _SAME) * first:
            group, first = group + 1, size
        groups[k] = group
    of_images = groups[which.reshape(-1)]
    medians = [np.median(pixel_size[of_images == each]) for each in range(group + 1)]
    return np.array(medians), of_images


def describe_kinds(grid: CommonGrid) -> str:
    """Tell which images there are.

    Example:
        >>> sizes = np.where(np.arange(15) < 3, 1.6375, 1.31)
        >>> grid = find_common_grid(np.where(sizes > 1.5, 256, 320), sizes)
        >>> describe_kinds(grid)
        '12 of 320 px at 1.31 Å, 3 of 256 px at 1.6375 Å'
        >>> grid.target
        ImageKind(box=256, pixel_size=1.6375)
    """
    counts = np.bincount(() if grid.kind is None else grid.kind)
    return ", ".join(
        f"{count:,} of {kind.box} px at {kind.pixel_size:g} Å"
        for kind, count in zip(grid.kinds, counts, strict=True)
    )


def bring_to_grid(
    images: Float[np.ndarray, "images y x"], kind: ImageKind, target: ImageKind
) -> Float32[np.ndarray, "images new_y new_x"]:
    """Cut out the centre of images, and sample their waves anew where pixels differ.

    Both grids have their origins in one place. Pixels keep their meaning: what is flat stays as
    high as it was. Only waves longer than two pixels of the target are kept.
    """
    if kind.pixel_size == target.pixel_size:
        start = kind.box // 2 - target.box // 2
        cut = slice(start, start + target.box)
        return images[:, cut, cut].astype(np.float32, copy=False)
    mixing = _mixing(kind, target)
    found = np.empty((len(images), target.box, target.box), np.float32)
    for start in range(0, len(images), _IMAGES):
        part = slice(start, start + _IMAGES)
        found[part] = mixing @ images[part].astype(np.float32) @ mixing.T
    return found


@cache
def _mixing(kind: ImageKind, target: ImageKind) -> Float32[np.ndarray, "new old"]:
    """Give the sum over waves of the old box, from old places to new ones, along one axis."""
    side = kind.box * kind.pixel_size
    old = (np.arange(kind.box) - kind.box // 2) * kind.pixel_size
    new = (np.arange(target.box) - target.box // 2) * target.pixel_size
    largest = min((kind.box - 1) // 2, ceil(side / (2 * target.pixel_size) - 1e-6) - 1)
    distance = (new[:, None] - old) / side
    distance -= np.rint(distance)
    waves = 2 * largest + 1
    mixing = waves * np.sinc(waves * distance) / np.sinc(distance) / kind.box
    return mixing.astype(np.float32)

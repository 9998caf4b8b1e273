"""Soft masks: where the molecule is, in the volume and in every image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import ndimage

from recovar.core import fourier
from recovar.core.frequencies import Ball, Disc
from recovar.core.halves import Halves
from recovar.core.volumes import to_ball
from recovar.errors import InputError

EDGE = 3.0
"""Width of soft edges in pixels."""

_LEAST_WIDTH = 1e-3
"""Of an edge, in pixels; narrower ones are steps."""

_PROJECTED_SIZE = 64
"""Masks are smooth: their projections are computed in a box of at most this size."""

_OVERSAMPLING = 4
"""With 2, interpolation would leave 3 % of the thickness of a large mask outside of it."""


@dataclass(frozen=True)
class SolventMask:
    """Where density may be."""

    mask: Float[np.ndarray, "z y x"]
    """Soft mask that multiplies maps, between 0 and 1."""
    dilated: Float[np.ndarray, "z y x"]
    """Wider soft mask; its projections bound the molecule in the images."""
    binary: Bool[np.ndarray, "z y x"]
    """The set that `mask` was made from."""


def distances_from(binary: Bool[np.ndarray, "*points"]) -> Float[np.ndarray, "*points"]:
    """Compute the Euclidean distance of every point from a set, in pixels; 0 on it.

    In a fifth of the memory that distances take by default.

    Example:
        >>> distances_from(np.array([True, False, False])).tolist()
        [0.0, 1.0, 2.0]
    """
    nearest = ndimage.distance_transform_edt(~binary, return_distances=False, return_indices=True)
    squares = np.zeros(binary.shape, np.float32)
    for axis, places in enumerate(np.asarray(nearest)):
        own = np.arange(binary.shape[axis], dtype=np.int32)
        places -= own.reshape([-1 if a == axis else 1 for a in range(binary.ndim)])
        places *= places
        squares += places
    return np.sqrt(squares, out=squares)


def soft_edge(
    binary: Bool[np.ndarray, "*points"], width: float | int = EDGE, margin: float | int = 0
) -> Float[np.ndarray, "*points"]:
    """Surround a set with an edge that falls as a cosine of the Euclidean distance.

    Args:
        binary: The set; the mask is 1 on it.
        width: Distance in pixels over which the mask falls to 0.
        margin: Distance in pixels up to which it is still 1.
    """
    if not binary.any():
        return np.zeros(binary.shape, np.float32)
    beyond = (distances_from(binary) - np.float32(margin)) / np.float32(max(width, _LEAST_WIDTH))
    return 0.5 + 0.5 * np.cos(np.float32(np.pi) * np.clip(beyond, 0, 1))


def dilate(binary: Bool[np.ndarray, "z y x"], iterations: int) -> Bool[np.ndarray, "z y x"]:
    """Grow a set by its face neighbours, `iterations` times; 0 leaves it as it is."""
    return ndimage.binary_dilation(binary, iterations=iterations) if iterations else binary


def default_dilation(size: int) -> int:
    """Give the margin in voxels between a mask and its dilated version: 6 in a box of 128."""
    return -(-6 * size // 128)


def sphere(size: int) -> Bool[np.ndarray, "z y x"]:
    """Mark the voxels closer to the origin than size/2 − 1."""
    return _radii(size, 3) < size / 2 - 1


def window_volume(
    volume: Float[np.ndarray, "z y x"], width: float | int = EDGE
) -> Float[np.ndarray, "z y x"]:
    """Replace what lies outside the inscribed sphere by a constant, with a soft transition.

    The constant is the mean over the transition, weighted by the window.
    """
    size = volume.shape[-1]
    beyond = np.clip((_radii(size, 3) - size / 2) / width, 0, 1)
    window = (0.5 + 0.5 * np.cos(np.pi * beyond)).astype(np.float32)
    band = window * ((beyond > 0) & (beyond < 1))
    background = np.vdot(band, volume) / max(float(band.sum(dtype=np.float64)), 1.0)
    return (window * volume + (1 - window) * background).astype(np.float32)


def solvent_mask(binary: Bool[np.ndarray, "z y x"]) -> SolventMask:
    """Give a set its soft edge and its dilated version."""
    wide = dilate(binary, default_dilation(binary.shape[-1]))
    return SolventMask(soft_edge(binary), soft_edge(wide), binary)


def no_mask(size: int) -> SolventMask:
    """Let density be anywhere in the box."""
    return solvent_mask(np.ones((size,) * 3, bool))


def spherical_mask(size: int) -> SolventMask:
    """Let density be anywhere in the inscribed ball, which is not dilated further."""
    ball = sphere(size)
    mask = soft_edge(ball)
    return SolventMask(mask, mask, ball)


def mask_from_volume(
    volume: Float[np.ndarray, "z y x"], dilation: int = 0, *, keep: bool = False
) -> SolventMask:
    """Take a mask that the user made.

    Args:
        volume: The mask; values above 0.5 are inside.
        dilation: Extra growth, in steps of one voxel.
        keep: Multiply maps by the given values, as they are, instead of a new soft edge.

    Raises:
        InputError: If nothing is inside.
    """
    binary = dilate(volume > 0.5, dilation)
    if not binary.any():
        raise InputError(
            f"Expected a mask with values above 0.5, found none above {volume.max():.3g}. "
            "Scale the mask so that it is 1 inside."
        )
    made = solvent_mask(binary)
    return SolventMask(volume.astype(np.float32), made.dilated, binary) if keep else made


def mask_from_halfmaps(halves: Halves[Float[np.ndarray, "z y x"]]) -> SolventMask:
    """Find the molecule: blur the mean of two half-maps, threshold, keep the largest body.

    Density must be positive. The threshold is Otsu's, or the 99th percentile where that leaves
    nothing or nearly everything.
    """
    average = 0.5 * (halves.first + halves.second)
    size = average.shape[-1]
    blurred = ndimage.gaussian_filter(average, max(2, size // 64))
    ball = sphere(size)
    body = ball & (blurred > otsu_threshold(blurred[ball]))
    if not 0 < body.sum() < 0.5 * ball.sum():
        body = ball & (blurred >= np.percentile(blurred[ball], 99))
    body = _largest_component(np.asarray(ndimage.binary_fill_holes(body)))
    distance = distances_from(body)
    return solvent_mask(distance <= default_dilation(size))


def otsu_threshold(values: Float[np.ndarray, " n"]) -> float:
    """Split values in two classes so that the variance between the classes is largest."""
    counts, edges = np.histogram(values, 256)
    centres = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = total[:-1] / below - (total[-1] - total[:-1]) / above
    return float(centres[np.argmax(np.nan_to_num(below * above * gap**2))])


@dataclass(frozen=True)
class MaskProjector:
    """Makes the mask of an image by projecting a volume mask along its viewing direction."""

    size: int
    """Side of the images in pixels."""
    values: Complex[np.ndarray, "voxels 1"]
    """The volume mask on `ball`."""
    disc: Disc
    """Frequencies of the projections."""
    ball: Ball
    """Where `values` lie."""

    def image_masks(
        self,
        rotations: Float[np.ndarray, "images 3 3"],
        slice_volumes: Callable[..., Any],
        softness: float | int = 5,
        *,
        windowed: bool = False,
    ) -> Float[np.ndarray, "images y x"]:
        """Mark in every centred image the pixels whose rays meet enough of the mask.

        Args:
            rotations: Rows are the image axes in the frame of the molecule.
            slice_volumes: From `Operators`.
            softness: Radius in pixels of the kernel that blurs the edge; about half as wide.
            windowed: Also leave out what is near and beyond the inscribed circle.

        Source: `Gilles & Singer 2025` use rays longer than 4 voxels in a box of 128.
        """
        slices = slice_volumes(self.values, rotations, self.disc, self.ball)
        spectra = Disc(self.size, self.disc.radius).to_spectra(np.asarray(slices)[..., 0])
        inside = fourier.to_volume(spectra, dimensions=2) > 4 * self.size / 128
        masks = inside.astype(np.float32)
        if windowed:
            ramp = (0.99 - _radii(self.size, 2) / (self.size / 2)) / (0.99 - 0.85)
            masks *= np.clip(ramp, 0, 1).astype(np.float32)
        return soften(masks, softness)


def project_mask(mask: Float[np.ndarray, "z y x"]) -> MaskProjector:
    """Prepare the projections of a volume mask."""
    size = mask.shape[-1]
    small = min(size, _PROJECTED_SIZE)
    spectrum = fourier.crop_spectrum(fourier.to_spectrum(mask), small)
    # A sum over `small` voxels along a ray stands for one over `size`.
    coarse = fourier.to_volume(spectrum)
    disc, ball = Disc(small, small // 2 - 1), Ball(small, small // 2 - 1, _OVERSAMPLING)
    return MaskProjector(size, to_ball(coarse, ball)[:, None], disc, ball)


def soften(
    masks: Float[np.ndarray, "images y x"], radius: float | int
) -> Float[np.ndarray, "images y x"]:
    """Blur images with a normalized disc that falls to 0 over its last two pixels."""
    size = masks.shape[-1]
    beyond = np.clip((_radii(size, 2) - (radius - 2)) / 2, 0, 1)
    kernel = 0.5 + 0.5 * np.cos(np.pi * beyond)
    transfer = fourier.to_spectrum((kernel / kernel.sum()).astype(np.float32), dimensions=2)
    spectra = fourier.to_spectrum(masks, dimensions=2) * transfer
    return np.clip(fourier.to_volume(spectra, dimensions=2), 0, 1)


def _radii(size: int, dimensions: int) -> Float[np.ndarray, "*points"]:
    axis = (np.arange(size) - size // 2).astype(np.float32) ** 2
    square = axis
    for _ in range(dimensions - 1):
        square = square[..., None] + axis
    return np.sqrt(square)


def _largest_component(binary: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    labels = np.zeros(binary.shape, np.int32)
    ndimage.label(binary, output=labels)
    return binary & (labels == 1 + np.argmax(np.bincount(labels.ravel(), minlength=2)[1:]))

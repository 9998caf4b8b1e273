"""The waist: slice volumes at image planes, and add images back, an adjoint pair.

This is the reference: pure JAX, differentiable, any device. `slicing_numba` holds the fast CPU
path with the same meaning. Both interpolate trilinearly on an oversampled half ball of
coefficients, channels last. Where an image point has x < 0 its Friedel mate is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, Int

from recovar.core.frequencies import Ball, Disc


@dataclass(frozen=True)
class Operators:
    """One implementation of the waist; estimators take one and do not know which."""

    slice_volumes: Callable[..., Any]
    """`slice_volumes(volumes, rotations, disc, ball)` → (images, pixels, channels)."""
    backproject: Callable[..., Any]
    """`backproject(sums, values, weights, rotations, disc, ball)` → sums."""
    inner_products: Callable[..., Any]
    """`inner_products(volumes, values, transfer, rotations, disc, ball)` → Gram, response."""
    backproject_many: Callable[..., Any]
    """`backproject`, with tuples of sums, values and weights over the same images."""


def neighbours(
    rotations: Float[Array, "images 3 3"], disc: Disc, ball: Ball
) -> tuple[
    Int[Array, "images pixels 8"], Float[Array, "images pixels 8"], Float[Array, "images pixels"]
]:
    """Locate every image pixel in the ball.

    Returns:
        The eight surrounding voxels (`len(ball)` for those that a band leaves out), their
        trilinear weights, and −1 where the pixel's mate was
        taken (values must be conjugated), else 1.
    """
    points = disc.x[:, None] * rotations[:, None, 0] + disc.y[:, None] * rotations[:, None, 1]
    points = points * ball.oversampling
    sign = jnp.where(points[..., :1] < 0, -1.0, 1.0)
    points = points * sign
    base = jnp.floor(points)
    above = points - base
    x, y, z = jnp.moveaxis(base.astype(jnp.int32), -1, 0)
    offsets = jnp.asarray(ball.offsets)
    voxels, weights = [], []
    for dz, dy, dx in np.ndindex(2, 2, 2):
        line = offsets[z + dz + ball.reach, y + dy + ball.reach]
        voxels.append(jnp.where(line < 0, len(ball), line + x + dx))
        weights.append(jnp.prod(jnp.where(jnp.array([dx, dy, dz]) == 1, above, 1 - above), axis=-1))
    return jnp.stack(voxels, -1), jnp.stack(weights, -1), sign[..., 0]


@partial(jax.jit, static_argnames=("disc", "ball"))
def slice_volumes(
    volumes: Complex[Array, "voxels channels"],
    rotations: Float[Array, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> Complex[Array, "images pixels channels"]:
    """Interpolate volumes on the central planes of images.

    Args:
        volumes: Coefficients on the ball. Volumes that were divided by `gridding_correction`
            before the transform give slices without the interpolation's fall-off.
        rotations: Rows are the image axes in the frame of the molecule.
        disc: Pixels wanted of every image.
        ball: Where the coefficients lie.
    """
    voxels, weights, sign = neighbours(rotations, disc, ball)
    values = jnp.einsum("ipnc,ipn->ipc", volumes[voxels], weights.astype(volumes.real.dtype))
    return jnp.where(sign[..., None] < 0, values.conj(), values)


@partial(jax.jit, static_argnames=("disc", "ball"))
def backproject(
    sums: Inexact[Array, "voxels channels"],
    values: Inexact[Array, "images pixels"],
    weights: Float[Array, "images channels"],
    rotations: Float[Array, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> Inexact[Array, "voxels channels"]:
    """Add every pixel, times its image's weight vector, to its eight neighbours.

    With all images added and `Ball.fold` applied once this is the exact adjoint of
    `slice_volumes`, if images are weighed by `Disc.multiplicity` and volumes by `Ball.weights`.

    Args:
        sums: What was added so far; real if values are real (their mates are then equal).
        values: One value per pixel of every image.
        weights: One real weight per image and channel; zeros are skipped by fast paths.
        rotations: Rows are the image axes in the frame of the molecule.
        disc: The pixels of `values`.
        ball: Where `sums` lie.
    """
    voxels, share, sign = neighbours(rotations, disc, ball)
    values = values * (disc.multiplicity / 2)
    values = jnp.where(sign < 0, values.conj(), values)
    terms = jnp.einsum("ip,ipn,ic->ipnc", values, share.astype(weights.dtype), weights)
    return sums.at[voxels].add(terms.astype(sums.dtype), mode="drop")


@partial(jax.jit, static_argnames=("disc", "ball"))
def inner_products(
    volumes: Complex[Array, "voxels channels"],
    values: Complex[Array, "images pixels"],
    transfer: Float[Array, "images pixels"],
    rotations: Float[Array, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> tuple[Float[Array, "images channels channels"], Float[Array, "images channels"]]:
    """Compare images with projections: slices times transfer function.

    Args:
        volumes: Coefficients on the ball.
        values: Images.
        transfer: Transfer function of every image.
        rotations: Rows are the image axes in the frame of the molecule.
        disc: The pixels of `values` and `transfer`.
        ball: Where `volumes` lie.

    Returns:
        Inner products over the full spectrum of an image's projections with each other (the Gram
        matrix), and with the image (the response).
    """
    root = np.sqrt(disc.multiplicity)
    slices = slice_volumes(volumes, rotations, disc, ball)
    projections = slices * (transfer * root)[..., None]
    gram = jnp.einsum("ipc,ipd->icd", projections.conj(), projections).real
    response = jnp.einsum("ipc,ip->ic", projections.conj(), values * root).real
    return gram, response


@partial(jax.jit, static_argnames=("disc", "ball"))
def backproject_many(
    sums: tuple[Inexact[Array, "voxels _"], ...],
    values: tuple[Inexact[Array, "images pixels"], ...],
    weights: tuple[Float[Array, "images _"], ...],
    rotations: Float[Array, "images 3 3"],
    disc: Disc,
    ball: Ball,
) -> tuple[Inexact[Array, "voxels _"], ...]:
    """Backproject several values of the same images, each to its own sums.

    Fast paths find the neighbours of pixels once for all sums.
    """
    return tuple(
        backproject(*parts, rotations, disc, ball)
        for parts in zip(sums, values, weights, strict=True)
    )


def gridding_correction(size: int, oversampling: int) -> Float[np.ndarray, "z y x"]:
    """Compute how trilinear interpolation on the oversampled grid attenuates the real volume.

    Divide by it before slicing, and again after a weighted average of backprojected images.
    """
    axis = np.sinc((np.arange(size) - size // 2) / (oversampling * size)) ** 2
    return (axis[:, None, None] * axis[:, None] * axis).astype(np.float32)


REFERENCE = Operators(slice_volumes, backproject, inner_products, backproject_many)
"""Pure JAX on any device."""

"""From a real-space volume to images as the microscope sees them, and the adjoint."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from recovar.core import fourier
from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Ball, Disc
from recovar.core.grid import Grid
from recovar.core.slicing import gridding_correction, slice_volumes


def centring_factors(
    shifts: Float[np.ndarray | Array, "images 2"], disc: Disc, voxel_size: float
) -> Any:
    """Compute the factors that centre an image, exp(−2πi k·t).

    Multiply an image by them to centre it; by their conjugates to put the shift in.

    Args:
        shifts: Offsets (x, y) in Å that centre the images.
        disc: Pixels of the images.
        voxel_size: Pixel size in Å.

    Returns:
        Array (images, pixels).
    """
    xp = jnp if isinstance(shifts, jax.Array) else np
    scale = 2 * np.pi / (disc.size * voxel_size)
    angles = (scale * shifts[:, :1]) * disc.x + (scale * shifts[:, 1:]) * disc.y
    return xp.exp(-1j * angles.astype(np.float32))


def project(
    volume: Float[np.ndarray | Array, "z y x"],
    rotations: Float[np.ndarray | Array, "images 3 3"],
    shifts: Float[np.ndarray | Array, "images 2"],
    optics: Optics,
    grid: Grid,
) -> Complex[Array, "images pixels"]:
    """Predict images of a volume: central slice, shift, transfer function.

    Differentiable with respect to the volume, the poses and the optics.

    Args:
        volume: Real-space map on `grid`.
        rotations: Rows are the image axes in the frame of the molecule.
        shifts: Offsets in Å that centre the images; the images carry the opposite.
        optics: Transfer function of every image.
        grid: Grid of the volume and of the images.

    Returns:
        Fourier coefficients on the disc of radius `grid.largest_radius`.
    """
    disc = Disc(grid.size, grid.largest_radius)
    ball = Ball(grid.size, grid.largest_radius)
    corrected = jnp.asarray(volume) / gridding_correction(grid.size, ball.oversampling)
    padded = fourier.to_spectrum(fourier.pad_volume(corrected, ball.volume_size))
    slices = slice_volumes(ball.from_cube(padded)[:, None], rotations, disc, ball)[..., 0]
    step = 1 / (grid.size * grid.voxel_size)
    transfer = transfer_function(jax.tree.map(jnp.asarray, optics), disc.x * step, disc.y * step)
    return slices * transfer * centring_factors(shifts, disc, grid.voxel_size).conj()

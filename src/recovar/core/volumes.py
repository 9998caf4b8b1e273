"""Real-space volumes to coefficients on the ball that images are sliced from, and back."""

import numpy as np
from jaxtyping import Complex, Float

from recovar.core import fourier
from recovar.core.frequencies import Ball
from recovar.core.slicing import gridding_correction


def to_ball(volume: Float[np.ndarray, "z y x"], ball: Ball) -> Complex[np.ndarray, " voxels"]:
    """Transform a volume so that slices of the result are its projections.

    Args:
        volume: Map in a box of `ball.size` voxels.
        ball: Where the coefficients are wanted.
    """
    corrected = volume / gridding_correction(ball.size, ball.oversampling)
    padded = fourier.pad_volume(corrected.astype(np.float32), ball.volume_size)
    return ball.from_cube(fourier.to_spectrum(padded))


def from_ball(values: Complex[np.ndarray, " voxels"], ball: Ball) -> Float[np.ndarray, "z y x"]:
    """Transform a weighted average of backprojected images to the map that they show.

    Not the inverse of `to_ball`: both divide by the fall-off of the interpolation, one because
    slicing will apply it, the other because averaging has.
    """
    padded = fourier.to_volume(ball.to_cube(values))
    return fourier.crop_volume(padded, ball.size) / gridding_correction(
        ball.size, ball.oversampling
    )

"""The one transform convention: centred in real space, corner in Fourier space, unnormalized.

NumPy arrays are transformed by SciPy on all cores, JAX arrays by JAX, so that the same functions
serve the host and differentiable code.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft


def _transforms(array: Any) -> tuple[Any, Any, dict[str, int]]:
    return (jnp, jnp.fft, {}) if isinstance(array, jax.Array) else (np, scipy.fft, {"workers": -1})


def to_spectrum(values: Any, dimensions: int = 3) -> Any:
    """Transform volumes (or images, `dimensions` = 2) whose origin is at index size/2.

    Args:
        values: Real array; the last `dimensions` axes are transformed, all of one even size.
        dimensions: 3 for volumes, 2 for images.

    Returns:
        Half-complex unnormalized coefficients with the zero frequency in the corner.
    """
    xp, fft, options = _transforms(values)
    axes = tuple(range(-dimensions, 0))
    return fft.rfftn(xp.fft.ifftshift(values, axes=axes), axes=axes, **options)


def to_volume(spectrum: Any, dimensions: int = 3) -> Any:
    """Invert `to_spectrum`; the result is real, with its origin at index size/2."""
    xp, fft, options = _transforms(spectrum)
    axes = tuple(range(-dimensions, 0))
    size = spectrum.shape[-2]
    values = fft.irfftn(spectrum, s=(size,) * dimensions, axes=axes, **options)
    return xp.fft.fftshift(values, axes=axes)


def crop_spectrum(spectrum: Any, size: int, dimensions: int = 3) -> Any:
    """Keep the frequencies of a smaller box of the same physical side.

    The new planes at −size/2 are set to zero, for they have no distinct Friedel mates. Values are
    not rescaled: a volume that keeps its meaning voxel by voxel needs a factor
    (size / old size) ** dimensions.
    """
    xp, _, _ = _transforms(spectrum)
    old = spectrum.shape[-2]
    if size >= old:
        return spectrum
    half = size // 2
    keep = np.r_[0:half, old - half : old]
    cropped = spectrum[..., : half + 1]
    for axis in range(-dimensions, -1):
        cropped = xp.take(cropped, keep, axis=axis)
    inside = np.abs(np.fft.fftfreq(size, 1 / size)) < half
    window = np.arange(half + 1) < half
    for _ in range(dimensions - 1):
        window = inside.reshape(-1, *(1,) * window.ndim) & window
    return cropped * window


def pad_spectrum(spectrum: Any, size: int) -> Any:
    """Embed a half-complex volume in a larger box of the same physical side, zeros outside.

    Planes at −old/2 are dropped. Values are not rescaled.
    """
    old = spectrum.shape[-2]
    if size <= old:
        return spectrum
    half = old // 2
    padded = np.zeros((*spectrum.shape[:-3], size, size, size // 2 + 1), spectrum.dtype)
    target = np.r_[0:half, size - half + 1 : size]
    source = np.r_[0:half, old - half + 1 : old]
    padded[..., target[:, None, None], target[None, :, None], np.arange(half)] = spectrum[
        ..., source[:, None, None], source[None, :, None], np.arange(half)
    ]
    return padded


def pad_volume(volume: Any, size: int) -> Any:
    """Embed volumes in a larger box of the same voxel size, zeros outside, origins aligned."""
    before = size // 2 - volume.shape[-1] // 2
    after = size - volume.shape[-1] - before
    margins = [(0, 0)] * (volume.ndim - 3) + [(before, after)] * 3
    return (jnp if isinstance(volume, jax.Array) else np).pad(volume, margins)


def crop_volume(volume: Any, size: int) -> Any:
    """Cut the central cube of `size` voxels; the adjoint of `pad_volume`."""
    start = volume.shape[-1] // 2 - size // 2
    cut = slice(start, start + size)
    return volume[..., cut, cut, cut]

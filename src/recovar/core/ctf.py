"""The contrast transfer function of the microscope."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


class Optics(eqx.Module):
    """Parameters of the transfer function, one entry per image."""

    defocus_u: Float[np.ndarray | jax.Array, " images"]
    """Defocus along the major axis in Å; underfocus is positive."""
    defocus_v: Float[np.ndarray | jax.Array, " images"]
    """Defocus along the minor axis in Å."""
    defocus_angle: Float[np.ndarray | jax.Array, " images"]
    """Direction of the major axis in radians, from the image's x axis."""
    voltage: Float[np.ndarray | jax.Array, " images"]
    """Acceleration voltage in kV."""
    spherical_aberration: Float[np.ndarray | jax.Array, " images"]
    """Spherical aberration in mm."""
    amplitude_contrast: Float[np.ndarray | jax.Array, " images"]
    """Fraction of amplitude contrast, between −1 and 1."""
    phase_shift: Float[np.ndarray | jax.Array, " images"]
    """Phase shift of a phase plate in radians."""
    b_factor: Float[np.ndarray | jax.Array, " images"]
    """Envelope exp(−B s²/4), B in Å²."""
    scale: Float[np.ndarray | jax.Array, " images"]
    """Multiplies the whole function."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.defocus_u)

    def __getitem__(self, rows: Any) -> "Optics":
        """Select images; the result stays an array per parameter."""
        return jax.tree.map(lambda field: field[rows], self)


def electron_wavelength(voltage: Any) -> Any:
    """Compute the relativistic wavelength in Å from the voltage in kV.

    Example:
        >>> round(electron_wavelength(300.0), 10)
        0.0196874892
    """
    volts = 1000.0 * voltage
    return 12.2642598 / (volts * (1 + 9.78475598e-7 * volts)) ** 0.5


def transfer_function(optics: Optics, x: Any, y: Any) -> Any:
    """Evaluate the transfer function at spatial frequencies.

    C = scale · (√(1−w²) sin γ − w cos γ) · exp(−B s²/4) with
    γ = 2π(−½ Δf λ s² + ¼ Cs λ³ s⁴) − phase: negative at low frequency for underfocus, so that
    dense matter is dark.

    Args:
        optics: Parameters of `images` images.
        x: Frequencies along the image's columns in 1/Å, any shape.
        y: Frequencies along its rows.

    Returns:
        Array (images, *frequencies).
    """
    xp = jnp if isinstance(optics.defocus_u, jax.Array) else np
    u, v, angle, kv, cs, w, phase, b, scale = (
        field.reshape(-1, *(1,) * np.ndim(x)) for field in jax.tree.leaves(optics)
    )
    square = x**2 + y**2
    wavelength = electron_wavelength(kv)
    defocus = 0.5 * (u + v + (u - v) * xp.cos(2 * (xp.arctan2(y, x) - angle)))
    gamma = 2 * np.pi * wavelength * square * (0.25e7 * cs * wavelength**2 * square - 0.5 * defocus)
    gamma = gamma - phase
    wave = xp.sqrt(1 - w**2) * xp.sin(gamma) - w * xp.cos(gamma)
    return scale * wave * xp.exp(-0.25 * b * square)

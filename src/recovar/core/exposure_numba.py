"""What happens to one image in Fourier space, compiled: placing, shifting, the transfer function.

Every kernel works on one half-complex image and lets other threads run; its arithmetic is in a
fixed order, so that an image has the same bits whoever makes it.
"""

from math import copysign, cos, exp, pi, sin
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Complex, Float

from recovar.core.ctf import Optics, electron_wavelength
from recovar.core.frequencies import Disc

_TURN = 2 * pi
_SINE = tuple(
    (-1) ** (n // 2) * _TURN**n / float(np.prod(np.arange(1.0, n + 1))) for n in range(1, 16, 2)
)
"""Taylor coefficients of sin(2πt): for |t| ≤ ¼ the rest is below 1e-11."""


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _turn_phases(count, wrapped, turns):
    """Compute exp(2πi k·turns) for the frequencies of an axis."""
    phases = np.empty(count, np.complex64)
    for i in range(count):
        k = i - count if wrapped and i >= count // 2 else i
        phases[i] = complex(cos(_TURN * k * turns), sin(_TURN * k * turns))
    return phases


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _add_disc(spectrum, values, x, y, turns_x, turns_y):
    size = spectrum.shape[0]
    along_x = _turn_phases(spectrum.shape[1], False, turns_x)
    along_y = _turn_phases(size, True, turns_y)
    for i in range(values.size):
        value = values[i] * along_y[y[i]] * along_x[x[i]]
        if (x[i] + y[i]) % 2:
            value = -value
        spectrum[y[i], x[i]] += value
        if x[i] == 0 and y[i] > 0:
            spectrum[-y[i], 0] += value.conjugate()


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _add_shifted(total, spectrum, turns_x, turns_y):
    rows, columns = total.shape
    along_x = _turn_phases(columns, False, turns_x)
    along_y = _turn_phases(rows, True, turns_y)
    for i in range(rows):
        for j in range(columns):
            total[i, j] += spectrum[i, j] * (along_y[i] * along_x[j])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _multiply_transfer(spectrum, step, parameters):
    rows, columns = spectrum.shape
    defocus, along, across, aberration, constant, damping, scale = parameters
    envelope = np.empty(columns)
    for j in range(columns):
        envelope[j] = exp(-damping * (step * j) ** 2)
    for i in range(rows):
        ky = step * (i - rows if i >= rows // 2 else i)
        factor = scale * exp(-damping * ky**2)
        for j in range(columns):
            kx = step * j
            xx, yy = kx * kx, ky * ky
            square = xx + yy
            turns = defocus * square + along * (xx - yy) + across * (kx * ky)
            turns += aberration * square * square + constant
            turns -= np.rint(turns)
            t = min(abs(turns), 0.5 - abs(turns))
            q = t * t
            wave = _SINE[7]
            wave = wave * q + _SINE[6]
            wave = wave * q + _SINE[5]
            wave = wave * q + _SINE[4]
            wave = wave * q + _SINE[3]
            wave = wave * q + _SINE[2]
            wave = wave * q + _SINE[1]
            wave = wave * q + _SINE[0]
            wave = copysign(wave * t, turns)
            spectrum[i, j] *= np.float32(factor * envelope[j] * wave)


def add_disc(
    spectrum: Complex[np.ndarray, "y half"],
    values: Complex[np.ndarray, " pixels"],
    disc: Disc,
    shift: Float[np.ndarray, " 2"],
) -> None:
    """Add the coefficients on a disc to a half-complex image whose inverse has its origin amid.

    Args:
        spectrum: Changed in place; `scipy.fft.irfft2` gives pixels with the origin at size/2.
        values: Coefficients on the disc, origin in the corner.
        disc: Where they lie; its size is that of the image.
        shift: Offset (x, y) in pixels that centres the image; the image gets the opposite.
    """
    _add_disc(spectrum, values, disc.x, disc.y, shift[0] / disc.size, shift[1] / disc.size)


def add_shifted(
    total: Complex[np.ndarray, "y half"],
    spectrum: Complex[np.ndarray, "y half"],
    shift: Float[np.ndarray, " 2"],
) -> None:
    """Add an image that is moved by −shift pixels (x, y) to another, all frequencies."""
    _add_shifted(total, spectrum, shift[0] / len(total), shift[1] / len(total))


def transfer_parameters(optics: Optics) -> Float[np.ndarray, "images 7"]:
    """Bring optics in the form that `multiply_transfer` takes.

    The transfer function is scale · sin(2πt) · exp(−B s²/4), where t is a polynomial of the
    frequencies x and y: coefficients of x² + y², x² − y², x·y, (x² + y²)², 1; then B/4 and scale.
    """
    u, v, angle, voltage, aberration, contrast, phase, b, scale = (
        np.asarray(field, np.float64) for field in vars(optics).values()
    )
    wavelength = electron_wavelength(voltage)
    mean, difference = -0.25 * wavelength * (u + v), -0.25 * wavelength * (u - v)
    return np.stack(
        [
            mean,
            difference * np.cos(2 * angle),
            2 * difference * np.sin(2 * angle),
            0.25e7 * aberration * wavelength**3,
            -(phase + np.arcsin(contrast)) / _TURN,
            0.25 * b,
            scale,
        ],
        axis=1,
    )


def multiply_transfer(
    spectrum: Complex[np.ndarray, "y half"], step: float, parameters: Float[np.ndarray, " 7"]
) -> None:
    """Multiply a half-complex image by a transfer function, in place.

    Args:
        spectrum: All frequencies of the image.
        step: Frequency of the first coefficient in 1/Å.
        parameters: A row of `transfer_parameters`; agrees with `transfer_function` to 1e-7 of its
            scale where t is below a thousand turns.
    """
    _multiply_transfer(spectrum, step, parameters)

"""Sizes of the aberrations that are not modelled, in words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recovar.core.ctf import electron_wavelength

_SPACING = 3.0
"""Å; where phase errors are told."""
_NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Aberrations:
    """What a file says of images, or of groups of images; None where it says nothing."""

    beam_tilt: Float64[np.ndarray, "rows 2"] | None = None
    """x and y in mrad."""
    magnification: Float64[np.ndarray, "rows 2 2"] | None = None
    """Near the unit matrix."""
    odd: float = 0.0
    """Largest coefficient of the odd Zernike polynomials."""
    even: float = 0.0
    """Largest coefficient of the even ones."""

    def describe(
        self, voltage: float = 300.0, spherical_aberration: float = 2.7
    ) -> tuple[str, ...]:
        """Tell what is there, and how much it does.

        Args:
            voltage: kV.
            spherical_aberration: mm.

        Example:
            >>> Aberrations(beam_tilt=np.array([[0.3, 0.4]]), odd=1.25).describe()
            ('beam tilt up to 0.5 mrad (1.2 rad at 3 Å)', 'odd Zernike coefficients up to 1.25')
        """
        said = []
        if self.beam_tilt is not None and self.beam_tilt.any():
            tilt = np.linalg.norm(self.beam_tilt, axis=1).max()
            phase = _coma(tilt, voltage, spherical_aberration)
            said.append(f"beam tilt up to {tilt:.2g} mrad ({phase:.2g} rad at {_SPACING:g} Å)")
        for what, size in (("odd", self.odd), ("even", self.even)):
            if size:
                said.append(f"{what} Zernike coefficients up to {size:.3g}")
        if self.magnification is not None and not np.isfinite(self.magnification).all():
            said.append("magnification that is not finite")
        elif self.magnification is not None:
            scales = np.linalg.svd(self.magnification, compute_uv=False)
            size = np.abs(scales - 1).max()
            if size > 1e-6:
                said.append(f"magnification that is off by up to {100 * size:.2g} %")
        return tuple(said)


def _coma(tilt: float, voltage: float, spherical_aberration: float) -> float:
    """Give the phase error of a beam tilt, 2π Cs λ² |tilt| s³, at a spacing of 3 Å."""
    wavelength = electron_wavelength(voltage)
    return 2 * np.pi * 1e7 * spherical_aberration * wavelength**2 * 1e-3 * tilt / _SPACING**3


def largest_coefficient(lists: Iterable[object]) -> float:
    """Find the largest number in lists as STAR files write them.

    Example:
        >>> largest_coefficient(["[0.5,-2e-1]", "[]", "[-1.25]"])
        1.25
    """
    numbers = (number for text in set(lists) for number in _NUMBER.findall(str(text)))
    return max((abs(float(number)) for number in numbers), default=0.0)

"""How strongly single atoms scatter electrons, and the ice whose place they take."""

import gemmi
import numpy as np
from jaxtyping import Float

from recovar.errors import InputError

POINT = "point"
"""In place of a chemical symbol: scatters with amplitude 1 Å at all frequencies."""
EXCLUDED = {"H": 5.15, "D": 5.15, "C": 16.44, "N": 2.49, "O": 9.13, "P": 5.73, "S": 19.86}
"""Volumes in Å³ that atoms take from the solvent.

Source: Fraser, MacRae & Suzuki, J. Appl. Cryst. 11 (1978) 693; P as in Svergun, Barberato & Koch,
J. Appl. Cryst. 28 (1995) 768.
"""
ICE = 0.93 * 0.602214076 / 18.01528
"""Water molecules per Å³ of vitreous ice, from 0.93 g/cm³."""


def find_element(symbol: str) -> gemmi.Element | None:
    """Look up a chemical symbol in any case; None where it has no scattering amplitudes."""
    known = gemmi.Element(symbol)
    usable = known.c4322 is not None and known.name.upper() == symbol.upper() and known.name != "X"
    return known if usable else None


def form_factor(element: str, frequency: Float[np.ndarray, "*points"]) -> np.ndarray:
    """Evaluate the scattering amplitude of a free atom for electrons, in Å.

    f(k) = Σ aⱼ exp(−bⱼ |k|²/4): the tables are made for sin θ/λ = |k|/2. Deuterium scatters as
    hydrogen does, and a `POINT` with amplitude 1 everywhere.

    Source: Peng et al., Acta Cryst. A 52 (1996) 257, table 1, which is table 4.3.2.2 of the
    International Tables C; valid up to |k| = 4/Å.

    Args:
        element: Chemical symbol, or `POINT`.
        frequency: |k| in 1/Å.

    Raises:
        InputError: If the element is unknown or has no table.

    Example:
        >>> form_factor("C", np.zeros(1)).round(3).tolist()
        [2.509]
    """
    if element == POINT:
        return np.ones(np.shape(frequency))
    table = _known_element(element).c4322
    # The table has four decimals; gemmi keeps its numbers in single precision.
    a, b = np.split(np.round(np.array(table.get_coefs()), 4), 2)
    return np.exp(-0.25 * np.multiply.outer(np.asarray(frequency) ** 2, b)) @ a


def excluded_solvent(element: str, frequency: Float[np.ndarray, "*points"]) -> np.ndarray:
    """Evaluate the scattering amplitude of the vitreous ice whose place an atom takes, in Å.

    ρ v exp(−π v^⅔ |k|²), a Gaussian of volume v (`EXCLUDED`, else the sphere of van der Waals)
    and the density of ice, with the amplitude at zero angle of the water in it. What an atom adds
    to an image in ice is its own amplitude less this one. That models the lower contrast of
    low frequencies; it models no water bound in shells of higher density, no cavities that water
    leaves empty, and no edge of the ice. A hydrogen takes nearly as much as it brings, so that
    leaving out hydrogens changes little. A `POINT` takes no place.

    Source: Fraser, MacRae & Suzuki, J. Appl. Cryst. 11 (1978) 693, in which the exponent has
    2 sin θ/λ = |k|.

    Args:
        element: Chemical symbol, or `POINT`.
        frequency: |k| in 1/Å.

    Raises:
        InputError: If the element is unknown or has no table.

    Example:
        >>> excluded_solvent("C", np.array([0.0, 0.2])).round(3).tolist()
        [1.554, 0.69]
    """
    if element == POINT:
        return np.zeros(np.shape(frequency))
    volume = EXCLUDED.get(element.capitalize())
    if volume is None:
        volume = 4 / 3 * np.pi * _known_element(element).vdw_r ** 3
    water = 2 * form_factor("H", np.zeros(1)) + form_factor("O", np.zeros(1))
    return ICE * water * volume * np.exp(-np.pi * volume ** (2 / 3) * np.asarray(frequency) ** 2)


def _known_element(symbol: str) -> gemmi.Element:
    known = find_element(symbol)
    if known is None:
        raise InputError(
            f"Expected a chemical element from H to Cf, got {symbol!r}. Rename or remove the atom."
        )
    return known

"""Atoms of molecules and how they move: PDB, mmCIF, arrays and trajectories."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from recovar.data import select_rows

POINT = "point"
"""In place of a chemical symbol: scatters with amplitude 1 Å at all frequencies."""


@dataclass(frozen=True)
class Atoms:
    """Atoms around the origin of a volume."""

    positions: Float[np.ndarray, "atoms 3"]
    """x y z in Å."""
    elements: Shaped[np.ndarray, " atoms"]
    """Chemical symbols, or `POINT`."""
    b_factor: float = 0.0
    """Å²; damps all atoms alike by exp(−B |k|²/4), on top of their own."""
    b_factors: Float[np.ndarray, " atoms"] | None = None
    """Å²; of every atom alone."""
    occupancy: Float[np.ndarray, " atoms"] | None = None
    """How often an atom is there: the factor of its amplitude."""
    chains: Shaped[np.ndarray, " atoms"] | None = None
    names: Shaped[np.ndarray, " atoms"] | None = None
    """Names within the residue, such as CA."""
    residues: Int[np.ndarray, " atoms"] | None = None
    """Numbers within the chain, as the file has them."""

    def __len__(self) -> int:
        """Count the atoms."""
        return len(self.positions)

    def select(self, rows: Int[np.ndarray, " chosen"] | Bool[np.ndarray, " atoms"]) -> "Atoms":
        """Keep these atoms, in this order."""
        return select_rows(self, np.arange(len(self))[rows])

    def at(self, positions: Float[np.ndarray, "atoms 3"]) -> "Atoms":
        """Give the same atoms at other places."""
        return replace(self, positions=positions)

    def centred(self) -> "Atoms":
        """Move the midpoint of the bounding box to the origin.

        Example:
            >>> atoms = Atoms(np.array([[1.0, 2.0, 3.0], [3.0, 6.0, 3.0]]), np.array(["C", "O"]))
            >>> atoms.centred().positions.tolist()
            [[-1.0, -2.0, 0.0], [1.0, 2.0, 0.0]]
        """
        low, high = self.positions.min(0), self.positions.max(0)
        return self.at(self.positions - 0.5 * (low + high))

"""How suspect the images of a run are, as it has left it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.records import load_arrays

OUTLIERS = Path("output") / "outliers.npz"
"""Where a run leaves them."""


@dataclass(frozen=True)
class Outliers:
    """How suspect every image is."""

    log_odds: Float[np.ndarray, " images"]
    """Logarithm of its likelihood as something else over that as the molecule."""
    probability: Float[np.ndarray, " images"]
    """Probability that it is junk."""


def read_outliers(run: Path) -> Outliers | None:
    """Read what a run found, in the order of its images; None if it did not ask."""
    if not (run / OUTLIERS).is_file():
        return None
    found = load_arrays(run / OUTLIERS)
    return Outliers(found["log_odds"].astype(np.float64), found["probability"].astype(np.float64))

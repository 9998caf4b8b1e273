"""The options of `recovar density`; nothing here needs JAX, so that help and errors are quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recovar.errors import InputError

_PUBLISHED = {"group": "Published method"}
_MOST_DIMS = 4


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """Everything that `recovar density` can be told."""

    run: Path = field(metadata={"positional": True})
    """Directory of a run of recovar pipeline."""
    zdim: int | None = None
    """Embedding to use, by its number of coordinates; may be left out if there is only one."""
    output: Path | None = None
    """Directory for the results; output/density_ZDIM of the run if not given."""
    dims: int | None = field(default=None, metadata={"aliases": ("--pca-dim",)})
    """Coordinates to estimate the density over, the first 1 to 4; if not given, those that images
    determine by more than half, at most 3. With 4 it takes ten minutes."""
    points: int | None = field(default=None, metadata={"aliases": ("--num-points",)})
    """Grid points along each coordinate; 256, 72, 36 or 20 for 1 to 4 coordinates if not given."""
    replicates: int | None = None
    """Densities to make bands of; 200, 100, 40 or 20 for 1 to 4 coordinates if not given."""
    method: Literal["likelihood", "published"] = "likelihood"
    """Maximum likelihood with the errors of every image, or the published least squares with their
    average, which has no bands."""
    n_states: int = field(default=3, metadata=_PUBLISHED)
    """States to find with --method published, whether they are there or not."""
    seed: int = 0
    """Of all random choices."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        if self.dims is not None and not 1 <= self.dims <= _MOST_DIMS:
            raise InputError(f"Expected 1 to {_MOST_DIMS} coordinates for --dims, got {self.dims}.")
        for option, value, least in (
            ("--zdim", self.zdim, 1),
            ("--points", self.points, 8),
            ("--replicates", self.replicates, 20),
            ("--n-states", self.n_states, 1),
            ("--seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"Expected at least {least} for {option}, got {value}.")
        if self.method == "published" and self.replicates is not None:
            raise InputError(
                "--replicates are for bands, and --method published has none. Leave one of them "
                "out."
            )

"""The options of `recovar compute_trajectory`; nothing here needs JAX."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recovar.errors import InputError
from recovar.workflows.state_options import StateOptions

_ENDS = {"group": "Ends"}


@dataclass(frozen=True, kw_only=True)
class ComputeTrajectoryConfig(StateOptions):
    """Everything that `recovar compute_trajectory` can be told."""

    run: Path = field(metadata={"positional": True})
    """Directory of a run of recovar pipeline."""
    output: Path | None = None
    """Directory for the path and its volumes; output/compute_trajectory of the run if not given."""
    zdim: int | None = None
    """Embedding that the path is in, by its number of coordinates; may be left out where the ends
    or the run tell."""
    n_vols: int = field(default=6, metadata={"aliases": ("--n-vols-along-path",)})
    """Volumes along the path, both ends included."""
    density: Path | None = None
    """Density that the path follows, as recovar density writes it; estimated if not given."""
    method: Literal["auto", "grid", "graph", "line"] = "auto"
    """How the path is found: the cheapest one under the density (grid), from image to image
    (graph), or straight, for looking only (line). With auto it is the graph where there are more
    than 4 coordinates and no density is given."""

    endpts: Path | None = field(default=None, metadata=_ENDS)
    """Latent points (.txt, .npy, .npz, .pkl), a point per row: the two ends, or more, of which
    --ind chooses."""
    kmeans_ind: tuple[int, ...] = field(default=(), metadata={**_ENDS, "aliases": ("--ind",)})
    """The two rows of --endpts that are the ends, from 0; without --endpts, two clusters of the
    analysis of the run."""
    z_st: Path | None = field(default=None, metadata=_ENDS)
    """File of the latent point where the path starts."""
    z_end: Path | None = field(default=None, metadata=_ENDS)
    """File of the latent point where it ends."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        super().__post_init__()
        if (self.z_st is None) != (self.z_end is None):
            raise InputError("--z-st and --z-end tell one end each. Give both or none.")
        if self.z_st is not None and (self.endpts is not None or self.kmeans_ind):
            raise InputError(
                "The ends are given twice: by --z-st and --z-end, and by --endpts or --kmeans-ind. "
                "Give one of these."
            )
        if self.kmeans_ind and (len(set(self.kmeans_ind)) != 2 or min(self.kmeans_ind) < 0):
            raise InputError(
                "Expected two different numbers from 0 for --kmeans-ind, as in 0,3, got "
                f"{','.join(map(str, self.kmeans_ind))}."
            )
        if self.n_vols < 2:
            raise InputError(f"Expected at least 2 for --n-vols, got {self.n_vols}.")

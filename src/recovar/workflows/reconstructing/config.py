"""The options of `recovar compute_state`; nothing here needs JAX."""

from dataclasses import dataclass, field
from pathlib import Path

from recovar.workflows.state_options import StateOptions


@dataclass(frozen=True, kw_only=True)
class ComputeStateConfig(StateOptions):
    """Everything that `recovar compute_state` can be told."""

    run: Path = field(metadata={"positional": True})
    """Directory of a run of recovar pipeline."""
    latent_points: Path
    """Latent points, one per line (.txt) or row (.npy, .npz, .pkl); their number of coordinates
    tells the embedding."""
    output: Path | None = None
    """Directory for vol000/, vol001/ …; output/compute_state of the run if not given."""
    zdim: int | None = None
    """Number of coordinates of the points, to make sure."""

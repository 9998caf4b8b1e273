"""The options of `recovar analyze`; nothing here needs JAX, so that help and errors are quick."""

from dataclasses import dataclass, field
from pathlib import Path

from recovar.errors import InputError
from recovar.workflows.state_options import StateOptions

_PATHS = {"group": "Trajectories"}


@dataclass(frozen=True, kw_only=True)
class AnalyzeConfig(StateOptions):
    """Everything that `recovar analyze` can be told."""

    run: Path = field(metadata={"positional": True})
    """Directory of a run of recovar pipeline."""
    zdim: int | None = None
    """Embedding to analyse, by its number of coordinates; may be left out if there is only one."""
    output: Path | None = None
    """Directory of the analysis; output/analysis_ZDIM of the run if not given."""
    n_clusters: int = 40
    """Clusters to divide the images into by k-means; a volume is made at the centre of each."""
    normalize_kmeans: bool = field(default=False, metadata={"aliases": ("--normalise-kmeans",)})
    """Divide coordinates by their standard deviations before k-means."""
    skip_umap: bool = False
    """Make no map by UMAP."""
    skip_centers: bool = field(default=False, metadata={"aliases": ("--skip-centres",)})
    """Make no volumes at the centres of clusters."""
    seed: int = 0
    """Of k-means and UMAP."""

    n_trajectories: int = field(default=2, metadata=_PATHS)
    """Trajectories: the first half between centres that are far from each other, the others along
    the components."""
    n_vols: int = field(default=6, metadata={**_PATHS, "aliases": ("--n-vols-along-path",)})
    """Volumes along each trajectory."""
    density: Path | None = field(default=None, metadata=_PATHS)
    """Density that trajectories follow, as recovar density writes it; estimated if not given."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        super().__post_init__()
        for option, value, least in (
            ("--n-clusters", self.n_clusters, 1),
            ("--n-trajectories", self.n_trajectories, 0),
            ("--n-vols", self.n_vols, 2),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise InputError(f"Expected at least {least} for {option}, got {value}.")
        if self.density is not None and not self.n_trajectories:
            raise InputError(
                "--density is for trajectories, and --n-trajectories 0 asks for none. Leave one "
                "of them out."
            )

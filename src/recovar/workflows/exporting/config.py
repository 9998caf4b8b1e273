"""The options of `recovar export`; nothing here needs JAX, so that help and errors are quick."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recovar.errors import InputError

INDEX_SUFFIXES = (".txt", ".npy", ".pkl")
TABLE_SUFFIXES = (".csv", ".npz")
SUFFIXES = (".star", ".cs", *INDEX_SUFFIXES, *TABLE_SUFFIXES)

_CLUSTERS = {"group": "By cluster"}
_PLACE = {"group": "By place in latent space"}
_OTHER = {"group": "By other properties"}
_WRITTEN = {"group": "What a STAR file gets"}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Everything that `recovar export` can be told."""

    run: Path = field(metadata={"positional": True})
    """Directory of a run of recovar pipeline."""
    output: Path
    """File to write: rows of the original table (.star, .cs), indices from 0 in it (.txt, .npy,
    .pkl), or a table of identities, coordinates and contrasts (.csv, .npz)."""
    original: Path | None = None
    """The particles file that the run was made from, if it has moved; its rows may have changed
    their order."""
    zdim: int | None = None
    """Embedding to use, by its number of coordinates; the largest one if not given."""
    invert: bool = False
    """Take the images for which the conditions do not all hold."""
    random: int | None = None
    """Take so many of the images that are left, by chance."""
    seed: int = 0
    """Of --random and --n-clusters."""
    overwrite: bool = False
    """Replace files of an earlier export; inputs are never replaced."""

    cluster: tuple[int, ...] = field(default=(), metadata=_CLUSTERS)
    """Numbers of clusters to take, from 0."""
    labels: Path | None = field(default=None, metadata=_CLUSTERS)
    """Cluster of every image (.npy, .pkl, .txt), in the order of the run or of the particles file;
    if not given, those of an analysis of the run."""
    n_clusters: int | None = field(default=None, metadata=_CLUSTERS)
    """Use the analysis with so many clusters, and without one divide the images by k-means."""

    box: str | None = field(default=None, metadata=_PLACE)
    """Bounds of coordinates, as in "1:-0.5..2.0,2:..0"."""
    polygon: Path | None = field(default=None, metadata=_PLACE)
    """Corners of a polygon (.npy, .txt, .pkl), two numbers each, to take the images inside."""
    axes: tuple[int, ...] = field(default=(), metadata=_PLACE)
    """The two coordinates that --polygon is drawn in; 1,2 if not given."""
    near: tuple[float, ...] = field(default=(), metadata=_PLACE)
    """Point in latent space, to take the images nearest to it, as in --near=-1.5,0.2."""
    count: int | None = field(default=None, metadata=_PLACE)
    """How many images --near takes."""
    distance: Literal["mahalanobis", "euclidean"] = field(default="mahalanobis", metadata=_PLACE)
    """How --near measures: in errors of every image's own coordinates, or plainly."""

    ind: Path | None = field(default=None, metadata=_OTHER)
    """Images to take: indices from 0, or a mask (.pkl, .npy, .txt)."""
    ind_of: Literal["original", "run"] = field(default="original", metadata=_OTHER)
    """What the indices count: rows of the particles file, or images of the run."""
    where: str | None = field(default=None, metadata=_OTHER)
    """Comparisons joined by and, or, not, as in "contrast > 0.7 and latent1 < 0": of latent1 …,
    sd1 …, contrast, half, label, junk (the probability that an image does not show the molecule),
    and numbers in the particles file, such as rlnDefocusU or ctf/df1_A."""
    min_contrast: float | None = field(default=None, metadata=_OTHER)
    """Smallest contrast."""
    max_contrast: float | None = field(default=None, metadata=_OTHER)
    """Largest contrast."""
    half: int | None = field(default=None, metadata=_OTHER)
    """Half set, 1 or 2, as in _rlnRandomSubset."""

    latent: bool = field(default=False, metadata=_WRITTEN)
    """Columns of latent coordinates and contrast."""
    class_number: bool = field(default=False, metadata=_WRITTEN)
    """_rlnClassNumber, which is the number of the cluster plus 1."""
    absolute_paths: bool = field(default=False, metadata=_WRITTEN)
    """Names of image files that hold from anywhere."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read."""
        if self.output.suffix not in SUFFIXES:
            raise InputError(
                f"Expected a file ending in {', '.join(SUFFIXES)} for -o, got {self.output}."
            )
        for option, value in (
            ("--zdim", self.zdim),
            ("--random", self.random),
            ("--count", self.count),
            ("--n-clusters", self.n_clusters),
        ):
            if value is not None and value < 1:
                raise InputError(f"Expected at least 1 for {option}, got {value}.")
        if self.seed < 0:
            raise InputError(f"Expected at least 0 for --seed, got {self.seed}.")
        if self.half not in (None, 1, 2):
            raise InputError(f"Expected 1 or 2 for --half, got {self.half}.")
        self._refuse_alone()
        given = (self.latent, self.class_number, self.absolute_paths)
        if any(given) and self.output.suffix != ".star":
            raise InputError(
                f"--latent, --class-number and --absolute-paths change rows of a .star file, and "
                f"{self.output} keeps what the run knows as it is. Leave them out, or write a "
                ".star file."
            )
        if self.labels is not None and self.n_clusters is not None:
            raise InputError("--labels and --n-clusters both tell clusters. Give one of them.")

    @property
    def uses_labels(self) -> bool:
        """Whether clusters matter for what is chosen or written."""
        asked = self.cluster or self.class_number or re.search(r"\blabel\b", self.where or "")
        return bool(asked) or self.output.suffix in TABLE_SUFFIXES

    def _refuse_alone(self) -> None:
        """Refuse options that say nothing without another one."""
        for option, given, other, present in (
            ("--axes", self.axes, "--polygon", self.polygon is not None),
            ("--count", self.count is not None, "--near", self.near),
            ("--near", self.near, "--count", self.count is not None),
            ("--distance euclidean", self.distance == "euclidean", "--near", self.near),
            ("--labels", self.labels is not None, "--cluster or --class-number", self.uses_labels),
            ("--n-clusters", self.n_clusters, "--cluster or --class-number", self.uses_labels),
            ("--ind-of run", self.ind_of == "run", "--ind", self.ind is not None),
        ):
            if given and not present:
                raise InputError(f"{option} needs {other}. Give both or none.")

"""What `recovar analyze` left in a run: maps to the plane, clusters, their volumes, and paths."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from recovar.data.plain_arrays import read_array


@dataclass(frozen=True)
class Clustering:
    """A division of the images into clusters."""

    path: Path
    count: int
    labels: Int64[np.ndarray, " images"]
    """Below 0 where an image is in no cluster."""

    @property
    def sizes(self) -> Int64[np.ndarray, " clusters"]:
        """Images in every cluster."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.count)


@dataclass(frozen=True)
class LatentRoute:
    """A path between two points of an embedding."""

    path: Path
    follows_density: bool
    """Whether it goes where many images are, or only shows what lies between its ends."""
    arc_length: Float64[np.ndarray, " points"]
    """From the start."""
    density: Float64[np.ndarray, " points"]
    """Of molecules, at the points."""
    remark: str
    """What was said of it."""


@dataclass(frozen=True)
class Analysis:
    """An analysis of one embedding."""

    path: Path
    zdim: int
    umap: Float64[np.ndarray, "images 2"] | None
    clusterings: tuple[Clustering, ...]
    routes: tuple[LatentRoute, ...]


def read_analyses(run: Path, images: int) -> tuple[Analysis, ...]:
    """Read all analyses of a run that are of its images, by their number of coordinates."""
    found = []
    for path in (run / "output").glob("analysis_*"):
        number = path.name.removeprefix("analysis_")
        if path.is_dir() and number.isdigit():
            clusterings = tuple(_read_clusterings(path, images))
            routes = tuple(read_routes(path, "**/path*/path.json"))
            found.append(Analysis(path, int(number), _read_umap(path, images), clusterings, routes))
    return tuple(sorted(found, key=lambda analysis: analysis.zdim))


def _read_umap(path: Path, images: int) -> Float64[np.ndarray, "images 2"] | None:
    for file in (path / "umap_embedding.npy", path / "umap_embedding.pkl"):
        if file.exists():
            values = read_array(file)
            if values.shape == (images, 2):
                return values.astype(np.float64)
    return None


def _read_clusterings(path: Path, images: int) -> Iterator[Clustering]:
    for directory in sorted(path.glob("kmeans_*"), key=lambda each: (len(each.name), each.name)):
        file = directory / "labels.npy"
        if not file.exists():
            continue
        labels = np.load(file, allow_pickle=False).ravel()
        if len(labels) == images:
            yield Clustering(directory, int(labels.max()) + 1, labels.astype(np.int64))


def read_routes(path: Path, pattern: str) -> Iterator[LatentRoute]:
    """Read the paths whose files match a pattern below a directory, in the order of their names."""
    files = sorted(path.glob(pattern), key=lambda file: (len(str(file)), str(file)))
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        yield LatentRoute(
            file.parent,
            content["kind"] == "density",
            np.array(content["arc_length"], np.float64),
            np.array(content["density"], np.float64),
            content["remark"],
        )

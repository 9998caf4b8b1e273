"""Which images a user wants: conditions that they meet, and clusters that they are in."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64
from matplotlib.path import Path as Outline

from recovar.clustering import cluster
from recovar.data.legacy import read_indices
from recovar.data.plain_arrays import read_array
from recovar.errors import InputError
from recovar.workflows.exporting.config import TABLE_SUFFIXES, ExportConfig
from recovar.workflows.exporting.images import RunImages
from recovar.workflows.exporting.query import evaluate_query
from recovar.workflows.run_outliers import read_outliers

_VALUE = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOUNDS = re.compile(rf"\s*(\d+)\s*:\s*({_VALUE})?\s*\.\.\s*({_VALUE})?\s*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Condition:
    """Something that images of a run meet or do not."""

    what: str
    holds: Bool[np.ndarray, " images"]


@dataclass(frozen=True)
class Labels:
    """Clusters of the images of a run."""

    values: Int64[np.ndarray, " images"]
    """Number of the cluster; below 0 where an image is in none."""
    source: str
    """Where they are from."""


def list_conditions(
    config: ExportConfig, images: RunImages, labels: Labels | None
) -> Iterator[Condition]:
    """Tell for every condition which images meet it.

    Raises:
        InputError: If a condition makes no sense for this run.
    """
    contrast = images.embedding.contrast
    if config.cluster:
        yield _in_clusters(config, labels)
    if config.box is not None:
        yield _in_box(config.box, images.embedding.coordinates)
    if config.polygon is not None:
        yield _in_polygon(config.polygon, config.axes or (1, 2), images.embedding.coordinates)
    if config.near:
        yield _near(config.near, config.count or 0, config.distance, images)
    if config.ind is not None:
        yield _listed(config.ind, config.ind_of, images)
    if config.where is not None:
        column = _columns_of(images, labels)
        yield Condition(config.where, evaluate_query(config.where, len(images), column))
    if config.min_contrast is not None:
        yield Condition(
            f"contrast at least {config.min_contrast:g}", contrast >= config.min_contrast
        )
    if config.max_contrast is not None:
        yield Condition(
            f"contrast at most {config.max_contrast:g}", contrast <= config.max_contrast
        )
    if config.half is not None:
        yield Condition(f"half set {config.half}", images.half == config.half - 1)


def draw_some(
    chosen: Bool[np.ndarray, " images"], count: int, seed: int
) -> Bool[np.ndarray, " images"]:
    """Keep so many of the chosen images, by chance."""
    rows = np.flatnonzero(chosen)
    if count > len(rows):
        raise InputError(f"Expected at most {len(rows)} for --random, as are left, got {count}.")
    kept = np.zeros(len(chosen), bool)
    kept[np.random.default_rng(seed).choice(rows, count, replace=False)] = True
    return kept


def keep_present(
    config: ExportConfig, images: RunImages, chosen: Int64[np.ndarray, " chosen"]
) -> Int64[np.ndarray, " present"]:
    """Leave out what the particles file has lost, and take its order; tables need no such file.

    Raises:
        InputError: If none of the images is left.
    """
    lost = images.rows[chosen] < 0
    if images.original is not None and lost.any():
        logger.warning(
            "%d of %d selected images are not in %s any more, such as %s%s.",
            lost.sum(),
            len(chosen),
            images.original.path,
            images.embedding.identity[chosen[lost][0]],
            "" if config.output.suffix in TABLE_SUFFIXES else "; they are left out",
        )
    if config.output.suffix in TABLE_SUFFIXES:
        return chosen
    chosen = chosen[~lost]
    if not chosen.size:
        raise InputError("None of the selected images is left, so nothing was written.")
    return chosen[np.argsort(images.rows[chosen], kind="stable")]


def find_labels(config: ExportConfig, images: RunImages) -> Labels | None:
    """Read clusters from the file that was given or from an analysis of the run, or make them.

    Returns:
        None if none were asked for and there is not just one analysis.
    """
    if config.labels is not None:
        return Labels(_read_labels(config.labels, images), f"{config.labels}")
    zdim = images.embedding.coordinates.shape[1]
    analysis = images.run / "output" / f"analysis_{zdim}"
    count = config.n_clusters
    found = sorted(analysis.glob(f"kmeans_{count or '*'}/labels.npy"))
    if len(found) == 1:
        return Labels(_read_labels(found[0], images), f"{found[0]}")
    if count is None:
        if found and config.cluster:
            raise InputError(
                f"{analysis} holds several divisions into clusters: "
                f"{', '.join(path.parent.name for path in found)}. Choose one with --n-clusters."
            )
        return None
    values = cluster(images.embedding.coordinates, count, config.seed).labels
    return Labels(values, f"k-means of {zdim} coordinates, seed {config.seed}")


def _read_labels(path: Path, images: RunImages) -> Int64[np.ndarray, " images"]:
    """Read one label per image, in the order of the run or of the particles file."""
    given = read_array(path, ("labels",))
    values = given.ravel().astype(np.int64)
    if values.size != len(given) or (values != given.ravel()).any():
        raise InputError(f"{path}: expected one whole number per image, found shape {given.shape}.")
    original = images.original
    counts = {"the run": len(images)} | (
        {} if original is None else {f"{original.path}": len(original)}
    )
    if len(values) not in counts.values():
        wanted = " or ".join(f"{count} as {name}" for name, count in counts.items())
        raise InputError(f"{path}: expected labels of {wanted} has images, found {len(values)}.")
    in_order = np.array_equal(images.rows, np.arange(len(images)))
    if len(set(counts.values())) < len(counts) and not in_order:
        raise InputError(
            f"{path}: the run and {images.original and images.original.path} both have "
            f"{len(values)} images, in another order each, so the labels may be of either. Write "
            "an .npz file with `recovar export` and put the labels in its order of rows."
        )
    if len(values) == len(images):
        return values
    return np.where(images.rows < 0, -1, values[images.rows])


def _in_clusters(config: ExportConfig, labels: Labels | None) -> Condition:
    if labels is None:
        raise InputError(
            "--cluster needs clusters: name a file of them with --labels, or tell how many to make "
            "with --n-clusters."
        )
    present = np.unique(labels.values[labels.values >= 0])
    missing = sorted(set(config.cluster) - set(present.tolist()))
    if missing:
        raise InputError(
            f"There is no cluster {missing[0]} in {labels.source}, whose clusters are "
            f"{_describe_numbers(present)}."
        )
    names = ",".join(map(str, config.cluster))
    return Condition(f"cluster {names} of {labels.source}", np.isin(labels.values, config.cluster))


def _describe_numbers(values: Int64[np.ndarray, " values"]) -> str:
    if len(values) > 10 and np.array_equal(values, np.arange(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values[:20])) or "none"


def _in_box(text: str, coordinates: Float64[np.ndarray, "images zdim"]) -> Condition:
    holds = np.ones(len(coordinates), bool)
    for part in text.split(","):
        found = _BOUNDS.fullmatch(part)
        lower, upper = (float(found[2] or "-inf"), float(found[3] or "inf")) if found else (1, 0)
        if found is None or lower > upper:
            raise InputError(
                f"--box: expected bounds such as 1:-0.5..2.0,2:..0, got {part.strip()!r} in "
                f"{text!r}."
            )
        values = _axis(coordinates, int(found[1]), "--box")
        holds &= (lower <= values) & (values <= upper)
    return Condition(f"box {text}", holds)


def _axis(
    coordinates: Float64[np.ndarray, "images zdim"], axis: int, option: str
) -> Float64[np.ndarray, " images"]:
    if not 1 <= axis <= coordinates.shape[1]:
        raise InputError(
            f"Expected coordinates from 1 to {coordinates.shape[1]} for {option}, got {axis}. "
            "Choose an embedding with more of them with --zdim."
        )
    return coordinates[:, axis - 1]


def _in_polygon(
    path: Path, axes: tuple[int, ...], coordinates: Float64[np.ndarray, "images zdim"]
) -> Condition:
    if len(axes) != 2 or axes[0] == axes[1]:
        raise InputError(f"Expected two coordinates for --axes, such as 1,2, got {axes}.")
    corners = read_array(path, ("polygon", "vertices")).astype(np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise InputError(
            f"{path}: expected at least three corners of two numbers each, found shape "
            f"{corners.shape}."
        )
    points = np.stack([_axis(coordinates, axis, "--axes") for axis in axes], axis=1)
    return Condition(f"inside {path}", Outline(corners).contains_points(points))


def _near(point: tuple[float, ...], count: int, distance: str, images: RunImages) -> Condition:
    """Take the images nearest to a point, as many as asked for; of equals the first."""
    coordinates = images.embedding.coordinates
    if len(point) != coordinates.shape[1]:
        raise InputError(
            f"Expected {coordinates.shape[1]} coordinates for --near, one for each of the "
            f"embedding, got {len(point)}. Choose another with --zdim."
        )
    if count > len(coordinates):
        raise InputError(f"Expected at most {len(coordinates)} for --count, got {count}.")
    away = coordinates - np.array(point)
    if distance == "euclidean":
        squares = np.einsum("nk,nk->n", away, away)
    else:
        inverse = np.linalg.pinv(images.embedding.covariance, hermitian=True)
        squares = np.einsum("nk,nkl,nl->n", away, inverse, away)
    holds = np.zeros(len(coordinates), bool)
    holds[np.argsort(squares, kind="stable")[:count]] = True
    return Condition(f"nearest to {','.join(f'{z:g}' for z in point)}", holds)


def _listed(path: Path, numbering: str, images: RunImages) -> Condition:
    if numbering == "run":
        numbers, count = np.arange(len(images)), len(images)
    else:
        numbers = images.rows
        count = None if images.original is None else len(images.original)
    return Condition(f"listed in {path}", np.isin(numbers, read_indices(path, count)))


def _columns_of(
    images: RunImages, labels: Labels | None
) -> Callable[[str], Float64[np.ndarray, " images"]]:
    """Make the columns that queries can name."""
    embedding = images.embedding
    known = {"contrast": embedding.contrast, "half": images.half + 1.0}
    for name, values in (("latent", embedding.coordinates), ("sd", images.spreads)):
        known |= {f"{name}{k}": column for k, column in enumerate(values.T, 1)}
    outliers = read_outliers(images.run)
    if outliers is not None:
        known["junk"] = outliers.probability
    if labels is not None:
        known["label"] = labels.values.astype(np.float64)

    def column(name: str) -> Float64[np.ndarray, " images"]:
        if name in known:
            return known[name]
        if images.original is None:
            raise InputError(
                f"--where: {name} is none of {', '.join(known)}, and there is no file to look it "
                f"up in: {images.why_not}."
            )
        return images.original.numbers(name)

    return column

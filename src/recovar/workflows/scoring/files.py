"""What `recovar score` judges: the result of any program, a run or a folder of plain files."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recovar.core.grid import Grid
from recovar.data.legacy import read_indices
from recovar.data.mrc import read_volume
from recovar.data.plain_arrays import SUFFIXES, read_array
from recovar.errors import InputError
from recovar.manifest import MANIFEST
from recovar.noise import Noise
from recovar.run import read_result
from recovar.workflows.run_embedding import RunEmbedding, read_run_embedding
from recovar.workflows.run_outliers import read_outliers
from recovar.workflows.scoring.truth import Truth

_SAME_SIDE = 0.01
"""Relative difference up to which two boxes count as equally wide."""


@dataclass(frozen=True)
class VolumeModel:
    """A result that tells the volume of every image: mean + Σ z_k component_k."""

    mean: Float[np.ndarray, "z y x"]
    components: Float[np.ndarray, "zdim z y x"]
    coordinates: Float[np.ndarray, "images zdim"]

    def at(self, z: Float[np.ndarray, " zdim"]) -> Float[np.ndarray, "z y x"]:
        """Compute the volume at a latent point."""
        return self.mean + np.tensordot(z.astype(np.float32), self.components, 1)


@dataclass(frozen=True)
class Found:
    """What a program has found, as far as it left it."""

    place: Path
    rows: Int[np.ndarray, " images"]
    """Which of the images of the truth the arrays below belong to."""
    grid: Grid | None = None
    """Of the volumes."""
    mean: Float[np.ndarray, "z y x"] | None = None
    components: Float[np.ndarray, "pcs z y x"] | None = None
    eigenvalues: Float[np.ndarray, " pcs"] | None = None
    """Variance of the coordinate along each component."""
    coordinates: Float[np.ndarray, "images zdim"] | None = None
    covariance: Float[np.ndarray, "images zdim zdim"] | None = None
    """Of the errors of `coordinates`; runs alone have them."""
    contrast: Float[np.ndarray, " images"] | None = None
    noise: Float[np.ndarray, " shells"] | None = None
    """Variance of a pixel of white noise with the same power."""
    outlier_scores: Float[np.ndarray, " images"] | None = None
    states: tuple[Path, ...] = ()
    """Volumes at the targets, `state_00.mrc` for the first."""
    image_volumes: tuple[Path, ...] = ()
    """Volumes of single images, at the rows of `metrics.cryobench_images`."""
    model: VolumeModel | None = None


def read_found(path: Path, truth: Truth, zdim: int | None, ind: Path | None) -> Found:
    """Read a run directory, a folder of plain files, or a file that holds an embedding.

    Args:
        path: The result.
        truth: What it is compared with; it tells how many images there are.
        zdim: Embedding to take of a run; the largest one if absent.
        ind: Images that the arrays of plain files belong to, where not all: indices from 0.

    Raises:
        InputError: If there is nothing to score, or it does not belong to the truth.
    """
    if (path / MANIFEST).is_file():
        if ind is not None:
            raise InputError(f"{path} is a run and knows its images. Leave out --ind.")
        return _read_run(path, truth, zdim)
    if zdim is not None:
        raise InputError(f"{path} is no run of recovar, so there is nothing for --zdim to choose.")
    if path.is_dir():
        return _read_folder(path, truth, ind)
    if path.is_file():
        coordinates = read_array(path, ("z", "embedding")).astype(np.float64)
        rows = _match_images(path, {"embedding": len(coordinates)}, truth, ind)
        return Found(path, rows, coordinates=coordinates.reshape(len(rows), -1))
    raise InputError(f"Expected a run or a folder of results at {path}, but nothing is there.")


def _read_run(path: Path, truth: Truth, zdim: int | None) -> Found:
    """Read a run, of which the later stages may not be there."""
    volumes = path / "output" / "volumes"
    noise = None
    if (path / "model" / "noise.npz").is_file():
        variance = read_result(path, "noise", Noise).variance
        noise = variance / (2 * len(variance)) ** 2
    found = _with_volumes(
        Found(path, np.arange(len(truth)), noise=noise),
        truth,
        volumes / "mean.mrc",
        sorted(volumes.glob("eigen_pos*.mrc")),
    )
    embedding = read_run_embedding(path, zdim)
    if embedding is None:
        return found
    contrast, coordinates = embedding.contrast, embedding.coordinates
    outliers = read_outliers(path)
    model = None
    if found.mean is not None and found.components is not None:
        components = found.components[: coordinates.shape[1]]
        model = VolumeModel(found.mean, components, coordinates)
    return replace(
        found,
        rows=_rows_of_run(embedding, truth),
        coordinates=coordinates,
        covariance=embedding.covariance,
        contrast=contrast if contrast.std() > 0 else None,
        eigenvalues=embedding.eigenvalues,
        outlier_scores=None if outliers is None else outliers.log_odds,
        model=model,
    )


def _rows_of_run(embedding: RunEmbedding, truth: Truth) -> Int[np.ndarray, " images"]:
    """Find the images of a run in the truth: by the numbers in their names, or their rows."""
    rows = embedding.row
    names = [str(name).partition("@") for name in embedding.identity]
    if all(at for _, at, _ in names) and len({stack for _, _, stack in names}) == 1:
        rows = np.array([int(number) - 1 for number, _, _ in names])
    if rows.min() < 0 or rows.max() >= len(truth):
        raise InputError(
            f"{embedding.file} has image {rows.max() + 1}, and the truth in {truth.place} knows "
            f"{len(truth)} images. Give the truth of the data set that was analysed."
        )
    return rows


def _read_folder(folder: Path, truth: Truth, ind: Path | None) -> Found:
    coordinates = _read_named(folder, "embedding", "z")
    contrast = _read_named(folder, "contrast")
    outlier_scores = _read_named(folder, "outlier_scores")
    eigenvalues = _read_named(folder, "eigenvalues")
    noise = _read_named(folder, "noise_radial")
    each = {
        "embedding": coordinates,
        "contrast": contrast,
        "outlier_scores": outlier_scores,
    }
    counts = {name: len(array) for name, array in each.items() if array is not None}
    rows = _match_images(folder, counts, truth, ind)
    found = Found(
        folder,
        rows,
        eigenvalues=None if eigenvalues is None else eigenvalues.ravel(),
        coordinates=None if coordinates is None else coordinates.reshape(len(rows), -1),
        contrast=None if contrast is None else contrast.ravel(),
        noise=None if noise is None else noise.ravel(),
        outlier_scores=None if outlier_scores is None else outlier_scores.ravel(),
        states=tuple(sorted(folder.glob("state_[0-9]*.mrc"))),
        image_volumes=tuple(sorted((folder / "per_image").glob("vol_[0-9]*.mrc"))),
    )
    found = _with_volumes(found, truth, folder / "mean.mrc", sorted(folder.glob("pc_[0-9]*.mrc")))
    if not counts and found.grid is None and found.noise is None:
        raise InputError(
            f"{folder} holds nothing that can be scored: neither a run nor files such as mean.mrc, "
            "pc_0000.mrc, embedding.npy, contrast.npy, noise_radial.npy or state_00.mrc."
        )
    return found


def _read_named(folder: Path, *names: str) -> Float[np.ndarray, "..."] | None:
    """Read NAME.npy or NAME.N.pkl, with any known suffix; of numbered ones the last."""
    paths = [path for name in names for path in _numbered(folder, name)]
    return read_array(paths[0], names).astype(np.float64) if paths else None


def _numbered(folder: Path, name: str) -> Iterator[Path]:
    """List files of a name, those without a number first and of the others the largest."""
    pattern = re.compile(rf"{re.escape(name)}(?:\.(\d+))?(?:{'|'.join(map(re.escape, SUFFIXES))})")
    matches = [(pattern.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    found = [(float(match[1] or np.inf), path) for match, path in matches if match]
    yield from (path for _, path in sorted(found, key=lambda pair: -pair[0]))


def _match_images(
    place: Path, counts: dict[str, int], truth: Truth, ind: Path | None
) -> Int[np.ndarray, " images"]:
    """Find the images of plain arrays in the truth by their number alone.

    In tilt series there may be one row per particle, which then stands for its first image.
    """
    rows = np.arange(len(truth)) if ind is None else read_indices(ind, len(truth))
    if ind is None and truth.particles is not None and len(rows) not in counts.values():
        first = np.unique(truth.particles, return_index=True)[1]
        rows = first if len(first) in counts.values() else rows
    for name, count in counts.items():
        if count != len(rows):
            raise InputError(
                f"{place}: {name} of {count} images were found, and "
                f"{'the truth knows' if ind is None else '--ind names'} {len(rows)}. If they are "
                "of a selection of images, name these with --ind."
            )
    return rows


def _with_volumes(found: Found, truth: Truth, mean: Path, components: list[Path]) -> Found:
    """Read mean and components, and check that all volumes have the box of the truth."""
    paths = [*([mean] if mean.is_file() else []), *components, *found.states, *found.image_volumes]
    if not paths:
        return found
    grid = _grid_of(paths[0], truth)
    return replace(
        found,
        grid=grid,
        mean=read_on(mean, grid) if mean.is_file() else None,
        components=np.stack([read_on(path, grid) for path in components]) if components else None,
    )


def _grid_of(path: Path, truth: Truth) -> Grid:
    """Give the grid of a volume, which must be the truth's or a coarser one of the same cube."""
    volume = read_volume(path)
    size, side = len(volume.values), truth.grid.size * truth.grid.voxel_size
    own = side if volume.voxel_size is None else size * volume.voxel_size
    if abs(own / side - 1) > _SAME_SIDE or size > truth.grid.size:
        raise InputError(
            f"{path}: expected {truth.grid.size} voxels of {truth.grid.voxel_size:.4g} Å as in "
            f"{truth.place}, or fewer across the same {side:.4g} Å, found {size} of "
            f"{own / size:.4g} Å. Resample or pad the volume."
        )
    return truth.grid.cropped(size)


def read_on(path: Path, grid: Grid) -> Float[np.ndarray, "z y x"]:
    """Read a volume of a result, which must have the box of the others."""
    values = read_volume(path).values
    if len(values) != grid.size:
        raise InputError(
            f"{path}: expected a box of {grid.size} voxels like the other volumes of this result, "
            f"found {len(values)}."
        )
    return values

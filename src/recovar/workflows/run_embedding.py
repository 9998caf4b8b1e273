"""The embeddings that a run leaves in its output, with the images that they are of."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from recovar.errors import InputError
from recovar.records import load_arrays


@dataclass(frozen=True)
class RunEmbedding:
    """Where the images of a run lie along its first components."""

    file: Path
    coordinates: Float64[np.ndarray, "images zdim"]
    covariance: Float64[np.ndarray, "images zdim zdim"]
    """Of the errors of `coordinates`."""
    contrast: Float64[np.ndarray, " images"]
    eigenvalues: Float64[np.ndarray, " zdim"]
    identity: Shaped[np.ndarray, " images"]
    """What the particles file calls an image."""
    row: Int64[np.ndarray, " images"]
    """Row of an image in the particles file, from 0."""
    coordinates_noreg: Float64[np.ndarray, "images zdim"]
    """Least-squares estimates: unbiased, and noisier."""
    covariance_noreg: Float64[np.ndarray, "images zdim zdim"]
    """Of the errors of `coordinates_noreg`."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.row)


def read_run_embedding(run: Path, zdim: int | None) -> RunEmbedding | None:
    """Read the embedding of that many coordinates, or the largest one; None if there is none.

    Raises:
        InputError: If the run has embeddings, but not that one.
    """
    files = _embedding_files(run)
    if not files:
        return None
    if zdim is not None and zdim not in files:
        raise InputError(
            f"{run} has no embedding of {zdim} coordinates. Give one of "
            f"{', '.join(map(str, sorted(files)))} for --zdim."
        )
    file = files[max(files) if zdim is None else zdim]
    each = load_arrays(file)
    return RunEmbedding(
        file,
        each["z"].astype(np.float64),
        each["covariance"].astype(np.float64),
        each["contrast"].astype(np.float64),
        each["eigenvalues"].astype(np.float64),
        each["identity"],
        each["row"].astype(np.int64),
        each["z_noreg"].astype(np.float64),
        each["covariance_noreg"].astype(np.float64),
    )


def list_embeddings(run: Path) -> tuple[int, ...]:
    """List the numbers of coordinates that a run has embeddings of, ascending."""
    return tuple(sorted(_embedding_files(run)))


def _embedding_files(run: Path) -> dict[int, Path]:
    return {int(file.stem[4:]): file for file in (run / "output" / "embedding").glob("zdim*.npz")}

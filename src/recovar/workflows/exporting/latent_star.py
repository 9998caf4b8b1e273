"""Latent coordinates as columns of STAR files, for other programs."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.data.particles import Particles, table_of
from recovar.data.star import write_particles
from recovar.data.star_text import StarText, read_star_text
from recovar.embedding import Embedding

_CONTRAST, _LATENT = "recovarContrast", "recovarLatent"


def latent_columns(
    coordinates: Float[np.ndarray, "images zdim"], contrast: Float[np.ndarray, " images"]
) -> dict[str, list[str]]:
    """Make the columns of contrasts and coordinates, by label.

    Example:
        >>> latent_columns(np.array([[0.5, -2.0]]), np.ones(1))
        {'recovarContrast': ['1.00000'], 'recovarLatent01': ['0.5'], 'recovarLatent02': ['-2']}
    """
    columns = {_CONTRAST: [f"{value:.5f}" for value in contrast]}
    for k, values in enumerate(coordinates.T, 1):
        columns[f"{_LATENT}{k:02d}"] = [f"{value:.6g}" for value in values]
    return columns


def without_latent_columns(labels: Iterable[str]) -> dict[str, None]:
    """Name the columns that an earlier run left, to take them away."""
    return {label: None for label in labels if label.startswith((_CONTRAST, _LATENT))}


def write_latent_star(path: Path, particles: Particles, embedding: Embedding) -> None:
    """Write the images that were used, with coordinates and contrast, as a STAR file.

    A STAR file that all images came from keeps all that it says; other formats are converted.

    Args:
        path: File to write.
        particles: The images, with the half sets that were used.
        embedding: Of the same images.
    """
    lists = [path for path in particles.sources if path.suffix not in (".pkl", ".npz", ".npy")]
    from_star = [path.suffix for path in lists] == [".star"]
    text = read_star_text(particles.sources[0]) if from_star else _converted(particles)
    rows = particles.source_row if from_star else np.arange(len(particles))
    edits: dict[str, list[str] | None] = {**without_latent_columns(text.particles.columns)}
    if particles.half is not None:
        edits["rlnRandomSubset"] = (particles.half.astype(np.int64) + 1).astype(str).tolist()
    edits |= latent_columns(embedding.coordinates, embedding.contrast)
    with path.open("wb") as file:
        file.writelines(text.select(rows, edits))


def _converted(particles: Particles) -> StarText:
    names = [str(stack.resolve()) for stack in particles.stacks]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "particles.star"
        write_particles(file, table_of(particles, names))
        return read_star_text(file)

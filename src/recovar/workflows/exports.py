"""Particles with their latent coordinates, for other programs."""

import tempfile
from pathlib import Path

import numpy as np

from recovar.data.particles import Particles, table_of
from recovar.data.star import write_particles
from recovar.data.star_blocks import StarColumn, StarTable, read_star, write_star
from recovar.embedding import Embedding


def write_latent_star(path: Path, particles: Particles, embedding: Embedding) -> None:
    """Write the images that were used, with coordinates and contrast, as a STAR file.

    A STAR file that the images came from keeps all its columns; other formats are converted.

    Args:
        path: File to write.
        particles: The images, with the half sets that were used.
        embedding: Of the same images.
    """
    tables = read_star(particles.sources[0]) if _from_star(particles) else _converted(particles)
    rows = particles.source_row if _from_star(particles) else np.arange(len(particles))
    write_star(path, [_extended(table, particles, rows, embedding) for table in tables])


def _from_star(particles: Particles) -> bool:
    return particles.sources[0].suffix == ".star"


def _converted(particles: Particles) -> tuple[StarTable, ...]:
    names = [str(stack.resolve()) for stack in particles.stacks]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "particles.star"
        write_particles(file, table_of(particles, names))
        return read_star(file)


def _extended(
    table: StarTable, particles: Particles, rows: np.ndarray, embedding: Embedding
) -> StarTable:
    """Select rows of the particle table and add columns; other tables stay."""
    if "rlnImageName" not in table:
        return table
    columns: dict[str, StarColumn] = {
        label: np.array(table.columns[label])[rows].tolist() for label in table.columns
    }
    if particles.half is not None:
        columns["rlnRandomSubset"] = particles.half.astype(np.int64) + 1
    columns["recovarContrast"] = [f"{value:.5f}" for value in embedding.contrast]
    for k, values in enumerate(embedding.coordinates.T, 1):
        columns[f"recovarLatent{k:02d}"] = [f"{value:.6g}" for value in values]
    return StarTable(table.name, columns)

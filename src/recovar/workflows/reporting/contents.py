"""What a run holds, read piece by piece; what is absent is None, as runs may be in progress."""

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Float32, Float64

from recovar.core.grid import Grid
from recovar.data.legacy import read_halfsets
from recovar.data.mrc import read_volume
from recovar.data.star_blocks import StarTable, read_star
from recovar.embedding import determined_share
from recovar.errors import InputError
from recovar.manifest import Manifest, read_manifest
from recovar.run import read_result
from recovar.workflows.reporting.analyses import (
    Analysis,
    LatentRoute,
    read_analyses,
    read_routes,
)
from recovar.workflows.run_embedding import RunEmbedding, list_embeddings, read_run_embedding

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_WARNING = re.compile(r"^\d{4}-\d\d-\d\d [\d:,.]+ (?:WARNING|ERROR)\s+(.*)")
_LARGEST_TABLE = 2**30
"""Bytes of a table of images that is still read for what points can be coloured by."""


@dataclass(frozen=True)
class Curves:
    """Correlations of the half-maps of the mean."""

    frequency: Float64[np.ndarray, " shells"]
    """1/Å."""
    whole: Float64[np.ndarray, " shells"]
    masked: Float64[np.ndarray, " shells"]


@dataclass(frozen=True)
class Contents:
    """A run as its files tell of it."""

    path: Path
    """Absolute."""
    manifest: Manifest

    @cached_property
    def grid(self) -> Grid | None:
        """Box and voxel size of all volumes."""
        stage = self.manifest.stages.get("inputs")
        if stage is None:
            return None
        return Grid(int(stage.options["box"]), float(stage.options["pixel_size"]))

    @cached_property
    def images(self) -> int | None:
        """How many images were analysed."""
        if self.embeddings:
            return len(next(iter(self.embeddings.values())))
        file = self.path / "model" / "halfsets.pkl"
        return sum(map(len, read_halfsets(file))) if file.exists() else None

    @cached_property
    def embeddings(self) -> dict[int, RunEmbedding]:
        """Embeddings by their number of coordinates, ascending."""
        found = {zdim: read_run_embedding(self.path, zdim) for zdim in list_embeddings(self.path)}
        return {zdim: embedding for zdim, embedding in found.items() if embedding is not None}

    @cached_property
    def curves(self) -> Curves | None:
        """Correlations of the half-maps."""
        file = self.path / "output" / "fsc.txt"
        return Curves(*np.loadtxt(file).T[1:]) if file.exists() else None

    @cached_property
    def table(self) -> StarTable | None:
        """The table of images that the run wrote, if it is not too large to read."""
        file = self.path / "output" / "particles.star"
        if not file.exists():
            return None
        if file.stat().st_size > _LARGEST_TABLE:
            logger.warning("%s is too large to colour the points of the report by it.", file)
            return None
        found = [table for table in read_star(file) if "rlnImageName" in table]
        return found[0] if found and len(found[0]) == self.images else None

    @cached_property
    def analyses(self) -> tuple[Analysis, ...]:
        """What was analysed further."""
        return read_analyses(self.path, self.images or 0)

    @cached_property
    def routes(self) -> tuple[LatentRoute, ...]:
        """Paths that were asked for one by one."""
        return tuple(read_routes(self.path / "output", "*/path.json"))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the log warns of, each sentence once."""
        log = self.path / "run.log"
        if not log.exists():
            return ()
        with log.open(encoding="utf-8", errors="replace") as lines:
            found = (_WARNING.match(line) for line in lines)
            return tuple(dict.fromkeys(match[1].strip() for match in found if match))

    def result(self, stage: str, kind: type[Result] | Any) -> Result | None:  # noqa: ANN401
        """Read the result of a stage, if it is done, still there, and as this version writes it."""
        file = self.path / "model" / f"{stage}.npz"
        if stage not in self.manifest.stages or not file.exists():
            return None
        try:
            return read_result(self.path, stage, kind)
        except InputError as error:
            logger.warning("%s The report leaves it out.", error)
            return None

    def volume(self, name: str) -> Float32[np.ndarray, "z y x"] | None:
        """Read a map, named relative to the output and without its suffix."""
        file = self.path / "output" / f"{name}.mrc"
        return read_volume(file).values if file.exists() else None

    def column(self, label: str) -> Float64[np.ndarray, " images"] | None:
        """Give a column of the table of images as numbers, if it holds numbers."""
        if self.table is None or label not in self.table:
            return None
        try:
            return np.array(self.table.columns[label], np.float64)
        except ValueError:
            return None


def read_contents(path: Path) -> Contents:
    """Start to read a run.

    Raises:
        InputError: If there is none.
    """
    if not path.is_dir():
        raise InputError(f"Expected the directory of a run at {path}, but there is none.")
    return Contents(path.resolve(), read_manifest(path))


def reliability_of(embedding: RunEmbedding) -> Float[np.ndarray, " zdim"]:
    """Give the share of each coordinate's variance that the images determine, 0 to 1."""
    return determined_share(embedding.covariance, embedding.eigenvalues)

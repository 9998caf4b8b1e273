"""A run whose embeddings are done, for the commands that go on from it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from recovar.core.grid import Grid
from recovar.core.masks import SolventMask
from recovar.core.noise_spectra import NoiseSpectra
from recovar.data.bank import BLOCK_BYTES, ImageBank
from recovar.errors import InputError
from recovar.manifest import Manifest, read_manifest
from recovar.run import read_result
from recovar.workflows.components import Components
from recovar.workflows.configs import MASK_KEYWORDS, PipelineConfig
from recovar.workflows.inputs import Inputs, read_inputs
from recovar.workflows.mean import FirstMean, Means
from recovar.workflows.run_embedding import RunEmbedding, list_embeddings, read_run_embedding


@dataclass(frozen=True)
class FinishedRun:
    """What a run of the pipeline has found; results are read when they are asked for."""

    path: Path
    manifest: Manifest
    config: PipelineConfig
    """Options of the pipeline, with paths that hold in the present directory."""
    zdims: tuple[int, ...]
    """Numbers of coordinates that there are embeddings of, ascending."""

    def embedding(self, zdim: int | None = None) -> RunEmbedding:
        """Read the embedding of that many coordinates, or the largest one.

        Raises:
            InputError: If that one was not computed; the message says which were.
        """
        found = read_run_embedding(self.path, zdim)
        assert found is not None
        return found

    def components(self) -> Components:
        """Read the mean that coordinates count from, the components and what was learned beside."""
        return read_result(self.path, "subspace", Components)

    def means(self) -> Means:
        """Read the final mean with and without its mask."""
        return read_result(self.path, "volumes", Means)

    def noise(self) -> NoiseSpectra:
        """Read the noise of every image."""
        return read_result(self.path, "noise_spectra", NoiseSpectra)

    def mask(self) -> SolventMask:
        """Read the solvent mask."""
        return read_result(self.path, "mask", SolventMask)

    @property
    def sign(self) -> float:
        """What multiplies the images, so that dense matter is positive."""
        return read_result(self.path, "first_mean", FirstMean).sign

    @cached_property
    def inputs(self) -> Inputs:
        """The images that were analysed, in the order of the embeddings.

        Raises:
            InputError: If files of particles are gone or are not what they were.
        """
        inputs = read_inputs(self.config)
        rows = self.embedding(self.zdims[0]).row
        if len(rows) != len(inputs.particles) or (rows != inputs.particles.source_row).any():
            raise InputError(
                f"{self.config.source}: expected the {len(rows)} images that the run in "
                f"{self.path} was made of, found {len(inputs.particles)} or others. Restore the "
                "file, or run the pipeline again in a new directory."
            )
        return inputs

    @property
    def grid(self) -> Grid:
        """Grid of the volumes."""
        return self.inputs.grid

    def images(self, memory: int, block_bytes: int = BLOCK_BYTES) -> ImageBank:
        """Open the stream of images.

        Args:
            memory: Bytes that images may take between passes.
            block_bytes: Bytes of one block of images.
        """
        inputs = self.inputs
        return ImageBank(
            inputs.particles,
            inputs.halves,
            memory,
            sign=self.sign,
            block_bytes=block_bytes,
            box=inputs.grid.size,
        )


def open_finished(path: Path) -> FinishedRun:
    """Open a run of the pipeline for reading.

    Raises:
        InputError: If there is no run, or it has no embeddings yet.
    """
    manifest, zdims = read_manifest(path), list_embeddings(path)
    if not zdims or "embedding" not in manifest.stages:
        raise InputError(
            f"The run in {path} has no embedding yet. Let its pipeline run to the end first: the "
            f"command stands in {path / 'command.txt'}, without --only-mean."
        )
    given = {name: value for name, value in manifest.config.items() if value is not None}
    config = msgspec.convert(given, PipelineConfig, strict=False, dec_hook=_make_path)
    return FinishedRun(path, manifest, _relocated(config, Path(manifest.directory)), zdims)


def _make_path(kind: type, value: Any) -> Any:  # noqa: ANN401
    return kind(value)


def _relocated(config: PipelineConfig, directory: Path) -> PipelineConfig:
    """Let relative paths start where the pipeline was called, unless they lead to a file here."""

    def find(path: Path | None) -> Path | None:
        return path if path is None or path.exists() else directory / path

    def find_all(paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path if path.exists() else directory / path for path in paths)

    mask = config.mask
    return replace(
        config,
        particles=find_all(config.particles),
        passthrough=find_all(config.passthrough),
        poses=find(config.poses),
        ctf=find(config.ctf),
        datadir=find(config.datadir),
        ind=find(config.ind),
        halfsets=find(config.halfsets),
        focus_mask=find_all(config.focus_mask),
        mask=mask if mask in MASK_KEYWORDS else str(find(Path(mask))),
    )

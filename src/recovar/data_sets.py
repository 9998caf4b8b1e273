"""Simulated images as files of other programs, and all that is true about them.

The directory `truth` has one layout, from which `recovar score` and other programs can read.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from scipy import ndimage

import recovar
from recovar.acquisition import Kind
from recovar.compute.progress import NoProgress, Progress
from recovar.core.ctf import transfer_function
from recovar.core.masks import soft_edge
from recovar.data import ImageTable
from recovar.data.cryosparc import write_cs
from recovar.data.legacy import write_ctf_pickle, write_poses_pickle
from recovar.data.mrc import StackWriter, write_volume
from recovar.data.star import write_particles
from recovar.records import save_arrays, write_whole
from recovar.simulator import Simulation

_MASK_BLUR = 8.0
"""Å, standard deviation of the blur before the threshold."""
_MASK_THRESHOLD = 0.08
"""Of the largest density of a volume."""
_MASK_MARGIN = 12.0
"""Å from the molecule to where the mask begins to fall."""
_MASK_EDGE = 20.0
"""Å over which it falls."""


def _same(states: Num[np.ndarray, "n coordinates"]) -> Num[np.ndarray, "n coordinates"]:
    return states


@dataclass(frozen=True)
class TrueStates:
    """States whose volumes are written as truth."""

    states: Num[np.ndarray, "volumes coordinates"]
    """Of the specimen."""
    weights: Float[np.ndarray, " volumes"]
    """Share of the molecules that each stands for."""
    targets: Num[np.ndarray, "targets coordinates"]
    """States that results are compared with one by one."""
    latent: Callable[[Num[np.ndarray, "n coordinates"]], Num[np.ndarray, "n latent"]] = _same
    """Turns states into coordinates that mean something, such as frames into their angles."""


def write_simulation(
    simulation: Simulation,
    directory: Path,
    true: TrueStates,
    *,
    dtype: type[np.float32 | np.float16] = np.float32,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write images with their poses and optics in all formats that are read, and the truth.

    Makes `particles.mrcs`, `particles.star`, `particles.cs`, `poses.pkl` and `ctf.pkl`, which has
    no place for B-factors and scales, and the directory `truth`.

    Args:
        simulation: What to write.
        directory: Where; it is made if it is missing.
        true: States whose volumes are written, on the scale of the images.
        dtype: Of the pixels in the stack.
        about: What `truth/meta.json` says beyond box, pixel size, seed and version.
        progress: Who is told how far it is.

    Raises:
        InputError: If pixels are too large for float16.
    """
    progress = NoProgress() if progress is None else progress
    (directory / "truth").mkdir(parents=True, exist_ok=True)
    _write_stack(simulation, directory / "particles.mrcs", dtype, progress)
    grid, truth = simulation.grid, simulation.truth
    table = _table(simulation, directory / "particles.star")
    write_particles(directory / "particles.star", table)
    write_cs(directory / "particles.cs", table, np.arange(1, len(table) + 1, dtype=np.uint64))
    fractions = truth.shifts / (grid.size * grid.voxel_size)
    write_poses_pickle(directory / "poses.pkl", truth.rotations, fractions)
    write_ctf_pickle(directory / "ctf.pkl", truth.optics, grid.size, grid.voxel_size)
    _write_truth(simulation, directory / "truth", true, about or {})
    _write_volumes(simulation, directory / "truth", true, progress)


def _write_stack(
    simulation: Simulation, path: Path, dtype: type[np.float32 | np.float16], progress: Progress
) -> None:
    """Make images sorted by state, so that few states are at hand at a time."""
    order = np.lexsort(simulation.truth.states.T)
    with (
        StackWriter(path, simulation.grid.voxel_size, dtype) as writer,
        progress.task("Images", len(simulation)) as advance,
    ):
        for start in range(0, len(order), simulation.block_size):
            rows = np.sort(order[start : start + simulation.block_size])
            writer.place(rows, simulation.images(rows))
            advance(len(rows))


def _table(simulation: Simulation, source: Path) -> ImageTable:
    count, grid, truth = len(simulation), simulation.grid, simulation.truth
    tilts = bool(truth.dose.any())
    lens = truth.optics[np.arange(1)]
    dark = transfer_function(lens, np.zeros(1), np.zeros(1)).item() < 0
    return ImageTable(
        source=source,
        stacks=("particles.mrcs",),
        stack_index=np.zeros(count, np.int32),
        slice_index=np.arange(count),
        identity=np.arange(count),
        box=np.full(count, grid.size),
        pixel_size=np.full(count, grid.voxel_size),
        rotations=truth.rotations,
        shifts=truth.shifts,
        optics=truth.optics,
        particle=truth.particle if tilts else None,
        dose=truth.dose if tilts else None,
        premultiplied=simulation.premultiplied,
        sign=-1 if dark and not simulation.premultiplied else 1,
    )


def _write_truth(
    simulation: Simulation, directory: Path, true: TrueStates, about: Mapping[str, Any]
) -> None:
    """Write what is known about images, in the layout that scores are computed from."""
    grid, truth = simulation.grid, simulation.truth
    meta = {
        "recovar": recovar.__version__,
        "box": grid.size,
        "apix": grid.voxel_size,
        "n": len(simulation),
        "seed": truth.seed,
        **about,
    }
    with write_whole(directory / "meta.json") as partial:
        partial.write_text(json.dumps(meta, indent=1) + "\n")
    shells = np.minimum(np.arange(grid.size // 2 + 1), len(truth.noise) - 1)
    variance = truth.noise[shells] / grid.size**2 * np.square(truth.noise_scale).mean()
    with write_whole(directory / "noise_radial.npy") as partial:
        np.save(partial, variance)
    discrete = truth.states.shape[1] == 1 and truth.states.dtype.kind in "iu"
    molecule = np.isin(truth.kind, (Kind.MOLECULE, Kind.OFF_CENTRE))
    state = np.where(molecule, truth.states[:, 0], -1) if discrete else np.full(len(truth.kind), -1)
    records = ("optics", "others", "neighbours")
    arrays = {name: value for name, value in vars(truth).items() if name not in records}
    for name in ("others", "neighbours"):
        guests = vars(getattr(truth, name)).items()
        arrays |= {f"{name}_{field}": values for field, values in guests}
    latent = _plain(true.latent(truth.states))
    save_arrays(
        directory / "per_image.npz", latent=latent, state=state, **arrays, **vars(truth.optics)
    )
    save_arrays(
        directory / "grid.npz", latent=_plain(true.latent(true.states)), weights=true.weights
    )
    save_arrays(directory / "targets.npz", latent=_plain(true.latent(true.targets)))


def _plain(latent: Num[np.ndarray, "n latent"]) -> Num[np.ndarray, "*values"]:
    """Make a list of values where there is one coordinate."""
    return latent[:, 0] if latent.shape[1] == 1 else latent


def _write_volumes(
    simulation: Simulation, directory: Path, true: TrueStates, progress: Progress
) -> None:
    """Write true volumes, their mean, and a soft mask around all of them."""
    grid = simulation.grid
    mean = np.zeros(grid.volume_shape)
    union = np.zeros(grid.volume_shape, bool)
    with progress.task("True volumes", len(true.states) + len(true.targets), "volumes") as advance:
        for number, (state, weight) in enumerate(zip(true.states, true.weights, strict=True)):
            volume = simulation.volume(state)
            write_volume(directory / f"vol_{number:04d}.mrc", volume, grid.voxel_size)
            mean += weight * volume
            blurred = ndimage.gaussian_filter(volume, _MASK_BLUR / grid.voxel_size)
            union |= blurred > _MASK_THRESHOLD * blurred.max()
            advance(1)
        for number, state in enumerate(true.targets):
            volume = simulation.volume(state)
            write_volume(directory / f"target_{number:02d}.mrc", volume, grid.voxel_size)
            advance(1)
    write_volume(directory / "mean.mrc", mean, grid.voxel_size)
    del mean  # Distances take memory.
    mask = soft_edge(union, _MASK_EDGE / grid.voxel_size, _MASK_MARGIN / grid.voxel_size)
    write_volume(directory / "mask.mrc", mask, grid.voxel_size)

"""Reconstruct ribosomes from real tilt images, and settle the hand of the map.

    python benchmarks/real_tilts.py SOURCE OUTPUT [--atoms 50S_segmented_atoms.npz] [--pipeline]

SOURCE holds the test set of TomoDRGN that WarpTools wrote: 40 subtomograms of 37 tilts each, 32
pixels of 12 Å, multiplied by their transfer functions. Every visible tilt image is taken as a
particle of its own. OUTPUT gets a STAR file in the way of RELION 3.1, a map and a picture of it.
"""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from recovar.cli import main as run_recovar
from recovar.compute.executors import LocalExecutor
from recovar.core import fourier
from recovar.core.ctf import Optics
from recovar.core.grid import half_weights, volume_radii
from recovar.core.masks import soft_edge
from recovar.core.poses import rotations_from_relion_euler
from recovar.data import ImageTable
from recovar.data.bank import ImageBank
from recovar.data.mrc import read_volume, write_volume
from recovar.data.particles import Particles, read_particles
from recovar.data.star import StarTable, read_star, write_particles
from recovar.homogeneous import Mean, estimate_mean
from recovar.noise import estimate_power
from recovar.regularization import fsc

STEM = "warptools_test_4-tomos_10-ptcls_box-32_angpix-12"
REFERENCE = "warptools_test_box-32_angpix-12_reconstruct.mrc"
MASK_RADIUS = 13
"""Pixels to the middle of the soft edge."""
SHELLS = slice(1, 9)
BAND = (1.5, 8.5)
"""Shells on which atoms are fitted."""


@dataclass(frozen=True)
class Tilts:
    """Visible tilt images with the two parts of their poses."""

    table: ImageTable
    projections: np.ndarray
    """(images, 3, 3): from tomogram to image; rows are image x, image y and the beam."""
    orientations: np.ndarray
    """(images, 3, 3): from particle to tomogram, RELION's Euler matrix [Rz Ry Rz]ᵀ."""


def numbers(table: StarTable, *labels: str) -> np.ndarray:
    """Read columns, (rows, labels)."""
    return np.stack([np.array(table.columns[f"rln{label}"], float) for label in labels], axis=1)


def lists(table: StarTable, label: str) -> np.ndarray:
    """Read a column of lists, (rows, length)."""
    return np.array([ast.literal_eval(text) for text in table.columns[f"rln{label}"]], float)


def read_tilts(source: Path) -> Tilts:
    """Turn subtomograms and tilt series into one row per visible image; halves by particle."""
    subtomograms = {t.name: t for t in read_star(source / f"{STEM}.star")}
    series = {t.name: t for t in read_star(source / f"{STEM}_tomograms.star")}
    table, optics = subtomograms["particles"], subtomograms["optics"]
    particle, tilt = np.nonzero(lists(table, "TomoVisibleFrames"))
    tomograms = table.columns["rlnTomoName"]
    rows = [
        (series[tomograms[i]], j) for i, j in zip(particle.tolist(), tilt.tolist(), strict=True)
    ]
    projections = np.array(
        [
            [ast.literal_eval(t.columns[f"rlnTomoProj{row}"][j])[:3] for row in "XYZ"]
            for t, j in rows
        ]
    )
    angles = np.deg2rad(numbers(table, "AngleRot", "AngleTilt", "AnglePsi"))
    orientations = rotations_from_relion_euler(angles)[particle]
    labels = "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"
    u, v, angle = np.array([[t.columns[x][j] for x in labels] for t, j in rows], np.float32).T
    count, one = len(rows), np.ones(len(rows), np.float32)
    pixel_size, box = numbers(optics, "ImagePixelSize", "ImageSize")[0]
    lens = numbers(optics, "Voltage", "SphericalAberration", "AmplitudeContrast")[0]
    voltage, aberration, contrast = (np.float32(value) * one for value in lens)
    still = 0 * one
    stacks = tuple(str((source / name).resolve()) for name in table.columns["rlnImageName"])
    pairs = zip(particle, tilt, strict=True)
    images = ImageTable(
        source=source / f"{STEM}.star",
        stacks=stacks,
        stack_index=particle.astype(np.int32),
        slice_index=tilt.astype(np.int64),
        identity=np.array([f"{j + 1:06d}@{stacks[i]}" for i, j in pairs]),
        box=np.full(count, int(box)),
        pixel_size=np.full(count, pixel_size),
        rotations=projections @ orientations,
        shifts=np.zeros((count, 2)),
        optics=Optics(
            u, v, np.deg2rad(angle), voltage, aberration, contrast, still, b_factor=still, scale=one
        ),
        half=(particle % 2).astype(np.int8),
        premultiplied=True,
    )
    return Tilts(images, projections, orientations)


def convert(source: Path, output: Path) -> Path:
    """Write the images as single particles; their pixels stay where they are."""
    path = output / "tilts.star"
    write_particles(path, read_tilts(source).table)
    return path


def reconstruct(particles: Particles) -> Mean:
    """Reconstruct the mean, with the power of the images as a guess at their noise."""
    assert particles.half is not None
    bank = ImageBank(particles, particles.half.astype(np.int64), memory=1 << 30)
    executor = LocalExecutor()
    power = estimate_power(bank, bank.grid.size, executor)
    return estimate_mean(bank, bank.grid, power, executor)


def correlate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlate two maps shell by shell, in a soft sphere."""
    mask = soft_edge(radii(len(first)) < MASK_RADIUS - 1.5, 3)
    return fsc(fourier.to_spectrum(first * mask), fourier.to_spectrum(second * mask))[SHELLS]


def radii(size: int) -> np.ndarray:
    """Measure the distance of every voxel from the origin."""
    square = (np.arange(size) - size // 2) ** 2
    return np.sqrt(square[:, None, None] + square[:, None] + square)


def mirrored(volume: np.ndarray) -> np.ndarray:
    """Mirror a map in the plane z = 0, where its origin is."""
    return np.roll(volume[::-1], 1, axis=0)


def geometries(tilts: Tilts) -> Iterator[tuple[str, np.ndarray]]:
    """Name every reading of the two matrices, and of the images' axes, with its rotations."""
    p, a = tilts.projections, tilts.orientations
    pt, at = p.swapaxes(1, 2), a.swapaxes(1, 2)
    mirror = np.diag([1.0, 1.0, -1.0])
    flip = np.diag([1.0, -1.0, -1.0])
    swap = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    yield "P A", p @ a
    yield "P A'", p @ at
    yield "P' A", pt @ a
    yield "P' A'", pt @ at
    yield "P A, image y flipped", flip @ p @ a
    yield "P A, image x and y swapped", swap @ p @ a
    yield "M P A M", mirror @ p @ a @ mirror


def print_hands(tilts: Tilts, particles: Particles, reference: np.ndarray) -> None:
    """Correlate halves, and with the reference either hand, for every reading of the poses."""
    for name, rotations in geometries(tilts):
        mean = reconstruct(replace(particles, rotations=rotations))
        report(f"{name}: half sets", correlate(mean.halves.first, mean.halves.second))
        report("    reference", correlate(mean.volume, reference))
        report("    reference, mirrored", correlate(mirrored(mean.volume), reference))


def report(name: str, curve: np.ndarray) -> None:
    """Print a line of numbers."""
    print(f"{name:40s}", " ".join(f"{value:5.2f}" for value in curve), flush=True)


def fit_atoms(atoms: Path, volume: np.ndarray, voxel_size: float, rotations: int = 6000) -> float:
    """Find the highest correlation of a map with a rotated and shifted model.

    Both are whitened on the shells `BAND`, so that the score weighs shape and not size.
    """
    size = len(volume)
    with np.load(atoms) as content:
        places = content["xyz"].astype(float)[::4]
    places -= places.mean(0)
    ball = radii(size) < MASK_RADIUS
    template = _whitened(fourier.to_spectrum(volume * ball))
    best = 0.0
    for rotation in Rotation.random(rotations, rng=np.random.default_rng(1)):
        cells = (rotation.apply(places) / voxel_size + size / 2).T[::-1]
        density, _ = np.histogramdd(cells.T, size, [(-0.5, size - 0.5)] * 3)
        match = fourier.to_volume(_whitened(fourier.to_spectrum(density)).conj() * template)
        best = max(best, float(match.max()) * size**3)
    return best


def _whitened(spectrum: np.ndarray) -> np.ndarray:
    """Give every shell of a band the same power, and the whole a norm of 1."""
    size = spectrum.shape[0]
    distance = volume_radii(size)
    shells = np.rint(distance).astype(int)
    power = np.bincount(shells.ravel(), (np.abs(spectrum) ** 2).ravel())
    inside = (distance > BAND[0]) & (distance < BAND[1])
    white = inside * spectrum / np.sqrt((power / np.bincount(shells.ravel()))[shells])
    return white / np.sqrt((half_weights(size) * np.abs(white) ** 2).sum())


def draw(maps: dict[str, np.ndarray], path: Path) -> None:
    """Draw central slices, and averages over a third of the box, along z and y."""
    figure = Figure((3 * len(maps), 9), layout="constrained")
    axes = figure.subplots(3, len(maps), squeeze=False)
    for column, (name, volume) in zip(axes.T, maps.items(), strict=True):
        middle, part = len(volume) // 2, len(volume) // 6
        views = (
            volume[middle],
            volume[middle - part : middle + part].mean(0),
            volume[:, middle - part : middle + part].mean(1),
        )
        for axis, view in zip(column, views, strict=True):
            axis.imshow(view, cmap="gray", origin="lower")
            axis.set_axis_off()
        column[0].set_title(name)
    figure.savefig(path)


def main() -> None:
    """Convert, reconstruct, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--atoms", type=Path, help="npz with xyz of a 50S subunit, for the hand")
    parser.add_argument("--pipeline", action="store_true", help="run `recovar pipeline` as well")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    star = convert(options.source, options.output)
    particles = read_particles(star)
    reference = read_volume(options.source / REFERENCE).values
    mean = reconstruct(particles)
    write_volume(options.output / "mean.mrc", mean.volume, particles.pixel_size)
    maps = {"mean": mean.volume, "mirrored": mirrored(mean.volume), "reference": reference}
    draw(maps, options.output / "maps.png")
    print_hands(read_tilts(options.source), particles, reference)
    if options.atoms:
        maps["reference, mirrored"] = mirrored(reference)
        for name, volume in maps.items():
            print(f"50S in {name}: {fit_atoms(options.atoms, volume, particles.pixel_size):.3f}")
    if options.pipeline:
        run = options.output / "run"
        arguments = "--only-mean", "--mask", "sphere"
        if run_recovar(["pipeline", str(star), "-o", str(run), *arguments]):
            raise SystemExit("The pipeline failed.")
        found = read_volume(run / "output" / "volumes" / "mean.mrc").values
        report("pipeline: reference, mirrored", correlate(mirrored(found), reference))


if __name__ == "__main__":
    main()

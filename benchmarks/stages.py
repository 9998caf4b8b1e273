"""Time the kernels of a fit of the subspace, and compare them with what the machine could do.

    python -m benchmarks.stages [--images 500] [--components 20] [--threads 2]

The floor of a stage is the longer of two times: its bytes, each table once, at the measured rate
of copying memory, and its arithmetic at the measured rate of multiplying float32 matrices. Tables
go to benchmarks/results. The machine should be idle; the best of a few runs counts.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numba
import numpy as np
import threadpoolctl

from recovar.core import fourier
from recovar.core.ctf import Optics, transfer_function
from recovar.core.frequencies import Ball, Disc
from recovar.core.poses import random_rotations
from recovar.core.projection import centring_factors
from recovar.core.slicing_numba import NUMBA
from recovar.core.solve_numba import solve_packed
from recovar.core.volumes import from_ball, to_ball
from recovar.data.mrc import open_sections, read_header, write_stack
from recovar.posterior import ImageStatistics, infer

RESULTS = Path(__file__).parent / "results"
REPEATS = 4
PLAIN_IMAGES = 4
"""Images that the plain reference is timed on."""


@dataclass(frozen=True)
class Machine:
    """What the figures depend on."""

    cpu: str
    threads: int
    copy: float
    """Bytes read plus written per second."""
    float32: float
    """Operations per second of a float32 matrix product."""
    float64: float
    """Operations per second of a float64 matrix product."""
    load: float
    """Processes that ran in the minute before; anything but 0 spoils the figures."""


@dataclass(frozen=True)
class Stage:
    """One kernel, its least work and its time."""

    name: str
    operations: float
    bytes: float
    run: Callable[[], object]
    float64: bool = False
    """Whether the arithmetic is in float64."""
    plain: Callable[[], object] | None = None
    """The same for `PLAIN_IMAGES` images in plain float64 NumPy."""


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds."""

    radius: int
    stage: str
    floor: float
    measured: float
    ratio: float
    plain: float | None


def best(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Time a function, compiled before."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def measure_machine(threads: int) -> Machine:
    """Measure the two rates that floors are made from."""
    source = np.ones(64 << 20, np.float32)
    parts = [
        (a, np.empty_like(a)) for a in np.array_split(source, 2 * threads)
    ]  # written in turn, larger than the caches together
    copy = sum(best(lambda a=a, b=b: np.copyto(b, a)) for a, b in parts)
    rates = []
    for dtype in (np.float32, np.float64):
        matrix = np.ones((2000, 2000), dtype)
        rates.append(2 * 2000**3 / best(lambda m=matrix: m @ m))
    return Machine(cpu_model(), threads, 2 * source.nbytes / copy, *rates, os.getloadavg()[0])


def cpu_model() -> str:
    """Name the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def plain_neighbours(rotations, disc, ball) -> Iterator[tuple]:
    """Give the eight voxels of every pixel, their weights and whether the mate was taken."""
    plane = np.stack([disc.x, disc.y], -1).astype(np.float64)
    points = ball.oversampling * plane @ rotations[:, :2].astype(np.float64)
    mate = points[..., 0] < 0
    points[mate] *= -1
    base = np.floor(points).astype(int)
    above = points - base
    for corner in np.ndindex(2, 2, 2):
        x, y, z = np.moveaxis(base + corner, -1, 0)
        weights = np.where(corner, above, 1 - above).prod(-1)
        yield ball.offsets[z + ball.reach, y + ball.reach] + x, weights, mate


def plain_slices(volumes, rotations, disc, ball):
    """Slice volumes in plain NumPy."""
    slices, mates = 0, None
    for voxels, weights, mate in plain_neighbours(rotations, disc, ball):
        slices, mates = slices + weights[..., None] * volumes[voxels], mate
    return np.where(mates[..., None], slices.conj(), slices)


def plain_backprojection(sums, values, weights, rotations, disc, ball):
    """Backproject images in plain NumPy."""
    values = values * disc.multiplicity / 2
    for voxels, share, mate in plain_neighbours(rotations, disc, ball):
        terms = np.where(mate, values.conj(), values) * share
        np.add.at(sums, voxels, terms[..., None] * weights[:, None])
    return sums


class Problem:
    """Random data of the size of one block of a fit."""

    def __init__(self, size: int, radius: int, components: int, images: int, folder: Path) -> None:
        self.folder = folder
        self.generator = np.random.default_rng(0)
        self.disc, self.ball = Disc(size, radius), Ball(size, radius)
        self.images, self.channels = images, components + 1
        self.upper = np.triu_indices(self.channels)
        pixels, voxels = len(self.disc), len(self.ball)
        self.rotations = random_rotations(images, self.generator).astype(np.float32)
        self.volumes = self.complex(voxels, self.channels)
        self.values, self.transfer = self.complex(images, pixels), self.real(images, pixels)
        self.first = self.real(images, self.channels)
        self.second = self.real(images, len(self.upper[0]))
        self.curvature = np.zeros((voxels, len(self.upper[0])), np.float32)
        self.response = np.zeros((voxels, self.channels), np.complex64)
        self.prior = np.ones((voxels, self.channels), np.float32)
        self.maps = self.real(2, size, size, size)
        self.pictures = self.real(images, size, size)

    def real(self, *shape: int) -> np.ndarray:
        """Draw real numbers."""
        return self.generator.standard_normal(shape, np.float32)

    def complex(self, *shape: int) -> np.ndarray:
        """Draw complex numbers."""
        return (self.real(*shape) + 1j * self.real(*shape)).astype(np.complex64)

    def stages(self) -> list[Stage]:
        """List the stages in the order of an iteration."""
        return [*self.image_stages(), *self.expectation(), *self.sums(), *self.maximization()]

    def image_stages(self) -> list[Stage]:
        """List what happens to images once, or per pass where they are not kept."""
        disc, images, size = self.disc, self.images, self.disc.size
        ones = np.ones(images)
        optics = Optics(
            15000 * ones, 14000 * ones, ones, *(v * ones for v in (300, 2.7, 0.1, 0, 0, 1))
        )
        step = 1 / (size * 3.0)
        shifts = self.real(images, 2)

        def transform() -> None:
            values = disc.from_spectra(fourier.to_spectrum(self.pictures, dimensions=2))
            values *= centring_factors(shifts, disc, 3.0)
            transfer_function(optics, disc.x * step, disc.y * step)

        path = self.folder / "images.mrcs"
        write_stack(path, self.pictures, 3.0)
        raw = self.pictures.nbytes
        butterflies = images * 2.5 * size**2 * np.log2(size**2)
        return [
            Stage(
                "read images (cached)",
                0,
                2 * raw,
                lambda: np.array(open_sections(read_header(path))),
            ),
            Stage("transform images", butterflies, raw + 12 * images * len(disc), transform),
        ]

    def expectation(self) -> list[Stage]:
        """List the stages that compare images with the model."""
        problem = self.volumes, self.rotations, self.disc, self.ball
        few = self.volumes.astype(np.complex128), self.rotations[:PLAIN_IMAGES], *problem[2:]
        points = self.images * len(self.disc)
        channels, model = self.channels, self.volumes.nbytes
        interpolation = points * 8 * 2 * 2 * channels
        products = points * 2 * channels * (channels + 3)

        def compare() -> tuple:
            return NUMBA.inner_products(
                self.volumes, self.values, self.transfer, self.rotations, *problem[2:]
            )

        statistics = ImageStatistics(*compare())
        pcs = channels - 1
        inference = self.images * (4 / 3 + 1) * pcs**3
        tables = 4 * statistics.gram.size + 8 * self.images * pcs**2
        return [
            Stage(
                "slice",
                interpolation,
                model + 8 * points * channels,
                lambda: NUMBA.slice_volumes(*problem),
                plain=lambda: plain_slices(*few),
            ),
            Stage("inner products", interpolation + products, model + 12 * points, compare),
            Stage("infer", inference, tables, lambda: infer(statistics, 0.2), float64=True),
        ]

    def sums(self) -> list[Stage]:
        """List the stages that add images to sums."""
        geometry = self.rotations, self.disc, self.ball
        few = slice(PLAIN_IMAGES)
        points = self.images * len(self.disc)

        def backproject(sums, values, weights) -> Stage:
            parts = sums.itemsize // 4
            double = sums.astype(np.result_type(sums, np.float64))
            return Stage(
                "backproject " + ("response" if parts == 2 else "curvature"),
                points * 8 * 2 * parts * weights.shape[1],
                2 * sums.nbytes + 4 * parts * points,
                lambda: NUMBA.backproject(sums, values, weights, *geometry),
                plain=lambda: plain_backprojection(
                    double, values[few], weights[few], self.rotations[few], self.disc, self.ball
                ),
            )

        curvature = backproject(self.curvature, self.transfer**2, self.second)
        response = backproject(self.response, self.transfer * self.values, self.first)
        both = Stage(
            "backproject both",
            curvature.operations + response.operations,
            curvature.bytes + response.bytes,
            lambda: NUMBA.backproject_many(
                (self.curvature, self.response),
                (self.transfer**2, self.transfer * self.values),
                (self.second, self.first),
                *geometry,
            ),
        )
        return [curvature, response, both]

    def maximization(self) -> list[Stage]:
        """List the stages that turn sums into volumes."""
        voxels, channels = len(self.ball), self.channels
        diagonal = np.flatnonzero(self.upper[0] == self.upper[1])
        curvature = np.zeros_like(self.curvature)
        curvature[:, diagonal] = 1
        side = self.ball.volume_size
        butterflies = 2.5 * side**3 * np.log2(side**3)
        table = 4 * side**3 + 8 * side**2 * (side // 2 + 1)
        return [
            Stage(
                "solve",
                voxels * (channels**3 / 3 + 4 * channels**2),
                curvature.nbytes + 2 * self.response.nbytes + self.prior.nbytes,
                lambda: solve_packed(curvature, self.response, self.prior, 1e-4),
                float64=True,
            ),
            Stage("map to ball", butterflies, table, lambda: to_ball(self.maps[0], self.ball)),
            Stage(
                "ball to map", butterflies, table, lambda: from_ball(self.volumes[:, 0], self.ball)
            ),
        ]


def time_stage(stage: Stage, machine: Machine, radius: int, images: int) -> Row:
    """Measure one stage."""
    rate = machine.float64 if stage.float64 else machine.float32
    floor = max(stage.bytes / machine.copy, stage.operations / rate)
    measured = best(stage.run)
    plain = None if stage.plain is None else best(stage.plain, 1) * images / PLAIN_IMAGES
    return Row(radius, stage.name, floor, measured, measured / floor, plain)


def as_markdown(machine: Machine, rows: list[Row], setting: dict) -> str:
    """Write the table for people."""
    introduction = (
        f"{machine.cpu}, {machine.threads} threads, load {machine.load:.1f}: "
        f"copy {machine.copy / 1e9:.0f} GB/s, float32 {machine.float32 / 1e9:.0f} Gflop/s, "
        f"float64 {machine.float64 / 1e9:.0f} Gflop/s. "
        f"{setting['images']} images, {setting['components']} components and the mean; "
        "milliseconds for one block, volume stages for one volume. Plain is float64 NumPy."
    )
    lines = [
        "# Stages of a fit of the subspace",
        "",
        introduction,
        "",
        "| radius | stage | floor | measured | measured / floor | plain / measured |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        gain = "" if row.plain is None else f"{row.plain / row.measured:.0f}"
        lines.append(
            f"| {row.radius} | {row.stage} | {1e3 * row.floor:.2f} | {1e3 * row.measured:.2f} "
            f"| {row.ratio:.1f} | {gain} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    setting = vars(parser.parse_args())
    numba.set_num_threads(setting["threads"])
    rows = []
    with (
        threadpoolctl.threadpool_limits(setting["threads"]),
        tempfile.TemporaryDirectory() as folder,
    ):
        machine = measure_machine(setting["threads"])
        for size, radius in ((30, 14), (64, 31)):
            problem = Problem(size, radius, setting["components"], setting["images"], Path(folder))
            for stage in problem.stages():
                rows.append(time_stage(stage, machine, radius, setting["images"]))
                print(f"r = {radius:2d}  {stage.name:22s} {1e3 * rows[-1].measured:9.2f} ms")
    RESULTS.mkdir(exist_ok=True)
    table = as_markdown(replace(machine, load=round(machine.load, 1)), rows, setting)
    record = {"machine": asdict(machine), "setting": setting, "stages": [asdict(r) for r in rows]}
    (RESULTS / "stages.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "stages.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()

"""How fast and in how much memory large STAR files are read, against gemmi's parse alone.

    python benchmarks/star.py [--rows 1000000]

A table of random single particles is written with Recovar's writer. It is then read as particles,
and parsed by gemmi without taking a value out, each in a process of its own. Times are those of the
processor, since a machine that is busy stretches others. Writes results/star.md.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gemmi import cif

from recovar.core.ctf import Optics
from recovar.core.poses import random_rotations
from recovar.data import ImageTable
from recovar.data.star import read_star_table, write_particles

REPEATS = 3
RESULTS = Path(__file__).parent / "results" / "star.md"


def make_table(rows: int) -> ImageTable:
    """Draw particles of 200 to a micrograph."""
    generator = np.random.default_rng(0)

    def draw(low: float, high: float) -> np.ndarray:
        return generator.uniform(low, high, rows).astype(np.float32)

    parts = draw(1e4, 2e4), draw(1e4, 2e4), draw(-1, 1)
    kv, cs, amplitude = (np.full(rows, value, np.float32) for value in (300, 2.7, 0.1))
    none, one = np.zeros(rows, np.float32), np.ones(rows, np.float32)
    optics = Optics(*parts, kv, cs, amplitude, draw(0, 1), none, one)
    return ImageTable(
        source=Path(),
        stacks=tuple(f"Extract/job012/Movies/{k:06d}.mrcs" for k in range(-(-rows // 200))),
        stack_index=(np.arange(rows) // 200).astype(np.int32),
        slice_index=np.arange(rows) % 200,
        identity=np.arange(rows),
        box=np.full(rows, 256),
        pixel_size=np.full(rows, 1.3),
        rotations=random_rotations(rows, generator),
        shifts=generator.uniform(-4, 4, (rows, 2)),
        optics=optics,
        half=(np.arange(rows) % 2).astype(np.int8),
    )


def read_alone(reader: str, path: Path) -> None:
    """Read a file, and print seconds of the processor and the peak of memory in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.process_time()
    kept = cif.read_file(str(path)) if reader == "gemmi" else read_star_table(path)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"{seconds} {peak - before} {len(kept)}")


def measure(reader: str, path: Path) -> tuple[float, float]:
    """Give the least seconds and the peak in MiB above that of the program itself."""
    command = [sys.executable, __file__, "--reader", reader, "--path", str(path)]
    runs = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-3:]
        for _ in range(REPEATS)
    ]
    return min(float(run[0]) for run in runs), max(float(run[1]) for run in runs)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--reader", choices=("gemmi", "recovar"))
    parser.add_argument("--path", type=Path)
    options = parser.parse_args()
    if options.reader:
        read_alone(options.reader, options.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "particles.star"
        write_particles(path, make_table(options.rows))
        size = path.stat().st_size / 2**20
        floor, floor_memory = measure("gemmi", path)
        seconds, memory = measure("recovar", path)
    RESULTS.write_text(
        f"""# Reading STAR files

`python benchmarks/star.py --rows {options.rows}`: {size:.0f} MiB of text, 12 columns of particles.

| | seconds | rows/s | memory beyond the program's own |
|---|---|---|---|
| parse by gemmi | {floor:.2f} | {options.rows / floor:.3g} | {floor_memory:.0f} MiB |
| particles, poses and optics | {seconds:.2f} | {options.rows / seconds:.3g} | {memory:.0f} MiB |
| ratio | {seconds / floor:.2f} | | {memory / floor_memory:.2f} |
"""
    )


if __name__ == "__main__":
    main()

"""How fast `recovar downsample` is, and how fast disk and FFTs alone would let it be.

    python benchmarks/downsample.py [--directory DIR] [--gigabytes 2]

A stack of noise is made smaller, once from the disk, with its pages dropped from memory before, and
once from memory. The floor is the larger of two times: that of reading the old and writing the new
pixels at the rate of plain reads and writes of the same disk, and that of a transform of each old
and an inverse one of each new image, on all cores. Every time is the best of some, taken in turns
so that other work on the machine meets all alike. Peaks of memory are those of whole commands, for
the stack and for an eighth of it. Writes results/downsample.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import scipy.fft

from recovar.compute.progress import SilentReporter
from recovar.data.mrc import StackWriter
from recovar.workflows.configs import DownsampleConfig
from recovar.workflows.downsample import run_downsample

SIZES = ((256, 128), (128, 64))
REPEATS = 5
PIECE = 8 << 20
CORES = os.cpu_count() or 1
RESULTS = Path(__file__).parent / "results" / "downsample.md"


def make_stack(path: Path, box: int, count: int) -> None:
    """Write a stack of noise."""
    images = np.random.default_rng(0).standard_normal((PIECE // (4 * box**2), box, box), "f4")
    with StackWriter(path, 1.0) as writer:
        for start in range(0, count, len(images)):
            writer.append(images[: count - start])


def drop_from_memory(path: Path) -> None:
    """Make the next reader of a file go to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_reading(path: Path) -> float:
    """Time a plain read of a file from the disk."""
    drop_from_memory(path)
    piece = bytearray(PIECE)
    began = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass
    return time.perf_counter() - began


def time_writing(path: Path, amount: int) -> float:
    """Time a plain write of bytes until they are on the disk."""
    piece = np.random.default_rng(0).bytes(PIECE)
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-amount // PIECE)):
            file.write(piece)
        os.fsync(file.fileno())
    taken = time.perf_counter() - began
    path.unlink()
    return taken


def time_transforms(old: int, new: int, count: int) -> float:
    """Time the transforms of images on all cores, in batches that the caches hold."""
    batch = max(1, (1 << 20) // (4 * old**2))
    rounds = 64

    def transform(_: int) -> None:
        images = np.ones((batch, old, old), np.float32)
        spectra = np.ones((batch, new, new // 2 + 1), np.complex64)
        for _ in range(rounds):
            scipy.fft.rfft2(images)
            scipy.fft.irfft2(spectra)

    with ThreadPoolExecutor(CORES) as pool:
        began = time.perf_counter()
        list(pool.map(transform, range(CORES)))
        return (time.perf_counter() - began) / (CORES * rounds * batch) * count


def time_command(stack: Path, new: int, *, from_disk: bool) -> float:
    """Time the command without the start of Python."""
    output = stack.with_name("small.mrcs")
    if from_disk:
        drop_from_memory(stack)
    began = time.perf_counter()
    run_downsample(DownsampleConfig(particles=stack, box=new, output=output), SilentReporter())
    taken = time.perf_counter() - began
    output.unlink()
    return taken


def measure_memory(stack: Path, new: int) -> float:
    """Run the whole command, and give the peak of its memory in GiB."""
    output = stack.with_name("small.mrcs")
    command = [sys.executable, "-m", "recovar", "downsample", str(stack), "--quiet"]
    process = subprocess.Popen([*command, "-D", str(new), "-o", str(output)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    output.unlink()
    return usage.ru_maxrss / 2**20


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, help="on the disk that is measured")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the stacks")
    options = parser.parse_args()
    lines = [
        "# Making images smaller",
        "",
        (
            f"`python benchmarks/downsample.py --gigabytes {options.gigabytes:g}`, {CORES} cores. "
            "The floor is the larger of the times of disk and FFTs; from memory, that of the FFTs. "
            "Memory is that of whole commands: for an eighth of the images, and for all."
        ),
        "",
        "| box | images | from | images/s | disk alone | FFTs alone | time / floor | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        stack, few = Path(folder, "images.mrcs"), Path(folder, "few.mrcs")
        for old, new in SIZES:
            count = int(options.gigabytes * 1e9 / (4 * old**2))
            make_stack(stack, old, count)
            make_stack(few, old, count // 8)
            peaks = " → ".join(f"{measure_memory(path, new):.2f}" for path in (few, stack))
            amount = count * 4 * new**2
            times = [
                (
                    time_reading(stack) + time_writing(Path(folder, "new"), amount),
                    time_transforms(old, new, count),
                    time_command(stack, new, from_disk=True),
                    time_command(stack, new, from_disk=False),
                )
                for _ in range(REPEATS)
            ]
            disk, transforms, cold, warm = np.min(times, axis=0)
            for source, taken, floor in (
                ("disk", cold, max(disk, transforms)),
                ("memory", warm, transforms),
            ):
                lines.append(
                    f"| {old} → {new} | {count} | {source} | {count / taken:.0f} | {disk:.2f} s | "
                    f"{transforms:.2f} s | {taken / floor:.2f} | {peaks} GiB |"
                )
                print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

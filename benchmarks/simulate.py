"""How fast `recovar simulate` makes images, in how much memory, and how fast its FFTs alone are.

    python benchmarks/simulate.py [--boxes 64 128 256]

Each data set is made with few and with many images, by the program itself. The difference of the
times gives images per second, and equal peaks of memory show that it does not grow with the images.
The floor is the time of the transforms of one image: projection to pixels, pixels to the wide
field, field to image, and the noise there and back, on all cores. Writes results/simulate.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.fft

BOXES = (64, 128, 256)
FEW = 1200
"""Images of the smaller set, no fewer than the signal is measured on."""
TIMES = {64: 6, 128: 4, 256: 3}
"""How many times as many the larger one has."""
KINDS = {"atoms": (), "volumes": ("--conformations", "5")}
REPEATS = 40
RESULTS = Path(__file__).parent / "results" / "simulate.md"


def make(box: int, count: int, options: tuple[str, ...]) -> tuple[float, float]:
    """Make a data set; give the seconds and the peak of memory in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "recovar", "simulate", "-o", f"{folder}/set", "--quiet"]
        command += ["--box", str(box), "--n-images", str(count), "--true-volumes", "5", *options]
        began = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20


def measure_floor(box: int) -> float:
    """Time the transforms of one image on one core, and divide by the number of cores."""
    image = np.random.default_rng(0).standard_normal((box, box), np.float32)
    best = np.inf
    for _ in range(REPEATS):
        began = time.perf_counter()
        spectrum = scipy.fft.rfft2(image)
        scipy.fft.irfft2(spectrum)
        rows = scipy.fft.rfft(image, n=2 * box, axis=1)
        field = scipy.fft.fft(rows, n=2 * box, axis=0)
        rows = scipy.fft.ifft(field, axis=0)[:box]
        scipy.fft.irfft(rows, n=2 * box, axis=1)
        scipy.fft.irfft2(scipy.fft.rfft2(image))
        best = min(best, time.perf_counter() - began)
    return best / (os.cpu_count() or 1)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boxes", type=int, nargs="+", default=BOXES)
    lines = [
        "# Making images",
        "",
        f"`python benchmarks/simulate.py`, {os.cpu_count()} cores. Times are of whole commands.",
        "",
        "| box | made from | images/s | time over that of the FFTs | peak memory | with more |",
        "|---|---|---|---|---|---|",
    ]
    make(32, 10, ())  # so that everything is compiled
    for box in parser.parse_args().boxes:
        floor = measure_floor(box)
        for kind, options in KINDS.items():
            (short, small), (long, large) = (
                make(box, count, options) for count in (FEW, TIMES[box] * FEW)
            )
            each = (long - short) / ((TIMES[box] - 1) * FEW)
            lines.append(
                f"| {box} | {kind} | {1 / each:.0f} | {each / floor:.1f} | {small:.2f} GiB | "
                f"{large:.2f} GiB |"
            )
            print(lines[-1], flush=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

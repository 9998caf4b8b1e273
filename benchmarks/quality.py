"""Score a run of `recovar pipeline` against a data set whose truth is known.

    python benchmarks/quality.py RUN TRUTH [RUN TRUTH ...] --eval EVAL

Writes what the scorer reads to RUN/score and calls it; EVAL is the directory of `score.py`, by
default $RECOVAR_SHARED/eval.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from recovar.noise import Noise
from recovar.run import read_result


def collect(run: Path, zdim: int, folder: Path) -> None:
    """Put results under the names that the scorer knows."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    volumes = run / "output" / "volumes"
    shutil.copy(volumes / "mean.mrc", folder)
    for number, path in enumerate(sorted(volumes.glob("eigen_pos*.mrc"))):
        shutil.copy(path, folder / f"pc_{number:04d}.mrc")
    with np.load(run / "output" / "embedding" / f"zdim{zdim}.npz") as found:
        np.save(folder / "embedding.npy", found["z"])
        np.save(folder / "contrast.npy", found["contrast"])
    noise = read_result(run, "noise", Noise).variance
    np.save(folder / "noise_radial.npy", noise / (2 * len(noise)) ** 2)


def score(run: Path, truth: Path, zdim: int, scorer: Path) -> dict:
    """Score one embedding of a run."""
    folder = run / "score" / f"zdim{zdim}"
    collect(run, zdim, folder)
    file = folder / "scores.json"
    command = [sys.executable, scorer, "score", truth, folder, "--json", file]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(file.read_text())


def flatten(scores: dict, name: str = "") -> dict[str, float]:
    """Give every number a dotted name."""
    flat = {}
    for key, value in scores.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}{key}.")
        elif isinstance(value, int | float):
            flat[f"{name}{key}"] = value
    return flat


def main() -> None:
    """Print a table with a column per run and embedding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="+", type=Path, metavar="RUN TRUTH")
    parser.add_argument("--zdim", type=int, nargs="+", help="all that the run has by default")
    shared = Path(os.environ.get("RECOVAR_SHARED", "."))
    parser.add_argument("--eval", type=Path, default=shared / "eval")
    parser.add_argument("--all", action="store_true", help="also rows that few need")
    arguments = parser.parse_args()
    if len(arguments.pairs) % 2:
        parser.error("every RUN needs its TRUTH")
    table: dict[str, dict[str, float]] = {}
    for run, truth in zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True):
        files = (run / "output" / "embedding").glob("zdim*.npz")
        for zdim in arguments.zdim or sorted(int(file.stem[4:]) for file in files):
            column = f"{run.name} z{zdim}"
            table[column] = flatten(score(run, truth, zdim, arguments.eval / "score.py"))
    rows = list(dict.fromkeys(name for scores in table.values() for name in scores))
    if not arguments.all:
        rows = [row for row in rows if not row.startswith("pcs.unmasked") and ".res" not in row]
    width = max(map(len, rows))
    print(" " * width, *(f"{column:>14}" for column in table))
    for row in rows:
        values = (scores.get(row) for scores in table.values())
        print(row.ljust(width), *(f"{'':>14}" if v is None else f"{v:14.3f}" for v in values))


if __name__ == "__main__":
    main()

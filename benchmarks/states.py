"""Score volumes at latent points of runs against data sets whose truth is known.

    python benchmarks/states.py RUN TRUTH [RUN TRUTH ...] --eval EVAL
    python benchmarks/states.py RUN TRUTH [RUN TRUTH ...] --images
    python benchmarks/states.py RUN --time

The first makes the volumes of all targets of the truth by every method and prints a table in
Markdown: the mean over shells of the correlation with the truth, in the whole box, in the mask, and
in a mask around what moves. EVAL is the directory of `score.py`, by default $RECOVAR_SHARED/eval.
The second makes the volumes of the 100 images that CryoBench judges, and prints the area under
the correlation that it defines, averaged over them. The third prints wall time and peak memory of 1
and 20 states. Runs are left as they are.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from recovar.data.mrc import read_volume, write_volume
from recovar.metrics.maps import cryobench_images

METHODS = {
    "mean": None,
    "linear": None,
    "quantile": ["--q", "0.95"],
    "published": ["--state-method", "published"],
    "default": [],
}
"""Options that make states; None needs no images."""
REGIONS = ("unmasked", "masked", "moving")
"""What the scorer calls the three masks."""


def coordinates(run: Path, zdim: int) -> np.ndarray:
    """Read where images lie."""
    with np.load(run / "output" / "embedding" / f"zdim{zdim}.npz") as found:
        return found["z"]


def find_targets(run: Path, truth: Path, zdim: int, scorer: Path, folder: Path) -> Path:
    """Let the scorer tell the latent points of the true targets."""
    np.save(folder / "embedding.npy", coordinates(run, zdim))
    points = folder / "points.txt"
    command = [sys.executable, scorer, "targets", truth, folder, "-o", points]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder / "embedding.npy").unlink()
    return points


def compute(run: Path, points: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Make states; return seconds and gigabytes of the process."""
    arguments = ["compute_state", run, "--latent-points", points, "-o", output, "--quiet"]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "recovar", *map(str, arguments), *options])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{run}: compute_state {' '.join(options)} failed.")
    return time.monotonic() - started, usage.ru_maxrss / 2**20


def collect(run: Path, points: Path, method: str, folder: Path) -> None:
    """Put the states of a method under the names that the scorer knows."""
    targets, volumes = np.loadtxt(points, ndmin=2), run / "output" / "volumes"
    options = METHODS[method]
    if options is not None:
        output = folder / "states"
        compute(run, points, output, options)
        for number in range(len(targets)):
            shutil.copy(
                output / f"vol{number:03d}" / "state.mrc", folder / f"state_{number:02d}.mrc"
            )
        return
    mean = read_volume(volumes / "mean.mrc")
    eigen = [read_volume(volumes / f"eigen_pos{k:03d}.mrc").values for k in range(targets.shape[1])]
    for number, target in enumerate(targets if method == "linear" else 0 * targets):
        values = mean.values + np.tensordot(target, eigen, 1)
        file = folder / f"state_{number:02d}.mrc"
        write_volume(file, values.astype(np.float32), mean.voxel_size)


def score(run: Path, truth: Path, zdim: int, scorer: Path) -> dict[str, list[dict]]:
    """Score all methods at all targets."""
    scores = {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            points = find_targets(run, truth, zdim, scorer, folder)
            collect(run, points, method, folder)
            command = [sys.executable, scorer, "score", truth, folder]
            command += ["--json", folder / "scores.json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            scores[method] = json.loads((folder / "scores.json").read_text())["states"]
    return scores


def print_scores(runs: list[Path], truths: list[Path], zdim: int, scorer: Path) -> None:
    """Print a row per target."""
    print("| set | target |", *(f" {method} |" for method in METHODS), sep="")
    print("|---" * (2 + len(METHODS)), "|", sep="")
    for run, truth in zip(runs, truths, strict=True):
        scores = score(run, truth, zdim, scorer)
        for number, target in enumerate(scores["mean"]):
            cells = [
                " / ".join(f"{states[number][region]['auc']:.3f}" for region in REGIONS)
                for states in scores.values()
            ]
            print(f"| {run.name} | {target['target']:+.2f} | {' | '.join(cells)} |", flush=True)


def judge_images(truth: Path, result: Path) -> dict[str, dict[str, float]]:
    """Let `recovar score` judge the volumes of single images."""
    with tempfile.TemporaryDirectory() as place:
        command = ["score", truth, result, "-o", place, "--quiet"]
        subprocess.run([sys.executable, "-m", "recovar", *map(str, command)], check=True)
        scores = json.loads((Path(place) / "scores.json").read_text())
    return scores["per_image"]


def print_images(runs: list[Path], truths: list[Path], zdim: int) -> None:
    """Print a row per run: the mean, the linear model, and states at the coordinates of images."""
    print("| set | mean | linear | default |", "|---|---|---|---|", sep="\n")
    for run, truth in zip(runs, truths, strict=True):
        images = coordinates(run, zdim)
        chosen = images[cryobench_images(len(images))]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            np.savetxt(folder / "points.txt", chosen)
            compute(run, folder / "points.txt", folder / "states", [])
            shutil.copy(run / "output" / "volumes" / "mean.mrc", folder)
            (folder / "per_image").mkdir()
            for number in range(len(chosen)):
                state = folder / "states" / f"vol{number:03d}" / "state.mrc"
                state.replace(folder / "per_image" / f"vol_{number:03d}.mrc")
            shutil.rmtree(folder / "states")
            np.save(folder / "embedding.npy", images)
            states, linear = judge_images(truth, folder), judge_images(truth, run)
        rows = states["auc_of_mean"], linear["auc"], states["auc"]
        cells = [" / ".join(f"{value:.3f}" for value in row.values()) for row in rows]
        print(f"| {run.name} | {' | '.join(cells)} |", flush=True)


def print_times(runs: list[Path], zdim: int) -> None:
    """Print seconds and gigabytes of 1 and 20 states, at images evenly spaced in the file."""
    counts = (1, 20)
    print("| set | method |", *(f" {count} states, s | GB |" for count in counts), sep="")
    print("|---" * (2 + 2 * len(counts)), "|", sep="")
    for run in runs:
        images = coordinates(run, zdim)
        for method, options in METHODS.items():
            if options is None:
                continue
            cells = []
            for count in counts:
                with tempfile.TemporaryDirectory() as place:
                    points = Path(place) / "points.txt"
                    rows = np.linspace(0, len(images) - 1, count + 2)[1:-1].astype(int)
                    np.savetxt(points, images[rows])
                    seconds, memory = compute(run, points, Path(place) / "states", options)
                cells += [f"{seconds:.1f}", f"{memory:.2f}"]
            print(f"| {run.name} | {method} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN [TRUTH]")
    parser.add_argument("--zdim", type=int, default=4)
    shared = Path(os.environ.get("RECOVAR_SHARED", "."))
    parser.add_argument("--eval", type=Path, default=shared / "eval")
    parser.add_argument("--images", action="store_true", help="volumes of single images instead")
    parser.add_argument("--time", action="store_true", help="time and memory instead; RUN only")
    arguments = parser.parse_args()
    paths = arguments.paths
    if arguments.time:
        print_times(paths, arguments.zdim)
    elif len(paths) % 2:
        parser.error("every RUN needs its TRUTH")
    elif arguments.images:
        print_images(paths[::2], paths[1::2], arguments.zdim)
    else:
        scorer = arguments.eval / "score.py"
        print_scores(paths[::2], paths[1::2], arguments.zdim, scorer)


if __name__ == "__main__":
    main()

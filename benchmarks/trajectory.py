"""How well paths between the ends of a known motion keep to it, and how long they take.

Usage: python benchmarks/trajectory.py RUN TRUTH OUTPUT.md

RUN is a run of `recovar pipeline`, TRUTH the per_image.npz of its data set, whose `latent` is the
place of each molecule along one motion.
"""

import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from scipy.stats import rankdata

from recovar.core.eikonal import travel_time
from recovar.trajectory import LatentPath, find_path, resample
from recovar.workflows.finished import open_finished

POINTS, NEIGHBOURS, CURVE = 20, 50, 60
OUTERMOST = 100
"""Images whose mean is an end."""
METHODS = ("grid", "graph", "line")


def judge(path: LatentPath, z, truth) -> str:
    """Rank correlation of the truth along the path, and distance from the mean of z given it."""
    points = path.points[path.choose(POINTS)]
    visited = truth[KDTree(z).query(points, NEIGHBOURS)[1]].mean(axis=1)
    spearman = np.corrcoef(np.arange(POINTS), rankdata(visited))[0, 1]
    parts = np.array_split(np.argsort(truth), CURVE)
    curve = resample(np.stack([z[part].mean(axis=0) for part in parts]), 400)
    distance = np.sqrt((KDTree(curve).query(path.points)[0] ** 2).mean())
    return f"{spearman:.4f} | {distance:.0f} | {path.arc_length[-1]:.0f}"


def main(run: Path, truth_file: Path, output: Path) -> None:
    """Measure, and write a table."""
    latent = np.load(truth_file)["latent"]
    about = f"""# Paths along a known motion

`benchmarks/trajectory.py` on {run.name}: paths between the means of the {OUTERMOST} images at either end of
the true motion. Spearman: of {POINTS} points of the path with the mean truth of the {NEIGHBOURS} images next to
them. Distance: root mean square, of the path from the mean of z given the truth, in units of z,
beside the error of one image. Times on two cores that had other work, so they are upper bounds.
"""  # noqa: E501
    lines = [
        about,
        "| coordinates | method | Spearman | distance | length | seconds |",
        "|---|---|---|---|---|---|",
    ]
    finished = open_finished(run)
    for zdim in finished.zdims:
        embedding = finished.embedding(zdim)
        z, truth = embedding.coordinates, latent[embedding.row]
        order = np.argsort(truth)
        start, end = (z[part].mean(axis=0) for part in (order[:OUTERMOST], order[-OUTERMOST:]))
        error = np.sqrt(np.einsum("nkk->n", embedding.covariance).mean())
        for method in METHODS:
            began = time.perf_counter()
            path = find_path(z, start, end, method=method, covariance=embedding.covariance)
            seconds = time.perf_counter() - began
            lines.append(f"| {zdim} | {method} | {judge(path, z, truth)} | {seconds:.1f} |")
        lines.append(f"| {zdim} | error of one image | | {error:.0f} | | |")
    began = time.process_time()
    corner = np.zeros(4)
    travel_time(np.random.default_rng(0).uniform(0.1, 1, (50,) * 4), np.ones(4), corner)
    seconds = time.process_time() - began
    lines += [
        "",
        f"Travel times from a corner to all of 50⁴ grid points: {seconds:.0f} s of one core.",
    ]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

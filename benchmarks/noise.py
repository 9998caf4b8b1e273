"""How well the noise is found: by every method, for single images, and beside a baseline.

    python benchmarks/noise.py DIRECTORY [SET ...]

Simulates sets of a molecule that bends and has a domain that comes and goes, runs
`recovar pipeline`, and compares with the truth. Further SETs (with particles.mrcs, poses.pkl,
ctf.pkl and truth/) are measured by every method as well. What is in DIRECTORY is not made again.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from recovar.cli import main as recovar
from recovar.compute.executors import LocalExecutor
from recovar.core.masks import SolventMask
from recovar.core.noise_spectra import NoiseSpectra
from recovar.data.bank import ImageBank
from recovar.data.mrc import read_volume
from recovar.data.particles import assign_halves, read_particles
from recovar.noise import NoiseMethod, finish_noise, noise_statistic
from recovar.run import read_result
from recovar.workflows.mean import FirstMean

RESULTS = Path(__file__).parent / "results" / "noise.md"
METHODS: tuple[NoiseMethod, ...] = (
    "residual", "outside", "masked", "inside", "whole", "published",
)  # fmt: skip
LOW = 8
"""Shells whose ratios are told apart from all."""
MEMORY = 4 << 30


def call(*arguments: object) -> None:
    """Run a command of recovar."""
    if recovar([*map(str, arguments), "--quiet"]):
        raise SystemExit(f"recovar {' '.join(map(str, arguments))} failed")


def simulate(place: Path, *options: object) -> Path:
    """Make a set, unless it is there."""
    if not (place / "truth").is_dir():
        call("simulate", "-o", place, *options)
    return place


def files_of(place: Path) -> tuple[Path, dict[str, Path]]:
    """Find the particles of a set, and what belongs to them."""
    if (place / "particles.star").is_file():
        return place / "particles.star", {}
    return place / "particles.mrcs", {name: place / f"{name}.pkl" for name in ("poses", "ctf")}


def run(place: Path, out: Path, *options: object) -> Path:
    """Analyse a set, unless it was."""
    particles, extra = files_of(place)
    if not (out / "report.html").is_file():
        given = [part for name, path in extra.items() for part in (f"--{name}", path)]
        call("pipeline", particles, "-o", out, *given, *options)
    return out


def measure_methods(place: Path, done: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Give each method's variances over the true ones, from the same sums."""
    file, extra = files_of(place)
    particles = read_particles((file,), poses=extra.get("poses"), ctf=extra.get("ctf"))
    first = read_result(done, "first_mean", FirstMean)
    mask = read_result(done, "mask", SolventMask)
    images = ImageBank(particles, assign_halves(particles, 0).astype(np.int64), MEMORY, first.sign)
    executor = LocalExecutor()
    statistic = noise_statistic(first.volume, mask.dilated, executor.operators, bounded=True)
    sums = executor.accumulate("Noise", statistic, images)
    size = particles.box
    true = np.load(place / "truth" / "noise_radial.npy").ravel()[: size // 2] * size**2
    for method in METHODS:
        yield method, finish_noise(sums, method).variance / true


def tabulate_methods(sets: Sequence[Path], out: Path) -> list[str]:
    """Compare methods on all sets."""
    lines = [
        "| set | method | median | shells 1-8 | least | largest |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for place in sets:
        done = run(place, out / f"mean-{place.name}", "--only-mean")
        for method, ratios in measure_methods(place, done):
            low, rest = ratios[1 : LOW + 1], ratios[1:]
            lines.append(
                f"| {place.name} | {method} | {np.median(rest):.3f} | {low.mean():.3f} | "
                f"{rest.min():.3f} | {rest.max():.3f} |"
            )
    return lines


def tabulate_scales(sets: Sequence[Path], out: Path) -> list[str]:
    """Compare estimated scales of images with true ones."""
    lines = [
        "| set | true spread | estimated | correlation | rms error | used |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for place in sets:
        true = np.load(place / "truth" / "per_image.npz")["noise_scale"] ** 2
        true /= true.mean()
        automatic = run(place, out / f"mean-{place.name}", "--only-mean")
        used = read_result(automatic, "noise_spectra", NoiseSpectra).scale.std() > 0
        asked = run(place, out / f"scale-{place.name}", "--only-mean", "--noise-scale")
        found = read_result(asked, "noise_spectra", NoiseSpectra).scale
        related = f"{np.corrcoef(found, true)[0, 1]:.3f}" if true.std() > 0 else ""
        lines.append(
            f"| {place.name} | {true.std():.3f} | {found.std():.3f} | {related} | "
            f"{np.sqrt(np.mean((found - true) ** 2)):.3f} | {'yes' if used else 'no'} |"
        )
    return lines


def score(place: Path, done: Path) -> dict:
    """Score a run, unless it was."""
    file = done / "score" / "scores.json"
    if not file.is_file():
        call("score", place, done)
    return json.loads(file.read_text())


def baseline_share(done: Path) -> float:
    """Tell how much of the first component's power is a constant within the mask."""
    component = read_volume(done / "output/volumes/eigen_pos000.mrc").values.astype(np.float64)
    mask = read_volume(done / "output/volumes/dilated_mask.mrc").values.astype(np.float64)
    return float((component * mask).sum() ** 2 / ((component**2).sum() * (mask**2).sum()))


def tabulate_fits(jobs: Sequence[tuple[Path, str, tuple[str, ...]]], out: Path) -> list[str]:
    """Compare components and coordinates between options."""
    lines = [
        "| set | options | flat share of PC 1 | captured, of the best 2 | latent R² |",
        "|---|---|---:|---:|---:|",
    ]
    for place, name, options in jobs:
        done = run(
            place, out / f"{place.name}-{name}", "--zdim", 2, "--no-reproducibility",
            "--correct-contrast", *options,
        )  # fmt: skip
        found = score(place, done)
        captured, latent = found["pcs"]["masked"], found["latent"]
        lines.append(
            f"| {place.name} | {' '.join(options) or 'none'} | {baseline_share(done):.3f} | "
            f"{captured['captured']['2'] / captured['optimal']['2']:.3f} | "
            f"{np.mean(list(latent['r2_knn50_whitened'].values())):.3f} |"
        )
    return lines


def main() -> None:
    """Make sets and write the tables."""
    parser = argparse.ArgumentParser(description="Measure noise against the truth.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("sets", type=Path, nargs="*")
    given = parser.parse_args()
    sets = given.directory / "sets"
    strong = [
        simulate(sets / f"snr{snr}", "--n-images", 2000, "--box", 64, "--snr", snr)
        for snr in (0.1, 0.03, 0.01)
    ]
    small = ("--n-images", 2000, "--box", 32)
    scaled = [
        simulate(sets / f"scale{spread}", *small, "--snr", 0.1, "--noise-scale", spread)
        for spread in (0, 0.05, 0.1, 0.3)
    ]
    based = simulate(sets / "baseline", *small, "--snr", 0.1, "--baseline", 1)
    fits = [(based, name, options) for name, options in (
        ("radial", ()),
        ("white", ("--noise-model", "white")),
        ("radial-ignored", ("--ignore-zero-frequency",)),
        ("white-ignored", ("--noise-model", "white", "--ignore-zero-frequency")),
    )]  # fmt: skip
    fits += [(scaled[-1], name, (option,)) for name, option in (
        ("scaled", "--noise-scale"), ("alike", "--no-noise-scale"),
    )]  # fmt: skip
    parts = [
        "# Noise: methods, single images, baselines\n\nMade by `benchmarks/noise.py`.",
        "## Estimated over true variance, all from the same sums",
        "\n".join(tabulate_methods([*strong, *given.sets], given.directory)),
        "## Scales of single images (variances)",
        "\n".join(tabulate_scales(scaled, given.directory)),
        "## What it does to components",
        "\n".join(tabulate_fits(fits, given.directory)),
    ]
    RESULTS.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()

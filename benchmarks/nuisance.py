"""What contrast, noise, wrong files and junk do to the components, on sets whose truth is known.

    python benchmarks/nuisance.py DIRECTORY [--images 3000] [--only WORD] [--tag NAME OPTION ...]

Simulates one molecule that bends and has a domain that comes and goes, with every nuisance alone
and with all of them, runs `recovar pipeline` with several options on each, and writes a table. What
is in DIRECTORY is not made again. Options that follow `--tag` are given to every run, under a name
of their own.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from recovar.acquisition import Kind
from recovar.core import fourier
from recovar.core.grid import volume_radii
from recovar.data.mrc import read_volume
from recovar.metrics import (
    align,
    compare_contrasts,
    describe_population,
    outlier_auc,
    regression_r2,
)

RESULTS = Path(__file__).parent / "results" / "nuisance.md"
BOX, SEED = 64, 3
JUNK = (
    "--empty",
    "0.0125",
    "--other",
    "0.0125",
    "--off-centre",
    "0.0125",
    "--neighbours",
    "0.0125",
)
STEADY = ("--contrast", "0")
NUISANCES = {
    "none": STEADY,
    "contrast": ("--contrast", "0.15"),
    "defocus": (*STEADY, "--defocus-error", "1000"),
    "noise": (*STEADY, "--noise-scale", "0.2"),
    "poses": (*STEADY, "--pose-error", "3", "--shift-error", "2"),
    "junk": (*STEADY, *JUNK),
    "much junk": (*STEADY, "--empty", "0.1", "--other", "0.1", "--off-centre", "0.1"),
    "all": ("--contrast", "0.15", "--defocus-error", "1000", "--noise-scale", "0.2",
            "--pose-error", "3", "--shift-error", "2", *JUNK),
}  # fmt: skip
"""Degrees and Å. 1000 Å of defocus turn the phase of the CTF by a fifth of π at 10 Å."""
VARIANTS = {
    "em": ("--correct-contrast",),
    "em, junk not weighed": ("--correct-contrast", "--no-weigh-junk"),
    "em, contrast not corrected": (),
    "em, neither": ("--no-weigh-junk",),
    "columns": ("--subspace", "columns", "--correct-contrast"),
    "columns, contrast not corrected": ("--subspace", "columns"),
}
LEAST_SHARE = 0.5
"""A component is the molecule's if the true ones hold so much of it, up to half of Nyquist."""
TRUE = 10
"""True components that count."""


def recovar(*arguments: object) -> None:
    """Run a command, or stop."""
    command = [sys.executable, "-m", "recovar", *map(str, arguments), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def lowpass(volumes: np.ndarray) -> np.ndarray:
    """Keep frequencies up to half of Nyquist."""
    keep = volume_radii(BOX) <= BOX / 4
    return np.stack([fourier.to_volume(fourier.to_spectrum(v) * keep) for v in volumes])


def read_maps(folder: Path, pattern: str) -> np.ndarray:
    """Read volumes in the order of their names."""
    return np.stack([read_volume(path).values for path in sorted(folder.glob(pattern))])


def score(truth: Path, run: Path) -> dict[str, Any]:
    """Compare a run with the truth; images that do not show the molecule do not count."""
    with np.load(truth / "grid.npz") as file:
        population = describe_population(lowpass(read_maps(truth, "vol_*.mrc")), file["weights"])
    with np.load(truth / "per_image.npz") as file:
        latent, contrast, kind = file["latent"], file["contrast"], file["kind"]
        neighbours = file["neighbours_rows"]
    with np.load(run / "output" / "embedding" / "zdim4.npz") as file:
        coordinates, found = file["z"], file["contrast"]
    with np.load(run / "output" / "outliers.npz") as file:
        suspect, junk = file["log_odds"], file["probability"] > LEAST_SHARE
    aligned = align(lowpass(read_maps(run / "output" / "volumes", "eigen_pos*.mrc")), population)
    own = np.square(aligned.products[:, :TRUE]).sum(1) / np.diag(aligned.gram) > LEAST_SHARE
    good = kind == Kind.MOLECULE
    compared = compare_contrasts(found[good], contrast[good]) if found.std() else None
    ratio = compared.error / compared.true_spread if compared and contrast.std() else None
    crowded = np.zeros(len(kind), bool)
    crowded[neighbours] = True
    clean = good & ~crowded
    auc = {
        name: outlier_auc(suspect[chosen | clean], chosen[chosen | clean])
        for name, chosen in {
            **{each.name.lower(): kind == each for each in list(Kind)[1:]},
            "neighbour": good & crowded,
        }.items()
        if chosen.any()
    }
    return {
        "captured": [float(aligned.captured[k - 1]) for k in (1, 2, 4)],
        "optimal": [float(population.shares[k - 1]) for k in (1, 2, 4)],
        "cosines": aligned.cosines(4).tolist(),
        "r2": [regression_r2(coordinates[good], values, "neighbours") for values in latent[good].T],
        "own": int(np.argmin(np.append(own, False))),
        "contrast": ratio,
        "auc": auc,
        "flagged": [float(junk[chosen].mean()) for chosen in (clean, ~good) if chosen.any()],
    }  # fmt: skip


def row(nuisance: str, snr: float, variant: str, scores: dict) -> str:
    """Write scores as a row of the table."""
    captured, optimal, cosines, r2 = (
        " ".join(f"{value:.3f}" for value in scores[name])
        for name in ("captured", "optimal", "cosines", "r2")
    )
    contrast = "" if scores["contrast"] is None else f"{scores['contrast']:.2f}"
    auc = " ".join(f"{name} {value:.3f}" for name, value in scores["auc"].items())
    return (
        f"| {nuisance} | {snr:g} | {variant} | {captured} | {optimal} | {cosines} | {r2} "
        f"| {scores['own']} | {contrast} | {auc} |"
    )


def main() -> None:
    """Make what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.1, 0.05])
    parser.add_argument("--only", nargs="+", choices=NUISANCES, default=list(NUISANCES))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--tag", nargs=argparse.REMAINDER, default=[], metavar="NAME OPTION")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    tag, *options = arguments.tag or [""]
    arguments.directory.mkdir(parents=True, exist_ok=True)
    kept = arguments.directory / "scores.json"
    cells = [
        (variant, snr, nuisance)
        for variant in arguments.variants
        for snr in arguments.snr
        for nuisance in arguments.only
    ]
    for variant, snr, nuisance in cells:
        rows = json.loads(kept.read_text()) if kept.exists() else {}
        name = ", ".join(part for part in (variant, tag) if part)
        key = f"{nuisance}|{snr:g}|{name}"
        data = arguments.directory / f"{nuisance.replace(' ', '-')}-{snr:g}"
        if key in rows:
            continue
        if not data.exists():
            recovar("simulate", "-o", data, "--n-images", arguments.images, "--box", BOX, "--snr",
                    snr, "--seed", SEED, *NUISANCES[nuisance])  # fmt: skip
        run = arguments.directory / "run"
        shutil.rmtree(run, ignore_errors=True)
        recovar("pipeline", data / "particles.star", "-o", run, "--zdim", 4,
                "--no-reproducibility", *VARIANTS[variant], *options)  # fmt: skip
        rows[key] = score(data / "truth", run)
        kept.write_text(json.dumps(rows, indent=1))
        print(row(nuisance, snr, name, rows[key]), flush=True)
    write_table(arguments.results, json.loads(kept.read_text()), arguments.images)


def write_table(path: Path, rows: dict[str, dict], images: int) -> None:
    """Write all rows that there are."""
    head = (
        "# What nuisances do to the components\n\n"
        f"{images} images of {BOX} pixels, a molecule that bends and has a domain that comes and "
        "goes. Captured: share of what differs within the first 1, 2 and 4 components, up to half "
        "of Nyquist, and the most that so many can hold; cosines of the angles between the first "
        "four components and the true ones; R² of bend and domain, each predicted from the 50 "
        "nearest images; how many leading components are the molecule's (the true ones hold half "
        "of each) before the first that is not; rms error of contrasts over their spread; chance "
        "that junk is more suspect than a good image. Images that do not show the molecule do not "
        "count for R² and contrast. Made by `benchmarks/nuisance.py`.\n\n"
        "| nuisance | SNR | variant | captured | of | cosines | R² | leading | contrast | AUC |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    lines = []
    for key, scores in rows.items():
        nuisance, snr, variant = key.split("|")
        lines.append(row(nuisance, float(snr), variant, scores))
    path.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Tell how far what happens outside a focus mask enters the coordinates within it.

    python -m benchmarks.focus OUT [--images 3000] [--snr 0.03] [--seeds 2] [--masks tight wide]

A part A of a molecule comes and goes, and beside it a part B of four times its power does so
independently, or jumps. Coordinates of A are asked what they tell of A and what of B, by a
cross-validated regression. Data sets and runs are kept in OUT and used again.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.cli import main
from recovar.core.masks import soft_edge
from recovar.data.mrc import write_volume
from recovar.metrics.latent import regression_r2
from recovar.records import load_arrays

SIZE, VOXEL = 64, 4.0
ZDIM = 4
MARGINS = {"tight": 0, "wide": 2}
"""Voxels between a part and the soft edge of its mask."""
VARIANTS = {
    "no focus": None,
    "columns": ("--subspace", "columns"),
    "focus alone": ("--no-use-complement-mask",),
    "focus and complement": (),
}
MOTIONS = "comes and goes", "jumps"


@dataclass(frozen=True)
class Case:
    """One data set."""

    motion: str
    seed: int

    @property
    def name(self) -> str:
        """Give the directory of its files."""
        return f"{self.motion.replace(' ', '-')}-{self.seed}"


def draw_part(
    centre: tuple[float, float, float], spread: float, blobs: int, rng: np.random.Generator
) -> Float[np.ndarray, "z y x"]:
    """Sum Gaussian blobs about a centre z y x."""
    axis = np.arange(SIZE) - SIZE // 2
    places = np.array(centre) + spread * np.clip(rng.standard_normal((blobs, 3)), -1.6, 1.6)
    lines = np.exp(-0.5 * ((axis - places[..., None]) / 1.4) ** 2)
    return np.einsum("az,ay,ax->zyx", *np.moveaxis(lines, 1, 0)).astype(np.float32)


def write_volumes(case: Case, place: Path) -> list[Path]:
    """Write the four states, A changing faster than B, and masks of A."""
    rng = np.random.default_rng(case.seed)
    body = draw_part((0, 0, 0), 5.5, 60, rng)
    a, b = draw_part((0, 0, 15), 2.2, 7, rng), draw_part((0, 9, 11), 2.8, 22, rng)
    other = np.roll(b, (4, 1), (0, 1)) if case.motion == "jumps" else np.zeros_like(b)
    files = []
    for state in range(4):
        files.append(place / f"state{state}.mrc")
        write_volume(files[-1], body + (state % 2) * a + (b if state < 2 else other), VOXEL)
    for name, margin in MARGINS.items():
        focus = soft_edge(a > 0.1 * a.max(), 3, margin).astype(np.float32)
        write_volume(place / f"{name}.mrc", focus, VOXEL)
    return files


def run(*arguments: object) -> None:
    """Run a command of recovar, and stop if it fails."""
    if main([*map(str, arguments), "--quiet"]) != 0:
        raise SystemExit(1)


def measure(case: Case, options: argparse.Namespace) -> dict[str, list[float]]:
    """Give what the coordinates of every variant tell of A and of B."""
    place = options.out / case.name
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "set").exists():
        volumes = ",".join(map(str, write_volumes(case, place)))
        run("simulate", "-o", place / "set", "--volumes", volumes, "--n-images", options.images,
            "--snr", options.snr, "--contrast", 0, "--box", SIZE, "--seed", case.seed)  # fmt: skip
    state = load_arrays(place / "set/truth/per_image.npz")["state"]
    found = {}
    for variant, more in VARIANTS.items():
        for mask in ("none",) if more is None else options.masks:
            output = place / f"{variant.replace(' ', '-')}-{mask}"
            focus = () if more is None else ("--focus-mask", place / f"{mask}.mrc", *more)
            if not (output / "report.html").exists():
                run("pipeline", place / "set/particles.star", "-o", output, "--zdim", ZDIM,
                    "--no-reproducibility", *focus)  # fmt: skip
            z = load_arrays(next((output / "output/embedding").glob("zdim*.npz")))["z"]
            told = [
                regression_r2(z.astype(np.float64), w, "quadratic") for w in (state % 2, state // 2)
            ]
            found[f"{variant} | {mask}"] = told
    return found


def main_table() -> None:
    """Measure all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--snr", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--masks", nargs="+", choices=MARGINS, default=list(MARGINS))
    options = parser.parse_args()
    print("| B | fit | mask | R² of A | R² of B |\n|---|---|---|---|---|")
    for motion in MOTIONS:
        each = [measure(Case(motion, seed), options) for seed in range(options.seeds)]
        for name in each[0]:
            a, b = np.mean([found[name] for found in each], axis=0)
            print(f"| {motion} | {name} | {a:.3f} | {max(b, 0):.3f} |", flush=True)


if __name__ == "__main__":
    main_table()

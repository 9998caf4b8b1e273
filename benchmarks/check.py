"""Make single mistakes in the files of simulated images, and see whether `check` names them.

    python benchmarks/check.py DIRECTORY [--images 1500] [--used 1500]

DIRECTORY keeps data sets and rows of the table, so that a call goes on where another one stopped.
The table goes to benchmarks/results/check.md.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recovar.cli import main as recovar
from recovar.compute.progress import SilentReporter
from recovar.core import fourier
from recovar.core.ctf import Optics, transfer_function
from recovar.core.grid import frequencies
from recovar.core.poses import relion_euler_from_rotations, rotations_from_relion_euler
from recovar.data import ImageTable
from recovar.data.mrc import read_volume, write_volume
from recovar.data.particles import read_particles
from recovar.data.star import read_star_table, write_particles
from recovar.workflows.check import check
from recovar.workflows.checking.config import CheckConfig
from recovar.workflows.checking.report import show_odds, verdict

DEGREE = np.pi / 180
RESULTS = Path(__file__).parent / "results" / "check.md"
SNR = 0.08


@dataclass(frozen=True)
class Mistake:
    """Something done to good files, and the words that the verdict must have."""

    name: str
    expected: str
    table: Callable[[ImageTable], ImageTable] = lambda table: table
    stack: Callable[[np.ndarray, Path], np.ndarray] | None = None
    data: str = "plain"
    """Which of the simulated sets."""
    volume: Callable[[np.ndarray], np.ndarray] | None = None
    mask: Callable[[np.ndarray], np.ndarray] | None = None


def optics(table: ImageTable, **fields: np.ndarray) -> ImageTable:
    """Replace parameters of the transfer functions."""
    return replace(table, optics=Optics(**{**vars(table.optics), **fields}))


def shifts(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[ImageTable], ImageTable]:
    """Change the shifts."""
    return lambda table: replace(table, shifts=function(table.shifts))


def angles(signs: list[int]) -> Callable[[ImageTable], ImageTable]:
    """Change the signs of rot, tilt and psi."""
    return lambda table: replace(
        table,
        rotations=rotations_from_relion_euler(relion_euler_from_rotations(table.rotations) * signs),
    )


def roll(step: int) -> Callable[[ImageTable], ImageTable]:
    """Give every image the row of another one."""
    return lambda table: replace(
        table,
        rotations=np.roll(table.rotations, step, 0),
        shifts=np.roll(table.shifts, step, 0),
        optics=table.optics[np.roll(np.arange(len(table)), step)],
    )


def flip_phases(images: np.ndarray, star: Path) -> np.ndarray:
    """Multiply by the sign of the transfer function."""
    table = read_star_table(star)
    k = frequencies(images.shape[-1]) / (images.shape[-1] * table.pixel_size[0])
    y, x = np.meshgrid(k, np.abs(k[: len(k) // 2 + 1]), indexing="ij")
    spectra = fourier.to_spectrum(images, dimensions=2)
    for start in range(0, len(images), 256):
        part = slice(start, start + 256)
        spectra[part] *= np.sign(transfer_function(table.optics[part], x, y))
    return fourier.to_volume(spectra, dimensions=2)


def mirror(volume: np.ndarray) -> np.ndarray:
    """Change the hand."""
    return np.roll(volume[::-1], 1, 0)


MISTAKES = (
    Mistake("none", "As stated"),
    Mistake("none, premultiplied images", "As stated", data="premultiplied"),
    Mistake("none, tilt series", "As stated", data="tilts"),
    Mistake("sign of the images", "Sign: density is negative", stack=lambda i, _: -i),
    Mistake("sign of the shifts", "shifts have the opposite sign", shifts(lambda t: -t)),
    Mistake("shifts in pixels, said to be Å", "are pixels, not Å", shifts(lambda t: t / 6)),
    Mistake("x and y of shifts exchanged", "x and y are exchanged", shifts(lambda t: t[:, ::-1])),
    Mistake("sign of the shift along y", "along y has the other", shifts(lambda t: t * [1, -1])),
    Mistake("shifts that were applied already", "centred already", data="centred"),
    Mistake(
        "rotations transposed", "rotations are transposed",
        lambda t: replace(t, rotations=t.rotations.swapaxes(1, 2)),
    ),
    Mistake("sign of psi", "psi has the other sign", angles([1, 1, -1])),
    Mistake("sign of all angles", "all angles negated", angles([-1, -1, -1])),
    Mistake("images upside down", "upside down", stack=lambda i, _: np.roll(i[:, ::-1], 1, 1)),
    Mistake("phases flipped", "CTFs were flipped", stack=flip_phases),
    Mistake(
        "premultiplied, not flagged", "images were multiplied",
        lambda t: replace(t, premultiplied=False), data="premultiplied",
    ),
    Mistake(
        "flagged as premultiplied, but not", "were neither multiplied",
        lambda t: replace(t, premultiplied=True),
    ),
    Mistake("no CTF in the images", "images have no CTF", data="no ctf"),
    Mistake(
        "defocus in nm", "in nm, not Å",
        lambda t: optics(t, defocus_u=t.optics.defocus_u / 10, defocus_v=t.optics.defocus_v / 10),
    ),
    Mistake(
        "sign of defocus", "defocus has the opposite sign",
        lambda t: optics(t, defocus_u=-t.optics.defocus_u, defocus_v=-t.optics.defocus_v),
    ),
    Mistake(
        "angle of astigmatism in radians", "astigmatism is in radians, not degrees",
        lambda t: optics(t, defocus_angle=t.optics.defocus_angle * DEGREE),
    ),
    Mistake(
        "sign of the angle of astigmatism", "astigmatism has the other sign",
        lambda t: optics(t, defocus_angle=-t.optics.defocus_angle),
    ),
    Mistake(
        "amplitude contrast in percent", "in percent",
        lambda t: optics(t, amplitude_contrast=100 * t.optics.amplitude_contrast),
    ),
    Mistake(
        "no amplitude contrast", "about 0.1, not 0",
        lambda t: optics(t, amplitude_contrast=0 * t.optics.amplitude_contrast),
    ),
    Mistake(
        "phase shift in radians", "phase shift is in radians, not degrees",
        lambda t: optics(t, phase_shift=t.optics.phase_shift * DEGREE), data="phase plate",
    ),
    Mistake(
        "voltage in V", "in V, not kV", lambda t: optics(t, voltage=1000 * t.optics.voltage)
    ),
    Mistake(
        "pixel size halved", "pixels are twice as large, with shifts in Å",
        lambda t: replace(t, pixel_size=t.pixel_size / 2),
    ),
    Mistake("rows one too early", "image after it", roll(-1)),
    Mistake("rows one too late", "image before it", roll(1)),
    Mistake("rows in reverse order", "reverse order", stack=lambda i, _: i[::-1]),
    Mistake(
        "rows in random order", "No verdict",
        stack=lambda i, _: i[np.random.default_rng(0).permutation(len(i))],
    ),
    Mistake("noise alone", "No verdict",
        stack=lambda i, _: np.random.default_rng(0).normal(size=i.shape)),
    Mistake(
        "rotations transposed and shifts negated", "sign; and rotations are transposed",
        lambda t: replace(t, rotations=t.rotations.swapaxes(1, 2), shifts=-t.shifts),
    ),
    Mistake("reference map right", "Hand: that of", volume=lambda v: v),
    Mistake("reference map mirrored", "Hand: opposite", volume=mirror),
    Mistake("mask right", "Mask: its axes may stay", mask=lambda m: m),
    Mistake(
        "axes of the mask permuted", "z y x taken from y x z",
        mask=lambda m: m.transpose(2, 0, 1),
    ),
)  # fmt: skip


def make_sets(directory: Path, images: int) -> None:
    """Simulate what is not there yet."""
    rng = np.random.default_rng(0)
    u = rng.uniform(8000, 25000, images)
    astigmatism, angle = rng.uniform(500, 2000, images), rng.uniform(0, 180, images)
    ones = np.ones(images)
    columns = [48 * ones, 6 * ones, u + astigmatism, u - astigmatism, angle, 300 * ones,
               2.7 * ones, 0.1 * ones]  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, phase in (("plain", 0.0), ("phase", 80.0)):
        files[name] = directory / f"ctf_{name}.npz"
        np.savez(files[name], ctf=np.stack([*columns, phase * ones], axis=1))
    sets = {
        "plain": ("--ctf", files["plain"]),
        "phase plate": ("--ctf", files["phase"]),
        "premultiplied": ("--ctf", files["plain"], "--premultiplied"),
        "no ctf": ("--ctf", "none"),
        "tilts": ("--tilts", "21"),
    }
    for name, options in sets.items():
        output = directory / name
        if not output.exists():
            count = images // 21 if name == "tilts" else images
            status = recovar([
                "simulate", "-o", str(output), "--n-images", str(count), "--box", "48",
                "--pixel-size", "6", "--snr", str(SNR), "--shift", "12", "--quiet",
                *map(str, options),
            ])  # fmt: skip
            if status:
                raise SystemExit(status)
    shutil.rmtree(directory / "centred", ignore_errors=True)
    shutil.copytree(directory / "plain", directory / "centred")


def spoil(mistake: Mistake, directory: Path, folder: Path) -> CheckConfig:
    """Write the files with a mistake in them."""
    source = directory / mistake.data
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = read_star_table(source / "particles.star")
    if mistake.data == "no ctf":
        table = replace(table, optics=read_star_table(directory / "plain/particles.star").optics)
    with np.errstate(all="ignore"):
        images = np.fromfile(source / "particles.mrcs", "<f4", offset=1024)
    images = images.reshape(len(table), 48, 48)
    if mistake.data == "centred":
        k = frequencies(48)
        x, y = k[:25], k
        spectra = fourier.to_spectrum(images, dimensions=2)
        t = table.shifts / (48 * table.pixel_size[0])
        spectra *= np.exp(-2j * np.pi * t[:, 1, None, None] * y[:, None])
        spectra *= np.exp(-2j * np.pi * t[:, 0, None, None] * np.abs(x))
        images = fourier.to_volume(spectra, dimensions=2)
    if mistake.stack is not None:
        images = mistake.stack(images, source / "particles.star")
    header = (source / "particles.mrcs").read_bytes()[:1024]
    stack = folder / "particles.mrcs"
    stack.write_bytes(header + np.ascontiguousarray(images, "<f4").tobytes())
    write_particles(folder / "particles.star", mistake.table(table))
    options = {}
    for name, truth, change in (
        ("volume", "mean", mistake.volume),
        ("mask", "mask", mistake.mask),
    ):
        if change is not None:
            read = read_volume(source / "truth" / f"{truth}.mrc")
            values = np.ascontiguousarray(change(read.values))
            write_volume(folder / f"{truth}.mrc", values, read.voxel_size)
            options[name] = folder / f"{truth}.mrc"
    return CheckConfig(particles=(folder / "particles.star",), **options)


def main() -> None:
    """Check every mistake, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--images", type=int, default=1500, help="in each data set")
    parser.add_argument("--used", type=int, default=1500, help="of them, by check")
    arguments = parser.parse_args()
    make_sets(arguments.directory, arguments.images)
    kept = arguments.directory / "rows.json"
    rows = json.loads(kept.read_text()) if kept.exists() else {}
    for mistake in MISTAKES:
        if mistake.name not in rows:
            rows[mistake.name] = try_out(mistake, arguments.directory, arguments.used)
            kept.write_text(json.dumps(rows))
            print(rows[mistake.name], flush=True)
            write_table(rows)


def try_out(mistake: Mistake, directory: Path, used: int) -> str:
    """Check the files with one mistake, and make a row of the table."""
    config = replace(spoil(mistake, directory, directory / "spoilt"), n_images=used)
    started = time.monotonic()
    checked = check(read_particles(config.particles), config, SilentReporter())
    seconds = time.monotonic() - started
    said = verdict(checked)
    sure = [sentence for sentence in said if not sentence.startswith("Cannot")]
    right = any(mistake.expected in sentence for sentence in sure)
    about_maps = mistake.volume or mistake.mask or mistake.expected.startswith("Sign")
    wrong_too = checked.found.changes and (about_maps or mistake.expected == "As stated")
    odds = checked.found.against_stated
    told = next(s for s in sure if mistake.expected in s) if right else said[0]
    return (
        f"| {mistake.name} | {told.partition('. ')[0]} | "
        f"{'–' if odds is None else show_odds(odds.log10)} | {checked.images} | {seconds:.0f} | "
        f"{'yes' if right and not wrong_too else 'NO'} |"
    )


def write_table(rows: dict[str, str]) -> None:
    """Write the rows that there are."""
    head = (
        "# What `recovar check` says about single mistakes\n\n"
        f"Simulated images of 48 pixels of 6 Å, SNR {SNR:g}, shifts of 12 Å, astigmatism of 500 to "
        "2000 Å. Two CPU cores shared with other work. Made by `benchmarks/check.py`; odds are "
        "those against what the files say.\n\n"
        "| mistake | verdict | odds | images | seconds | right |\n|---|---|---|---|---|---|\n"
    )
    RESULTS.write_text(head + "\n".join(rows.values()) + "\n")


if __name__ == "__main__":
    main()

"""What the readers do with files that are broken at random.

    python benchmarks/fuzz.py [--seconds 60] [--readers mrc cs ...] [--first 0]

Every reader gets files of its formats, made here and those of other programs below RECOVAR_SHARED,
each changed in a few places. It must give what it promises or raise InputError with the path in
the message, within 10 s and 1 GiB of memory beyond what the process had. Readers run in processes
of their own, so that one that crashes is seen. Writes results/fuzz.md, and exits with 1 if a law
was broken; `--readers NAME --first N --seconds 0` then shows how.
"""

import argparse
import gzip
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recovar.core.ctf import Optics
from recovar.core.poses import random_rotations
from recovar.data import ImageTable, mrc
from recovar.data.cryosparc import read_cs, read_cs_table, write_cs
from recovar.data.legacy import (
    read_ctf_pickle,
    read_halfsets,
    read_indices,
    read_poses_pickle,
    write_ctf_pickle,
    write_poses_pickle,
)
from recovar.data.particles import Particles, read_particles
from recovar.data.plain_arrays import read_array
from recovar.data.stack import read_images
from recovar.data.star import read_star_table, write_particles
from recovar.errors import InputError

RESULTS = Path(__file__).parent / "results" / "fuzz.md"
SHARED = os.environ.get("RECOVAR_SHARED")
LARGEST_SEED = 700_000
"""Bytes; larger files of others would make few inputs."""
SECONDS, GIB = 10, 1 << 30
LARGEST_SIZE = 8 << 20
"""Bytes to which a file may grow by the changes."""
NUMBERS = (0, 1, -1, 2, 255, 65536, 10**6, 10**9, 2**31 - 1, -(2**31))
WORDS = (
    *(b"", b"nan", b"inf", b"-inf", b"1e308", b"-1", b"0", b"0.5", b"99999999999999999999", b"1_0"),
    *(b"'", b'"', b";", b"#", b"loop_", b"data_", b"\n", b"\x00", b"\xff", b"000000@", b"[", b"{"),
    *(b"(", b"O", b"True", b"\xf0\x9f\xa7\xac", b"x" * 100_000),
)


@dataclass(frozen=True)
class Reader:
    """A reader under the law."""

    read: Callable[[Path], object]
    patterns: tuple[str, ...]
    """Which files it starts from."""


def read_volume(path: Path) -> None:
    """Read a volume, which must be finite."""
    values = mrc.read_volume(path).values
    _require(bool(np.isfinite(values).all()), "a volume that is not finite")


def read_sections(path: Path) -> None:
    """Read the header of a stack, and its first and last images."""
    header = mrc.read_header(path)
    sections = mrc.open_sections(header)
    _require(len(sections) <= header.shape[0], "more sections than promised")
    with np.errstate(all="ignore"):
        np.asarray(sections[:1]).sum()
        np.asarray(sections[-1:]).sum()


def read_stack(path: Path) -> None:
    """Read the particles of a STAR file whose stack is broken, and all their images."""
    write_particles(path.parent / "p.star", replace(make_table(), stacks=(path.name,)))
    particles: Particles = read_particles(path.parent / "p.star")
    _require(bool(np.isfinite(read_images(particles, np.arange(len(particles)))).all()), "an image")


def read_results_group(path: Path) -> None:
    """Read a `.csg` file beside the tables that it names."""
    with_poses = make_table()
    write_cs(path.parent / "main.cs", with_poses, np.arange(6, dtype=np.uint64))
    write_cs(path.parent / "passed.cs", with_poses, np.arange(6, dtype=np.uint64)[::-1].copy())
    check_table(read_cs_table(path))


def check_table(table: ImageTable) -> None:
    """Require what every table promises."""
    count = len(table)
    _require(count > 0 and len(table.slice_index) == len(table.identity) == count, "lengths")
    _require(int(table.slice_index.min()) >= 0, "an index below 0")
    _require(0 <= table.stack_index.min() <= table.stack_index.max() < len(table.stacks), "stacks")
    _require(table.sign in (None, -1, 1), "a sign")
    _require(table.half is None or set(np.unique(table.half)) <= {0, 1}, "half sets")


def check_poses(path: Path) -> None:
    """Require finite shifts of at most a box, one for each rotation."""
    poses = read_poses_pickle(path)
    _require(len(poses.rotations) == len(poses.shift_fractions), "lengths")
    _require(bool((np.abs(poses.shift_fractions) <= 1).all()), "a shift")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"the reader gave {what} that cannot be")


READERS = {
    "star": Reader(lambda path: check_table(read_star_table(path)), ("*.star",)),
    "cs": Reader(lambda path: check_table(read_cs_table(path)), ("*.cs",)),
    "csg": Reader(read_results_group, ("*.csg",)),
    "mrc": Reader(read_sections, ("*.mrc", "*.mrcs", "*.map", "*.ccp4")),
    "volume": Reader(read_volume, ("*.mrc", "*.map", "*.gz", "*.bz2")),
    "images": Reader(read_stack, ("made.mrcs",)),
    "poses": Reader(check_poses, ("*pose*.pkl", "*.npz")),
    "ctf": Reader(read_ctf_pickle, ("*ctf*.pkl", "*.npz")),
    "indices": Reader(read_indices, ("ind*",)),
    "halves": Reader(read_halfsets, ("half*.pkl", "*.npz")),
    "array": Reader(read_array, ("*.npy", "*.npz", "*.pkl", "*.txt")),
}


def make_table(count: int = 6) -> ImageTable:
    """Make a table of images of 8 pixels in one stack."""
    generator = np.random.default_rng(0)
    ones = np.ones(count, np.float32)
    return ImageTable(
        source=Path("made.star"),
        stacks=("made.mrcs",),
        stack_index=np.zeros(count, np.int32),
        slice_index=np.arange(count, dtype=np.int64),
        identity=np.arange(count),
        box=np.full(count, 8),
        pixel_size=np.full(count, 1.5),
        rotations=random_rotations(count, generator),
        shifts=generator.uniform(-4, 4, (count, 2)),
        optics=Optics(1e4 * ones, 2e4 * ones, ones, 300 * ones, ones, ones, ones, 0 * ones, ones),
        half=(np.arange(count) % 2).astype(np.int8),
        sign=-1,
    )


def make_files(folder: Path) -> None:
    """Write one small file or more of every format."""
    table, generator = make_table(), np.random.default_rng(1)
    uids = np.arange(len(table), dtype=np.uint64)
    write_particles(folder / "made.star", table)
    write_cs(folder / "made.cs", table, uids)
    _make_classes(folder)
    groups = {"blob": "main", "ctf": "main", "alignments3D": "passed"}
    lines = [
        f"  {group}:\n    metafile: '>{name}.cs'\n    num_items: 6\n    type: particle.{group}\n"
        for group, name in groups.items()
    ]
    head = "created: 2026-01-01\ngroup:\n  name: particles\n  type: particle\n"
    (folder / "made.csg").write_text(f"{head}results:\n{''.join(lines)}version: v4.5\n")
    mrc.write_stack(folder / "made.mrcs", generator.standard_normal((6, 8, 8), np.float32), 1.5)
    mrc.write_volume(folder / "made.mrc", generator.standard_normal((8, 8, 8), np.float32), 1.5)
    (folder / "made.mrc.gz").write_bytes(gzip.compress((folder / "made.mrc").read_bytes()))
    rotations, shifts = table.rotations, np.zeros((6, 2))
    write_poses_pickle(folder / "poses.pkl", rotations, shifts)
    write_ctf_pickle(folder / "ctf.pkl", table.optics, 8, 1.5)
    (folder / "poses0.pkl").write_bytes(pickle.dumps((rotations, shifts), 0))
    (folder / "poses5.pkl").write_bytes(pickle.dumps((rotations, shifts), 5))
    np.savez_compressed(folder / "all.npz", rot=rotations, trans=shifts, ctf=np.ones((6, 9)))
    np.savez(folder / "half.npz", first=np.arange(3), second=np.arange(3, 6))
    (folder / "half.pkl").write_bytes(pickle.dumps([np.arange(3), np.arange(3, 6)]))
    (folder / "ind.pkl").write_bytes(pickle.dumps([3, 1, 2]))
    (folder / "ind.txt").write_text("3\n1\n2\n")
    np.save(folder / "ind.npy", np.array([True, False, True]))
    np.save(folder / "array.npy", np.eye(3))


def _make_classes(folder: Path) -> None:
    """Write tables with poses in several classes, in both layouts of cryoSPARC."""
    rows = read_cs(folder / "made.cs")
    kept = [name for name in rows.dtype.names or () if not name.startswith("alignments")]
    shapes = {"pose": (3,), "shift": (2,), "class_posterior": (), "psize_A": ()}
    multi = [(f"alignments3D_multi/{name}", "<f4", (2, *tail)) for name, tail in shapes.items()]
    each = [
        (f"alignments_class_{k}/{name}", "<f4", tail)
        for k in (0, 1)
        for name, tail in shapes.items()
    ]
    for file, fields in (("multi.cs", multi), ("classes.cs", each)):
        made = np.zeros(len(rows), [(name, rows.dtype[name]) for name in kept] + fields)
        for name in kept:
            made[name] = rows[name]
        for name, *_ in fields:
            made[name] = 0.5
        with (folder / file).open("wb") as opened:
            np.save(opened, made)


def seeds_of(reader: Reader, folder: Path) -> list[Path]:
    """List the files that a reader starts from: those made, and those of others."""
    places = [folder.glob(pattern) for pattern in reader.patterns]
    if SHARED:
        places += [Path(SHARED, "data", "zoo").rglob(pattern) for pattern in reader.patterns]
    found = {path for place in places for path in place}
    return sorted(path for path in found if path.stat().st_size <= LARGEST_SEED)


def mutate(raw: bytes, other: bytes, generator: np.random.Generator) -> bytes:
    """Change a file in up to three ways; `other` is a file that it may continue with."""
    changed = bytearray(raw)
    for _ in range(int(generator.integers(1, 4))):
        change = CHANGES[int(generator.integers(len(CHANGES)))]
        change(changed, other, generator)
    return bytes(changed[:LARGEST_SIZE])


def _place(changed: bytearray, generator: np.random.Generator) -> int:
    """Draw a place, half of the time near the start, where headers are."""
    end = len(changed) + 1
    if generator.random() < 0.5:
        end = min(end, int(generator.choice([32, 256, 1024, 4096])))
    return int(generator.integers(end))


def _flip(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    for _flipped in range(int(generator.integers(1, 9))):
        place = _place(changed, generator)
        if place < len(changed):
            changed[place] = int(generator.integers(256))


def _truncate(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    del changed[_place(changed, generator) :]


def _splice(changed: bytearray, other: bytes, generator: np.random.Generator) -> None:
    start = int(generator.integers(len(other) + 1))
    place = _place(changed, generator)
    changed[place : place + int(generator.integers(4096))] = other[start : start + LARGEST_SEED]


def _repeat(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    place, length = _place(changed, generator), int(generator.integers(1, 5000))
    changed[place:place] = changed[place : place + length]


def _cut(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    place = _place(changed, generator)
    del changed[place : place + int(generator.integers(1, 5000))]


def _number(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    place, order = (
        _place(changed, generator) // 4 * 4,
        "little" if generator.random() < 0.7 else "big",
    )
    value = NUMBERS[int(generator.integers(len(NUMBERS)))]
    changed[place : place + 4] = value.to_bytes(4, order, signed=True)


def _float(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    place = _place(changed, generator) // 4 * 4
    changed[place : place + 4] = (
        generator.choice([np.nan, np.inf, 3e38, -1]).astype("<f4").tobytes()
    )


def _word(changed: bytearray, _: bytes, generator: np.random.Generator) -> None:
    """Put a word in the place of one, or swap two."""
    start = _place(changed, generator)
    words = bytes(changed[start : start + 400]).split(b" ")
    one, two = generator.integers(len(words), size=2)
    if generator.random() < 0.7:
        words[one] = WORDS[int(generator.integers(len(WORDS)))]
    else:
        words[one], words[two] = words[two], words[one]
    changed[start : start + 400] = b" ".join(words)


CHANGES = (_flip, _truncate, _splice, _repeat, _cut, _number, _float, _word, _word)


@contextmanager
def bounds() -> Iterator[None]:
    """Bound the time and the memory of the block."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIB, hard))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass(frozen=True)
class Trial:
    """Makes the input of every number for one reader, the same each time, and tries it."""

    reader: Reader
    seeds: list[Path]
    readable: list[Path]
    """Those of the seeds that are read as they are; half of the inputs start from them."""
    folder: Path

    def write_input(self, number: int) -> Path:
        """Write input `number`, and return its path."""
        generator = np.random.default_rng(number)
        seeds = self.readable if generator.random() < 0.5 else self.seeds
        seed = seeds[int(generator.integers(len(seeds)))]
        other = self.seeds[int(generator.integers(len(self.seeds)))]
        path = self.folder / f"input{seed.suffix}"
        path.write_bytes(mutate(seed.read_bytes(), other.read_bytes(), generator))
        return path

    def is_read(self, number: int) -> bool:
        """Try an input: True if it was read, False if it was refused in the way we promise."""
        path = self.write_input(number)
        try:
            with bounds():
                self.reader.read(path)
        except InputError as error:
            if str(path.parent) not in str(error):
                raise AssertionError(f"no path in the message: {error}") from error
            return False
        finally:
            path.unlink()
        return True


def prepare(name: str, folder: Path) -> Trial:
    """Make the files that a reader starts from below `folder`."""
    made, tried = folder / "made", folder / "tried"
    made.mkdir()
    tried.mkdir()
    make_files(made)
    reader = READERS[name]
    seeds = seeds_of(reader, made)
    readable = []
    for seed in seeds:
        path = tried / f"input{seed.suffix}"
        path.write_bytes(seed.read_bytes())
        with suppress(InputError):
            reader.read(path)
            readable.append(seed)
        path.unlink()
    return Trial(reader, seeds, readable, tried)


def run_reader(name: str, seconds: float, first: int) -> None:
    """Try inputs for so long, and print what happened as JSON."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        trial = prepare(name, Path(folder))
        broken: dict[str, tuple[int, str]] = {}
        read = tried = 0
        slowest, began = 0.0, time.perf_counter()
        while True:
            start = time.perf_counter()
            try:
                read += trial.is_read(first + tried)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                place = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{type(error).__name__} at {place.filename}:{place.lineno}"
                broken.setdefault(key, (first + tried, traceback.format_exc()))
            tried += 1
            slowest = max(slowest, time.perf_counter() - start)
            if time.perf_counter() - began >= seconds:
                break
        took = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        row = {"files": len(trial.seeds), "tried": tried, "read": read, "seconds": took}
        row |= {"slowest": slowest, "peak": peak, "broken": list(broken.values())}
        print(json.dumps(row))


def main() -> int:
    """Try every reader in a process of its own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--alone", action="store_true", help="in this process, as JSON")
    given = parser.parse_args()
    if given.alone:
        run_reader(given.readers[0], given.seconds, given.first)
        return 0
    lines, failed = [], 0
    for name in given.readers:
        options = ["--alone", "--seconds", str(given.seconds), "--first", str(given.first)]
        done = subprocess.run(
            ["nice", sys.executable, __file__, "--readers", name, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            failed += 1
            print(f"{name}: the process ended with {done.returncode}\n{done.stderr[-3000:]}")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        for number, text in row["broken"]:
            failed += 1
            print(f"{name}, input {number}:\n{text}")
        lines.append(
            f"| {name} | {row['files']} | {row['tried']} | {row['read']} | {row['seconds']:.0f} | "
            f"{row['slowest']:.2f} | {row['peak']:.2f} GiB | {len(row['broken'])} |"
        )
        print(lines[-1], flush=True)
    if given.readers == list(READERS):
        write_results(lines, given.seconds)
    return int(failed > 0)


def write_results(lines: list[str], seconds: float) -> None:
    """Write the table of all readers."""
    RESULTS.write_text(
        "# Files broken at random\n\n"
        f"`python benchmarks/fuzz.py --seconds {seconds:g}`. Inputs that are not read are refused "
        "by a sentence with the path.\n\n"
        "| reader | files to start from | inputs tried | read | seconds | slowest (s) | peak "
        "memory | laws broken |\n|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())

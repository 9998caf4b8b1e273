"""The command `downsample`: smaller images or volumes, with tables that stay true of them."""

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import recovar
from recovar.compute.progress import Advance, Reporter
from recovar.data.mrc import HEADER_BYTES, StackWriter, read_header, read_volume, write_volume
from recovar.data.particles import Particles, read_image_list
from recovar.data.preprocess import Preprocessing, preprocess_images, preprocess_volume
from recovar.data.remade_tables import RemadeImages, remake_cs, remake_star
from recovar.errors import InputError
from recovar.manifest import fingerprint, hash_plain, to_plain
from recovar.workflows.configs import DownsampleConfig
from recovar.workflows.unfinished import Unfinished, unfinished_files

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_NOTES = 20.0
_ROW_BYTES = 1000
"""On disk, of an image in tables."""
_TABLES = {".star": ".star", ".cs": ".cs", ".csg": ".cs"}
"""What is written beside the images, by what is read."""
_PIXEL_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class _Files:
    """Names of the files that are written."""

    stacks: tuple[str, ...]
    per_stack: int
    """Images in each stack but the last."""
    table: str | None
    """STAR or CS file."""
    listing: str | None
    """Text that lists the stacks."""

    @property
    def names(self) -> list[str]:
        """All of them, the stacks first."""
        return [*self.stacks, *(name for name in (self.table, self.listing) if name)]


def run_downsample(config: DownsampleConfig, reporter: Reporter) -> None:
    """Write smaller images, or a smaller volume, and tell what was written.

    Raises:
        InputError: If something cannot be read, obeyed or stored, or is there already.
    """
    _refuse_bad_directory(config.output.parent)
    if config.is_vol:
        _downsample_volume(config)
        return
    particles = read_image_list(
        config.particles,
        datadir=config.datadir,
        strip_prefix=config.strip_prefix,
        passthrough=config.passthrough,
        ind=config.ind,
        pixel_size=config.pixel_size,
    )
    wanted = _preprocessing(config, particles.box)
    _warn_of_volume(config.particles, particles)
    files = _name_files(config, len(particles))
    _refuse_existing(config.output, files.names)
    _describe(particles, wanted)
    with unfinished_files(config.output.with_suffix(".mrcs"), _key(config, particles)) as work:
        done = work.load()
        _refuse_small_disk(config.output, particles, wanted, done)
        if done:
            logger.info("Going on after the first %d images, which are there already", done)
        with reporter.task("Downsampling", len(particles) - done) as advance:
            _write_stacks(_Job(particles, wanted, files, work, config.max_threads), done, advance)
        _write_tables(config, particles, wanted, files, work.path)
        _check_stacks(work.path, files, particles, wanted)
        _refuse_existing(config.output, files.names)
        work.finish(files.names)
    _tell_where(config, files)


def _refuse_bad_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise InputError(f"Cannot write to {directory}: directory does not exist. Create it.")
    if not os.access(directory, os.W_OK):
        raise InputError(f"Cannot write to {directory}: it is not yours to write. Choose another.")


def _preprocessing(config: DownsampleConfig, box: int) -> Preprocessing:
    crop = config.crop or box
    if crop > box:
        raise InputError(
            f"{config.particles} has {box} pixels along a side, fewer than --crop {crop}. Give a "
            "smaller number."
        )
    if config.box > crop:
        raise InputError(
            f"{config.particles} has {box} pixels along a side, fewer than -D {config.box}. Images "
            "are only made smaller: give a smaller number."
        )
    return Preprocessing(
        crop=crop,
        box=config.box,
        inverted=config.invert,
        normalized=config.normalize,
        dtype=config.dtype,
    )


def _downsample_volume(config: DownsampleConfig) -> None:
    _refuse_existing(config.output, [config.output.name])
    volume = read_volume(config.particles)
    voxel_size = config.pixel_size or volume.voxel_size
    if voxel_size is None:
        raise InputError(f"{config.particles} states no voxel size. Give it with --pixel-size (Å).")
    small = preprocess_volume(volume.values, voxel_size, _preprocessing(config, len(volume.values)))
    write_volume(config.output, small.values, small.voxel_size or voxel_size)
    logger.info(
        "%s: %d voxels of %.4g Å became %d of %.4g Å", config.output, len(volume.values),
        voxel_size, len(small.values), small.voxel_size,
    )  # fmt: skip


def _warn_of_volume(path: Path, particles: Particles) -> None:
    if path.suffix == ".mrc" and len(particles) == particles.box:
        logger.warning(
            "%s is taken for %d images. If it is a volume, give --is-vol.", path, len(particles)
        )


def _name_files(config: DownsampleConfig, count: int) -> _Files:
    stem = config.output.stem
    stacks, per_stack = (f"{stem}.mrcs",), count
    if config.chunk is not None:
        per_stack = config.chunk
        stacks = tuple(f"{stem}.{number}.mrcs" for number in range(-(-count // per_stack)))
    suffix = config.particles.suffix
    return _Files(
        stacks,
        per_stack,
        table=stem + _TABLES[suffix] if suffix in _TABLES else None,
        listing=None if config.chunk is None else f"{stem}.txt",
    )


def _refuse_existing(output: Path, names: Iterable[str]) -> None:
    for name in names:
        if output.with_name(name).exists():
            raise InputError(
                f"{output.with_name(name)} exists already, and files are not overwritten. Choose "
                "another name with -o, or remove it."
            )


def _describe(particles: Particles, wanted: Preprocessing) -> None:
    small = particles.pixel_size * wanted.scale
    logger.info(
        "%s images of %d pixels of %.4g Å become %d pixels of %.4g Å, which show up to %.4g Å",
        f"{len(particles):,}", particles.box, particles.pixel_size, wanted.box, small, 2 * small,
    )  # fmt: skip


def _key(config: DownsampleConfig, particles: Particles) -> str:
    """Hash all that the files depend on; threads and places do not count."""
    options = asdict(config)
    for name in ("max_threads", "datadir", "strip_prefix", "ind"):
        del options[name]
    stacks = [path.stat() for path in particles.stacks]
    return hash_plain(
        to_plain(
            {
                "options": options,
                "version": recovar.__version__,
                "sources": [fingerprint(path) for path in particles.sources],
                "stacks": [[str(path.resolve()) for path in particles.stacks]]
                + [[status.st_size, status.st_mtime_ns] for status in stacks],
                "images": [particles.stack_index, particles.slice_index],
            }
        )
    )


def _refuse_small_disk(
    output: Path, particles: Particles, wanted: Preprocessing, done: int
) -> None:
    each = wanted.box**2 * _PIXEL_BYTES[wanted.dtype]
    needed = (len(particles) - done) * each + len(particles) * _ROW_BYTES + HEADER_BYTES
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise InputError(
            f"{len(particles) - done:,} images need {needed / 1e9:.3g} GB, but {output.parent} has "
            f"{free / 1e9:.3g} GB left. Choose another disk, or --dtype float16."
        )


@dataclass(frozen=True)
class _Job:
    """Stacks to write."""

    particles: Particles
    wanted: Preprocessing
    files: _Files
    work: Unfinished
    threads: int | None

    def images(self, start: int) -> Iterator[np.ndarray]:
        """Make the images from one on, in pieces that no two stacks share."""
        threads = self.threads or _cores()
        for block in preprocess_images(self.particles, self.wanted, threads, start):
            rest = block
            while len(rest):
                room = self.files.per_stack - start % self.files.per_stack
                yield rest[:room]
                start += len(rest[:room])
                rest = rest[room:]


def _cores() -> int:
    with suppress(AttributeError):  # on systems that do not bind processes to cores
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_stacks(job: _Job, done: int, advance: Advance) -> None:
    """Write all stacks, the first `done` images of which are there."""
    images = job.images(done)
    count, size = len(job.particles), job.files.per_stack
    pixel_size = job.particles.pixel_size * job.wanted.scale
    dtype = getattr(np, job.wanted.dtype)
    for name, first in zip(job.files.stacks, range(0, count, size), strict=True):
        last = min(first + size, count)
        if last <= done:
            continue
        path = job.work.path / name
        with StackWriter(path, pixel_size, dtype, in_place=True) as writer:
            if done > first:
                writer.keep(done - first, job.wanted.box)
            position, noted = max(first, done), time.monotonic()
            while position < last:
                piece = next(images)
                writer.append(piece)
                position += len(piece)
                if time.monotonic() - noted >= _SECONDS_BETWEEN_NOTES:
                    writer.sync()
                    job.work.save(position)
                    noted = time.monotonic()
                advance(len(piece))
        job.work.save(last)


def _write_tables(
    config: DownsampleConfig,
    particles: Particles,
    wanted: Preprocessing,
    files: _Files,
    directory: Path,
) -> None:
    sizes = np.array([kind.pixel_size for kind in particles.kinds_in_files])
    kind = 0 if particles.kind is None else particles.kind
    images = RemadeImages(
        rows=particles.source_row,
        stacks=files.stacks,
        per_stack=files.per_stack,
        box=wanted.box,
        pixel_size=particles.pixel_size * wanted.scale,
        old_pixel_size=np.broadcast_to(sizes[kind], len(particles)),
        inverted=wanted.inverted,
    )
    if files.listing is not None:
        (directory / files.listing).write_text("".join(f"{name}\n" for name in files.stacks))
    if files.table is None:
        return
    path = directory / files.table
    if path.suffix == ".star":
        remake_star(path, config.particles, images, with_optics=config.relion31)
    else:
        remake_cs(path, config.particles, config.passthrough, images)


def _check_stacks(
    directory: Path, files: _Files, particles: Particles, wanted: Preprocessing
) -> None:
    """Read the headers back, and compare them with what was wanted."""
    count = 0
    for name in files.stacks:
        header = read_header(directory / name)
        count += header.sections_in_file
        if header.truncated or header.shape[1:] != (wanted.box, wanted.box):
            raise OSError(f"{header.path} did not reach the disk whole. Check the disk.")
    if count != len(particles):
        raise OSError(f"{directory} has {count} of {len(particles)} images. Check the disk.")


def _tell_where(config: DownsampleConfig, files: _Files) -> None:
    place = config.output.with_name
    stacks = f"{config.output.stem}.*.mrcs" if files.listing else files.stacks[0]
    logger.info("\n  %s: the images", place(stacks))
    if files.listing:
        logger.info("  %s: the list of stacks", place(files.listing))
    if files.table:
        logger.info("  %s: what the input says of them, with the new sizes", place(files.table))
    if config.crop is None:
        logger.info(
            "\nPoses and CTF parameters in pickles stay valid: their shifts are shares of the box."
        )

"""One particles file of any format to its table of images, and several of them to one table."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from recovar.core.ctf import Optics
from recovar.data import ImageTable, select_rows
from recovar.data.cryosparc import read_cs_table
from recovar.data.locate import StackLocator, locate_stacks
from recovar.data.mrc import MrcHeader, read_header
from recovar.data.star import read_star_table
from recovar.errors import InputError

logger = logging.getLogger(__name__)


def read_table(
    places: StackLocator, passthrough: Sequence[Path], pixel_size: float | None
) -> ImageTable:
    """Read the table of `places.source`; only lists of stacks look for image files here."""
    path = places.source
    if passthrough and path.suffix not in (".cs", ".csg"):
        raise InputError(f"Passthrough files go with a .cs file, not with {path}. Leave them out.")
    match path.suffix:
        case ".star":
            given = {} if pixel_size is None else {"rlnImagePixelSize": pixel_size}
            return read_star_table(path, given)
        case ".cs" | ".csg":
            return read_cs_table(path, passthrough, pixel_size)
        case ".mrc" | ".mrcs":
            return _stacks_table(path, [str(path)], [read_header(path)], pixel_size)
        case ".txt":
            names = _listed_stacks(path)
            headers = [read_header(found) for found in locate_stacks(names, places)]
            return _stacks_table(path, names, headers, pixel_size)
    raise InputError(
        f"Expected particles in a .star, .cs, .csg, .mrcs, .mrc or .txt file, got {path}. Convert "
        "it."
    )


def _listed_stacks(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"Expected a list of stacks at {path}, but there is no such file.")
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise InputError(f"{path}: expected one stack per line, found none. Add some.")
    return names


def _stacks_table(
    path: Path, names: Sequence[str], headers: Sequence[MrcHeader], pixel_size: float | None
) -> ImageTable:
    """List every image of stacks, one stack after the other."""
    counts = [header.sections_in_file for header in headers]
    stack_index = np.repeat(np.arange(len(names), dtype=np.int32), counts)
    slice_index = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
    for header in headers:
        if header.truncated:
            logger.warning(
                "%s holds %d of the %d images that its header promises; those are used.",
                header.path,
                header.sections_in_file,
                header.shape[0],
            )
    sizes = [pixel_size or header.voxel_size for header in headers]
    known = [size for size in sizes if size is not None]
    pairs = zip(stack_index.tolist(), slice_index.tolist(), strict=True)
    return ImageTable(
        source=path,
        stacks=tuple(names),
        stack_index=stack_index,
        slice_index=slice_index,
        identity=np.array([f"{place + 1:06d}@{names[stack]}" for stack, place in pairs], np.str_),
        box=np.repeat([header.shape[2] for header in headers], counts).astype(np.int64),
        pixel_size=np.repeat(known, counts) if len(known) == len(sizes) else None,
        no_poses="a stack holds images only",
        no_optics="a stack holds images only",
    )


def join_tables(tables: Sequence[ImageTable]) -> ImageTable:
    """Put tables one after the other; each keeps its own entries of `stacks`.

    What one of them lacks is missing from the whole. A box that is not stated becomes 0.

    Raises:
        InputError: If their images were corrected in different ways, or have different contrasts.
    """
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    _refuse_unequal(tables, "premultiplied", "images are multiplied by their transfer functions")
    _refuse_unequal(tables, "phase_flipped", "images are phase flipped")
    half = _joined([table.half for table in tables])
    if half is None and any(table.half is not None for table in tables):
        lacking = next(table.source for table in tables if table.half is None)
        logger.warning("%s has no half sets, so those of the other files are not used.", lacking)
    starts = np.cumsum([0, *(len(table.stacks) for table in tables)]).astype(np.int32)
    return replace(
        first,
        stacks=tuple(name for table in tables for name in table.stacks),
        stack_index=np.concatenate(
            [table.stack_index + start for table, start in zip(tables, starts, strict=False)]
        ),
        slice_index=np.concatenate([table.slice_index for table in tables]),
        identity=_identities(tables),
        box=_joined([_boxes(table) for table in tables]),
        pixel_size=_joined([table.pixel_size for table in tables]),
        rotations=_joined([table.rotations for table in tables]),
        shifts=_joined([table.shifts for table in tables]),
        optics=_joined_optics([table.optics for table in tables]),
        half=half,
        particle=_particles(tables),
        dose=_joined([table.dose for table in tables]),
        micrograph=_joined_numbers([table.micrograph for table in tables]),
        optics_group=_joined_numbers([table.optics_group for table in tables]),
        sign=_sign(tables),
        no_poses=_reason(tables, lambda table: table.no_poses),
        no_optics=_reason(tables, lambda table: table.no_optics),
    )


def _joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def _joined_optics(parts: Sequence[Optics | None]) -> Optics | None:
    known = [optics for optics in parts if optics is not None]
    if len(known) < len(parts):
        return None
    names = [field.name for field in fields(Optics)]
    columns = {name: [np.asarray(getattr(part, name)) for part in known] for name in names}
    return Optics(**{name: np.concatenate(each) for name, each in columns.items()})


def _boxes(table: ImageTable) -> Int64[np.ndarray, " images"]:
    return np.zeros(len(table), np.int64) if table.box is None else table.box


def _identities(tables: Sequence[ImageTable]) -> np.ndarray:
    kinds = {table.identity.dtype.kind for table in tables}
    texts = len(kinds) > 1
    return np.concatenate([t.identity.astype(np.str_) if texts else t.identity for t in tables])


def _particles(tables: Sequence[ImageTable]) -> Int64[np.ndarray, " images"] | None:
    """Number particles over all files where some have tilts; names mean nothing across files."""
    if all(table.particle is None for table in tables):
        return None
    return _joined_numbers(
        [np.arange(len(t)) if t.particle is None else t.particle for t in tables]
    )


def _joined_numbers(
    parts: Sequence[Int64[np.ndarray, "..."] | None],
) -> Int64[np.ndarray, " images"] | None:
    """Put numbers one after the other such that no two parts share one."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    starts = np.cumsum([0, *(int(part.max()) + 1 for part in known[:-1])])
    return np.concatenate([part + start for part, start in zip(known, starts, strict=True)])


def _sign(tables: Sequence[ImageTable]) -> int | None:
    stated = {table.sign for table in tables if table.sign is not None}
    if len(stated) > 1:
        names = [f"{table.source} ({table.sign:+d})" for table in tables if table.sign is not None]
        raise InputError(
            "Expected images of one contrast, found files that state several signs: "
            f"{', '.join(names)}. Analyse them apart, or invert the images of one."
        )
    return stated.pop() if all(table.sign is not None for table in tables) else None


def _reason(tables: Sequence[ImageTable], why: Callable[[ImageTable], str]) -> str:
    return "; ".join(f"{table.source}: {why(table)}" for table in tables if why(table))


def _refuse_unequal(tables: Sequence[ImageTable], name: str, what: str) -> None:
    values = [getattr(table, name) for table in tables]
    if any(values) and not all(values):
        true, false = tables[values.index(True)].source, tables[values.index(False)].source
        raise InputError(
            f"In {true} {what}, in {false} they are not. Analyse them apart, or extract the images "
            "of one again."
        )


def locate_images(
    table: ImageTable,
    rows: Int64[np.ndarray, " chosen"],
    stacks_in_files: Sequence[int],
    locators: Sequence[StackLocator],
) -> tuple[ImageTable, tuple[Path, ...]]:
    """Select rows, and find the stacks that they use; files may name one stack differently."""
    used = np.unique(table.stack_index[rows])
    ends = np.cumsum(stacks_in_files)
    paths: list[Path] = []
    for count, end, places in zip(stacks_in_files, ends, locators, strict=True):
        own = used[(used >= end - count) & (used < end)]
        paths += locate_stacks([table.stacks[stack] for stack in own], places)
    real = [path.resolve() for path in paths] if len(locators) > 1 else paths
    named: dict[Path, Path] = {}
    for file, path in zip(real, paths, strict=True):
        named.setdefault(file, path)
    number = {file: k for k, file in enumerate(named)}
    stacks = tuple(named.values())
    new = np.zeros(len(table.stacks), np.int32)
    new[used] = [number[file] for file in real]
    chosen = replace(select_rows(table, rows), stacks=tuple(str(path) for path in stacks))
    return replace(chosen, stack_index=new[chosen.stack_index]), stacks


def shown_particles(
    table: ImageTable, rows: Int64[np.ndarray, " images"]
) -> Int64[np.ndarray, " images"]:
    """Tell which particle each image shows; an image that is listed twice shows one."""
    if table.particle is not None:
        return table.particle
    places = table.stack_index * (table.slice_index.max() + 1) + table.slice_index
    distinct, first, which = np.unique(places, return_index=True, return_inverse=True)
    if len(distinct) == len(rows):
        return rows
    logger.info(
        "%d of %d rows show an image that another row shows as well, as after symmetry expansion; "
        "these stay in one half set.",
        len(rows) - len(distinct),
        len(rows),
    )
    return rows[first[which.reshape(-1)]]

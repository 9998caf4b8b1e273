"""Tables of particles in words: what was understood, what they lack, and what looks wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped

from recovar.data import ImageTable, select_rows
from recovar.data.cryosparc import read_cs, read_cs_table, read_joined_cs
from recovar.data.star import StarTable, read_star, read_star_table
from recovar.errors import InputError
from recovar.workflows.informing.columns import report_cs_columns, report_star_columns
from recovar.workflows.informing.config import InfoConfig
from recovar.workflows.informing.images import describe_sign, grey_doubts, grey_facts, seen_sign
from recovar.workflows.informing.report import (
    Fact,
    FileReport,
    count_of,
    limits,
    number_of,
    range_of,
    tally,
)
from recovar.workflows.informing.stacks import (
    Search,
    Seen,
    look_at_images,
    look_for_stacks,
    stack_fact,
)
from recovar.workflows.informing.values import (
    angle_doubts,
    half_doubts,
    optics_doubts,
    optics_facts,
    pose_doubts,
    pose_facts,
    repeated_doubts,
    row_doubt,
    shift_doubts,
    shift_facts,
)

_MOST_LISTED = 8
"""Optics groups, classes and the like that are listed one by one."""


@dataclass(frozen=True)
class _Extras:
    """What a table holds beside what the pipeline uses."""

    classes: Shaped[np.ndarray, " images"] | None = None
    """Numbered as in the file."""
    micrographs: int | None = None
    angles: tuple[Float[np.ndarray, " images"], Float[np.ndarray, " images"]] | None = None
    """First and last Euler angle as written."""


def report_star(path: Path, config: InfoConfig) -> FileReport:
    """Tell about a STAR file, of particles or not.

    Raises:
        InputError: If it is not STAR.
    """
    blocks = read_star(path)
    try:
        table = read_star_table(path)
    except InputError as refusal:
        return report_star_columns(path, blocks, str(refusal))
    return _report(table, _star_extras(blocks), "particles, STAR", config)


def report_cs(path: Path, config: InfoConfig) -> FileReport:
    """Tell about a cryoSPARC table, or about those of a results group.

    Raises:
        InputError: If it is not one.
    """
    alone = path.suffix != ".csg"
    rows = read_cs(path) if alone else np.zeros(0)
    try:
        table = read_cs_table(path, config.passthrough, images_named=False)
    except InputError as refusal:
        if alone:
            return report_cs_columns(path, rows, str(refusal))
        raise
    extras = _cs_extras(read_joined_cs(path, config.passthrough))
    kind = "particles, cryoSPARC" if alone else "results group of particles, cryoSPARC"
    return _report(table, extras, kind, config)


def _star_extras(blocks: Sequence[StarTable]) -> _Extras:
    table = max((block for block in blocks if "rlnImageName" in block), key=len)
    rot = _column(table, "rlnAngleRot", np.float64)
    psi = _column(table, "rlnAnglePsi", np.float64)
    micrographs = _column(table, "rlnMicrographName", np.str_)
    return _Extras(
        classes=_column(table, "rlnClassNumber", np.float64),
        micrographs=None if micrographs is None else len(np.unique(micrographs)),
        angles=None if rot is None or psi is None else (rot, psi),
    )


def _column(
    table: StarTable, label: str, kind: type[np.float64] | type[np.str_]
) -> np.ndarray | None:
    """Give a column that can be turned into such values."""
    if label not in table:
        return None
    try:
        return np.array(table.columns[label], dtype=kind)
    except ValueError:
        return None


def _cs_extras(tables: Sequence[np.ndarray]) -> _Extras:
    def get(name: str) -> np.ndarray | None:
        return next((rows[name] for rows in tables if name in (rows.dtype.names or ())), None)

    micrographs = get("location/micrograph_uid")
    classes = get("alignments3D/class")
    return _Extras(
        classes=get("alignments2D/class") if classes is None else classes,
        micrographs=None if micrographs is None else len(np.unique(micrographs)),
    )


def _report(
    table: ImageTable,
    extras: _Extras,
    kind: str,
    config: InfoConfig,
) -> FileReport:
    shown = _with_sound_rows(table)
    search = look_for_stacks(table, config)
    seen = look_at_images(table, search)
    facts = [
        Fact("images", f"{len(table):,}", len(table)),
        *_particle_facts(table),
        *(() if not table.stacks else (stack_fact(table, search),)),
        *_size_facts(table, seen),
        *_optics_groups(shown),
        *(() if shown.optics is None else optics_facts(shown.optics)),
        *(() if shown.rotations is None else pose_facts(shown.rotations)),
        *(() if shown.shifts is None else shift_facts(shown.shifts, shown.pixel_size)),
        *_group_facts(table, extras),
        *_state_facts(table),
        *grey_facts(seen.sample),
    ]
    return FileReport(
        table.source,
        kind,
        tuple(facts),
        tuple(_missing(table, search)),
        (
            *_doubts(table, extras),
            *seen.doubts,
            *_sign_doubts(table, seen),
            *grey_doubts(seen.sample),
        ),
    )


def _not_finite(table: ImageTable) -> dict[str, Bool[np.ndarray, " images"]]:
    """Tell which rows have values that are none, by what they are of."""
    optics = () if table.optics is None else vars(table.optics).values()
    values = {
        "a rotation": [] if table.rotations is None else [*table.rotations.reshape(-1, 9).T],
        "a shift": [] if table.shifts is None else [*table.shifts.T],
        "a CTF parameter": [np.asarray(each) for each in optics],
        "a pixel size": [] if table.pixel_size is None else [table.pixel_size],
    }
    found = {what: np.zeros(len(table), bool) for what in values}
    for what, columns in values.items():
        for column in columns:
            found[what] |= ~np.isfinite(column)
    if table.pixel_size is not None:
        found["a pixel size"] |= table.pixel_size <= 0
    return found


def _with_sound_rows(table: ImageTable) -> ImageTable:
    """Leave out rows with values that are none, and poses and optics if no row is left."""
    wrong = np.zeros(len(table), bool)
    for each in _not_finite(table).values():
        wrong |= each
    if wrong.all():
        return replace(table, rotations=None, shifts=None, optics=None)
    return select_rows(table, np.flatnonzero(~wrong)) if wrong.any() else table


def _particle_facts(table: ImageTable) -> Iterator[Fact]:
    """Tell of tilt series; otherwise each image is a particle."""
    if table.particle is None:
        return
    _, tilts = np.unique(table.particle, return_counts=True)
    text = f"{len(tilts):,}, each a tilt series of {range_of(tilts)} images"
    yield Fact("particles", text, {"count": len(tilts), "tilts": limits(tilts)})
    if table.dose is not None:
        yield Fact("dose", f"{range_of(table.dose, 'e/Å²')} before an image", limits(table.dose))


def _size_facts(table: ImageTable, seen: Seen) -> Iterator[Fact]:
    if table.box is not None:
        yield Fact("box", _listed(table.box, "pixels"), tally(table.box))
    elif seen.boxes:
        text = f"{', '.join(map(str, seen.boxes))} pixels, by the headers of stacks"
        yield Fact("box", text, list(seen.boxes))
    if table.pixel_size is not None:
        sizes = np.round(table.pixel_size, 5)
        yield Fact("pixel size", _listed(sizes, "Å"), tally(sizes))
    elif seen.pixel_size is not None:
        text = f"{number_of(seen.pixel_size)} Å, by the header of a stack"
        yield Fact("pixel size", text, seen.pixel_size)


def _listed(values: Shaped[np.ndarray, " images"], unit: str = "") -> str:
    """Write values with how often they occur, where there are several."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return f"{_plain(distinct[0])} {unit}".rstrip()
    if len(distinct) > _MOST_LISTED:
        return f"{range_of(distinct, unit)} ({len(distinct):,} values)"
    pairs = zip(distinct, counts, strict=True)
    return ", ".join(f"{_plain(value)} {unit}".rstrip() + f" ({n:,} images)" for value, n in pairs)


def _plain(value: np.generic) -> str:
    return number_of(value) if isinstance(value, np.number) else str(value)


def _optics_groups(table: ImageTable) -> Iterator[Fact]:
    """List combinations of what is the same for all images of a group."""
    if table.optics is None:
        return
    same = {
        "voltage_kV": np.asarray(table.optics.voltage, np.float64),
        "spherical_aberration_mm": np.asarray(table.optics.spherical_aberration, np.float64),
        "amplitude_contrast": np.asarray(table.optics.amplitude_contrast, np.float64),
        "pixel_size_angstrom": table.pixel_size,
        "box_pixels": table.box,
    }
    known = {name: np.round(values, 5) for name, values in same.items() if values is not None}
    group = np.zeros(len(table), np.int64)
    for values in known.values():
        if values.min() != values.max():  # sorting is slow, and one group is usual
            _, which = np.unique(values, return_inverse=True)
            _, group = np.unique(group * (which.max() + 1) + which, return_inverse=True)
    _, first, counts = np.unique(group, return_index=True, return_counts=True)
    listed = [
        {**{name: float(values[row]) for name, values in known.items()}, "images": int(count)}
        for row, count in zip(first[:_MOST_LISTED], counts, strict=False)
    ]
    lines = [_group_line(each) for each in listed]
    if len(first) > _MOST_LISTED:
        lines.append(f"… {len(first):,} in all")
    yield Fact("optics", "\n".join(lines), {"count": len(first), "groups": listed})


def _group_line(group: dict[str, float]) -> str:
    units = {
        "voltage_kV": "{} kV",
        "spherical_aberration_mm": "Cs {} mm",
        "amplitude_contrast": "amplitude contrast {}",
        "pixel_size_angstrom": "{} Å",
        "box_pixels": "box {}",
    }
    parts = [text.format(number_of(group[name])) for name, text in units.items() if name in group]
    return f"{', '.join(parts)}: {count_of(int(group['images']), 'image')}"


def _group_facts(table: ImageTable, extras: _Extras) -> Iterator[Fact]:
    if table.half is not None:
        sizes = [int((table.half == 0).sum()), int((table.half == 1).sum())]
        yield Fact("half-sets", f"{sizes[0]:,} and {sizes[1]:,} images", sizes)
    if extras.classes is not None:
        yield Fact("classes", _listed(extras.classes), tally(extras.classes))
    if extras.micrographs is not None:
        yield Fact("micrographs", f"{extras.micrographs:,}", extras.micrographs)


def _state_facts(table: ImageTable) -> Iterator[Fact]:
    text = "as recorded"
    if table.premultiplied:
        text = "multiplied by the transfer functions"
    elif table.phase_flipped:
        text = "phase flipped"
    value = {"premultiplied": table.premultiplied, "phase_flipped": table.phase_flipped}
    yield Fact("images are", text, value)
    if table.sign is not None:
        yield Fact("stated sign", f"particles are {describe_sign(table.sign)}", table.sign)


def _missing(table: ImageTable, search: Search) -> Iterator[str]:
    if not table.stacks:
        yield (
            "Names of image files: no field blob/path. The pipeline needs the table that has it, "
            "with --passthrough."
        )
    if search.missing:
        name = table.stacks[search.missing[0]]
        yield (
            f"Image file {name} and {len(search.missing) - 1:,} more: looked for {search.where}. "
            "Give their directory with --datadir."
            if len(search.missing) > 1
            else f"Image file {name}: looked for {search.where}. Give its directory with --datadir."
        )
    if table.rotations is None:
        yield f"Poses: {table.no_poses}. The pipeline needs them, here or with --poses."
    if table.optics is None:
        yield f"Transfer functions: {table.no_optics}. The pipeline needs them, here or with --ctf."
    if table.pixel_size is None:
        yield "Pixel size: nothing states it. The pipeline needs it, with --pixel-size."
    if table.box is None:
        yield "Box: the table does not state it; it is taken from the stacks."
    if table.half is None:
        yield "Half-sets: none are stated, so that they are drawn by chance, particle by particle."


def _doubts(table: ImageTable, extras: _Extras) -> Iterator[str]:
    for what, wrong in _not_finite(table).items():
        if wrong.any():
            yield row_doubt(f"has {what} that is NaN, infinite or not possible", wrong)
    if table.rotations is not None:
        yield from pose_doubts(table.rotations)
    if extras.angles is not None:
        yield from angle_doubts(*extras.angles)
    if table.optics is not None:
        yield from optics_doubts(table.optics)
    if table.half is not None:
        yield from half_doubts(table.half)
    if table.stacks:
        yield from repeated_doubts(table.stack_index, table.slice_index)
    yield from _size_doubts(table)


def _sign_doubts(table: ImageTable, seen: Seen) -> Iterator[str]:
    """Compare the stated sign with that of the images; multiplying by a CTF may change it."""
    sign = seen_sign(seen.sample)
    if table.sign is not None and sign is not None and sign != table.sign:
        yield (
            f"The table says that particles are {describe_sign(table.sign)}, but they look "
            f"{describe_sign(sign)}."
        )


def _size_doubts(table: ImageTable) -> Iterator[str]:
    if table.shifts is not None and table.pixel_size is not None and table.box is not None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            fractions = table.shifts / (table.pixel_size * table.box)[:, None]
        yield from shift_doubts(fractions)
    if table.pixel_size is not None and (table.pixel_size == 1).any():
        yield "The pixel size is exactly 1 Å, as programs write when it is unknown."
    if table.box is not None and (table.box % 2).any():
        yield "Boxes have an odd number of pixels; even ones are wanted."

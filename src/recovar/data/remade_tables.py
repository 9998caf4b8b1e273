"""Tables of STAR and CS files, told of images that were made anew from those they named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from recovar.data import written_whole
from recovar.data.cryosparc_tables import read_joined_cs
from recovar.data.star_blocks import StarColumn, StarTable, read_star, write_star

_IN_PIXELS = ("rlnOriginX", "rlnOriginY", "rlnOriginXPrior", "rlnOriginYPrior")
_OF_MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_ROUNDING = 1e-3
"""Pixel sizes that agree this far are one."""
_DETECTOR, _MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"


@dataclass(frozen=True, kw_only=True)
class RemadeImages:
    """Images that take the place of some of those that a table names."""

    rows: Int[np.ndarray, " images"]
    """Row of the table for every image, from 0."""
    stacks: Sequence[str]
    """Names of the files that hold them, one after the other."""
    per_stack: int
    """Images in each file but the last."""
    box: int
    """Pixels along a side."""
    pixel_size: float
    """Å."""
    old_pixel_size: Float[np.ndarray, " images"]
    """Å, of the images in whose place they are."""
    inverted: bool = False

    @property
    def stack_index(self) -> Int[np.ndarray, " images"]:
        """Which of the files an image is in."""
        return np.arange(len(self.rows)) // self.per_stack

    @property
    def slice_index(self) -> Int[np.ndarray, " images"]:
        """Its place in that file, from 0."""
        return np.arange(len(self.rows)) % self.per_stack

    def image_names(self) -> list[str]:
        """Give names as RELION has them."""
        pairs = zip(self.stack_index.tolist(), self.slice_index.tolist(), strict=True)
        return [f"{place + 1:06d}@{self.stacks[stack]}" for stack, place in pairs]


def remake_star(path: Path, source: Path, images: RemadeImages, *, with_optics: bool) -> None:
    """Write a STAR file anew for other images; values that they do not change stay as they are.

    Pixel sizes and image sizes become those of the images, shifts in pixels keep their meaning, and
    groups of optics that no image is in are left out.

    Args:
        path: File to write.
        source: File to read.
        images: What takes the place of its images.
        with_optics: Give a file of before RELION 3.1 a table of optics, as files since then have.
    """
    tables = list(read_star(source))
    named = [table for table in tables if "rlnImageName" in table]
    place = tables.index(next((t for t in named if t.name == "particles"), named[0]))
    particles = _select(tables[place], images.rows)
    particles["rlnImageName"] = images.image_names()
    for label in _IN_PIXELS:
        if label in particles:
            pixels = _numbers(particles[label]) * images.old_pixel_size / images.pixel_size
            particles[label] = _texts(pixels)
    found = next((i for i, table in enumerate(tables) if table.name == "optics"), None)
    known = [_resize(particles, images)]
    if found is not None:
        optics = _select(tables[found], _used_groups(tables[found], particles))
        known.append(_resize(optics, images))
        tables[found] = StarTable("optics", optics, tables[found].loop)
    if not any(known):
        particles["rlnImagePixelSize"] = _repeated(images.pixel_size, len(images.rows))
    tables[place] = StarTable(tables[place].name, particles)
    if found is None and with_optics:
        tables[place : place + 1] = _with_optics(particles, images)
    write_star(path, tables)


def _select(table: StarTable, rows: Int[np.ndarray, " chosen"]) -> dict[str, StarColumn]:
    chosen = rows.tolist()
    columns = {}
    for label, values in table.columns.items():
        columns[label] = [values[row] for row in chosen]
    return columns


def _numbers(column: StarColumn) -> Float[np.ndarray, " rows"]:
    return np.array(column, np.float64)


def _texts(values: Float[np.ndarray, " rows"]) -> list[str]:
    return [f"{value:.9g}" for value in values.tolist()]


def _repeated(value: float | int, count: int) -> list[str]:
    return [f"{value:.9g}"] * count


def _resize(columns: dict[str, StarColumn], images: RemadeImages) -> bool:
    """Set the sizes of images and pixels where a table has them; tell whether pixels have one."""
    for label, value in (("rlnImageSize", images.box), ("rlnImagePixelSize", images.pixel_size)):
        if label in columns:
            columns[label] = _repeated(value, len(columns[label]))
    legacy = _DETECTOR in columns and _MAGNIFICATION in columns
    if legacy:
        columns[_DETECTOR] = _texts(images.pixel_size * _numbers(columns[_MAGNIFICATION]) / 1e4)
    return legacy or "rlnImagePixelSize" in columns


def _used_groups(
    optics: StarTable, particles: Mapping[str, StarColumn]
) -> Int[np.ndarray, " used"]:
    if "rlnOpticsGroup" not in optics or "rlnOpticsGroup" not in particles:
        return np.arange(len(optics))
    groups = _numbers(particles["rlnOpticsGroup"])
    return np.flatnonzero(np.isin(_numbers(optics.columns["rlnOpticsGroup"]), groups))


def _with_optics(columns: dict[str, StarColumn], images: RemadeImages) -> list[StarTable]:
    """Move what belongs to a microscope into a table of its own, and turn shifts into Å."""
    for label in ("rlnImageSize", "rlnImagePixelSize", _DETECTOR, _MAGNIFICATION):
        columns.pop(label, None)
    for label in _IN_PIXELS:
        if label in columns:
            shifts = _numbers(columns.pop(label)) * images.pixel_size
            columns[_in_angstrom(label)] = _texts(shifts)
    shared = {label: columns.pop(label) for label in _OF_MICROSCOPE if label in columns}
    shared["rlnImagePixelSize"] = _repeated(images.pixel_size, len(images.rows))
    distinct = list(dict.fromkeys(zip(*shared.values(), strict=True)))
    number = {values: i for i, values in enumerate(distinct, 1)}
    columns["rlnOpticsGroup"] = [str(number[row]) for row in zip(*shared.values(), strict=True)]
    count = len(distinct)
    optics: dict[str, StarColumn] = {
        "rlnOpticsGroup": np.arange(1, count + 1),
        "rlnOpticsGroupName": [f"opticsGroup{i}" for i in range(1, count + 1)],
        **dict(zip(shared, map(list, zip(*distinct, strict=True)), strict=True)),
        "rlnImageSize": np.full(count, images.box),
        "rlnImageDimensionality": np.full(count, 2),
    }
    return [StarTable("optics", optics), StarTable("particles", columns)]


def _in_angstrom(label: str) -> str:
    """Name the column in Å that RELION has since 3.1 for one in pixels."""
    return label.replace("Prior", "PriorAngst") if "Prior" in label else label + "Angst"


def remake_cs(path: Path, source: Path, passthrough: Sequence[Path], images: RemadeImages) -> None:
    """Write a CS file anew for other images; fields that they do not change stay as they are.

    What passes through beside the file is in the new one too. Shifts are in pixels of an alignment,
    whose size is added where the file leaves it to that of the images, which changes. One that
    users give in place of what the file says corrects that of the alignment as well.

    Args:
        path: File to write.
        source: File to read.
        passthrough: Further tables of the same particles.
        images: What takes the place of its images.
    """
    columns: dict[str, Shaped[np.ndarray, " images ..."]] = {}
    for table in read_joined_cs(source, passthrough):
        chosen = table[images.rows]
        columns = columns | {n: chosen[n] for n in chosen.dtype.names or () if n not in columns}
    count = len(images.rows)
    correction = _correction(columns.get("blob/psize_A"), images.old_pixel_size)
    for name in [name for name in columns if name.startswith("alignments")]:
        if name.endswith("/shift"):
            size = name.removesuffix("shift") + "psize_A"
            known = columns.get(size)
            if known is None or not (known > 0).all():
                columns[size] = images.old_pixel_size.astype("<f4")
            elif (correction != 1).any():
                columns[size] = (known * correction).astype(known.dtype)
    names = np.array([name.encode() for name in images.stacks])
    columns["blob/path"] = names[images.stack_index]
    columns["blob/idx"] = images.slice_index.astype("<u4")
    columns["blob/shape"] = np.full((count, 2), images.box, "<u4")
    columns["blob/psize_A"] = np.full(count, images.pixel_size, "<f4")
    if images.inverted and "blob/sign" in columns:
        columns["blob/sign"] = -columns["blob/sign"]
    dtype = np.dtype([(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    rows = np.zeros(count, dtype)
    for name, column in columns.items():
        rows[name] = column
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array(file, rows, allow_pickle=False)


def _correction(
    stated: Shaped[np.ndarray, " images"] | None, true: Float[np.ndarray, " images"]
) -> Float[np.ndarray, " images"]:
    """Give what pixel sizes of alignments change by where users know those of images better."""
    if stated is None or not (stated > 0).all():
        return np.ones(len(true))
    return np.where(np.isclose(true, stated, rtol=_ROUNDING), 1, true / stated)

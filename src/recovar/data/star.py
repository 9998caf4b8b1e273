"""Particle tables of RELION 3.0 to 5, read and written."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from gemmi import cif
from jaxtyping import Float64, Int8, Int32, Int64, Shaped

from recovar.core.ctf import Optics
from recovar.core.poses import relion_euler_from_rotations, rotations_from_relion_euler
from recovar.data import ImageTable, damping, number_groups
from recovar.data.aberrations import Aberrations, largest_coefficient
from recovar.data.star_blocks import StarColumn, StarTable, read_star, write_star
from recovar.data.star_kinds import other_kind, refuse_subtomograms
from recovar.data.star_tilts import ANGLES, GROUPS, TiltColumns, find_particles
from recovar.errors import InputError

logger = logging.getLogger(__name__)

_MOST_DIGITS, _MOST_SLICES = 40, (1 << 31) - 1
"""MRC files count images with 32 bits."""
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


@dataclass(frozen=True)
class _Particles:
    """The particle table with its optics: one place to look a value up."""

    path: Path
    table: StarTable
    optics: StarTable | None
    optics_row: np.ndarray | None
    """Row of `optics` for each image."""
    given: Mapping[str, float]

    def __len__(self) -> int:
        return len(self.table)

    def numbers(self, label: str) -> Float64[np.ndarray, " images"] | None:
        """One value per image: as given, else from the optics, else from the particles."""
        if label in self.given:
            return np.full(len(self), float(self.given[label]))
        if self.optics is not None and label in self.optics:
            return _numbers(self.path, self.optics, label)[self.optics_row]
        return _numbers(self.path, self.table, label) if label in self.table else None

    def texts(self, label: str) -> StarColumn:
        """Texts of the optics, else of the particles; none where there is no such column."""
        tables = (self.table,) if self.optics is None else (self.optics, self.table)
        return next((table.columns[label] for table in tables if label in table), ())

    def groups(self, label: str) -> Int64[np.ndarray, " images"] | None:
        """Number images alike that have the same value of a column of the particles."""
        return number_groups(self.table.columns[label]) if label in self.table else None

    def flag(self, label: str) -> bool:
        """Tell whether a flag is set; it must be the same for all images."""
        values = self.numbers(label)
        if values is None or not values.any():
            return False
        if not values.all():
            raise InputError(
                f"{self.path}: _{label} is set for some images and not for others. Split the "
                "file in two."
            )
        return True


def _numbers(path: Path, table: StarTable, label: str) -> Float64[np.ndarray, " rows"]:
    values = table.columns[label]
    numbers = np.fromiter(map(cif.as_number, values), np.float64, len(values))
    if not np.isnan(numbers).any():  # what gemmi does not know may be a number to Python
        return numbers
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        for row, value in enumerate(values):
            try:
                float(value)
            except ValueError as error:
                raise InputError(
                    f"{path}, block data_{table.name}, row {row + 1}: expected a number for "
                    f"_{label}, found {value!r}. Correct the value."
                ) from error
        raise


@np.errstate(all="ignore")  # what is not finite is refused with its row, where it is used
def read_star_table(path: Path, given: Mapping[str, float] | None = None) -> ImageTable:
    """Read the particles of a single-particle STAR file of RELION 3.0 to 5.

    Values of the optics table take precedence over those of the particle table, and `given`
    over both.

    Args:
        path: The STAR file.
        given: Values by RELION's label, as in {"rlnAmplitudeContrast": 0.1}, for all images.

    Raises:
        InputError: If there is no particle table, or it is not of single particles, or
            contradicts itself.
    """
    particles = _find_particles(path, given or {})
    _refuse_volumes(particles)
    _warn_of_ignored(particles)
    identity = list(particles.table.columns["rlnImageName"])
    stacks, stack_index, slice_index = split_image_names(path, identity)
    pixel_size = _pixel_size(particles)
    rotations, no_rotations = _rotations(particles)
    shifts, no_shifts = _shifts(particles, pixel_size)
    tilts = _tilt_columns(particles)
    particle = find_particles(path, tilts)
    optics, no_optics = _optics(particles, None if particle is None else tilts.angle)
    premultiplied, phase_flipped = _corrections(particles)
    no_poses = no_rotations or no_shifts
    return ImageTable(
        source=path,
        stacks=stacks,
        stack_index=stack_index,
        slice_index=slice_index,
        identity=np.array(identity),
        box=_boxes(particles),
        pixel_size=pixel_size,
        rotations=None if no_poses else rotations,
        shifts=None if no_poses else shifts,
        optics=optics,
        half=_halves(particles),
        particle=particle,
        dose=None if particle is None else tilts.exposure,
        micrograph=particles.groups("rlnMicrographName"),
        optics_group=particles.groups("rlnOpticsGroup"),
        premultiplied=premultiplied,
        phase_flipped=phase_flipped,
        no_poses=no_poses,
        no_optics=no_optics,
    )


def _find_particles(path: Path, given: Mapping[str, float]) -> _Particles:
    tables = read_star(path)
    found = [table for table in tables if "rlnImageName" in table]
    if not found:
        raise other_kind(path, tables)
    refuse_subtomograms(path, tables)
    table = _only_particles(path, found)
    if not len(table):
        raise InputError(f"{path}: the table data_{table.name} has no particles. Select some.")
    groups = [t for t in tables if "rlnOpticsGroup" in t and "rlnImageName" not in t]
    optics = next((t for t in groups if t.name == "optics"), next(iter(groups), None))
    rows = None if optics is None else _optics_rows(path, table, optics)
    for label, value in given.items():
        logger.info("%s: _%s is taken as %g, as asked.", path, label, value)
    return _Particles(path, table, optics, rows, given)


def _only_particles(path: Path, found: Sequence[StarTable]) -> StarTable:
    named = [table for table in found if table.name == "particles"] or found
    if len(named) > 1:
        names = ", ".join(f"data_{table.name} of {len(table)} rows" for table in named)
        raise InputError(
            f"{path}: expected one table of particles, found {names}. Make a file of each; "
            "several files are read together."
        )
    return named[0]


def _optics_rows(path: Path, table: StarTable, optics: StarTable) -> np.ndarray:
    """Match optics groups by value; their order and numbers are free."""
    groups = _numbers(path, optics, "rlnOpticsGroup")
    if not len(groups):
        raise InputError(f"{path}: the table data_{optics.name} has no rows. Write it again.")
    if "rlnOpticsGroup" not in table:
        if len(groups) == 1:
            return np.zeros(len(table), dtype=np.int64)
        raise InputError(
            f"{path}: expected _rlnOpticsGroup in data_{table.name} because data_optics has "
            f"{len(groups)} groups, found no such column. Add it."
        )
    wanted = _numbers(path, table, "rlnOpticsGroup")
    order = np.argsort(groups)
    place = np.minimum(np.searchsorted(groups, wanted, sorter=order), len(groups) - 1)
    rows = order[place]
    wrong = np.flatnonzero(groups[rows] != wanted)
    if wrong.size:
        raise InputError(
            f"{path}, row {wrong[0] + 1}: optics group {wanted[wrong[0]]:g} is not among those "
            f"of data_optics ({', '.join(f'{group:g}' for group in groups)}). Add it there."
        )
    return rows


def _refuse_volumes(particles: _Particles) -> None:
    dimensions = particles.numbers("rlnImageDimensionality")
    if dimensions is not None and (dimensions != 2).any():
        raise InputError(
            f"{particles.path}: expected images, found _rlnImageDimensionality "
            f"{dimensions.max():g}: subtomograms are not read yet. Give images."
        )


def _warn_of_ignored(particles: _Particles) -> None:
    """Say which aberrations, that no open program applies either, are left out."""
    tilt = [particles.numbers(label) for label in ("rlnBeamTiltX", "rlnBeamTiltY")]
    matrix = [particles.numbers(f"rlnMagMat{place}") for place in ("00", "01", "10", "11")]
    tilts, entries = _stacked(tilt), _stacked(matrix)
    found = Aberrations(
        beam_tilt=tilts,
        magnification=None if entries is None else entries.reshape(-1, 2, 2),
        odd=largest_coefficient(particles.texts("rlnOddZernike")),
        even=largest_coefficient(particles.texts("rlnEvenZernike")),
    )
    constants = [particles.numbers(label) for label in ("rlnVoltage", "rlnSphericalAberration")]
    known = [float(each.max()) for each in constants if each is not None]
    said = found.describe(*known) if len(known) == len(constants) else found.describe()
    if said:
        logger.warning(
            "%s: aberrations that are not modelled are ignored: %s.",
            particles.path,
            "; ".join(said),
        )


def _stacked(columns: Sequence[np.ndarray | None]) -> Float64[np.ndarray, "images values"] | None:
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if len(known) == len(columns) else None


def split_image_names(
    path: Path, names: Sequence[str]
) -> tuple[tuple[str, ...], Int32[np.ndarray, " images"], Int64[np.ndarray, " images"]]:
    """Split `NNNNNN@path`, counted from 1, into distinct paths, their index and slices from 0.

    A name without @ is a file with one image.
    """
    stacks: dict[str, int] = {}
    stack_of: list[int] = []
    numbers: list[int] = []
    for row, name in enumerate(names):
        number, at, stack = name.partition("@")
        if not at:
            number, stack = "1", name
        counted = int(number) if number.isdecimal() and len(number) <= _MOST_DIGITS else 0
        if not (0 < counted <= _MOST_SLICES and stack):
            raise InputError(
                f"{path}, row {row + 1}: expected an image name such as 000001@stack.mrcs, "
                f"counted from 1, found {name!r}. Correct the name."
            )
        numbers.append(counted)
        stack_of.append(stacks.setdefault(stack, len(stacks)))
    return tuple(stacks), np.array(stack_of, np.int32), np.array(numbers, np.int64) - 1


def _pixel_size(particles: _Particles) -> Float64[np.ndarray, " images"] | None:
    pixel_size = particles.numbers("rlnImagePixelSize")
    if pixel_size is not None:
        return pixel_size
    detector = particles.numbers("rlnDetectorPixelSize")
    magnification = particles.numbers("rlnMagnification")
    if detector is None or magnification is None:
        return None
    return 1e4 * detector / magnification


def _boxes(particles: _Particles) -> Int64[np.ndarray, " images"] | None:
    box = particles.numbers("rlnImageSize")
    if box is None:
        return None
    wrong = np.flatnonzero(~((box >= 1) & (box < 1 << 31)))
    if wrong.size:
        raise InputError(
            f"{particles.path}, row {wrong[0] + 1}: expected _rlnImageSize in pixels, found "
            f"{box[wrong[0]]:g}. Correct the value."
        )
    return box.astype(np.int64)


def _rotations(particles: _Particles) -> tuple[np.ndarray | None, str]:
    angles = [particles.numbers(label) for label in _ANGLES]
    missing = [label for label, angle in zip(_ANGLES, angles, strict=True) if angle is None]
    if missing:
        return None, f"the column _{missing[0]} is missing"
    stacked = _stacked(angles)
    return None if stacked is None else rotations_from_relion_euler(np.deg2rad(stacked)), ""


def _shifts(particles: _Particles, pixel_size: np.ndarray | None) -> tuple[np.ndarray | None, str]:
    """Read shifts in Å, or in pixels as before RELION 3.1; refuse two that disagree."""
    angstrom = _pair(particles, "rlnOriginXAngst", "rlnOriginYAngst")
    pixels = _pair(particles, "rlnOriginX", "rlnOriginY")
    if pixels is None:
        return (np.zeros((len(particles), 2)) if angstrom is None else angstrom), ""
    if pixel_size is None:
        if angstrom is not None:
            return angstrom, ""
        return None, "_rlnOriginX is in pixels and the file states no pixel size"
    converted = pixels * pixel_size[:, None]
    if angstrom is None:
        return converted, ""
    wrong = np.flatnonzero(np.abs(converted - angstrom).max(axis=1) > 0.01 * pixel_size)
    if wrong.size:
        row = wrong[0]
        raise InputError(
            f"{particles.path}, row {row + 1}: _rlnOriginX/Y ({pixels[row, 0]:g}, "
            f"{pixels[row, 1]:g} pixels of {pixel_size[row]:g} Å) and _rlnOriginXAngst/YAngst "
            f"({angstrom[row, 0]:g}, {angstrom[row, 1]:g} Å) disagree. Remove the pair that is "
            "out of date."
        )
    return angstrom, ""


def _pair(particles: _Particles, x: str, y: str) -> Float64[np.ndarray, "images 2"] | None:
    along_x, along_y = particles.numbers(x), particles.numbers(y)
    if along_x is None and along_y is None:
        return None
    if along_x is None or along_y is None:
        missing = x if along_x is None else y
        raise InputError(f"{particles.path}: expected both _{x} and _{y}, _{missing} is missing.")
    return np.stack([along_x, along_y], axis=1)


def _corrections(particles: _Particles) -> tuple[bool, bool]:
    """Tell whether images were multiplied by their transfer function, or by its sign alone."""
    premultiplied = particles.flag("rlnCtfDataAreCtfPremultiplied")
    phase_flipped = particles.flag("rlnCtfDataArePhaseFlipped")
    if premultiplied and phase_flipped:
        raise InputError(
            f"{particles.path}: _rlnCtfDataAreCtfPremultiplied and _rlnCtfDataArePhaseFlipped are "
            "both set, but images are corrected once. Set the one that is not true to 0."
        )
    return premultiplied, phase_flipped


def _tilt_columns(particles: _Particles) -> TiltColumns:
    label = next((label for label in GROUPS if label in particles.table), None)
    angles = [particles.numbers(label) for label in ANGLES]
    angle = next((angle for angle in angles if angle is not None), None)
    return TiltColumns(
        label,
        () if label is None else particles.texts(label),
        exposure=particles.numbers("rlnMicrographPreExposure"),
        b_factor=particles.numbers("rlnCtfBfactor"),
        angle=None if angle is None else np.deg2rad(angle),
    )


def _optics(
    particles: _Particles, tilt: Float64[np.ndarray, " images"] | None
) -> tuple[Optics | None, str]:
    """Read the transfer functions; tilted specimens are thicker, so images of them are weaker."""
    labels = {
        "defocus_u": "rlnDefocusU",
        "defocus_v": "rlnDefocusV",
        "defocus_angle": "rlnDefocusAngle",
        "voltage": "rlnVoltage",
        "spherical_aberration": "rlnSphericalAberration",
        "amplitude_contrast": "rlnAmplitudeContrast",
    }
    found = {name: particles.numbers(label) for name, label in labels.items()}
    missing = ["_" + labels[name] for name, value in found.items() if value is None]
    if missing:
        return None, f"missing columns: {', '.join(missing)}"
    values = {name: value for name, value in found.items() if value is not None}
    for name, label, default in (
        ("phase_shift", "rlnPhaseShift", 0.0),
        ("b_factor", "rlnCtfBfactor", 0.0),
        ("scale", "rlnCtfScalefactor", 1.0 if tilt is None else np.cos(tilt)),
    ):
        given = particles.numbers(label)
        values[name] = np.full(len(particles), default) if given is None else given
    for name in ("defocus_angle", "phase_shift"):
        values[name] = np.deg2rad(values[name])
    values["b_factor"] = damping(values["b_factor"])
    return Optics(**{name: value.astype(np.float32) for name, value in values.items()}), ""


def _halves(particles: _Particles) -> Int8[np.ndarray, " images"] | None:
    if "rlnRandomSubset" not in particles.table:
        return None
    subset = _numbers(particles.path, particles.table, "rlnRandomSubset")
    if np.array_equal(np.unique(subset), [1, 2]):
        return (subset - 1).astype(np.int8)
    logger.info("%s: _rlnRandomSubset is not 1 and 2, so it is not used.", particles.path)
    return None


def write_particles(path: Path, table: ImageTable) -> None:
    """Write particles in the way of RELION 3.1, with an optics table.

    Images are named by `stacks` and `slice_index`, so paths should be as the reader shall see
    them: relative to the STAR file or to the project. B-factors that damp are positive, as in
    RELION; those of a tilt series are negative, as Warp and M write them. Its particles are told by
    _rlnGroupName, its tilts by _rlnMicrographName and by doses, _rlnMicrographPreExposure.
    """
    if table.box is None or table.pixel_size is None or table.optics is None:
        raise InputError(f"Cannot write {path}: box, pixel size and optics of images are wanted.")
    per_group = {
        "rlnVoltage": np.asarray(table.optics.voltage),
        "rlnSphericalAberration": np.asarray(table.optics.spherical_aberration),
        "rlnAmplitudeContrast": np.asarray(table.optics.amplitude_contrast),
        "rlnImagePixelSize": table.pixel_size,
        "rlnImageSize": table.box,
    }
    _, first, group = np.unique(
        np.stack(list(per_group.values()), axis=1), axis=0, return_index=True, return_inverse=True
    )
    count = len(first)
    optics = {
        "rlnOpticsGroup": np.arange(1, count + 1),
        "rlnOpticsGroupName": [f"opticsGroup{i}" for i in range(1, count + 1)],
        **{label: values[first] for label, values in per_group.items()},
        "rlnImageDimensionality": np.full(count, 2),
        "rlnCtfDataAreCtfPremultiplied": np.full(count, int(table.premultiplied)),
        **({"rlnCtfDataArePhaseFlipped": np.ones(count, int)} if table.phase_flipped else {}),
    }
    write_star(
        path,
        [
            StarTable("optics", optics),
            StarTable("particles", _particle_columns(table, group.reshape(-1) + 1)),
        ],
    )


def _particle_columns(
    table: ImageTable, group: Shaped[np.ndarray, " images"]
) -> dict[str, StarColumn]:
    columns: dict[str, StarColumn] = {"rlnImageName": _image_names(table), "rlnOpticsGroup": group}
    if table.rotations is not None:
        angles = np.rad2deg(relion_euler_from_rotations(table.rotations))
        columns.update(zip(_ANGLES, angles.T, strict=True))
    if table.shifts is not None:
        columns["rlnOriginXAngst"], columns["rlnOriginYAngst"] = table.shifts.T
    if table.optics is not None:
        columns |= _optics_columns(table.optics, tilts=table.particle is not None)
    if table.particle is not None:
        columns["rlnGroupName"] = _numbered("particle", table.particle)
    if table.dose is not None:
        _, tilt = np.unique(table.dose, return_inverse=True)
        columns["rlnMicrographName"] = _numbered("tilt", tilt.reshape(-1))
        columns["rlnMicrographPreExposure"] = table.dose
    if table.half is not None:
        columns["rlnRandomSubset"] = table.half.astype(np.int64) + 1
    return columns


def _optics_columns(optics: Optics, *, tilts: bool) -> dict[str, StarColumn]:
    """Write envelope and scale only where they do something."""
    columns: dict[str, StarColumn] = {
        "rlnDefocusU": np.asarray(optics.defocus_u),
        "rlnDefocusV": np.asarray(optics.defocus_v),
        "rlnDefocusAngle": np.rad2deg(np.asarray(optics.defocus_angle, np.float64)),
        "rlnPhaseShift": np.rad2deg(np.asarray(optics.phase_shift, np.float64)),
    }
    b_factor, scale = np.asarray(optics.b_factor), np.asarray(optics.scale)
    if b_factor.any():
        columns["rlnCtfBfactor"] = -b_factor if tilts else b_factor
    if (scale != 1).any():
        columns["rlnCtfScalefactor"] = scale
    return columns


class _Lazy(Sequence[str]):
    """Texts that are made when they are wanted: tables can have 10⁷ rows."""

    def __init__(self, count: int, make: Callable[[slice], list[str]]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, rows: int) -> str: ...
    @overload
    def __getitem__(self, rows: slice) -> list[str]: ...
    def __getitem__(self, rows: int | slice) -> str | list[str]:
        if isinstance(rows, slice):
            return self._make(rows)
        row = range(self._count)[rows]
        return self._make(slice(row, row + 1))[0]


def _image_names(table: ImageTable) -> _Lazy:
    def make(rows: slice) -> list[str]:
        pairs = zip(table.stack_index[rows].tolist(), table.slice_index[rows].tolist(), strict=True)
        return [f"{place + 1:06d}@{table.stacks[stack]}" for stack, place in pairs]

    return _Lazy(len(table), make)


def _numbered(what: str, numbers: Int64[np.ndarray, " images"]) -> _Lazy:
    """Make names that sort by their numbers."""
    digits = len(str(numbers.max()))
    return _Lazy(
        len(numbers),
        lambda rows: [f"{what}_{number:0{digits}d}" for number in numbers[rows].tolist()],
    )

"""Particle tables of cryoSPARC: `.cs` files and the passthrough files beside them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int8, UInt64
from scipy.spatial.transform import Rotation

from recovar.core.ctf import Optics
from recovar.core.poses import rotations_from_rotation_vectors
from recovar.data import ImageTable, damping, written_whole
from recovar.errors import InputError

logger = logging.getLogger(__name__)

_CTF_FIELDS = {
    "defocus_u": "ctf/df1_A",
    "defocus_v": "ctf/df2_A",
    "defocus_angle": "ctf/df_angle_rad",
    "voltage": "ctf/accel_kv",
    "spherical_aberration": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "phase_shift": "ctf/phase_shift_rad",
    "b_factor": "ctf/bfactor",
    "scale": "ctf/scale",
}
_CTF_DEFAULTS = {"phase_shift": 0.0, "b_factor": 0.0, "scale": 1.0}
_IGNORED = ("ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag", "ctf/shift_A")


def read_cs(path: Path) -> np.ndarray:
    """Read the rows of a `.cs` file as a structured array.

    Raises:
        InputError: If the file is missing or is not a plain NumPy table.
    """
    if not path.is_file():
        raise InputError(f"Expected a cryoSPARC table at {path}, but there is no such file.")
    try:
        with path.open("rb") as file:
            rows = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(
            f"{path} is not a .cs table that can be read: {error}. Export the particles from "
            "cryoSPARC again as an uncompressed .cs file."
        ) from error
    if rows.dtype.names is None or rows.ndim != 1:
        raise InputError(f"{path}: expected a table with named fields, found {rows.dtype}.")
    return rows


def _fields(rows: np.ndarray) -> tuple[str, ...]:
    return rows.dtype.names or ()


@dataclass(frozen=True)
class _Tables:
    """A table and what passes through beside it; the first that has a field wins."""

    path: Path
    main: np.ndarray
    passed: tuple[np.ndarray, ...] = ()
    """Rows in the order of `main`."""

    def __len__(self) -> int:
        return len(self.main)

    def get(self, field: str) -> np.ndarray | None:
        for table in (self.main, *self.passed):
            if field in _fields(table):
                return table[field]
        return None

    def names(self) -> list[str]:
        return [name for table in (self.main, *self.passed) for name in _fields(table)]


def _joined(main: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """Put the rows of `other` in the order of `main` by uid; None where it lacks some."""
    if not len(other):
        return None
    order = np.argsort(other["uid"], kind="stable")
    place = np.searchsorted(other["uid"], main["uid"], sorter=order)
    rows = order[np.minimum(place, len(other) - 1)]
    return other[rows] if np.array_equal(other["uid"][rows], main["uid"]) else None


def _tables(path: Path, passthrough: Sequence[Path]) -> _Tables:
    main = read_cs(path)
    if not len(main):
        raise InputError(f"{path} has no particles (zero rows). Give the table of a finished job.")
    passed = []
    for other_path in passthrough:
        other = read_cs(other_path)
        if "uid" not in _fields(main) or "uid" not in _fields(other):
            raise InputError(f"Expected the field uid in {path} and {other_path}, to join them.")
        joined = _joined(main, other)
        if joined is None:
            count = int((~np.isin(main["uid"], other["uid"])).sum())
            raise InputError(
                f"{other_path}: expected the uids of all {len(main)} particles of {path}, "
                f"{count} are missing. Give the passthrough file of the same job."
            )
        passed.append(joined)
    return _discovered(_Tables(path, main, tuple(passed)))


def _discovered(tables: _Tables) -> _Tables:
    """Use passthrough files beside a table that lacks poses, optics or images."""
    if "uid" not in _fields(tables.main):
        return tables
    for path in sorted(tables.path.parent.glob("*passthrough*particles*.cs")):
        complete = _alignment(tables) and tables.get("ctf/df1_A") is not None
        if (complete and tables.get("blob/path") is not None) or path == tables.path:
            continue
        other = read_cs(path)
        joined = _joined(tables.main, other) if "uid" in _fields(other) else None
        if joined is not None:
            logger.info("%s: fields that it lacks are taken from %s.", tables.path, path)
            tables = _Tables(tables.path, tables.main, (*tables.passed, joined))
    return tables


def read_joined_cs(path: Path, passthrough: Sequence[Path] = ()) -> tuple[np.ndarray, ...]:
    """Read a `.cs` file and what passes through beside it, every particle in the same row of all.

    Where several have a field, that of the first is right.
    """
    tables = _tables(path, passthrough)
    return (tables.main, *tables.passed)


def _alignment(tables: _Tables) -> str | None:
    """Name the group of fields that holds the poses."""
    if tables.get("alignments3D/pose") is not None:
        return "alignments3D"
    if tables.get("alignments3D_multi/pose") is not None:
        return "alignments3D_multi"
    classes = [
        n for n in tables.names() if n.startswith("alignments_class") and n.endswith("/pose")
    ]
    return "alignments_class" if classes else None


@dataclass(frozen=True)
class _Alignments:
    """Poses of every image in every class that cryoSPARC kept, and the chosen class."""

    tables: _Tables
    groups: tuple[str, ...]
    chosen: np.ndarray

    def get(self, field: str, tail: tuple[int, ...] = ()) -> np.ndarray | None:
        """Take a field of the chosen class; `tail` is its shape per image and class."""
        columns = [self.tables.get(f"{group}/{field}") for group in self.groups]
        columns = [column for column in columns if column is not None]
        if len(columns) != len(self.groups):
            return None
        if len(columns) > 1:
            stacked = np.stack(columns, axis=1)
        else:
            stacked = columns[0]
            if stacked.shape[1:] == tail:
                return stacked
            stacked = stacked.reshape(len(stacked), -1, *tail)
        return stacked[np.arange(len(stacked)), self.chosen]


def _alignments(tables: _Tables) -> _Alignments | None:
    """Choose the class with the largest posterior for each image."""
    kind = _alignment(tables)
    if kind is None:
        return None
    groups = (kind,)
    if kind == "alignments_class":
        names = {name.partition("/")[0] for name in tables.names() if name.startswith(kind)}
        groups = tuple(sorted(names, key=lambda name: int(name.rpartition("_")[2])))
    posteriors = [tables.get(f"{group}/class_posterior") for group in groups]
    chosen = np.zeros(len(tables), np.int64)
    known = [p.reshape(len(tables), -1) for p in posteriors if p is not None]
    if kind != "alignments3D":
        if len(known) != len(groups):
            raise InputError(
                f"{tables.path}: expected {kind}*/class_posterior, to choose the class of each "
                "particle, found none. Give the table of one class."
            )
        chosen = np.concatenate(known, axis=1).argmax(axis=1)
        logger.info("%s: poses are those of the most probable class (%s).", tables.path, kind)
    return _Alignments(tables, groups, chosen)


def read_cs_table(
    path: Path, passthrough: Sequence[Path] = (), pixel_size: float | None = None
) -> ImageTable:
    """Read the particles of a `.cs` file.

    Shifts are in pixels of the alignment: they become Å with `alignments3D/psize_A` where it is
    there, with the pixel size of the images otherwise.

    Args:
        path: The `.cs` file.
        passthrough: Files that hold further fields of the same particles, matched by uid.
        pixel_size: Å, in place of what the file says.

    Raises:
        InputError: If images are not named, or the tables do not belong together.
    """
    tables = _tables(path, passthrough)
    names = tables.get("blob/path")
    if names is None:
        raise InputError(
            f"{path}: expected the field blob/path, which names the image files, found none. Give "
            "the particles table, or the passthrough file that has it."
        )
    _warn_of_ignored(tables)
    stacks, stack_index = np.unique(names, return_inverse=True)
    slices = tables.get("blob/idx")
    uids = tables.get("uid")
    pixel_sizes = _pixel_sizes(tables, pixel_size)
    alignments = _alignments(tables)
    rotations, shifts, no_poses = _poses(alignments, pixel_sizes)
    optics, no_optics = _optics(tables)
    count = len(tables)
    return ImageTable(
        source=path,
        stacks=tuple(name.decode().removeprefix(">") for name in stacks.astype(bytes)),
        stack_index=stack_index.reshape(-1).astype(np.int32),
        slice_index=np.zeros(count, np.int64) if slices is None else slices.astype(np.int64),
        identity=np.arange(count, dtype=np.uint64) if uids is None else uids.astype(np.uint64),
        box=_boxes(tables),
        pixel_size=pixel_sizes,
        rotations=rotations,
        shifts=shifts,
        optics=optics,
        half=_halves(alignments),
        sign=_sign(tables),
        no_poses=no_poses,
        no_optics=no_optics,
    )


def _warn_of_ignored(tables: _Tables) -> None:
    present = [name for name in _IGNORED if np.any(tables.get(name))]
    if present:
        logger.warning(
            "%s: %s are ignored: beam tilt, higher aberrations and anisotropic magnification "
            "are not modelled.",
            tables.path,
            ", ".join(present),
        )


def _pixel_sizes(tables: _Tables, given: float | None) -> np.ndarray | None:
    if given is not None:
        return np.full(len(tables), float(given))
    values = tables.get("blob/psize_A")
    return None if values is None else values.astype(np.float64)


def _boxes(tables: _Tables) -> np.ndarray | None:
    shape = tables.get("blob/shape")
    if shape is None:
        return None
    wrong = np.flatnonzero(shape[:, 0] != shape[:, 1])
    if wrong.size:
        raise InputError(
            f"{tables.path}, row {wrong[0] + 1}: expected square images, found "
            f"{shape[wrong[0]].tolist()} pixels. Extract them again."
        )
    return shape[:, 0].astype(np.int64)


def _poses(
    alignments: _Alignments | None, pixel_size: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    if alignments is None:
        return None, None, "the field alignments3D/pose is missing"
    vectors = alignments.get("pose", (3,))
    pixels = alignments.get("shift", (2,))
    if vectors is None:
        return None, None, "the field alignments3D/pose is missing"
    rotations = rotations_from_rotation_vectors(vectors.astype(np.float64))
    if pixels is None:
        return rotations, np.zeros((len(rotations), 2)), ""
    scale = alignments.get("psize_A")
    if scale is None or not (scale > 0).all():
        scale = pixel_size
    if scale is None:
        return None, None, "alignments3D/shift is in pixels and the file states no pixel size"
    return rotations, pixels.astype(np.float64) * scale.astype(np.float64)[:, None], ""


def _optics(tables: _Tables) -> tuple[Optics | None, str]:
    values = {name: tables.get(field) for name, field in _CTF_FIELDS.items()}
    for name, default in _CTF_DEFAULTS.items():
        if values[name] is None:
            values[name] = np.full(len(tables), default)
    missing = [_CTF_FIELDS[name] for name, value in values.items() if value is None]
    if missing:
        return None, f"missing fields: {', '.join(missing)}"
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    arrays["b_factor"] = damping(arrays["b_factor"])
    return Optics(**{name: value.astype(np.float32) for name, value in arrays.items()}), ""


def _halves(alignments: _Alignments | None) -> Int8[np.ndarray, " images"] | None:
    split = None if alignments is None else alignments.get("split")
    if split is None or not np.array_equal(np.unique(split), [0, 1]):
        return None
    return split.astype(np.int8)


def _sign(tables: _Tables) -> int | None:
    signs = tables.get("blob/sign")
    if signs is None or not signs.any():
        return None
    found = np.unique(np.sign(signs))
    if len(found) > 1:
        raise InputError(
            f"{tables.path}: expected images of one contrast, found several values of blob/sign "
            f"({', '.join(f'{value:g}' for value in found)}). Split the file by it."
        )
    return int(found[0])


def write_cs(path: Path, table: ImageTable, uids: UInt64[np.ndarray, " images"]) -> None:
    """Write particles as cryoSPARC would, so that `read_cs_table` reads them back."""
    if table.box is None or table.pixel_size is None:
        raise InputError(f"Cannot write {path}: box and pixel size of the images are wanted.")
    names = np.array([stack.encode() for stack in table.stacks])[table.stack_index]
    columns: dict[str, np.ndarray] = {
        "uid": uids.astype("<u8"),
        "blob/path": names,
        "blob/idx": table.slice_index.astype("<u4"),
        "blob/shape": np.stack([table.box, table.box], axis=1).astype("<u4"),
        "blob/psize_A": table.pixel_size.astype("<f4"),
        "blob/sign": np.full(len(table), table.sign or 0, "<f4"),
    }
    if table.optics is not None:
        columns["ctf/type"] = np.full(len(table), b"imported")
        for name, field in _CTF_FIELDS.items():
            columns[field] = np.asarray(getattr(table.optics, name), "<f4")
    if table.rotations is not None and table.shifts is not None:
        half = np.zeros(len(table)) if table.half is None else table.half
        columns["alignments3D/split"] = half.astype("<u4")
        columns["alignments3D/shift"] = (table.shifts / table.pixel_size[:, None]).astype("<f4")
        turns = Rotation.from_matrix(table.rotations.swapaxes(1, 2))
        columns["alignments3D/pose"] = turns.as_rotvec().astype("<f4")
        columns["alignments3D/psize_A"] = table.pixel_size.astype("<f4")
    dtype = np.dtype([(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    rows = np.zeros(len(table), dtype)
    for name, column in columns.items():
        rows[name] = column
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)

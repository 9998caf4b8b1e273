"""Particle tables of cryoSPARC: `.cs` files and the passthrough files beside them."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int8, Int32, Int64, UInt64
from scipy.spatial.transform import Rotation

from recovar.core.ctf import Optics
from recovar.core.poses import rotations_from_rotation_vectors
from recovar.data import ImageTable, damping, number_groups, written_whole
from recovar.data.cryosparc_tables import (
    MULTI,
    Tables,
    fields_of,
    read_cs,
    read_csg,
    read_joined_cs,
    read_tables,
    uids_of,
)
from recovar.errors import InputError

__all__ = ["read_cs", "read_cs_table", "read_csg", "read_joined_cs", "write_cs"]

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


@dataclass(frozen=True)
class _Alignments:
    """Poses of every image in every class that cryoSPARC kept, and the chosen class."""

    tables: Tables
    groups: tuple[str, ...]
    chosen: Int64[np.ndarray, " images"]
    classes: int

    def get(self, field: str, tail: tuple[int, ...] = ()) -> Float64[np.ndarray, "..."] | None:
        """Take a field of the chosen class; `tail` is its shape per image and class."""
        if self.groups == (MULTI,):
            values = self._of_all_classes(f"{MULTI}/{field}", tail)
        else:
            columns = [self.tables.numbers(f"{group}/{field}", tail) for group in self.groups]
            known = [column for column in columns if column is not None]
            values = np.stack(known, axis=1) if len(known) == len(columns) else None
        return None if values is None else values[np.arange(len(values)), self.chosen]

    def _of_all_classes(self, name: str, tail: tuple[int, ...]) -> np.ndarray | None:
        """Take a field that has an axis of classes, or is the same for all of them."""
        values = self.tables.get(name)
        if values is None:
            return None
        shape = (len(values), self.classes, *tail)
        if values.shape[1:] != tail and values.size == math.prod(shape):
            return self.tables.as_numbers(name, values, values.shape[1:]).reshape(shape)
        shared = self.tables.as_numbers(name, values, tail)
        return np.broadcast_to(np.expand_dims(shared, 1), shape)


def _alignments(tables: Tables) -> _Alignments | None:
    """Choose the class with the largest posterior for each image."""
    groups = tables.pose_groups()
    if not groups:
        return None
    if groups == ("alignments3D",):
        return _Alignments(tables, groups, np.zeros(len(tables), np.int64), 1)
    kind = MULTI if groups == (MULTI,) else "alignments_class"
    columns = []
    for group in groups:
        values = tables.get(f"{group}/class_posterior")
        if values is None:
            raise InputError(
                f"{tables.path}: expected {kind}*/class_posterior, to choose the class of each "
                "particle, found none. Give the table of one class."
            )
        known = tables.as_numbers(f"{group}/class_posterior", values, values.shape[1:])
        columns.append(known.reshape(len(tables), -1))
    posteriors = np.concatenate(columns, axis=1)
    wrong = np.flatnonzero(~np.isfinite(posteriors).all(axis=1))
    if wrong.size or not posteriors.size:
        row = int(wrong[0]) if wrong.size else 0
        raise InputError(
            f"{tables.path}, row {row + 1}: expected finite posteriors of the classes, found "
            f"{posteriors[row].tolist()}. Give the table of one class."
        )
    logger.info("%s: poses are those of the most probable class (%s).", tables.path, kind)
    return _Alignments(tables, groups, posteriors.argmax(axis=1), posteriors.shape[1])


def read_cs_table(
    path: Path,
    passthrough: Sequence[Path] = (),
    pixel_size: float | None = None,
    *,
    images_named: bool = True,
) -> ImageTable:
    """Read the particles of a `.cs` file.

    Shifts are in pixels of the alignment: they become Å with `alignments3D/psize_A` where it is
    there, with the pixel size of the images otherwise.

    Args:
        path: The `.cs` file, or the `.csg` file of a results group.
        passthrough: Files that hold further fields of the same particles, matched by uid.
        pixel_size: Å, in place of what the file says; that of the alignment changes in proportion.
        images_named: Refuse a table that does not name the image files; without it such a table
            has no `stacks`.

    Raises:
        InputError: If images are not named, or the tables do not belong together.
    """
    tables = read_tables(path, passthrough)
    if images_named or tables.get("blob/path") is not None:
        stacks, stack_index = _stacks(tables)
    else:
        stacks, stack_index = (), np.zeros(len(tables), np.int32)
    _warn_of_ignored(tables)
    pixel_sizes = tables.numbers("blob/psize_A")
    scale = 1.0
    if pixel_size is not None:
        if pixel_sizes is not None and (pixel_sizes > 0).all():
            scale = pixel_size / pixel_sizes
        pixel_sizes = np.full(len(tables), float(pixel_size))
    alignments = _alignments(tables)
    rotations, shifts, no_poses = _poses(tables, alignments, pixel_sizes, scale)
    optics, no_optics = _optics(tables)
    slices = _whole(tables, "blob/idx")
    return ImageTable(
        source=path,
        stacks=stacks,
        stack_index=stack_index,
        slice_index=np.zeros(len(tables), np.int64) if slices is None else slices,
        identity=_identity(tables),
        box=_boxes(tables),
        pixel_size=pixel_sizes,
        rotations=rotations,
        shifts=shifts,
        optics=optics,
        half=_halves(alignments),
        micrograph=_groups(tables, "location/micrograph_uid", "location/micrograph_path"),
        optics_group=_groups(tables, "ctf/exp_group_id", "mscope_params/exp_group_id"),
        sign=_sign(tables),
        no_poses=no_poses,
        no_optics=no_optics,
    )


def _stacks(tables: Tables) -> tuple[tuple[str, ...], Int32[np.ndarray, " images"]]:
    """Name the distinct image files, and say which of them each image lies in."""
    names = tables.get("blob/path")
    if names is None:
        raise InputError(
            f"{tables.path}: expected the field blob/path, which names the image files, found "
            "none. Give the particles table, or the passthrough file that has it."
        )
    if names.dtype.kind not in "SU" or names.ndim != 1:
        tables.refuse("blob/path", "one name for each image")
    distinct, stack_index = np.unique(names, return_inverse=True)
    texts = [
        name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
        for name in distinct.tolist()
    ]
    stacks = tuple(text.removeprefix(">") for text in texts)
    if "" in stacks:
        row = int(np.argmax(stack_index == stacks.index(""))) + 1
        raise InputError(
            f"{tables.path}, row {row}: expected the name of an image file in blob/path, found "
            "none. Export the particles from cryoSPARC again."
        )
    return stacks, stack_index.reshape(-1).astype(np.int32)


def _whole(tables: Tables, field: str, tail: tuple[int, ...] = ()) -> np.ndarray | None:
    """Take a field of numbers from 0 that count something."""
    values = tables.get(field)
    if values is None:
        return None
    if values.dtype.kind not in "iu" or values.shape[1:] != tail:
        tables.refuse(field, "whole numbers")
    counts = values.astype(np.int64)
    wrong = np.flatnonzero((counts < 0).reshape(len(counts), -1).any(axis=1))
    if wrong.size:
        raise InputError(
            f"{tables.path}, row {wrong[0] + 1}: expected whole numbers from 0 in {field}, found "
            f"{values[wrong[0]].tolist()}. Export the particles from cryoSPARC again."
        )
    return counts


def _groups(tables: Tables, *fields: str) -> Int64[np.ndarray, " images"] | None:
    """Number images alike that have the same value of the first of these fields that is there."""
    known = (values for field in fields if (values := tables.get(field)) is not None)
    values = next(known, None)
    return None if values is None or values.ndim != 1 else number_groups(values)


def _identity(tables: Tables) -> UInt64[np.ndarray, " images"]:
    """Take the uids, or number the rows where there are none."""
    if tables.get("uid") is None:
        logger.warning(
            "%s has no field uid: its images are told apart by the numbers of their rows.",
            tables.path,
        )
        return np.arange(len(tables), dtype=np.uint64)
    uids = uids_of(tables.path, tables.main)
    distinct, counts = np.unique(uids, return_counts=True)
    if len(distinct) < len(uids):
        logger.warning(
            "%s: %d of its rows repeat the uid of another, as %d, so that selections of them are "
            "ambiguous. Remove duplicate particles in cryoSPARC.",
            tables.path,
            len(uids) - len(distinct),
            distinct[counts.argmax()],
        )
    return uids


def _warn_of_ignored(tables: Tables) -> None:
    """Name the aberrations that are not zero, with their largest value as it stands there."""
    sizes = {}
    for field in _IGNORED:
        values = tables.get(field)
        if values is not None and values.dtype.kind in "biuf" and values.any():
            sizes[field] = np.abs(values).max()
    if sizes:
        logger.warning(
            "%s: %s are ignored: beam tilt, higher aberrations and anisotropic magnification "
            "are not modelled.",
            tables.path,
            ", ".join(f"{field} (up to {size:.3g})" for field, size in sizes.items()),
        )


def _boxes(tables: Tables) -> Int64[np.ndarray, " images"] | None:
    shape = _whole(tables, "blob/shape", (2,))
    if shape is None:
        return None
    wrong = np.flatnonzero(shape[:, 0] != shape[:, 1])
    if wrong.size:
        raise InputError(
            f"{tables.path}, row {wrong[0] + 1}: expected square images, found "
            f"{shape[wrong[0]].tolist()} pixels. Extract them again."
        )
    return shape[:, 0]


def _poses(
    tables: Tables,
    alignments: _Alignments | None,
    pixel_size: Float64[np.ndarray, " images"] | None,
    correction: Float64[np.ndarray, " images"] | float,
) -> tuple[np.ndarray | None, np.ndarray | None, str]:
    """Read rotations and shifts; `correction` is by what the stated pixel sizes are multiplied."""
    if alignments is None:
        classes = any(name.startswith("alignments2D/") for name in fields_of(tables.main))
        found = "; alignments2D has poses of 2-D classes only" if classes else ""
        return None, None, f"the field alignments3D/pose is missing{found}"
    vectors = alignments.get("pose", (3,))
    pixels = alignments.get("shift", (2,))
    if vectors is None:
        return None, None, "the field alignments3D/pose is missing"
    with np.errstate(over="ignore", invalid="ignore"):
        rotations = rotations_from_rotation_vectors(vectors)
    if pixels is None:
        return rotations, np.zeros((len(rotations), 2)), ""
    scale = alignments.get("psize_A")
    if scale is not None and not (scale > 0).all():
        logger.warning(
            "%s: the pixel size of the alignment is not above 0 for all images; that of the "
            "images is used for their shifts.",
            tables.path,
        )
        scale = None
    scale = pixel_size if scale is None else scale * correction
    if scale is None:
        return None, None, "alignments3D/shift is in pixels and the file states no pixel size"
    with np.errstate(over="ignore", invalid="ignore"):
        return rotations, pixels * scale[:, None], ""


def _optics(tables: Tables) -> tuple[Optics | None, str]:
    values = {name: tables.numbers(field) for name, field in _CTF_FIELDS.items()}
    for name, default in _CTF_DEFAULTS.items():
        if values[name] is None:
            values[name] = np.full(len(tables), default)
    missing = [_CTF_FIELDS[name] for name, value in values.items() if value is None]
    if missing:
        return None, f"missing fields: {', '.join(missing)}"
    known = {name: value for name, value in values.items() if value is not None}
    known["b_factor"] = damping(known["b_factor"])
    with np.errstate(over="ignore", invalid="ignore"):
        return Optics(**{name: value.astype(np.float32) for name, value in known.items()}), ""


def _halves(alignments: _Alignments | None) -> Int8[np.ndarray, " images"] | None:
    split = None if alignments is None else alignments.get("split")
    if split is None or not np.array_equal(np.unique(split), [0, 1]):
        return None
    return split.astype(np.int8)


def _sign(tables: Tables) -> int | None:
    signs = tables.numbers("blob/sign")
    if signs is None or not signs.any():
        return None
    found = np.unique(np.sign(signs))
    if len(found) > 1 or not np.isfinite(found).all():
        raise InputError(
            f"{tables.path}: expected images of one contrast, found several values of blob/sign "
            f"({', '.join(f'{value:g}' for value in found[:5])}). Split the file by it."
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

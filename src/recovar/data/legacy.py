"""Arrays in pickles of other programs, read without executing anything, and their npz twins."""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from recovar.core.ctf import Optics
from recovar.data import opened, written_whole
from recovar.data.numpy_files import read_npy, read_npz
from recovar.data.plain_pickles import UNREADABLE, load_plain
from recovar.errors import InputError

logger = logging.getLogger(__name__)


def read_pickle(path: Path) -> object:
    """Read arrays, numbers, texts, lists, tuples and dictionaries from a pickle.

    Raises:
        InputError: If the file is missing or broken, or holds anything else, which is named.
    """
    with opened(path, "a pickle") as file:
        try:
            return load_plain(file, path)
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(
                f"{path} is not a pickle of numpy arrays that can be read: "
                f"{str(error) or 'it ends too early'}. Write it again, as .pkl or .npz."
            ) from error


def write_pickle(path: Path, content: object) -> None:
    """Write plain arrays, numbers, lists and tuples as a pickle, whole or not at all."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def read_content(path: Path) -> object:
    """Read a pickle, or the arrays of .npy and .npz files, whatever they are of.

    Raises:
        InputError: If the file is missing or broken, or holds what is not plain data.
    """
    if path.suffix == ".npz":
        return read_npz(path)
    return read_npy(path, "an array") if path.suffix == ".npy" else read_pickle(path)


def _numeric(path: Path, value: object, what: str) -> np.ndarray:
    """Make an array of numbers or say that it is not one."""
    try:
        array = np.asarray(value)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected {what}, found a ragged list.") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected {what}, found values of type {array.dtype}.")
    return array


def _floats(path: Path, value: object, what: str) -> Float64[np.ndarray, "..."]:
    with np.errstate(invalid="ignore"):  # what is not finite is refused with its row
        return _numeric(path, value, what).astype(np.float64)


@dataclass(frozen=True)
class FractionalPoses:
    """Poses as pickles hold them."""

    rotations: Float64[np.ndarray, "images 3 3"]
    shift_fractions: Float64[np.ndarray, "images 2"]
    """Shifts as fractions of the box."""


def read_poses_pickle(path: Path, images: int | None = None) -> FractionalPoses:
    """Read rotations and shifts: a pickle of (rot, trans) or rot, or an npz with these names.

    Args:
        path: A .pkl or .npz file.
        images: How many images there are, where known.

    Raises:
        InputError: If the shapes are not (images, 3, 3) and (images, 2), or a shift exceeds 1,
            as in old files, whose shifts are in pixels.
    """
    content = read_content(path)
    if isinstance(content, Mapping):
        if "rot" not in content:
            names = ", ".join(map(str, content)) or "none"
            raise InputError(f"{path}: expected the arrays rot and trans, found {names}.")
        content = (content["rot"], content["trans"]) if "trans" in content else content["rot"]
    if not isinstance(content, tuple | list) or len(content) != 2 or np.ndim(content[0]) != 3:
        content = (content, None)
    rotations = _floats(path, content[0], "rotations")
    images = len(np.atleast_1d(rotations)) if images is None else images
    still = np.zeros((images, 2))
    shifts = still if content[1] is None else _floats(path, content[1], "shifts")
    for what, array, wanted in (
        ("rotations", rotations, (images, 3, 3)),
        ("shifts", shifts, (images, 2)),
    ):
        if array.shape != wanted:
            raise InputError(
                f"{path}: expected {what} of shape {wanted} for {images} images, found "
                f"{array.shape}. Give the poses of these images, in the same order."
            )
        wrong = np.flatnonzero(~np.isfinite(array).reshape(images, -1).all(axis=1))
        if wrong.size:
            raise InputError(
                f"{path}, row {wrong[0] + 1}: expected finite {what}, found "
                f"{array[wrong[0]].tolist()}. Correct or leave out this image."
            )
    if (np.abs(shifts) > 1).any():
        raise InputError(
            f"{path}: expected shifts as fractions of the box, at most 1, found "
            f"{np.abs(shifts).max():g}: they are in the pixel unit of old files. Divide them by "
            "the box size."
        )
    return FractionalPoses(rotations, shifts)


def write_poses_pickle(
    path: Path,
    rotations: Float[np.ndarray, "images 3 3"],
    shift_fractions: Float[np.ndarray, "images 2"],
) -> None:
    """Write (rot, trans), shifts as fractions of the box."""
    write_pickle(path, (np.asarray(rotations, np.float64), np.asarray(shift_fractions, np.float64)))


def read_ctf_pickle(path: Path, images: int | None = None) -> Float64[np.ndarray, "images 9"]:
    """Read [box, Å/pixel, defocus U, V (Å), angle (°), kV, Cs (mm), contrast, phase (°)] rows.

    The pixel size belongs to the box of the same row. An npz holds them as `ctf`.

    Args:
        path: A .pkl, .npy or .npz file.
        images: How many images there are, where known.

    Raises:
        InputError: If the shape is not (images, 9) or a value is not finite.
    """
    content = read_content(path)
    if isinstance(content, Mapping):
        if "ctf" not in content:
            names = ", ".join(map(str, content)) or "none"
            raise InputError(f"{path}: expected the array ctf, found {names}.")
        content = content["ctf"]
    rows = _floats(path, content, "CTF parameters")
    images = len(np.atleast_1d(rows)) if images is None else images
    if rows.shape != (images, 9):
        raise InputError(
            f"{path}: expected CTF parameters of shape {(images, 9)} for {images} images, found "
            f"{rows.shape}. Give those of these images, in the same order."
        )
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1) | (rows[:, :2] <= 0).any(axis=1))
    if wrong.size:
        raise InputError(
            f"{path}, row {wrong[0] + 1}: expected finite CTF parameters with a box and a pixel "
            f"size above 0, found {rows[wrong[0]].tolist()}. Correct or leave out this image."
        )
    return rows


def optics_from_ctf_rows(rows: Float64[np.ndarray, "images 9"]) -> Optics:
    """Take the transfer function out of rows as `read_ctf_pickle` reads them."""
    values = rows[:, 2:].astype(np.float64)
    values[:, [2, 6]] = np.deg2rad(values[:, [2, 6]])
    with np.errstate(over="ignore"):  # what is too large for float32 is refused with its row
        u, v, angle, voltage, aberration, contrast, phase = values.astype(np.float32).T
    return Optics(
        defocus_u=u,
        defocus_v=v,
        defocus_angle=angle,
        voltage=voltage,
        spherical_aberration=aberration,
        amplitude_contrast=contrast,
        phase_shift=phase,
        b_factor=np.zeros_like(u),
        scale=np.ones_like(u),
    )


def ctf_rows(
    optics: Optics,
    box: int | Int[np.ndarray, " images"],
    pixel_size: float | Float[np.ndarray, " images"],
) -> Float64[np.ndarray, "images 9"]:
    """Make rows as `read_ctf_pickle` reads them."""
    columns = [
        np.full(len(optics), box),
        np.full(len(optics), pixel_size),
        optics.defocus_u,
        optics.defocus_v,
        np.rad2deg(np.asarray(optics.defocus_angle)),
        optics.voltage,
        optics.spherical_aberration,
        optics.amplitude_contrast,
        np.rad2deg(np.asarray(optics.phase_shift)),
    ]
    return np.stack([np.asarray(c, np.float64) for c in columns], axis=1)


def write_ctf_pickle(path: Path, optics: Optics, box: int, pixel_size: float) -> None:
    """Write rows as `read_ctf_pickle` reads them."""
    write_pickle(path, ctf_rows(optics, box, pixel_size))


def read_indices(path: Path, images: int | None = None) -> Int64[np.ndarray, " chosen"]:
    """Read indices from 0, or a mask with one entry per image, from .pkl, .npy or .txt.

    Args:
        path: The file.
        images: How many images there are, where known: then a mask must be as long, and
            indices must lie below.

    Raises:
        InputError: If they are not whole numbers, are repeated, or are out of range.
    """
    if path.suffix == ".txt":
        content = _read_text(path)
    else:
        content = read_content(path)
        if isinstance(content, Mapping) and len(content) == 1:
            content = next(iter(content.values()))
    return checked_indices(_numeric(path, content, "indices"), images, str(path))


def _read_text(path: Path) -> list[float]:
    with opened(path, "indices") as file:
        words = file.read().split()
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(
            f"{path}: expected indices separated by spaces or lines: {error}."
        ) from error


def checked_indices(
    indices: np.ndarray, images: int | None, where: str
) -> Int64[np.ndarray, " chosen"]:
    """Turn a mask or whole numbers into distinct indices within range, in the order given."""
    if indices.ndim != 1:
        raise InputError(f"{where}: expected a list of indices, found shape {indices.shape}.")
    if indices.dtype == bool:
        if images is not None and len(indices) != images:
            raise InputError(
                f"{where}: expected a mask of {images} entries, one per image, found "
                f"{len(indices)}."
            )
        return np.flatnonzero(indices).astype(np.int64)
    with np.errstate(invalid="ignore"):
        whole = indices.astype(np.int64)
    if (whole != indices).any():
        raise InputError(
            f"{where}: expected whole numbers, found {indices[whole != indices][0]:g}."
        )
    if len(np.unique(whole)) != len(whole):
        values, counts = np.unique(whole, return_counts=True)
        raise InputError(
            f"{where}: expected each image once, found {values[counts > 1][0]} more than once. "
            "Remove the repetition."
        )
    if whole.size and (whole.min() < 0 or (images is not None and whole.max() >= images)):
        wrong = whole[(whole < 0) | (whole >= (np.inf if images is None else images))][0]
        last = "" if images is None else f" to {images - 1}"
        raise InputError(
            f"{where}: expected indices from 0{last}, found {wrong}. Indices count the images of "
            "the input file from 0."
        )
    return whole


def read_halfsets(
    path: Path, images: int | None = None
) -> tuple[Int64[np.ndarray, " first"], Int64[np.ndarray, " second"]]:
    """Read two lists of image indices that have nothing in common.

    Raises:
        InputError: If there are not two, one is empty, or they overlap.
    """
    content = read_content(path)
    if isinstance(content, Mapping):
        content = list(content.values())
    if not isinstance(content, list | tuple | np.ndarray) or len(content) != 2:
        raise InputError(f"{path}: expected two lists of indices, one per half set.")
    first, second = (
        checked_indices(_numeric(path, half, "indices"), images, f"{path}, half {i}")
        for i, half in enumerate(content, 1)
    )
    if not first.size or not second.size:
        raise InputError(f"{path}: expected two half sets with images, found an empty one.")
    shared = np.intersect1d(first, second)
    if shared.size:
        raise InputError(f"{path}: image {shared[0]} is in both half sets. Put it in one.")
    return first, second


def write_indices(path: Path, indices: Int[np.ndarray, " chosen"]) -> None:
    """Write indices as a pickle of one array."""
    write_pickle(path, np.asarray(indices, np.int64))

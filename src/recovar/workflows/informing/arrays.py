"""Pickles and arrays in words: poses, CTF parameters, indices, and whatever else they hold."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from recovar.data.legacy import optics_from_ctf_rows, read_content, read_indices
from recovar.workflows.informing.report import (
    Fact,
    FileReport,
    count_of,
    limits,
    range_of,
    tally,
)
from recovar.workflows.informing.values import (
    optics_doubts,
    optics_facts,
    pose_doubts,
    pose_facts,
    shift_doubts,
)


def report_arrays(path: Path) -> FileReport:
    """Tell about a .pkl, .npz or .npy file.

    Raises:
        InputError: If it cannot be read, or holds anything but plain data.
    """
    content = read_content(path)
    parts = list(_parts(content))
    kinds = ", ".join(dict.fromkeys(part.kind for part in parts))
    return FileReport(
        path,
        f"{kinds or 'nothing'}, {path.suffix.removeprefix('.')}",
        tuple({fact.name: fact for part in parts for fact in part.facts}.values()),
        doubts=tuple(doubt for part in parts for doubt in part.doubts),
        missing=tuple(lack for part in parts for lack in part.missing),
    )


def report_index_text(path: Path) -> FileReport:
    """Tell about a text file of indices.

    Raises:
        InputError: If it holds anything else.
    """
    part = _indices(read_indices(path))
    return FileReport(path, f"{part.kind}, txt", part.facts)


def _parts(content: object) -> Iterator[FileReport]:
    """Recognize what content is by its shapes."""
    if isinstance(content, Mapping):
        if "rot" in content:
            yield _poses(content["rot"], content.get("trans"))
        if "ctf" in content:
            yield _any("ctf", content["ctf"])
        rest = [name for name in content if name not in ("rot", "trans", "ctf")]
        for name in rest:
            yield _other(str(name), content[name])
    elif isinstance(content, tuple | list) and len(content) == 2 and np.ndim(content[0]) == 3:
        yield _poses(content[0], content[1])
    elif isinstance(content, tuple | list) and _are_lists(content):
        yield _half_sets(content)
    else:
        yield _any("array", content)


def _are_lists(content: Sequence[object]) -> bool:
    return len(content) == 2 and all(isinstance(each, np.ndarray | list) for each in content)


def _any(name: str, content: object) -> FileReport:
    try:
        array = np.asarray(content)
    except ValueError:
        return _other(name, content)
    numeric = array.dtype.kind in "biuf" and array.size > 0
    if numeric and array.ndim == 3 and array.shape[1:] == (3, 3):
        return _poses(array, None)
    if numeric and array.ndim == 2 and array.shape[1] == 9:
        return _ctf(array.astype(np.float64))
    if numeric and array.ndim == 1 and array.dtype.kind in "biu":
        return _indices(array)
    return _other(name, content)


def _part(
    kind: str,
    facts: Sequence[Fact],
    doubts: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> FileReport:
    return FileReport(Path(), kind, tuple(facts), tuple(missing), tuple(doubts))


def _poses(rotations: object, shifts: object) -> FileReport:
    turns = np.asarray(rotations, np.float64)
    facts = [Fact("images", f"{len(turns):,}", len(turns))]
    doubts, missing = [], []
    if turns.shape[1:] != (3, 3):
        doubts.append(f"Rotations have the shape {turns.shape}; (images, 3, 3) is wanted.")
    elif not np.isfinite(turns).all():
        doubts.append("Rotations have values that are NaN or infinite.")
    else:
        doubts += pose_doubts(turns)
        facts += [] if any("not a rotation" in doubt for doubt in doubts) else pose_facts(turns)
    if shifts is None:
        missing.append("Shifts: they are taken as 0.")
    else:
        fractions = np.asarray(shifts, np.float64)
        facts.append(
            Fact("shifts", f"{range_of(fractions)} boxes, along x and y", limits(fractions))
        )
        doubts += _fraction_doubts(fractions, len(turns))
    return _part("poses", facts, doubts, missing)


def _fraction_doubts(fractions: Float[np.ndarray, "..."], images: int) -> Iterator[str]:
    if fractions.shape != (images, 2):
        yield f"Shifts have the shape {fractions.shape}; {(images, 2)} is wanted."
    elif (np.abs(fractions) > 1).any():
        yield "Shifts exceed 1: they are in pixels, as in old files, where fractions are wanted."
    else:
        yield from shift_doubts(fractions)


def _ctf(rows: Float[np.ndarray, "images 9"]) -> FileReport:
    optics = optics_from_ctf_rows(rows)
    same = {
        "box": (rows[:, 0], "pixels"),
        "pixel size": (rows[:, 1], "Å"),
        "voltage": (rows[:, 5], "kV"),
        "Cs": (rows[:, 6], "mm"),
        "amplitude contrast": (rows[:, 7], ""),
    }
    facts = [Fact("images", f"{len(rows):,}", len(rows))]
    facts += [
        Fact(name, range_of(values, unit), limits(values)) for name, (values, unit) in same.items()
    ]
    facts += optics_facts(optics)
    return _part("CTF parameters", facts, list(optics_doubts(optics)))


def _indices(values: Shaped[np.ndarray, " n"]) -> FileReport:
    if values.dtype == bool:
        text = f"a mask of {len(values):,} images, {int(values.sum()):,} chosen"
        return _part("indices", [Fact("images", text, tally(values))])
    repeated = len(values) - len(np.unique(values))
    doubts = [f"{count_of(repeated, 'index')} occur more than once."] if repeated else []
    if (values < 0).any():
        doubts.append("Some are below 0: indices count images from 0.")
    text = f"{len(values):,}, from {values.min():,} to {values.max():,}" if len(values) else "none"
    value = {"count": len(values), "range": limits(values) if len(values) else None}
    return _part("indices", [Fact("indices", text, value)], doubts)


def _half_sets(halves: Sequence[object]) -> FileReport:
    sizes = [len(np.atleast_1d(np.asarray(half))) for half in halves]
    text = f"{sizes[0]:,} and {sizes[1]:,} images"
    return _part("two lists of indices", [Fact("half-sets", text, sizes)])


def _other(name: str, content: object) -> FileReport:
    """Give shape, type and range of what is not recognized."""
    try:
        array = np.asarray(content)
    except ValueError:
        text = f"{type(content).__name__} of {len(content)}" if isinstance(content, list) else "?"
        return _part("arrays", [Fact(name, text, text)])
    shape = " × ".join(map(str, array.shape)) or "one value"
    text = f"{shape}, {array.dtype}"
    value: dict[str, object] = {"shape": list(array.shape), "type": str(array.dtype)}
    if array.dtype.kind in "iuf" and array.size:
        finite = array[np.isfinite(array)]
        broken = array.size - finite.size
        if finite.size:
            text += f", {range_of(finite)}"
            value["range"] = limits(finite)
        text += f"; {broken:,} not finite" if broken else ""
    return _part("arrays", [Fact(name, text, value)])

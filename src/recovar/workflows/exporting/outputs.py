"""What `recovar export` writes: every file is read back and compared before it gets its name."""

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from recovar.data.cryosparc_tables import read_cs, read_csg
from recovar.data.export import describe_group, find_passthrough, select_uids, write_rows
from recovar.data.legacy import read_indices, write_indices
from recovar.data.locate import StackLocator, locate_stacks
from recovar.data.star import split_image_names
from recovar.data.star_text import Edits, StarText, read_star_text
from recovar.errors import InputError
from recovar.records import load_arrays, save_arrays, write_whole
from recovar.workflows.exporting.config import ExportConfig
from recovar.workflows.exporting.images import RunImages
from recovar.workflows.exporting.latent_star import latent_columns, without_latent_columns
from recovar.workflows.exporting.selection import Labels
from recovar.workflows.outputs import refuse_overwriting


@dataclass(frozen=True)
class OutputFile:
    """A file to be written."""

    path: Path
    write: Callable[[Path], None]
    """Writes it to the path that is given, which is a temporary one."""
    is_right: Callable[[Path], bool]
    """Reads it and tells whether it holds what it should."""


def write_files(
    files: Sequence[OutputFile],
    write: Callable[[Path], AbstractContextManager[Path]] = write_whole,
) -> None:
    """Write files, all of them or none, once each is read back as it should be.

    Args:
        files: The files.
        write: Gives a temporary path for what becomes the file at a path when whole.

    Raises:
        InputError: If one is not read back as it was written.
    """
    with ExitStack() as stack:
        partials = [stack.enter_context(write(file.path)) for file in files]
        for file, partial in zip(files, partials, strict=True):
            file.write(partial)
            if not file.is_right(partial):
                raise InputError(
                    f"{file.path} was not read back as it was written, so it was not kept. Check "
                    "the disk and its free space."
                )


def refuse_to_overwrite(
    files: Sequence[OutputFile], images: RunImages, config: ExportConfig
) -> None:
    """Refuse files that are there, and inputs in any case."""
    original = images.original
    inputs = [*images.inputs, *images.outputs, config.labels, config.ind, config.polygon]
    if original is not None:
        inputs += [original.path, *original.passthrough]
    for file in files:
        given = [path for path in inputs if path is not None]
        refuse_overwriting(file.path, given, overwrite=config.overwrite)


def plan_files(
    config: ExportConfig, images: RunImages, labels: Labels | None, chosen: Int64[np.ndarray, " n"]
) -> list[OutputFile]:
    """Prepare the files that the ending of `-o` asks for.

    Args:
        config: The options.
        images: Of the run.
        labels: Their clusters, if known.
        chosen: Which of the images to write.

    Raises:
        InputError: If the run does not allow such a file.
    """
    match config.output.suffix:
        case ".star":
            return [_plan_star(config, images, labels, chosen)]
        case ".cs":
            return _plan_tables(config.output, images, chosen)
        case ".csv" | ".npz":
            return [_plan_arrays(config.output, images, labels, chosen)]
    return _plan_indices(config.output, np.sort(images.rows[chosen]))


def _plan_star(
    config: ExportConfig, images: RunImages, labels: Labels | None, chosen: Int64[np.ndarray, " n"]
) -> OutputFile:
    text, rows = _source_of_star(images, chosen)
    edits: dict[str, list[str] | None] = {}
    if config.latent or images.original is None or images.original.text is None:
        edits |= without_latent_columns(text.particles.columns)
    if config.class_number:
        if labels is None:
            raise InputError(
                "--class-number needs clusters: name a file of them with --labels, or tell how "
                "many to make with --n-clusters."
            )
        edits["rlnClassNumber"] = (labels.values[chosen] + 1).astype(str).tolist()
    if config.latent:
        embedding = images.embedding
        edits |= latent_columns(embedding.coordinates[chosen], embedding.contrast[chosen])
    if config.absolute_paths:
        edits["rlnImageName"] = _absolute_names(text, rows, images)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(text.select(rows, edits))

    return OutputFile(config.output, write, lambda path: _same_star(path, text, rows, edits))


def _source_of_star(
    images: RunImages, chosen: Int64[np.ndarray, " n"]
) -> tuple[StarText, Int64[np.ndarray, " n"]]:
    """Give the STAR file to take rows of: the original, or what the run made of other formats."""
    original = images.original
    if original is not None and original.text is not None:
        return original.text, images.rows[chosen]
    if images.is_lost and images.embedding.identity.dtype.kind == "U":
        raise InputError(
            f"{images.why_not}. Give its place with --original, or take the rows of "
            f"{images.run / 'output' / 'particles.star'}, which have more columns."
        )
    text = read_star_text(images.run / "output" / "particles.star")
    if len(text.particles) != len(images):
        raise InputError(
            f"{text.path} has {len(text.particles)} images, and the embedding {len(images)}. Start "
            "the command of the run again."
        )
    return text, chosen


def _absolute_names(text: StarText, rows: Int64[np.ndarray, " n"], images: RunImages) -> list[str]:
    names = _kept(text, "rlnImageName", rows)
    stacks, index, _ = split_image_names(text.path, names)
    locator = StackLocator(text.path, images.datadir, images.strip_prefix)
    places = [str(path.resolve()) for path in locate_stacks(stacks, locator)]
    spaced = [place for place in places if len(place.split()) > 1]
    if spaced:
        raise InputError(
            f"--absolute-paths: {spaced[0]} has a space in it, which RELION cannot read. Leave the "
            "option out."
        )
    pairs = zip(names, index.tolist(), strict=True)
    return ["".join((*name.rpartition("@")[:-1], places[stack])) for name, stack in pairs]


def _kept(text: StarText, label: str, rows: Int64[np.ndarray, " n"]) -> list[str]:
    values = text.particles.columns[label]
    return [str(values[row]) for row in rows.tolist()]


def _same_star(path: Path, text: StarText, rows: Int64[np.ndarray, " n"], edits: Edits) -> bool:
    """Compare a file that was written with what was meant: all values, and lines if not edited."""
    found = read_star_text(path)
    wanted = {label: edits.get(label, ...) for label in (*text.particles.columns, *edits)}
    wanted = {label: values for label, values in wanted.items() if values is not None}
    if set(found.particles.columns) != set(wanted) or len(found.particles) != len(rows):
        return False
    for label, values in wanted.items():
        meant = _kept(text, label, rows) if values is ... else list(values)
        if list(found.particles.columns[label]) != meant:
            return False
    return bool(edits) or all(
        found.row(k).rstrip(b"\r\n") == text.row(row).rstrip(b"\r\n")
        for k, row in enumerate(rows.tolist())
    )


def _plan_tables(
    output: Path, images: RunImages, chosen: Int64[np.ndarray, " n"]
) -> list[OutputFile]:
    """Prepare a `.cs` file, what passes through beside it, and the group of both."""
    original = images.original
    if original is None or original.text is not None:
        reason = "the run was made from a STAR file" if original else images.why_not
        instead = "Tell its place with --original" if images.is_lost else "Write another format"
        raise InputError(
            f"Cannot write {output}: rows of a .cs file are wanted, and {reason}. {instead}; .csv "
            "needs no such file."
        )
    uids = images.embedding.identity[chosen]
    tables = {output.name: select_uids(original.path, uids)}
    for number, other in enumerate(find_passthrough(original.path, original.passthrough), 1):
        name = f"{output.stem}_passthrough_particles{'' if number == 1 else f'_{number}'}.cs"
        tables[name] = select_uids(other, uids)
    created = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}"
    group = describe_group(output.stem, tables, created)
    return [
        _text_file(output.with_suffix(".csg"), group, lambda path: _named(path) <= set(tables)),
        *(_plan_rows(output.with_name(name), rows) for name, rows in tables.items()),
    ]


def _plan_rows(path: Path, rows: np.ndarray) -> OutputFile:
    def is_right(path: Path) -> bool:
        found = read_cs(path)
        return found.dtype == rows.dtype and found.tobytes() == rows.tobytes()

    return OutputFile(path, lambda path: write_rows(path, rows), is_right)


def _named(path: Path) -> set[str]:
    return {place.name for place in read_csg(path).values()}


def _text_file(path: Path, text: str, is_right: Callable[[Path], bool]) -> OutputFile:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8", newline="")

    return OutputFile(path, write, is_right)


def _plan_indices(output: Path, rows: Int64[np.ndarray, " n"]) -> list[OutputFile]:
    """Prepare indices, in a text in any case."""

    def is_right(path: Path) -> bool:
        return np.array_equal(read_indices(path), rows)

    text = "".join(f"{row}\n" for row in rows)
    files = [_text_file(output.with_suffix(".txt"), text, is_right)]
    if output.suffix == ".npy":
        files.append(OutputFile(output, lambda path: np.save(path, rows), is_right))
    elif output.suffix == ".pkl":
        files.append(OutputFile(output, lambda path: write_indices(path, rows), is_right))
    return files


def _plan_arrays(
    output: Path, images: RunImages, labels: Labels | None, chosen: Int64[np.ndarray, " n"]
) -> OutputFile:
    """Prepare a table of what is known of every image."""
    embedding = images.embedding
    arrays = {
        "identity": embedding.identity,
        "row": images.rows,
        "half": images.half + 1,
        "z": embedding.coordinates,
        "sd": images.spreads,
        "contrast": embedding.contrast,
    }
    if labels is not None:
        arrays["label"] = labels.values
    arrays = {name: array[chosen] for name, array in arrays.items()}
    if output.suffix == ".npz":

        def is_same(path: Path) -> bool:
            found = load_arrays(path)
            same = [found[name].tobytes() == array.tobytes() for name, array in arrays.items()]
            return len(found) == len(arrays) and all(same)

        return OutputFile(output, lambda path: save_arrays(path, **arrays), is_same)
    columns = _columns(arrays)

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    def is_right(path: Path) -> bool:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        return header == list(columns) and rows == [
            list(r) for r in zip(*columns.values(), strict=True)
        ]

    return OutputFile(output, write, is_right)


def _columns(arrays: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Make texts of arrays, one column for every coordinate."""
    columns: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if array.ndim == 2:
            prefix = "latent" if name == "z" else name
            parts = {f"{prefix}{k}": part for k, part in enumerate(array.T, 1)}
        else:
            parts = {name: array}
        for label, part in parts.items():
            texts = (
                [f"{v:.9g}" for v in part] if part.dtype.kind == "f" else part.astype(str).tolist()
            )
            columns[label] = texts
    return columns

"""The images of a run, and where they are in the particles file that they came from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int8, Int64, Shaped

from recovar.data.cryosparc_tables import fields_of, read_cs, read_csg, read_joined_cs, uids_of
from recovar.data.export import match_identities, number_names
from recovar.data.legacy import read_halfsets
from recovar.data.star_text import StarText, read_star_text
from recovar.errors import InputError
from recovar.manifest import Manifest, fingerprint, read_manifest
from recovar.workflows.run_embedding import RunEmbedding, read_run_embedding

_FILES = ("poses", "ctf", "ind", "halfsets", "mask", "focus_mask")
"""Options of a run that name files."""
_TABLES = (".cs", ".csg")
_READ = (".star", *_TABLES)


@dataclass(frozen=True)
class Original:
    """The particles file of a run as it now is."""

    path: Path
    """A STAR file or a `.cs` file."""
    rows: Int64[np.ndarray, " images"]
    """Row of every image of the run, from 0, and −1 where it is not there any more."""
    text: StarText | None = None
    """Content of a STAR file."""
    fields: tuple[np.ndarray, ...] = ()
    """Rows of a `.cs` file and of what passes through beside it; the first with a field wins."""
    passthrough: tuple[Path, ...] = ()
    """Further tables of cryoSPARC that belong to it."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.fields[0] if self.text is None else self.text.particles)

    def numbers(self, name: str) -> Float64[np.ndarray, " images"]:
        """Give a column for the images of the run, and NaN for those that are not there."""
        if self.text is not None:
            known = tuple(self.text.particles.columns)
            values = self.text.numbers(name) if name in known else None
        else:
            known = tuple(field for table in self.fields for field in fields_of(table))
            values = next((table[name] for table in self.fields if name in fields_of(table)), None)
        if values is None:
            raise InputError(
                f"{self.path} has nothing that is called {name}. Known are latent1 …, sd1 …, "
                f"contrast, half, label, junk, and of this file: {', '.join(known)}."
            )
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise InputError(f"{self.path}: expected one number per image in {name}.")
        return np.where(self.rows < 0, np.nan, values[self.rows].astype(np.float64))


@dataclass(frozen=True)
class RunImages:
    """Everything that is known of the images of a run."""

    run: Path
    embedding: RunEmbedding
    half: Int8[np.ndarray, " images"]
    """Half set, 0 or 1."""
    original: Original | None
    why_not: str
    """Why there is no original."""
    inputs: tuple[Path, ...]
    """Files that the run was made from, as far as they are where they were."""
    outputs: tuple[Path, ...]
    """Files that the run is made of."""
    is_lost: bool
    """Whether there was a table of images that is not there any more."""
    datadir: Path | None
    """Directory that the names of image files are relative to."""
    strip_prefix: str | None
    """Leading part to take off these names."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.embedding)

    @property
    def rows(self) -> Int64[np.ndarray, " images"]:
        """Row of every image in the particles file; −1 where it is not there any more."""
        return self.embedding.row if self.original is None else self.original.rows

    @property
    def spreads(self) -> Float64[np.ndarray, "images zdim"]:
        """Standard deviations of the errors of coordinates."""
        return np.sqrt(np.einsum("nkk->nk", self.embedding.covariance))


def read_run_images(run: Path, zdim: int | None, original: Path | None) -> RunImages:
    """Read what a run knows of its images, and find them in the particles file.

    Args:
        run: The run.
        zdim: Embedding to take; the largest one if None.
        original: Where the particles file is, if not where it was.

    Raises:
        InputError: If the run is not there or not far enough, or a file contradicts it.
    """
    manifest = read_manifest(run)
    embedding = read_run_embedding(run, zdim)
    if embedding is None:
        raise InputError(
            f"The run in {run} has no embedding yet. Start its command again (it stands in "
            f"{run / 'command.txt'}), without --only-mean."
        )
    first, second = read_halfsets(run / "model" / "halfsets.pkl")
    if not np.isin(embedding.row, np.concatenate([first, second])).all():
        raise InputError(
            f"{run}: the half sets and the embedding are not of the same images. Start the "
            "command of the run again."
        )
    places = _Places(run, manifest)
    written = places.option("particles")
    found, why = None, f"the run was made from {len(written)} files"
    if original is not None and len(written) > 1:
        raise InputError(f"--original names one file, and {why}. Leave it out.")
    if len(written) == 1:
        found, why = places.original(original)
    passthrough = places.existing(*places.option("passthrough"))
    others = places.existing(*written, *(n for o in _FILES for n in places.option(o)))
    return RunImages(
        run=run,
        embedding=embedding,
        half=np.isin(embedding.row, second).astype(np.int8),
        original=None if found is None else _read_original(found, passthrough, run, embedding),
        why_not=why,
        inputs=(*others, *passthrough, *(() if found is None else (found,))),
        is_lost=found is None and [Path(name).suffix in _READ for name in written] == [True],
        datadir=next(iter(places.existing(*places.option("datadir"))), None),
        strip_prefix=next(iter(places.option("strip_prefix")), None),
        outputs=tuple(run / o.path for stage in manifest.stages.values() for o in stage.outputs),
    )


@dataclass(frozen=True)
class _Places:
    """Files as the run names them, relative to where its command was given."""

    run: Path
    manifest: Manifest

    def option(self, name: str) -> tuple[str, ...]:
        value = self.manifest.config.get(name)
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else tuple(value)

    def original(self, given: Path | None) -> tuple[Path | None, str]:
        """Find the table that the images are from, or say why there is none."""
        (written,) = self.option("particles")
        path = given or next(iter(self.existing(written)), None)
        suffix = Path(written).suffix if path is None else path.suffix
        if suffix not in _READ:
            if given is not None:
                raise InputError(f"Expected a .star, .cs or .csg file for --original, got {given}.")
            return None, f"the run was made from {written}, which has no table of images"
        if path is None:
            return None, f"{written}, which the run was made from, is not there any more"
        return path, ""

    def existing(self, *names: str) -> tuple[Path, ...]:
        """Give the files that are there, seen from here or from where the command was given."""
        roots = [Path()]
        output = Path(*self.option("output"))
        place = self.run.resolve()
        if not output.is_absolute() and place.parts[-len(output.parts) :] == output.parts:
            roots.append(Path(*place.parts[: -len(output.parts)]))
        roots.append(Path(self.manifest.directory))
        found = []
        for name in names:
            paths = [root / Path(name).expanduser() for root in roots]
            found += [path for path in paths if path.exists()][:1]
        return tuple(found)


def _read_original(
    path: Path, passthrough: tuple[Path, ...], run: Path, embedding: RunEmbedding
) -> Original:
    """Find the images in a file by their identities."""
    named_by_uid = embedding.identity.dtype.kind in "iu"
    if named_by_uid != (path.suffix in _TABLES):
        kind = "a .cs file" if named_by_uid else "a STAR file"
        raise InputError(f"The run in {run} was made from {kind}, so it was not made from {path}.")
    text, fields, main = None, (), path
    if named_by_uid:
        fields = read_joined_cs(path, passthrough)
        if path.suffix == ".csg":
            tables = tuple(dict.fromkeys(read_csg(path).values()))
            main = min(tables, key=lambda table: len(read_cs(table)))
            passthrough = (*(table for table in tables if table != main), *passthrough)
        wanted, present = embedding.identity.astype(np.uint64), uids_of(main, fields[0])
    else:
        text = read_star_text(path)
        names = text.particles.columns["rlnImageName"]
        wanted, present = number_names(path, embedding.identity.tolist(), list(names))
    stage = read_manifest(run).stages.get("inputs")
    files = {} if stage is None else stage.options.get("files", {})
    unchanged = fingerprint(path) in files.values()
    rows = _rows(path, wanted, present, embedding.row if unchanged else None)
    if (rows < 0).all():
        raise InputError(
            f"{path} has none of the {len(embedding)} images of the run, such as "
            f"{embedding.identity[0]}. Give the file that the run was made from."
        )
    return Original(main, rows, text, fields, passthrough)


def _rows(
    path: Path,
    wanted: Shaped[np.ndarray, " images"],
    present: Shaped[np.ndarray, " rows"],
    known: Int64[np.ndarray, " images"] | None,
) -> Int64[np.ndarray, " images"]:
    """Match identities; those that are repeated are told apart by `known` rows, if there are."""
    found = match_identities(wanted, present)
    if not found.repeated.any():
        return found.rows
    first = np.flatnonzero(found.repeated)[0]
    if known is None or known.max() >= len(present) or (present[known] != wanted).any():
        times = int((present == wanted[first]).sum())
        raise InputError(
            f"{path} has changed since the run, and names {int(found.repeated.sum())} of its "
            f"images more than once (that of row {found.rows[first] + 1} {times} times), so that "
            "they cannot be told apart. Give the file that the run was made from with --original."
        )
    return np.where(found.repeated, known, found.rows)

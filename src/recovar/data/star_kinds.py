"""What a STAR file is when it is no table of particle images, and what to give instead."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recovar.data.star_blocks import StarTable
from recovar.errors import InputError

_TILT_IMAGES = (
    "Subtomograms are not read yet. Give a STAR file with one row for each tilt image, as Warp and "
    "M export particle series"
)
_PARTICLES = "Give the STAR file of the particles"


@dataclass(frozen=True)
class _Kind:
    """A kind of file, known by the name of a block or by a label."""

    marks: tuple[str, ...]
    """Labels of which one is enough, or names of blocks with a colon behind them."""
    what: str
    instead: str


_IN_PARTICLES = (
    _Kind(
        ("rlnTomoSubTomosAre2DStacks", "rlnTomoVisibleFrames"),
        "a table of subtomograms of RELION 5, each of which is a stack of tilt images",
        _TILT_IMAGES,
    ),
    _Kind(("rlnCtfImage",), "a table of subtomograms, which are volumes", _TILT_IMAGES),
    _Kind(("rlnTomoSubtomogramBinning",), "a table of subtomograms of RELION 4", _TILT_IMAGES),
)
_OTHERS = (
    _Kind(
        ("rlnTomoParticlesFile", "rlnTomoTomogramsFile"),
        "an optimisation set of RELION, which names files of subtomograms and tomograms",
        _TILT_IMAGES,
    ),
    _Kind(
        ("rlnTomoXTilt", "rlnTomoProjX", "rlnTomoNominalStageTiltAngle"),
        "a table of tilt series: their micrographs and geometry",
        _TILT_IMAGES,
    ),
    _Kind(
        ("rlnTomoTiltSeriesStarFile", "rlnTomoTiltSeriesName", "rlnTomoHand"),
        "a table of tomograms",
        _TILT_IMAGES,
    ),
    _Kind(("rlnTomoName", "rlnTomoParticleName"), "a table of subtomograms", _TILT_IMAGES),
    _Kind(("pipeline_general:",), "RELION's record of a project", _PARTICLES),
    _Kind(("optimiser_general:",), "the state of a RELION refinement", _PARTICLES),
    _Kind(("sampling_general:",), "the sampling of orientations of a RELION job", _PARTICLES),
    _Kind(("model_general:", "model_classes:"), "the model of a RELION refinement", _PARTICLES),
    _Kind(("rlnFourierShellCorrelation", "fsc:"), "a result of post-processing", _PARTICLES),
    _Kind(("rlnMtfValue",), "the transfer function of a detector", _PARTICLES),
    _Kind(
        ("nmaDisplacements", "enabled"),
        "a table of Xmipp",
        "Export the particles in the format of RELION",
    ),
    _Kind(("rlnMicrographMovieName", "movies:"), "a table of movies", _PARTICLES),
    _Kind(
        ("rlnCoordinateX",),
        "a table of coordinates, which does not name the images (no _rlnImageName)",
        "Give the STAR file that was written when the particles were extracted",
    ),
    _Kind(("rlnMicrographName", "micrographs:"), "a table of micrographs", _PARTICLES),
)


def refuse_subtomograms(path: Path, tables: Sequence[StarTable]) -> None:
    """Refuse tables of particles whose rows are no images.

    Raises:
        InputError: If rows are volumes, or stacks of tilts.
    """
    kind = _find(tables, _IN_PARTICLES)
    if kind is None and not _has_own_optics(tables):
        kind = _find(tables, [kind for kind in _OTHERS if "rlnTomoName" in kind.marks])
    if kind is not None:
        raise _refusal(path, kind)


def _has_own_optics(tables: Sequence[StarTable]) -> bool:
    """Tell whether rows have a defocus, as images have and subtomograms have not."""
    return any("rlnImageName" in table and "rlnDefocusU" in table for table in tables)


def other_kind(path: Path, tables: Sequence[StarTable]) -> InputError:
    """Make the refusal of a file without particle images, which tells what it is."""
    kind = _find(tables, _OTHERS)
    if kind is not None:
        said = next((_first(t) for t in tables if "rlnExperimentalDataStarFile" in t), None)
        return _refusal(path, kind, "" if said is None else f", which it says is {said}")
    names = ", ".join(f"data_{table.name}" for table in tables) or "none"
    return InputError(
        f"{path}: expected a particle table with _rlnImageName, found only the blocks "
        f"{names}. Give a particles STAR file."
    )


def _first(table: StarTable) -> str:
    return str(table.columns["rlnExperimentalDataStarFile"][0])


def _find(tables: Sequence[StarTable], kinds: Iterable[_Kind]) -> _Kind | None:
    names = {table.name + ":" for table in tables}
    for kind in kinds:
        if any(mark in names or any(mark in table for table in tables) for mark in kind.marks):
            return kind
    return None


def _refusal(path: Path, kind: _Kind, more: str = "") -> InputError:
    return InputError(
        f"{path}: expected a table of particle images, found {kind.what}. {kind.instead}{more}."
    )

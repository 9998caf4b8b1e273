"""The options of the parse commands; nothing here needs JAX, so that help and errors are quick."""

from dataclasses import dataclass, field
from pathlib import Path

from recovar.errors import InputError

_SUFFIXES = (".pkl", ".npz")
_VALUES = {"group": "In place of what the file says"}


@dataclass(frozen=True, kw_only=True)
class ParseConfig:
    """What every parse command can be told."""

    output: Path
    """File to write: a pickle as other programs read it (.pkl), or the same arrays (.npz)."""
    box: int | None = field(default=None, metadata={"aliases": ("-D",)})
    """Pixels along a side of the images that the file is of. Wanted where the file does not state
    it, compared with what it states otherwise."""
    pixel_size: float | None = field(default=None, metadata={"aliases": ("--Apix",)})
    """Å per pixel of these images; wanted and compared in the same way."""
    overwrite: bool = False
    """Replace the output if it is there."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read."""
        if self.output.suffix not in _SUFFIXES:
            raise InputError(f"Expected an output that ends in .pkl or .npz, got {self.output}.")
        if self.box is not None and self.box < 2:
            raise InputError(f"Expected at least 2 pixels for -D, got {self.box}.")
        if self.pixel_size is not None and not self.pixel_size > 0:
            raise InputError(f"Expected --Apix above 0 Å, got {self.pixel_size:g}.")


@dataclass(frozen=True, kw_only=True)
class ParsePoseStarConfig(ParseConfig):
    """Everything that `recovar parse-pose-star` can be told."""

    particles: Path = field(metadata={"positional": True})
    """STAR file of RELION, of any version from 3.0."""
    relion31: bool = False
    """Expect a file of RELION 3.1 or later, and stop if it is none. The version is recognized
    without it."""


@dataclass(frozen=True, kw_only=True)
class ParsePoseCsparcConfig(ParseConfig):
    """Everything that `recovar parse-pose-csparc` can be told."""

    particles: Path = field(metadata={"positional": True})
    """Table (.cs) or results group (.csg) of cryoSPARC."""
    abinit: bool = False
    """Expect poses of an ab initio job, and stop if there are none. They are recognized without
    it."""
    hetrefine: bool = False
    """Shifts are in pixels twice as large as those of the images, as in a heterogeneous
    refinement at half the box. Where the file states the pixel size of the alignment, that counts
    and this changes nothing."""
    passthrough: tuple[Path, ...] = ()
    """Further tables of the same particles."""


@dataclass(frozen=True, kw_only=True)
class ParseCtfStarConfig(ParseConfig):
    """Everything that `recovar parse-ctf-star` can be told."""

    particles: Path = field(metadata={"positional": True})
    """STAR file of RELION, of any version from 3.0."""
    relion31: bool = False
    """Expect a file of RELION 3.1 or later, and stop if it is none. The version is recognized
    without it."""
    png: Path | None = None
    """Picture of the transfer function of the first image to draw."""

    voltage: float | None = field(default=None, metadata={**_VALUES, "aliases": ("--kv",)})
    """kV."""
    spherical_aberration: float | None = field(
        default=None, metadata={**_VALUES, "aliases": ("--cs",)}
    )
    """mm."""
    amplitude_contrast: float | None = field(default=None, metadata={**_VALUES, "aliases": ("-w",)})
    """Between −1 and 1."""
    phase_shift: float | None = field(default=None, metadata={**_VALUES, "aliases": ("--ps",)})
    """Degrees."""


@dataclass(frozen=True, kw_only=True)
class ParseCtfCsparcConfig(ParseConfig):
    """Everything that `recovar parse-ctf-csparc` can be told."""

    particles: Path = field(metadata={"positional": True})
    """Table (.cs) or results group (.csg) of cryoSPARC."""
    passthrough: tuple[Path, ...] = ()
    """Further tables of the same particles."""
    png: Path | None = None
    """Picture of the transfer function of the first image to draw."""

"""The options of the command `check`."""

from dataclasses import dataclass, field
from pathlib import Path

from recovar.errors import InputError

LEAST_IMAGES = 16
"""Fewer images say nothing."""

_INPUT = {"group": "Images"}


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Everything that `recovar check` can be told."""

    particles: tuple[Path, ...] = field(metadata={"positional": True})
    """Particle images: .star or .cs files, stacks (.mrcs), or a .txt that lists stacks."""
    output: Path = Path("recovar-check")
    """Directory for check.json and check.png."""
    volume: Path | None = None
    """Map of the molecule (.mrc) whose hand is right, to tell that of the images."""
    mask: Path | None = None
    """Mask (.mrc) whose order of axes is to be tested."""
    n_images: int = 3000
    """Use this many images, from several places of the table."""
    seed: int = 0
    """Of the random order of images that right ones are compared with."""

    poses: Path | None = field(default=None, metadata=_INPUT)
    """Pickle or .npz of poses, in place of those in the particles file."""
    ctf: Path | None = field(default=None, metadata=_INPUT)
    """Pickle or .npz of CTF parameters, in place of those in the particles file."""
    datadir: Path | None = field(default=None, metadata=_INPUT)
    """Directory that the names of image files are relative to."""
    strip_prefix: str | None = field(default=None, metadata=_INPUT)
    """Leading part to take off the names of image files."""
    passthrough: tuple[Path, ...] = field(default=(), metadata=_INPUT)
    """Further cryoSPARC tables of the same particles."""
    pixel_size: float | None = field(default=None, metadata=_INPUT)
    """Å per pixel, in place of what the files say."""
    ind: Path | None = field(default=None, metadata=_INPUT)
    """Images to use: indices from 0, or a mask (.pkl, .npy, .txt)."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read."""
        for option, value, least in (
            ("--n-images", self.n_images, LEAST_IMAGES),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                raise InputError(f"Expected at least {least} for {option}, got {value}.")

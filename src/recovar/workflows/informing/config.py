"""The options of `recovar info`; nothing here needs JAX, so that help and errors are quick."""

from dataclasses import dataclass, field
from pathlib import Path

from recovar.errors import InputError

_IMAGES = {"group": "Images"}


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Everything that `recovar info` can be told."""

    files: tuple[Path, ...] = field(metadata={"positional": True})
    """Any files: particles (.star, .cs, .csg), images and volumes (.mrcs, .mrc, .map), poses, CTF
    parameters and indices (.pkl, .npz, .npy, .txt), or directories: runs and known truths."""
    json: bool = False
    """Write JSON in place of the table."""
    output: Path | None = None
    """File to write to, in place of the terminal."""
    overwrite: bool = False
    """Replace the file that is there."""

    datadir: Path | None = field(default=None, metadata=_IMAGES)
    """Directory that the names of image files are relative to. Without it they are looked for in
    all usual places, and what is not found is told."""
    strip_prefix: str | None = field(default=None, metadata=_IMAGES)
    """Leading part to take off the names of image files."""
    passthrough: tuple[Path, ...] = field(default=(), metadata=_IMAGES)
    """Further cryoSPARC tables of the same particles."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if not self.files:
            raise InputError("Expected at least one file to tell about. Give its name.")

"""The options that all commands share which reconstruct states; nothing here needs JAX."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from recovar.compute.memory import parse_bytes
from recovar.errors import InputError
from recovar.manifest import fingerprint

_STATES = {"group": "States"}
_RESOURCES = {"group": "Images and memory"}


@dataclass(frozen=True, kw_only=True)
class StateOptions:
    """How volumes are reconstructed at latent points."""

    state_method: Literal["regression", "published", "quantile"] | None = field(
        default=None, metadata=_STATES
    )
    """Which images make a state, and how much they count: by their posterior, with a bandwidth
    chosen in every region and shell, and corrected for the linear part of the motion (regression,
    the default); by the published rule of selection (published, the default where the run was made
    with --preset published); or the nearest ones, all alike (quantile)."""
    q: float | None = field(default=None, metadata=_STATES)
    """Nearest images by a quantile: those within this quantile of the χ² distribution of distances,
    such as 0.95. Implies --state-method quantile."""
    n_std: float | None = field(default=None, metadata=_STATES)
    """The same, as the number of standard deviations of a normal distribution that hold the
    quantile, such as 2 for 0.9545."""
    n_bandwidths: int | None = field(default=None, metadata=_STATES)
    """Bandwidths to choose from; 4 if not given, and 50 with --state-method published."""
    Bfactor: float = field(default=0.0, metadata={**_STATES, "aliases": ("--b-factor",)})
    """Sharpen volumes by this B-factor in Å², positive to sharpen."""

    particles: Path | None = field(default=None, metadata=_RESOURCES)
    """The same images at another size, such as the original ones after --downsample: states are
    then as large as these."""
    memory: str | None = field(default=None, metadata=_RESOURCES)
    """Ceiling on the memory used, such as 16GB; 80 % of what is free if not given."""

    def __post_init__(self) -> None:
        """Refuse what can never work, before anything is read or written."""
        if self.q is not None and self.n_std is not None:
            raise InputError("--q and --n-std both say how near images must be. Give one of them.")
        if self.q is not None and not 0 < self.q < 1:
            raise InputError(f"Expected a quantile between 0 and 1 for --q, got {self.q:g}.")
        if self.n_std is not None and not self.n_std > 0:
            raise InputError(f"Expected more than 0 for --n-std, got {self.n_std:g}.")
        if (self.q, self.n_std) != (None, None) and self.state_method == "published":
            raise InputError(
                "--q and --n-std are for --state-method quantile, not for published. Leave one out."
            )
        if self.n_bandwidths is not None and self.n_bandwidths < 2:
            raise InputError(f"Expected at least 2 for --n-bandwidths, got {self.n_bandwidths}.")
        if self.memory is not None:
            parse_bytes(self.memory)

    @property
    def selection(self) -> str:
        """How images are chosen, whichever option said so."""
        nearest = self.q is not None or self.n_std is not None
        return "quantile" if nearest else self.state_method or "regression"

    @property
    def bandwidths(self) -> int:
        """How many bandwidths there are to choose from."""
        if self.n_bandwidths is not None:
            return self.n_bandwidths
        return 50 if self.selection == "published" else 4

    def described(self) -> dict[str, object]:
        """List what volumes depend on, for the manifest.

        Raises:
            InputError: If the file of images is not there.
        """
        if self.particles is not None and not self.particles.is_file():
            raise InputError(f"Expected images at {self.particles}, but there is no such file.")
        originals = None if self.particles is None else fingerprint(self.particles)
        return {
            "selection": self.selection,
            "quantile": self.q,
            "deviations": self.n_std,
            "bandwidths": self.bandwidths,
            "Bfactor": self.Bfactor,
            "particles": originals,
        }


Options = TypeVar("Options", bound=StateOptions)


def follow_preset(options: Options, preset: str) -> Options:
    """Fill in what is not given, for a run that was made with a preset."""
    if preset != "published" or options.state_method or options.selection == "quantile":
        return options
    return replace(options, state_method="published")

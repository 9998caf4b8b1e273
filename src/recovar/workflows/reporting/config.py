"""The options of `recovar report`; nothing here needs JAX, so that help and errors are quick."""

from dataclasses import dataclass, field
from pathlib import Path

from recovar.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Everything that `recovar report` can be told."""

    run: Path = field(metadata={"positional": True})
    """Directory of a run, finished or not."""
    output: Path | None = None
    """Page to write (.html); report.html in the run if not given."""
    overwrite: bool = False
    """Replace the file that -o names; the run's own report.html is always brought up to date."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if self.output is not None and self.output.suffix not in (".html", ".htm"):
            raise InputError(f"Expected a file ending in .html for -o, got {self.output}.")

"""Where commands leave files that go on from a run: in the run, or in a directory of their own."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from recovar.compute.progress import Reporter
from recovar.errors import InputError
from recovar.manifest import MANIFEST, read_manifest
from recovar.run import Run, Stage
from recovar.workflows.densities.config import DensityConfig
from recovar.workflows.finished import FinishedRun
from recovar.workflows.report import write_report
from recovar.workflows.state_options import StateOptions

Result = TypeVar("Result")


@dataclass(frozen=True)
class Workplace:
    """A run that is open for writing, and the part of it that belongs to the command."""

    run: Run
    files: str
    """What the names of its files begin with, relative to the run."""
    stages: str
    """What the names of its stages begin with."""
    basis: Mapping[str, Any]
    """What every stage depends on."""

    @property
    def directory(self) -> Path:
        """Directory of the files."""
        return self.run.path / self.files

    def refresh_report(self, finished: FinishedRun) -> None:
        """Let the report of the run tell of these files, if they are in it."""
        if self.run.path == finished.path:
            write_report(finished.path)

    def stage(
        self,
        name: str,
        kind: type[Result] | Any,  # noqa: ANN401
        compute: Callable[[Stage], Result],
        *,
        options: Mapping[str, Any],
        depends: Sequence[str] = (),
    ) -> Result:
        """Return the result of a stage as `Run.stage` does; names are those of the command."""
        return self.run.stage(
            self.stages + name,
            kind,
            compute,
            options={**self.basis, **options},
            depends=[self.stages + other for other in depends],
        )


@contextmanager
def open_workplace(
    place: Path,
    config: StateOptions | DensityConfig,
    finished: FinishedRun,
    basis: Mapping[str, Any],
    reporter: Reporter,
) -> Iterator[Workplace]:
    """Open the run for writing, or a directory elsewhere, which becomes one.

    A new directory is removed again if not even the first stage was done.

    Args:
        place: Directory of the files, in the run's output or outside of the run.
        config: Options of the command.
        finished: The run.
        basis: What every stage depends on besides the embedding.
        reporter: Told what happens.

    Raises:
        InputError: If files cannot be put there.
    """
    basis = {**basis, "embedding": finished.manifest.stages["embedding"].key}
    home = finished.path.resolve()
    inside = place.resolve().is_relative_to(home)
    if inside and home / "output" not in place.resolve().parents:
        raise InputError(
            f"Expected a directory within {finished.path / 'output'}, or one that is not within "
            f"the run, for -o, got {place}."
        )
    is_new = not place.exists()
    if not inside and (place / MANIFEST).exists() and "run" not in read_manifest(place).config:
        raise InputError(
            f"{place} is a run of its own. Choose another directory with -o; nothing was written."
        )
    if inside:
        run = Run.join(finished.path, reporter.command)
        stages = f"{place.resolve().relative_to(home / 'output').as_posix()}/"
    else:
        run, stages = Run.create_or_resume(place, reporter.command, asdict(config)), ""
    with run:
        reporter.log_to(run.path / "run.log")
        try:
            yield Workplace(run, f"output/{stages}" if inside else "", stages, basis)
        except InputError:
            if not inside and is_new and not run.manifest.stages:
                shutil.rmtree(run.path)
            raise

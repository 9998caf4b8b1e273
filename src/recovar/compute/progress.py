"""Events that long computations send, and whoever listens to them; no terminal is known here."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, runtime_checkable

Advance = Callable[[int], None]
"""Told how many more units are done."""


@runtime_checkable
class Progress(Protocol):
    """Somebody who wants to know how far a computation is."""

    def task(self, title: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Announce a task; the block advances it until `total` units are done.

        Args:
            title: What is done, as a short noun: "Mean", "Pass over images".
            total: Number of units in all.
            unit: What is counted, in the plural.
        """
        ...


@runtime_checkable
class Reporter(Progress, Protocol):
    """What a workflow is given to tell its user about its work."""

    @property
    def command(self) -> Sequence[str]:
        """The command line that started the work, program first; empty if there was none."""
        ...

    def log_to(self, path: Path) -> None:
        """Append all log records from now on to a file."""
        ...


class NoProgress:
    """Nobody listens."""

    def task(self, title: str, total: int, unit: str = "images") -> AbstractContextManager[Advance]:
        """Announce a task to nobody."""
        return nullcontext(_ignore)


class SilentReporter(NoProgress):
    """Reports nothing; for workflows that are called from Python."""

    command: Sequence[str] = ()

    def log_to(self, path: Path) -> None:
        """Leave logging to the caller."""


def _ignore(count: int) -> None:
    del count

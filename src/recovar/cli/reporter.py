"""The terminal and run.log: what a command tells about its work."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich import progress as bars
from rich.console import Console

from recovar.compute.progress import Advance

logger = logging.getLogger("recovar.progress")

_LISTENED = ("recovar", "py.warnings")
_SECONDS_BETWEEN_LINES = 10.0


class TerminalHandler(logging.Handler):
    """Prints log records above progress bars, one line each, without decoration."""

    def __init__(self, console: Console, level: int = logging.INFO) -> None:
        super().__init__(level)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; what is more than information says so."""
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self.console.print(f"{kind}{record.getMessage()}", markup=False, soft_wrap=True)


@contextmanager
def terminal_logging(console: Console) -> Iterator[TerminalHandler]:
    """Send recovar's log records and Python's warnings to the terminal."""
    handler = TerminalHandler(console)
    before = {name: logging.getLogger(name).level for name in _LISTENED}
    for name in _LISTENED:
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        yield handler
    finally:
        logging.captureWarnings(False)
        for name, level in before.items():
            logging.getLogger(name).removeHandler(handler)
            logging.getLogger(name).setLevel(level)


@dataclass
class ConsoleReporter:
    """Shows progress as bars on a terminal and as lines elsewhere; logs to files on request."""

    command: Sequence[str] = ()
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    quiet: bool = False
    clock: Callable[[], float] = time.monotonic
    """Seconds that pass."""
    _files: list[logging.Handler] = field(default_factory=list)

    def log_to(self, path: Path) -> None:
        """Append all log records from now on to a file, those for debugging included."""
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        for name in _LISTENED:
            logging.getLogger(name).addHandler(handler)
        self._files.append(handler)

    def close(self) -> None:
        """Close all log files."""
        for handler in self._files:
            for name in _LISTENED:
                logging.getLogger(name).removeHandler(handler)
            handler.close()
        self._files.clear()

    @contextmanager
    def task(self, title: str, total: int, unit: str = "images") -> Iterator[Advance]:
        """Show how far a task is, and one line when it is done."""
        count = _Count(title, total, unit, self.clock)
        if self.console.is_terminal and not self.quiet:
            with _make_bar(self.console, unit) as bar:
                row = bar.add_task(title, total=total)

                def advance(units: int) -> None:
                    count.add(units)
                    bar.advance(row, units)

                yield advance
        else:
            yield count.add_and_tell
        logger.info("%s", count.describe_end())


def _make_bar(console: Console, unit: str) -> bars.Progress:
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class _Count:
    """Units done, and how fast."""

    def __init__(self, title: str, total: int, unit: str, clock: Callable[[], float]) -> None:
        self.title, self.total, self.unit, self.clock = title, total, unit, clock
        self.done = 0
        self.start = self.told = clock()

    def add(self, units: int) -> None:
        self.done += units

    def add_and_tell(self, units: int) -> None:
        self.add(units)
        now = self.clock()
        if now - self.told >= _SECONDS_BETWEEN_LINES and self.done < self.total:
            self.told = now
            logger.info("%s", self.describe_way(now - self.start))

    def describe_way(self, seconds: float) -> str:
        share = self.done / max(self.total, 1)
        left = format_seconds(seconds * (1 / share - 1)) if share else "unknown time"
        return (
            f"{self.title}: {self.done} of {self.total} {self.unit} ({share:.0%}), "
            f"{self.done / max(seconds, 1e-9):.3g}/s, {left} left"
        )

    def describe_end(self) -> str:
        seconds = self.clock() - self.start
        rate = self.done / max(seconds, 1e-9)
        return f"{self.title}: {self.done} {self.unit} in {format_seconds(seconds)} ({rate:.3g}/s)"


def format_seconds(seconds: float) -> str:
    """Write a duration as people read it.

    Example:
        >>> [format_seconds(s) for s in (0.25, 12.0, 200.0, 7500.0)]
        ['0.2 s', '12 s', '3 min 20 s', '2 h 05 min']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def stderr_console() -> Console:
    """Return a console on standard error, where everything goes that is not a result."""
    return Console(file=sys.stderr, highlight=False)

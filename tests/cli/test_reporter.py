import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from recovar.cli.reporter import ConsoleReporter, terminal_logging


class Clock:
    """A clock that the test turns."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def text() -> Iterator[io.StringIO]:
    return io.StringIO()


def test_lines_come_every_ten_seconds_and_at_the_end(clock, text):
    console = Console(file=text, width=200, highlight=False)
    with (
        terminal_logging(console),
        ConsoleReporter(console=console, clock=clock).task("Mean", 1000) as advance,
    ):
        for _ in range(10):
            clock.now += 4
            advance(100)
    assert text.getvalue().splitlines() == [
        "Mean: 300 of 1000 images (30%), 25/s, 28 s left",
        "Mean: 600 of 1000 images (60%), 25/s, 16 s left",
        "Mean: 900 of 1000 images (90%), 25/s, 4.0 s left",
        "Mean: 1000 images in 40 s (25/s)",
    ]


def test_a_terminal_shows_nested_bars_and_keeps_one_line_each(clock, text):
    console = Console(file=text, width=120, force_terminal=True, highlight=False)
    reporter = ConsoleReporter(console=console, clock=clock)
    with terminal_logging(console), reporter.task("Outer", 2, "rounds") as advance:
        for _ in range(2):
            clock.now += 1
            with reporter.task("Inner", 5) as advance_inner:
                advance_inner(5)
                clock.now += 1
            advance(1)
    assert "Inner: 5 images in 1.0 s (5/s)" in text.getvalue()
    assert text.getvalue().rstrip().splitlines()[-1].endswith("Outer: 2 rounds in 4.0 s (0.5/s)")


def test_a_task_that_fails_is_not_called_done(clock, text):
    console = Console(file=text, width=200)
    reporter = ConsoleReporter(console=console, clock=clock)
    with (
        terminal_logging(console),
        pytest.raises(ValueError, match="broken"),
        reporter.task("Mean", 10),
    ):
        raise ValueError("broken")
    assert text.getvalue() == ""

"""What readers of files tell on their way, kept for a report."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Remarks(logging.Handler):
    """Keeps messages."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())


@contextmanager
def remarks_of_readers() -> Iterator[list[str]]:
    """Collect what readers say instead of printing it."""
    logger, handler = logging.getLogger("recovar.data"), _Remarks()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.sentences
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before

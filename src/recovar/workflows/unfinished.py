"""Files that take long to write: work on them that was stopped goes on where it was."""

import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recovar.errors import InputError
from recovar.records import PARTIAL, write_whole

_LOCK = ".lock"


@dataclass(frozen=True)
class Unfinished:
    """A hidden directory beside the final place of files, which holds them until all are whole."""

    path: Path
    key: str
    """Text that differs wherever the files would."""

    @property
    def _note(self) -> Path:
        return self.path / "progress.json"

    def load(self) -> int:
        """Give what was saved last; without it, or with another key, remove all and give 0."""
        note = json.loads(self._note.read_text()) if self._note.exists() else {}
        if note.get("key") == self.key:
            return int(note["done"])
        for file in self.path.iterdir():
            if file.name != _LOCK:
                file.unlink()
        return 0

    def save(self, done: int) -> None:
        """Note how much is done, once it is safe on disk."""
        with write_whole(self._note) as partial:
            partial.write_text(json.dumps({"key": self.key, "done": done}))

    def finish(self, names: Iterable[str]) -> None:
        """Move files to their final place, beside the directory, and remove it."""
        for name in names:
            (self.path / name).replace(self.path.parent / name)
        shutil.rmtree(self.path)


@contextmanager
def unfinished_files(first: Path, key: str) -> Iterator[Unfinished]:
    """Give a place for files that are not whole yet, named after the first of them.

    What is there stays if the block is interrupted or killed, and is removed if the input turns out
    to be wrong.

    Raises:
        InputError: If another process is writing there.
    """
    work = Unfinished(first.with_name(PARTIAL + first.name), key)
    work.path.mkdir(exist_ok=True)
    with (work.path / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{first} is being written by another process. Wait until it ends, or choose "
                "another name with -o."
            ) from None
        try:
            yield work
        except InputError:
            shutil.rmtree(work.path)
            raise

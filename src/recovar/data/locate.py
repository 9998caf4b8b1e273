"""Image files by their names in a particles file, whose directories it does not state."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from recovar.errors import InputError

logger = logging.getLogger(__name__)

_MOST_ENTRIES = 200_000
"""Files and directories that are looked at, at most, for a name alone."""
_NAMED = 3
"""Files of one name that a message lists."""


@dataclass(frozen=True)
class StackLocator:
    """Finds image files, whose names are relative to places that the file does not state."""

    source: Path
    datadir: Path | None = None
    strip_prefix: str | None = None

    def find(self, name: str) -> Path | None:
        """Give the first file that `name` can mean; None if there is none.

        Tried in order: below `datadir`, as written, beside `source`, and beside each of its
        parent directories; with the suffix as written and with .mrc and .mrcs exchanged; with
        the backslashes of Windows as they are and as slashes; last, a file with that name anywhere
        below `datadir`, or below the directory of `source`, if there is just one.
        """
        return self.find_in_place(name) or self.find_by_name(name)

    def find_in_place(self, name: str) -> Path | None:
        """Give the first file in one of the places that `find` tries."""
        return next(self._places(name, self._roots), None)

    def find_another(self, name: str) -> Path | None:
        """Give a different file of the same name that lies beside `source`, unless told where."""
        if self.datadir is not None:
            return None
        found = self.find_in_place(name)
        beside = next(self._places(name, [self.source.absolute().parent]), None)
        if found is None or beside is None or found.samefile(beside):
            return None
        return beside

    def _places(self, name: str, roots: Sequence[Path]) -> Iterator[Path]:
        spellings = [_expanded(text) for text in self._spellings(name)]
        paths = (root / written for root in roots for written in spellings)
        places = (place for path in paths for place in (path, _exchanged(path)))
        return (place for place in places if _is_file(place))

    def find_by_name(self, name: str) -> Path | None:
        """Give the only file of this name below the directory that is searched."""
        found = self._same_name(name)
        return found[0] if len(found) == 1 else None

    @cached_property
    def _roots(self) -> list[Path]:
        beside = self.source.absolute().parent
        roots = [Path(), beside, *beside.parents, *self.source.resolve().parents]
        return list(dict.fromkeys(roots if self.datadir is None else [self.datadir, *roots]))

    def describe_search(self, name: str) -> str:
        """Tell in words where `find` looks."""
        written = _expanded(next(iter(self._spellings(name))))
        beside = self.source.absolute().parent
        roots = [] if self.datadir is None else [f"{self.datadir}"]
        roots += ["the current directory", f"{beside} with the {len(beside.parents)} above it"]
        tried = f"{written}" if written.is_absolute() else f"{written} in {', '.join(roots)}"
        return f"{tried}; with .mrc for .mrcs and the reverse; {self._describe_same_name(name)}"

    def _describe_same_name(self, name: str) -> str:
        found = self._same_name(name)
        few = ", ".join(map(str, found[:_NAMED]))
        which = f": {few}{' …' if len(found) > _NAMED else ''}" if found else ""
        some = "" if self._by_name.complete else f" (the first {_MOST_ENTRIES:,} entries of it)"
        file = _base_name(name)
        return f"a single {file} anywhere below {self._tree}{some}, which has {len(found)}{which}"

    def _spellings(self, name: str) -> list[str]:
        if self.strip_prefix and name.startswith(self.strip_prefix):
            name = name.removeprefix(self.strip_prefix).lstrip("/\\")
        return [name, name.replace("\\", "/")] if "\\" in name else [name]

    @property
    def _tree(self) -> Path:
        return self.source.absolute().parent if self.datadir is None else self.datadir

    def _same_name(self, name: str) -> list[Path]:
        file = Path(_base_name(name))
        names = dict.fromkeys([file.name, _exchanged(file).name])
        return [path for each in names for path in self._by_name.files.get(each, [])]

    @cached_property
    def _by_name(self) -> "_Names":
        return _list_stacks(self._tree)


@dataclass(frozen=True)
class _Names:
    """Stacks below a directory."""

    files: dict[str, list[Path]]
    """Paths by name."""
    complete: bool
    """Whether all of the directory was looked at."""


def _list_stacks(tree: Path) -> _Names:
    """List files that look like stacks; links are followed, but no directory is entered twice."""
    found: dict[str, list[Path]] = {}
    seen: set[tuple[int, int]] = set()
    entries = 0
    for directory, inner, names in os.walk(tree, followlinks=True):
        inner[:] = [name for name in sorted(inner) if _is_new(Path(directory, name), seen)]
        entries += len(inner) + len(names)
        if entries > _MOST_ENTRIES:
            return _Names(found, complete=False)
        for name in names:
            if name.endswith((".mrc", ".mrcs")) and _is_file(Path(directory, name)):
                found.setdefault(name, []).append(Path(directory, name))
    return _Names(found, complete=True)


def _is_new(directory: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = directory.stat()
    except OSError:
        return False
    mark = (status.st_dev, status.st_ino)
    if mark in seen:
        return False
    seen.add(mark)
    return True


def _is_file(path: Path) -> bool:
    """Tell whether there is a file; names that the system cannot hold are of none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # a home directory of nobody
        return Path(text)


def _base_name(name: str) -> str:
    """Give the last part of a name, of whatever system."""
    return name.replace("\\", "/").rpartition("/")[2]


def _exchanged(path: Path) -> Path:
    other = {".mrc": ".mrcs", ".mrcs": ".mrc"}.get(path.suffix)
    return path if other is None else path.with_suffix(other)


def locate_stacks(names: Sequence[str], locator: StackLocator) -> tuple[Path, ...]:
    """Find every stack.

    Raises:
        InputError: If one is missing; it tells where the first was looked for.
    """
    found = {name: locator.find_in_place(name) for name in names}
    elsewhere = [name for name, path in found.items() if path is None]
    found |= {name: locator.find_by_name(name) for name in elsewhere}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise InputError(
            f"{locator.source}: image file {missing[0]} not found ({len(missing)} of {len(names)} "
            f"files are missing). Tried: {locator.describe_search(missing[0])}. Give the project "
            "directory with --datadir, and a leading part of the names that is out of date with "
            "--strip-prefix. A stack that was renamed needs a link under its old name."
        )
    if elsewhere:
        logger.warning(
            "%s: %d of %d image files are not where they are said to be; they are taken by their "
            "names alone, such as %s for %s.",
            locator.source,
            len(elsewhere),
            len(names),
            found[elsewhere[0]],
            elsewhere[0],
        )
    others = {name: other for name in names if (other := locator.find_another(name)) is not None}
    if others:
        name, other = next(iter(others.items()))
        logger.warning(
            "%s: %d of %d image files are there twice: %s is used, and another %s is not. Give "
            "their directory with --datadir.",
            locator.source,
            len(others),
            len(names),
            found[name],
            other,
        )
    return tuple(path for name in names if (path := found[name]) is not None)

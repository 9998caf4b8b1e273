"""Image files by their names in a particles file, whose directories it does not state."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from recovar.errors import InputError


@dataclass(frozen=True)
class StackLocator:
    """Finds image files, whose names are relative to places that the file does not state."""

    source: Path
    datadir: Path | None = None
    strip_prefix: str | None = None

    def find(self, name: str) -> Path | None:
        """Give the first file that `name` can mean; None if there is none.

        Tried in order: below `datadir`, as written, beside `source`, and beside each of its
        parent directories; with the suffix as written and with .mrc and .mrcs exchanged; last,
        a file with that name anywhere below `datadir` if there is just one.
        """
        for place in self.places(name):
            if place.is_file():
                return place
        names = [Path(name).name, _exchanged(Path(name)).name]
        found = [path for each in dict.fromkeys(names) for path in self._by_name.get(each, [])]
        return found[0] if len(found) == 1 else None

    def places(self, name: str) -> list[Path]:
        """List the paths that `find` tries, in its order."""
        written = Path(self._stripped(name)).expanduser()
        beside = self.source.absolute().parent
        above = [beside, *beside.parents, *self.source.resolve().parents]
        roots = [Path(), *above] if self.datadir is None else [self.datadir, Path(), *above]
        paths = [root / written for root in roots]
        return list(dict.fromkeys(p for path in paths for p in (path, _exchanged(path))))

    def describe_search(self, name: str) -> str:
        """Tell in words where `find` looks."""
        written = Path(self._stripped(name)).expanduser()
        beside = self.source.absolute().parent
        roots = [] if self.datadir is None else [f"{self.datadir}"]
        roots += ["the current directory", f"{beside} with the {len(beside.parents)} above it"]
        tried = f"{written}" if written.is_absolute() else f"{written} in {', '.join(roots)}"
        if self.datadir is not None:
            same = len(self._by_name.get(written.name, []))
            tried += f"; a single {written.name} anywhere below {self.datadir}, which has {same}"
        return f"{tried}; with .mrc for .mrcs and the reverse"

    def _stripped(self, name: str) -> str:
        if self.strip_prefix and name.startswith(self.strip_prefix):
            return name.removeprefix(self.strip_prefix).lstrip("/")
        return name

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        if self.datadir is not None:
            for directory, _, names in os.walk(self.datadir):
                for name in names:
                    if name.endswith((".mrc", ".mrcs")):
                        found.setdefault(name, []).append(Path(directory, name))
        return found


def _exchanged(path: Path) -> Path:
    other = {".mrc": ".mrcs", ".mrcs": ".mrc"}.get(path.suffix)
    return path if other is None else path.with_suffix(other)


def locate_stacks(names: Sequence[str], locator: StackLocator) -> tuple[Path, ...]:
    """Find every stack.

    Raises:
        InputError: If one is missing; it tells where the first was looked for.
    """
    found = [locator.find(name) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise InputError(
            f"{locator.source}: image file {missing[0]} not found ({len(missing)} of {len(names)} "
            f"files are missing). Tried: {locator.describe_search(missing[0])}. Give the project "
            "directory with --datadir, and a leading part of the names that is out of date with "
            "--strip-prefix. A stack that was renamed needs a link under its old name."
        )
    return tuple(path for path in found if path is not None)

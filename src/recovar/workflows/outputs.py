"""What the commands that write single files take care of."""

from collections.abc import Iterable
from pathlib import Path

from recovar.errors import InputError


def refuse_overwriting(output: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Make sure that a file may be written.

    Raises:
        InputError: If it is an input or a directory, or is there and not to be replaced.
    """
    if output.is_dir():
        raise InputError(f"{output} is a directory. Give the name of a file with -o.")
    if not output.exists():
        return
    for path in inputs:
        if path.exists() and path.samefile(output):
            raise InputError(f"{output} is an input; it is never overwritten. Choose another name.")
    if not overwrite:
        raise InputError(f"{output} exists. Choose another name, or allow it with --overwrite.")

"""How much memory there is, and how many images fit into it, known before the start."""

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from recovar.errors import InputError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY_UNITS = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SHARE_OF_FREE = 0.8


def parse_bytes(text: str) -> int:
    """Read an amount of memory as people write it.

    Args:
        text: A number with a unit, such as `4GB`, `1.5 GiB` or `800M`; without one, bytes.

    Raises:
        InputError: If the text is not a positive amount of memory.

    Example:
        >>> parse_bytes("4GB"), parse_bytes("0.5 GiB")
        (4000000000, 536870912)
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?I?)B?", text.strip().upper())
    units = _UNITS | _BINARY_UNITS
    amount = int(float(match[1]) * units[match[2]]) if match and match[2] in units else 0
    if amount < 1:
        raise InputError(
            f"Expected an amount of memory such as 4GB, 1.5GiB or 800MB, got {text!r}. "
            "GB counts in thousands, GiB in 1024."
        )
    return amount


def format_bytes(amount: int) -> str:
    """Write an amount of memory as people read it.

    Example:
        >>> format_bytes(4_200_000_000), format_bytes(900)
        ('4.2 GB', '900 B')
    """
    for unit in ("TB", "GB", "MB", "KB"):
        if amount >= _UNITS[unit[0]]:
            return f"{amount / _UNITS[unit[0]]:.3g} {unit}"
    return f"{amount} B"


def available_memory() -> int:
    """Return the bytes that this process may still take, swap left out.

    The limit of a container or of a batch job counts where it is lower than what the machine has.
    """
    return min([psutil.virtual_memory().available, *_room_in_groups(Path("/"))])


@dataclass(frozen=True)
class _GroupFiles:
    """Where one version of Linux control groups keeps its figures."""

    mount: str
    limit: str
    used: str
    cached: str


_VERSION_1 = _GroupFiles(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)
_VERSION_2 = _GroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def _room_in_groups(root: Path) -> list[int]:
    """Return what is left to each control group with a limit that this process is in."""
    table = root / "proc/self/cgroup"
    room = []
    for line in table.read_text().splitlines() if table.exists() else []:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _VERSION_1 if controllers else _VERSION_2
        mount = root / files.mount
        leaf = mount / group.lstrip("/")
        places = [place for place in (leaf, *leaf.parents) if place.is_relative_to(mount)]
        room += [
            _room_in_group(place, files) for place in places if _has_limit(place / files.limit)
        ]
    return room


def _has_limit(file: Path) -> bool:
    return file.exists() and file.read_text().strip() != "max"


def _room_in_group(place: Path, files: _GroupFiles) -> int:
    """Return limit less use; files that the kernel only caches give way, so they do not count."""
    figures = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
    used = int((place / files.used).read_text()) - int(figures.get(files.cached, 0))
    return max(0, int((place / files.limit).read_text()) - used)


def default_budget() -> int:
    """Return the bytes that a run may use when its user named no ceiling: 80 % of what is free."""
    return int(_SHARE_OF_FREE * available_memory())


def peak_rss() -> int:
    """Return the most bytes of memory that this process has held at any time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def batch_size(bytes_per_image: int, budget: int, fixed: int = 0, most: int = 2**16) -> int:
    """Choose how many images are handled at once.

    Args:
        bytes_per_image: Memory that each image of a batch takes, with its intermediate results.
        budget: Bytes that may be used in all.
        fixed: Bytes that are needed whatever the batch, such as the sums themselves.
        most: More images than this bring nothing.

    Raises:
        InputError: If not even one image fits.

    Example:
        >>> batch_size(bytes_per_image=10**6, budget=10**9, fixed=9 * 10**8)
        100
    """
    fitting = (budget - fixed) // bytes_per_image
    if fitting < 1:
        raise InputError(
            f"Expected at least {format_bytes(fixed + bytes_per_image)} of memory to work with, "
            f"got {format_bytes(max(budget, 0))}. Raise the ceiling with --memory or --gpu-memory, "
            "or make the images smaller with --downsample."
        )
    return min(fitting, most)

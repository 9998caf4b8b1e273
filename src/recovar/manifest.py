"""The manifest of a run: what it says about itself, and how options are compared."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import recovar
from recovar.errors import InputError

MANIFEST = "manifest.json"
FORMAT = 1
"""Format of the manifests that this program writes."""
_HASHED_WHOLE = 2**26


class Decision(msgspec.Struct, frozen=True):
    """Something that a stage chose by itself."""

    value: Any
    why: str


class Output(msgspec.Struct, frozen=True):
    """A file that a stage wrote."""

    path: str
    """Relative to the run."""
    size: int
    """Bytes."""


class StageRecord(msgspec.Struct, frozen=True):
    """What the manifest tells about a stage that is done."""

    key: str
    """Hash of options, code version and the keys of the stages it depends on."""
    version: str
    options: dict[str, Any]
    depends: dict[str, str]
    outputs: list[Output]
    decisions: dict[str, Decision]
    seconds: float
    peak_memory: int
    """Most bytes that the process had held by the end of the stage."""
    finished: str


class Manifest(msgspec.Struct, frozen=True):
    """What a run says about itself."""

    version: str
    """Version of recovar that last wrote here."""
    created: str
    command: list[str]
    config: dict[str, Any]
    stages: dict[str, StageRecord] = {}
    format: int = FORMAT
    directory: str = ""
    """Where the command was given; relative paths in `config` start there."""


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the run at `path`, which may be in progress.

    Raises:
        InputError: If there is no run, or its manifest is damaged or newer than this program.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise InputError(f"Expected a run in {path}, found no {MANIFEST} there.")
    try:
        content = msgspec.json.decode(file.read_bytes())
        written = content["format"] if isinstance(content, dict) else None
        if isinstance(written, int) and written > FORMAT:
            raise InputError(
                f"{file} has format {written}, and recovar {recovar.__version__} reads up to "
                f"{FORMAT}. Use recovar {content.get('version', 'of a newer version')} for it."
            )
        return msgspec.convert(content, Manifest)
    except (msgspec.MsgspecError, KeyError) as error:
        raise InputError(
            f"{file} cannot be read: {error}. Restore it, or start again in a new directory."
        ) from error


def fingerprint(path: Path) -> str:
    """Return a text that changes when a file does.

    Files up to 64 MiB are hashed. Larger ones, such as image stacks, are known by size and time
    of change, because reading them can take as long as the analysis.
    """
    status = path.stat()
    if status.st_size > _HASHED_WHOLE:
        return f"size {status.st_size}, changed {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def to_plain(value: Any) -> Any:  # noqa: ANN401
    """Turn options into what a manifest gives back; arrays become their hash."""
    text = msgspec.json.Encoder(enc_hook=_plain_other, order="sorted").encode(value)
    return msgspec.json.decode(text)


def _plain_other(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        content = hashlib.sha256(array.tobytes()).hexdigest()
        return f"{array.dtype} array {array.shape} {content}"
    raise TypeError(f"Options are plain values, paths, records and arrays; got {type(value)}.")


def hash_plain(value: Any) -> str:  # noqa: ANN401
    """Hash plain values; the order of a dictionary does not count."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def now() -> str:
    """Return the present time as manifests tell it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """List the options that differ, with both values."""
    names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
    return ", ".join(f"{n} {_show(now.get(n))} (was {_show(before.get(n))})" for n in names)


def _show(value: Any) -> str:  # noqa: ANN401
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

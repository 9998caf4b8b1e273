"""A run: a directory that holds one analysis, stage by stage, and a manifest that describes it.

A stage that is done is loaded instead of computed when nothing it depends on has changed, so a
run that was killed goes on where it stopped.
"""

import fcntl
import logging
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import numpy as np

import recovar
from recovar.compute.memory import peak_rss
from recovar.errors import InputError, RunInUseError
from recovar.manifest import (
    MANIFEST,
    Decision,
    Manifest,
    Output,
    StageRecord,
    describe_changes,
    hash_plain,
    now,
    read_manifest,
    to_plain,
)
from recovar.records import (
    PARTIAL,
    load_arrays,
    load_record,
    save_arrays,
    save_record,
    write_whole,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_LOCK = ".lock"


def read_result(path: Path, stage: str, kind: type[Result] | Any) -> Result:  # noqa: ANN401
    """Read the result of a stage of the run at `path` without opening the run for writing.

    Raises:
        InputError: If the run has not finished that stage.
    """
    if stage not in read_manifest(path).stages:
        raise InputError(
            f"The run in {path} has not finished its stage {stage!r}. Start its command again "
            f"(it stands in {path / 'command.txt'}); finished stages are not repeated."
        )
    return load_record(path / _result_name(stage), kind)


def _result_name(stage: str) -> str:
    return f"model/{stage}.npz"


@dataclass(frozen=True)
class Checkpoint:
    """A place for the state of a long sum; it is gone once the stage is done."""

    path: Path

    def save(self, **arrays: Any) -> None:  # noqa: ANN401
        """Replace what was saved before, whole or not at all."""
        save_arrays(self.path, **arrays)

    def load(self) -> dict[str, np.ndarray] | None:
        """Return what was saved last, or nothing."""
        return load_arrays(self.path) if self.path.exists() else None


@dataclass(frozen=True)
class Stage:
    """The stage that is being computed, for the function that computes it."""

    run_path: Path
    checkpoints: Path
    outputs: list[str] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Give a temporary path to write to; it becomes the output `name` of this stage when whole.

        Args:
            name: Path relative to the run, such as `output/volumes/mean.mrc`.
        """
        with write_whole(self.run_path / name) as partial:
            yield partial
        self.outputs.append(name)

    def decide(self, name: str, value: Any, why: str) -> None:  # noqa: ANN401
        """Note in manifest and log what this stage chose by itself, and why."""
        self.decisions[name] = Decision(to_plain(value), why)
        logger.info("%s: %s, because %s", name, value, why)

    def checkpoint(self, name: str) -> Checkpoint:
        """Return the place for the state of a long sum.

        What is found there was saved under the same options, code and inputs.
        """
        return Checkpoint(self.checkpoints / f"{name}.npz")


class Run:
    """A directory that this process alone writes to.

    Use it as a context manager, or call `close`, to give the directory free again.

    Example:
        A stage depends on its options and on other stages, named in `depends`::

            with Run.create_or_resume(path, reporter.command, asdict(config)) as run:
                mean = run.stage(
                    "mean",
                    Mean,
                    lambda stage: compute_mean(stage, images, config.padding),
                    options={"padding": config.padding},
                    depends=["particles"],
                )
    """

    def __init__(self, path: Path, lock: IO[str], manifest: Manifest) -> None:
        """Hold a locked directory; `create_or_resume` makes one."""
        self.path = path
        self._lock = lock
        self._manifest = manifest

    @classmethod
    def create_or_resume(
        cls, path: Path | str, command: Sequence[str], config: Mapping[str, Any]
    ) -> "Run":
        """Open a run for writing; stages that are done are kept.

        Args:
            path: Directory of the run. It may be missing or empty, or hold a run.
            command: Command line, program first; empty if there was none.
            config: All options, for the record.

        Raises:
            InputError: If the directory holds something else than a run, or a damaged one.
            RunInUseError: If another process is writing to it.
        """
        path = Path(path)
        _refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        try:
            before = read_manifest(path) if (path / MANIFEST).exists() else None
            for partial in path.rglob(f"{PARTIAL}*"):
                partial.unlink()
            manifest = Manifest(
                version=recovar.__version__,
                created=before.created if before else now(),
                command=list(command),
                config=to_plain(dict(config)),
                stages=before.stages if before else {},
                directory=os.fspath(Path.cwd()),
            )
            if before:
                changes = describe_changes(before.config, manifest.config)
                logger.info("Resuming the run in %s%s", path, f" with {changes}" if changes else "")
            run = cls(path, lock, manifest)
            run._save_manifest()
            _note_command(path, command)
        except BaseException:
            lock.close()
            raise
        return run

    @classmethod
    def join(cls, path: Path | str, command: Sequence[str]) -> "Run":
        """Open a run that exists, to add stages of another command than the one that made it.

        Args:
            path: Directory of the run.
            command: Command line, program first; empty if there was none.

        Raises:
            InputError: If there is no run, or a damaged one.
            RunInUseError: If another process is writing to it.
        """
        path = Path(path)
        read_manifest(path)
        lock = _lock(path)
        try:
            run = cls(path, lock, read_manifest(path))
            _note_command(path, command)
        except BaseException:
            lock.close()
            raise
        return run

    @property
    def manifest(self) -> Manifest:
        """The manifest as it now is on disk."""
        return self._manifest

    def close(self) -> None:
        """Let other processes write to the directory."""
        self._lock.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stage(
        self,
        name: str,
        kind: type[Result] | Any,  # noqa: ANN401
        compute: Callable[[Stage], Result],
        *,
        options: Mapping[str, Any] | None = None,
        depends: Sequence[str] = (),
    ) -> Result:
        """Return the result of a stage, computed now or loaded if nothing it rests on has changed.

        The result is kept in `model/NAME.npz`; further files are written with `Stage.write`.

        Args:
            name: Name of the stage, unique in the run.
            kind: Type of the result: a record as `records.save_record` takes it, or `NoneType`
                for a stage that only writes files.
            compute: Computes the result and writes the other outputs of the stage.
            options: Everything that the result depends on, except for other stages: plain values,
                records, paths (as text) and arrays. For the content of a file pass
                `manifest.fingerprint`.
            depends: Names of the stages, run before, whose results `compute` uses.
        """
        inputs = to_plain(dict(options or {}))
        keys = {other: self._manifest.stages[other].key for other in depends}
        key = hash_plain([name, recovar.__version__, inputs, keys])
        result_name = _result_name(name)
        reason = self._why_again(name, key, inputs, keys)
        if reason is None:
            logger.info("Stage %s is done; its result is loaded", name)
            return load_record(self.path / result_name, kind)
        logger.info("Stage %s starts%s", name, reason)
        checkpoints = self.path / "model" / "checkpoints" / name
        self._forget(name, checkpoints, key)
        start = time.monotonic()
        stage = Stage(self.path, checkpoints / key[:16])
        result = compute(stage)
        with stage.write(result_name) as partial:
            save_record(partial, result)
        seconds = time.monotonic() - start
        record = StageRecord(
            key=key,
            version=recovar.__version__,
            options=inputs,
            depends=keys,
            outputs=[Output(o, (self.path / o).stat().st_size) for o in sorted(set(stage.outputs))],
            decisions=stage.decisions,
            seconds=round(seconds, 3),
            peak_memory=peak_rss(),
            finished=now(),
        )
        self._set_stages({**self._manifest.stages, name: record})
        shutil.rmtree(checkpoints, ignore_errors=True)
        logger.info("Stage %s took %.1f s", name, seconds)
        return result

    def _why_again(
        self, name: str, key: str, options: Mapping[str, Any], depends: Mapping[str, str]
    ) -> str | None:
        """Say why a stage must be computed; nothing if it need not."""
        done = self._manifest.stages.get(name)
        if done is None:
            return ""
        if done.key == key:
            missing = [o.path for o in done.outputs if not _is_there(self.path, o)]
            return f" again: {missing[0]} is missing or has another size" if missing else None
        if done.version != recovar.__version__:
            return f" again: it was done by version {done.version}"
        changes = describe_changes(done.options, options)
        if changes:
            return f" again with {changes}"
        stages = [other for other in depends if done.depends.get(other) != depends[other]]
        return f" again, because {', '.join(stages)} changed"

    def _forget(self, name: str, checkpoints: Path, key: str) -> None:
        """Remove what a stage left when it was computed from other inputs."""
        stages = dict(self._manifest.stages)
        done = stages.pop(name, None)
        if done is not None:
            self._set_stages(stages)
            for output in done.outputs:
                if _is_there(self.path, output):
                    (self.path / output.path).unlink()
        if checkpoints.is_dir():
            for directory in checkpoints.iterdir():
                if directory.name != key[:16]:
                    shutil.rmtree(directory)

    def _set_stages(self, stages: dict[str, StageRecord]) -> None:
        self._manifest = msgspec.structs.replace(self._manifest, stages=stages)
        self._save_manifest()

    def _save_manifest(self) -> None:
        text = msgspec.json.format(msgspec.json.encode(self._manifest), indent=2)
        with write_whole(self.path / MANIFEST) as partial:
            partial.write_bytes(text + b"\n")


def _note_command(path: Path, command: Sequence[str]) -> None:
    with (path / "command.txt").open("a") as file:
        file.write(shlex.join(command) + "\n")


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"Expected a directory for the run, got the file {path}.")
    if path.is_dir() and not (path / MANIFEST).exists():
        for entry in path.iterdir():
            if entry.name != _LOCK and not entry.name.startswith(PARTIAL):
                raise InputError(
                    f"Expected a new or empty directory or a run, and {path} is none of them: it "
                    f"holds {entry.name} but no {MANIFEST}. Nothing was written; choose another."
                )


def _lock(path: Path) -> IO[str]:
    file = (path / _LOCK).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise RunInUseError(
            f"The run in {path} is in use by {owner}. Wait until it ends, stop it, or give "
            "another directory with -o."
        ) from None
    except OSError as error:
        file.close()
        raise InputError(
            f"The file system of {path} cannot lock files ({error}). Choose a directory elsewhere."
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now()}")
    file.flush()
    return file


def _is_there(run_path: Path, output: Output) -> bool:
    file = (run_path / output.path).resolve()
    inside = file.is_relative_to(run_path.resolve())
    return inside and file.is_file() and file.stat().st_size == output.size

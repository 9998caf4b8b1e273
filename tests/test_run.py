import json
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

import numpy as np
import pytest

import recovar
from recovar.errors import InputError, RunInUseError
from recovar.manifest import fingerprint, read_manifest
from recovar.run import Run, Stage, read_result

SOURCE = str(Path(recovar.__file__).parents[1])


@dataclass(frozen=True)
class Number:
    value: np.ndarray


def number(value: float) -> Number:
    return Number(np.array(value))


class Workflow:
    """Two branches: a → b → c, and a → d."""

    def __init__(self, path: Path):
        self.path = path
        self.computed: list[str] = []

    def run(self, a=1, b=10, c=100) -> float:
        self.computed = []
        with Run.create_or_resume(self.path, ["recovar", "count"], {"a": a, "b": b, "c": c}) as run:
            first = self._stage(run, "a", a, [])
            second = self._stage(run, "b", b + float(first.value), ["a"])
            third = self._stage(run, "c", c + float(second.value), ["b"])
            self._stage(run, "d", float(first.value), ["a"])
            return float(third.value)

    def _stage(self, run: Run, name: str, value: float, depends: list[str]) -> Number:
        def compute(stage: Stage) -> Number:
            self.computed.append(name)
            with stage.write(f"output/{name}.txt") as path:
                path.write_text(f"{value}\n")
            return number(value)

        options = {name: run.manifest.config.get(name)}
        return run.stage(name, Number, compute, options=options, depends=depends)


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path / "out")


def test_a_finished_run_is_loaded_and_not_computed(workflow):
    assert workflow.run() == 111
    assert workflow.computed == ["a", "b", "c", "d"]
    assert workflow.run() == 111
    assert workflow.computed == []


@pytest.mark.parametrize(
    ("options", "again"),
    [({"a": 2}, ["a", "b", "c", "d"]), ({"b": 20}, ["b", "c"]), ({"c": 200}, ["c"])],
)
def test_a_changed_option_recomputes_exactly_what_rests_on_it(workflow, caplog, options, again):
    workflow.run()
    caplog.set_level(logging.INFO)
    result = workflow.run(**options)
    assert workflow.computed == again
    assert result == 111 - {"a": 1, "b": 10, "c": 100}[again[0]] + next(iter(options.values()))
    (name, value), *_ = options.items()
    assert f"Stage {name} starts again with {name} {value} (was " in caplog.text
    assert ("because a changed" in caplog.text) == (name == "a")


def test_a_missing_output_is_computed_again(workflow, caplog):
    workflow.run()
    (workflow.path / "output/b.txt").unlink()
    caplog.set_level(logging.INFO)
    assert workflow.run() == 111
    assert workflow.computed == ["b"]
    assert "output/b.txt is missing" in caplog.text


def test_an_output_of_another_size_is_computed_again(workflow):
    workflow.run()
    (workflow.path / "output/b.txt").write_text("11.0 and more")
    workflow.run()
    assert workflow.computed == ["b"]
    assert (workflow.path / "output/b.txt").read_text() == "11.0\n"


def test_another_version_of_the_code_computes_again(workflow, caplog):
    workflow.run()
    manifest = json.loads((workflow.path / "manifest.json").read_text())
    for stage in manifest["stages"].values():
        stage.update(version="0.0.1", key=f"as hashed by 0.0.1: {stage['key']}")
    (workflow.path / "manifest.json").write_text(json.dumps(manifest))
    caplog.set_level(logging.INFO)
    assert workflow.run() == 111
    assert workflow.computed == ["a", "b", "c", "d"]
    assert "Stage a starts again: it was done by version 0.0.1" in caplog.text


def test_files_of_an_outdated_result_are_removed(tmp_path):
    def write_some(count: int) -> None:
        def compute(stage: Stage) -> None:
            for i in range(count):
                with stage.write(f"output/center{i}.txt") as path:
                    path.write_text("here")

        with Run.create_or_resume(tmp_path, [], {}) as run:
            run.stage("centers", NoneType, compute, options={"count": count})

    write_some(3)
    (tmp_path / "output/mine.txt").write_text("kept")
    write_some(2)
    left = sorted(path.name for path in (tmp_path / "output").iterdir())
    assert left == ["center0.txt", "center1.txt", "mine.txt"]


def test_a_stage_that_fails_is_not_done(tmp_path):
    def fail(stage: Stage) -> Number:
        with stage.write("output/half.txt") as path:
            path.write_text("half")
            raise FloatingPointError("shell 3 is not finite")

    with Run.create_or_resume(tmp_path, [], {}) as run:
        with pytest.raises(FloatingPointError):
            run.stage("mean", Number, fail)
        assert run.stage("mean", Number, lambda _: number(1)).value == 1
    assert list((tmp_path / "output").iterdir()) == []


def test_decisions_and_costs_stand_in_the_manifest(tmp_path):
    def choose(stage: Stage) -> Number:
        stage.decide("components", np.int64(7), "an eighth does not help")
        return number(7)

    with Run.create_or_resume(tmp_path, ["recovar", "pipeline", "my file.star"], {}) as run:
        run.stage("pca", Number, choose)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    done = manifest["stages"]["pca"]
    assert done["decisions"] == {"components": {"value": 7, "why": "an eighth does not help"}}
    assert done["peak_memory"] > 10**6
    assert done["seconds"] >= 0
    assert done["outputs"][0]["path"] == "model/pca.npz"
    assert (tmp_path / "command.txt").read_text() == "recovar pipeline 'my file.star'\n"


def test_options_may_be_paths_records_and_arrays(tmp_path):
    def options(last: int) -> dict:
        return {"path": Path("a"), "record": number(1), "array": np.arange(3), "last": [last]}

    counts = []
    for last in (1, 1, 2):
        with Run.create_or_resume(tmp_path, [], options(last)) as run:
            run.stage("some", NoneType, lambda _: counts.append(1), options=options(last))
    assert len(counts) == 2


def test_unchanged_options_are_not_called_changed(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        config = {"zdim": (4, 10), "path": Path("a"), "limit": float("nan"), "names": {"a"}}
        Run.create_or_resume(tmp_path, [], config).close()
    assert [record.message for record in caplog.records] == [f"Resuming the run in {tmp_path}"]


def test_a_checkpoint_lasts_until_its_stage_is_done(tmp_path):
    def interrupted(stage: Stage) -> Number:
        stage.checkpoint("sums").save(done=np.array(5))
        raise KeyboardInterrupt

    def resumed(stage: Stage) -> Number:
        saved = stage.checkpoint("sums").load()
        assert saved is not None
        return Number(saved["done"])

    with Run.create_or_resume(tmp_path, [], {}) as run, pytest.raises(KeyboardInterrupt):
        run.stage("mean", Number, interrupted, options={"padding": 2})
    with Run.create_or_resume(tmp_path, [], {}) as run:
        assert run.stage("mean", Number, resumed, options={"padding": 2}).value == 5
    assert not list(tmp_path.rglob("sums*"))


def test_a_checkpoint_of_other_options_is_not_used(tmp_path):
    def interrupted(stage: Stage) -> Number:
        stage.checkpoint("sums").save(done=np.array(5))
        raise KeyboardInterrupt

    def resumed(stage: Stage) -> Number:
        assert stage.checkpoint("sums").load() is None
        return number(0)

    with Run.create_or_resume(tmp_path, [], {}) as run:
        with pytest.raises(KeyboardInterrupt):
            run.stage("mean", Number, interrupted, options={"padding": 2})
        run.stage("mean", Number, resumed, options={"padding": 1})


@contextmanager
def another_process(path: Path, body: str) -> Iterator[int]:
    """Run a program that opens a run and prints "ready" where we want it; kill it at the end."""
    opening = f"""
        import time
        from types import NoneType
        from recovar.run import Run
        run = Run.create_or_resume({str(path)!r}, [], {{}})
    """
    program = textwrap.dedent(opening) + textwrap.dedent(body)
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    body = """
        run.stage("a", NoneType, lambda stage: None)
        def hang(stage):
            with stage.write("output/b.txt") as path:
                path.write_text("half")
                print("ready", flush=True)
                time.sleep(600)
        run.stage("b", NoneType, hang, depends=["a"])
    """
    with another_process(tmp_path, body):
        pass
    assert not (tmp_path / "output/b.txt").exists()
    assert any((tmp_path / "output").iterdir())
    computed = []
    with Run.create_or_resume(tmp_path, [], {}) as run:
        assert not any((tmp_path / "output").iterdir())
        run.stage("a", NoneType, lambda _: computed.append("a"))
        run.stage("b", NoneType, lambda _: computed.append("b"), depends=["a"])
    assert computed == ["b"]


def test_two_processes_cannot_write_to_one_run(tmp_path):
    body = "print('ready', flush=True); time.sleep(600)"
    with (
        another_process(tmp_path, body) as process,
        pytest.raises(RunInUseError, match=f"in use by process {process} on .* with -o"),
    ):
        Run.create_or_resume(tmp_path, [], {})
    Run.create_or_resume(tmp_path, [], {}).close()


def test_a_foreign_directory_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"holds thesis\.tex but no manifest\.json"):
        Run.create_or_resume(tmp_path, [], {})
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="Expected a directory"):
        Run.create_or_resume(tmp_path / "out", [], {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": 1}', "missing required field"),
        ('{"format": 999, "version": "9.1"}', r"has format 999.*Use recovar 9\.1"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named_and_kept(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=message):
        Run.create_or_resume(tmp_path, [], {})
    assert (tmp_path / "manifest.json").read_text() == content
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        read_manifest(tmp_path)


def test_outputs_outside_of_the_run_are_never_removed(tmp_path, workflow):
    workflow.run()
    (tmp_path / "elsewhere").write_text("1.0\n")
    manifest = workflow.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("output/a.txt", "../elsewhere"))
    workflow.run()
    assert (tmp_path / "elsewhere").exists()


def test_results_can_be_read_while_the_run_goes_on(tmp_path):
    with Run.create_or_resume(tmp_path, [], {}) as run:
        run.stage("mean", Number, lambda _: number(3))
        assert read_result(tmp_path, "mean", Number).value == 3
        with pytest.raises(InputError, match="not finished its stage 'pca'"):
            read_result(tmp_path, "pca", Number)


def test_there_is_no_run_where_there_is_no_manifest(tmp_path):
    with pytest.raises(InputError, match="Expected a run"):
        read_result(tmp_path, "mean", Number)


def test_a_fingerprint_tells_contents_apart(tmp_path):
    for name, content in [("a", "one"), ("b", "one"), ("c", "two")]:
        (tmp_path / name).write_text(content)
    prints = [fingerprint(tmp_path / name) for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_a_large_file_is_known_by_its_size(tmp_path):
    for name, size in [("a", 2**26 + 1), ("b", 2**26 + 2)]:
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    assert "changed" in fingerprint(tmp_path / "a")

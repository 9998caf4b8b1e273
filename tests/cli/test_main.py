import logging
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType

import pytest

import recovar
from recovar.cli import COMMANDS, Command, main
from recovar.compute.progress import Reporter
from recovar.errors import InputError
from recovar.run import Run

logger = logging.getLogger("recovar.workflows.some")


@dataclass(frozen=True, kw_only=True)
class Config:
    output: str
    """Directory of the run."""
    size: int = 64
    """Voxels along an edge."""

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"Expected a size above 0, got {self.size}. Give another --size.")


def work(config: Config, reporter: Reporter) -> None:
    with Run.create_or_resume(config.output, reporter.command, asdict(config)) as run:
        reporter.log_to(run.path / "run.log")
        logger.debug("a detail")
        logger.info("some news")
        if config.size == 13:
            raise InputError("Expected a lucky size.")
        if config.size == 99:
            raise KeyboardInterrupt
        if config.size == 100:
            raise FloatingPointError("shell 3")

        def compute(stage) -> None:
            with reporter.task("Counting", config.size, "voxels") as advance:
                advance(config.size)

        run.stage("count", NoneType, compute, options={"size": config.size})


SOME = Command("some-work", "Do some work.", f"{__name__}:Config", f"{__name__}:work")


def run_main(*arguments) -> int:
    return main([str(argument) for argument in arguments], [SOME])


def test_a_command_calls_its_workflow_and_logs_to_the_run(tmp_path, capsys):
    assert run_main("some_work", "-o", tmp_path) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "some news\n" in output.err
    assert "a detail" not in output.err
    assert "Counting: 64 voxels in " in output.err
    log = (tmp_path / "run.log").read_text()
    assert "DEBUG   a detail" in log
    assert "Counting: 64 voxels in " in log
    assert (tmp_path / "command.txt").read_text() == f"recovar some_work -o {tmp_path}\n"


def test_a_second_call_appends_to_the_log(tmp_path):
    for _ in range(2):
        assert run_main("some-work", "-o", tmp_path) == 0
    log = (tmp_path / "run.log").read_text()
    assert log.count("some news") == 2
    assert "Stage count is done" in log


def test_quiet_and_verbose_change_only_what_is_printed(tmp_path, capsys):
    assert run_main("some-work", "-o", tmp_path / "a", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert run_main("some-work", "-o", tmp_path / "b", "--verbose") == 0
    assert "a detail" in capsys.readouterr().err
    assert "a detail" in (tmp_path / "a/run.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "0"], "error: Expected a size above 0, got 0. Give another --size.\n"),
        (["--size", "13"], "error: Expected a lucky size.\n"),
        (["--sise", "3"], "error: Unknown option: --sise. Did you mean --size?\n"),
    ],
)
def test_what_a_user_can_fix_is_one_sentence(tmp_path, capsys, arguments, sentence):
    assert run_main("some-work", "-o", tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert error.replace('"', "").endswith(sentence)  # cyclopts quoted options before 5
    assert "Traceback" not in error


def test_an_error_stands_in_the_log_as_well(tmp_path):
    run_main("some-work", "-o", tmp_path, "--size", "13")
    assert "ERROR   Expected a lucky size." in (tmp_path / "run.log").read_text()


def test_an_unknown_command_is_refused(capsys):
    assert run_main("other-work") == 2
    assert 'error: Unknown command "other-work"' in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(tmp_path, capsys):
    assert run_main("some-work", "-o", tmp_path, "--size", "99") == 130
    assert "resumes" in capsys.readouterr().err


def test_our_own_errors_keep_their_traceback(tmp_path):
    with pytest.raises(FloatingPointError, match="shell 3"):
        run_main("some-work", "-o", tmp_path, "--size", "100")
    assert "Traceback" in (tmp_path / "run.log").read_text()


def test_the_terminal_is_left_alone_afterwards(tmp_path):
    before = list(logging.getLogger("recovar").handlers)
    run_main("some-work", "-o", tmp_path)
    assert logging.getLogger("recovar").handlers == before


@pytest.mark.parametrize("arguments", [["--help"], [], ["some-work", "--help"]])
def test_help_is_grouped_and_names_what_there_is(capsys, arguments):
    assert run_main(*arguments) == 0
    text = capsys.readouterr().out
    assert "Do some work." in text
    if arguments and arguments[0] == "some-work":
        assert "Voxels along an edge." in text
        assert "Common options" in text


def test_the_version_is_told(capsys):
    assert run_main("--version") == 0
    assert capsys.readouterr().out.strip() == recovar.__version__


def test_help_and_errors_do_not_wait_for_jax():
    program = (
        "import sys; from recovar.cli import COMMANDS, main\n"
        "asked = [[], *([command.name] for command in COMMANDS)]\n"
        "assert not any(main([*words, '--help']) for words in asked)\n"
        "assert main(['nonsense']) == 2\n"
        "assert 'jax' not in sys.modules"
    )
    environment = {"PYTHONPATH": str(Path(recovar.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_the_package_runs_as_a_module():
    environment = {"PYTHONPATH": str(Path(recovar.__file__).parents[1])}
    program = [sys.executable, "-m", "recovar"]
    told = subprocess.run([*program, "--version"], check=True, env=environment, capture_output=True)
    assert told.stdout.decode().strip() == recovar.__version__
    assert subprocess.run([*program, "x"], env=environment, capture_output=True).returncode == 2


def test_cpu_is_set_before_jax_is_imported(tmp_path):
    (tmp_path / "late.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n    output: str = 'out'\n"
    )
    (tmp_path / "later.py").write_text(
        "import jax\ndef work(config, reporter):\n    assert jax.config.jax_platforms == 'cpu'\n"
    )
    program = (
        "from recovar.cli import Command, main\n"
        "raise SystemExit(main(['x', '--cpu'], [Command('x', '', 'late:Config', 'later:work')]))"
    )
    environment = {"PYTHONPATH": f"{Path(recovar.__file__).parents[1]}:{tmp_path}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_commands_have_distinct_names_with_dashes():
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert not any("_" in name for name in names)

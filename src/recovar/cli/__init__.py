"""The command line: parse, call a workflow, report.

Commands are named here with where their config and workflow live. A module is imported only when
its command is called, so that help and errors are quick and `--cpu` comes before JAX.
"""

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cyclopts import App, CycloptsError, Group

import recovar
from recovar.cli.options import CommonOptions, make_command, normalize
from recovar.cli.reporter import ConsoleReporter, stderr_console, terminal_logging
from recovar.errors import InputError

logger = logging.getLogger(__name__)


class Chapter(Enum):
    """Headings of the list of commands, in their order."""

    START = Group("Start here", sort_key=0)
    FILES = Group("Files", sort_key=1)
    ANALYSIS = Group("Analysis", sort_key=2)
    TRUTH = Group("Known truth", sort_key=3)


@dataclass(frozen=True)
class Command:
    """A command and where it is found; places are written `module:name`."""

    name: str
    """With dashes; underscores work as well."""
    summary: str
    config: str
    """Frozen dataclass of the options."""
    workflow: str
    """Function of a config and a `Reporter`."""
    chapter: Chapter = Chapter.ANALYSIS
    """Where the help lists it."""


COMMANDS: tuple[Command, ...] = (
    Command(
        "info",
        "Tell what is in files, and what about them looks wrong.",
        "recovar.workflows.informing.config:InfoConfig",
        "recovar.workflows.info:run_info",
        chapter=Chapter.FILES,
    ),
    Command(
        "downsample",
        "Make images or volumes smaller, with tables that stay true of them.",
        "recovar.workflows.configs:DownsampleConfig",
        "recovar.workflows.downsample:run_downsample",
        chapter=Chapter.FILES,
    ),
    Command(
        "parse-pose-star",
        "Write the poses of a STAR file as a pickle.",
        "recovar.workflows.parse_configs:ParsePoseStarConfig",
        "recovar.workflows.parse:run_parse_pose_star",
        chapter=Chapter.FILES,
    ),
    Command(
        "parse-pose-csparc",
        "Write the poses of a cryoSPARC table as a pickle.",
        "recovar.workflows.parse_configs:ParsePoseCsparcConfig",
        "recovar.workflows.parse:run_parse_pose_csparc",
        chapter=Chapter.FILES,
    ),
    Command(
        "parse-ctf-star",
        "Write the CTF parameters of a STAR file as a pickle.",
        "recovar.workflows.parse_configs:ParseCtfStarConfig",
        "recovar.workflows.parse:run_parse_ctf_star",
        chapter=Chapter.FILES,
    ),
    Command(
        "parse-ctf-csparc",
        "Write the CTF parameters of a cryoSPARC table as a pickle.",
        "recovar.workflows.parse_configs:ParseCtfCsparcConfig",
        "recovar.workflows.parse:run_parse_ctf_csparc",
        chapter=Chapter.FILES,
    ),
    Command(
        "pipeline",
        "Estimate mean, components and embedding of particle images.",
        "recovar.workflows.configs:PipelineConfig",
        "recovar.workflows.pipeline:run_pipeline",
    ),
    Command(
        "analyze",
        "Divide and map the images of a run, and show its states and trajectories.",
        "recovar.workflows.analyzing.config:AnalyzeConfig",
        "recovar.workflows.analyze:run_analyze",
    ),
    Command(
        "check",
        "Ask the images whether poses, shifts, CTFs, hand and mask are what files say.",
        "recovar.workflows.checking.config:CheckConfig",
        "recovar.workflows.check:run_check",
        chapter=Chapter.FILES,
    ),
    Command(
        "compute-state",
        "Reconstruct volumes at latent points.",
        "recovar.workflows.reconstructing.config:ComputeStateConfig",
        "recovar.workflows.compute_state:run_compute_state",
    ),
    Command(
        "compute-trajectory",
        "Find a path between two latent points, and make volumes along it.",
        "recovar.workflows.tracing.config:ComputeTrajectoryConfig",
        "recovar.workflows.compute_trajectory:run_compute_trajectory",
    ),
    Command(
        "density",
        "Estimate how molecules are distributed over their states, and find stable ones.",
        "recovar.workflows.densities.config:DensityConfig",
        "recovar.workflows.density:run_density",
    ),
    Command(
        "estimate-conformational-density",
        "The same as density, by its longer name.",
        "recovar.workflows.densities.config:DensityConfig",
        "recovar.workflows.density:run_density",
    ),
    Command(
        "export",
        "Take particles back out of a run, by where they lie or what they are.",
        "recovar.workflows.exporting.config:ExportConfig",
        "recovar.workflows.export:run_export",
    ),
    Command(
        "report",
        "Write one page that tells what a run found.",
        "recovar.workflows.reporting.config:ReportConfig",
        "recovar.workflows.report:run_report",
    ),
    Command(
        "simulate",
        "Make images of molecules whose states are known.",
        "recovar.workflows.simulating.config:SimulateConfig",
        "recovar.workflows.simulate:run_simulate",
        chapter=Chapter.TRUTH,
    ),
    Command(
        "score",
        "Judge a result, of any program, by a known truth.",
        "recovar.workflows.configs:ScoreConfig",
        "recovar.workflows.score:run_score",
        chapter=Chapter.TRUTH,
    ),
    Command(
        "demo",
        "Simulate a small data set with known truth, analyse it and show the result.",
        "recovar.workflows.configs:DemoConfig",
        "recovar.workflows.demo:run_demo",
        chapter=Chapter.START,
    ),
)


def main(arguments: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS) -> int:
    """Run the command line.

    Args:
        arguments: What follows the program's name; taken from the process if absent.
        commands: The commands that exist.

    Returns:
        Exit status: 0 for success, 2 for what a user can fix, 130 if interrupted.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    console = stderr_console()
    with terminal_logging(console) as terminal:
        reporter = ConsoleReporter(("recovar", *tokens), console)
        try:
            _make_app(normalize(tokens), commands, reporter, terminal)(
                normalize(tokens),
                exit_on_error=False,
                print_error=False,
                result_action="return_none",
            )
        except (InputError, CycloptsError) as error:
            logger.error("%s", error)
            return 2
        except KeyboardInterrupt:
            logger.error("interrupted; the same command resumes a run")
            return 130
        except BaseException:
            logger.debug("Stopped by an error that is not the user's", exc_info=True)
            raise
        finally:
            reporter.close()
    return 0


def _make_app(
    tokens: Sequence[str],
    commands: Sequence[Command],
    reporter: ConsoleReporter,
    terminal: logging.Handler,
) -> App:
    """Make the app; only the command that is called gets its options."""
    app = App(
        name="recovar",
        help="Conformational heterogeneity of molecules from cryo-EM images.",
        version=lambda: recovar.__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for command in commands:
        part = App(name=command.name, help=command.summary, group=command.chapter.value)
        if tokens and tokens[0] == command.name:
            part.default(_load(command, reporter, terminal))
        app.command(part)
    return app


def _load(command: Command, reporter: ConsoleReporter, terminal: logging.Handler) -> Any:  # noqa: ANN401
    def run(config: Any, common: CommonOptions) -> None:  # noqa: ANN401
        if common.cpu:
            _use_cpu()
        if common.quiet:
            terminal.setLevel(logging.WARNING)
        elif common.verbose:
            terminal.setLevel(logging.DEBUG)
        reporter.quiet = common.quiet
        _find(command.workflow)(config, reporter)

    return make_command(_find(command.config), run, command.summary)


def _use_cpu() -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # then it has read its environment already
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def _find(place: str) -> Any:  # noqa: ANN401
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)

"""How to go on: commands with the paths of this very run."""

import shlex
from pathlib import Path

from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import element
from recovar.workflows.reporting.page import Section


def tell_how_to_go_on(contents: Contents) -> Section:
    """Write the last section."""
    return Section(
        "next",
        "How to go on",
        "Commands for this run, to be copied into a terminal. Paths are those of the machine that "
        "wrote this page.",
        [
            element("div", element("h4", title), element("pre", command))
            for title, command in _commands(contents)
        ],
    )


def command_line(*words: str | Path | int) -> str:
    """Write a command as a shell reads it."""
    return shlex.join(str(word) for word in words)


def _commands(contents: Contents) -> list[tuple[str, str]]:
    run = contents.path
    if not contents.embeddings:
        again = shlex.join(contents.manifest.command) or command_line("recovar", "pipeline", "…")
        return [("Let the pipeline run to its end; what is done is kept", again)]
    zdim = min(contents.embeddings)
    scripts = sorted(run.glob("output/**/*.cxc"))
    mean, variance = (run / "output" / "volumes" / f"{name}.mrc" for name in ("mean", "variance4"))
    return [
        (
            "Find groups, states and paths, with their volumes",
            command_line("recovar", "analyze", run, "--zdim", zdim),
        ),
        (
            "Make volumes at points of your choice, one point on each line of a text file",
            command_line(
                "recovar", "compute_state", run, "-o", run / "states", "--latent-points",
                "points.txt",
            ),
        ),
        (
            "Follow a path between two of them",
            command_line(
                "recovar", "compute_trajectory", run, "-o", run / "path", "--zdim", zdim,
                "--endpts", "points.txt",
            ),
        ),
        (
            "Take images chosen above back to RELION or cryoSPARC",
            command_line(
                "recovar", "export", run, "-o", "selected.star", "--ind", "selected.txt"
            ),
        ),
        (
            "Look at volumes",
            "\n".join(command_line("chimerax", script) for script in scripts[:5])
            or command_line("chimerax", mean, variance),
        ),
    ]  # fmt: skip

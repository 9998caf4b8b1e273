"""What was run, what it found in numbers, and what it decided by itself."""

import shlex

import numpy as np

from recovar.compute.memory import format_bytes
from recovar.embedding import LEAST_RELIABILITY
from recovar.regularization import resolution_at
from recovar.workflows.mean import LEAST_FSC
from recovar.workflows.reporting.contents import Contents, reliability_of
from recovar.workflows.reporting.markup import Markup, element, table
from recovar.workflows.reporting.page import Section

_MOST_WARNINGS = 40


def summarize(contents: Contents) -> Section:
    """Write the first section."""
    body = [_facts(contents), _warnings(contents), *_decisions(contents), *_costs(contents)]
    return Section(
        "summary",
        "Summary",
        "What went in, what came out, and what the program chose by itself. Numbers here say how "
        "well images agree with each other, not whether poses or the mask were right.",
        body,
    )


def _facts(contents: Contents) -> Markup:
    facts: list[tuple[str, str, str]] = []
    if contents.images is not None:
        facts.append(("images", f"{contents.images:,}", ""))
    grid, curves = contents.grid, contents.curves
    if grid is not None:
        facts.append(("box", f"{grid.size} pixels", f"of {grid.voxel_size:.4g} Å"))
    if grid is not None and curves is not None:
        best = grid.resolution(grid.largest_radius)
        for name, curve in (("in the mask", curves.masked), ("in the whole box", curves.whole)):
            reached = resolution_at(curve, LEAST_FSC, grid)
            limit = "the finest that pixels hold" if reached <= 1.001 * best else ""
            facts.append((f"mean, {name}", f"{reached:.3g} Å", limit))
    if contents.embeddings:
        largest = list(contents.embeddings.values())[-1]
        seen = reliability_of(largest) > LEAST_RELIABILITY
        facts.append(("components seen", f"{int(seen.sum())}", f"of {len(seen)}"))
        if contents.manifest.config.get("correct_contrast"):
            facts.append(("spread of contrasts", f"{np.std(largest.contrast):.3f}", ""))
    cards = [
        element("div", element("dt", name), element("dd", value, " ", element("small", note)))
        for name, value, note in facts
    ]
    return element("dl", cards, class_="facts")


def _warnings(contents: Contents) -> Markup:
    found = contents.warnings
    if not found:
        return element("p", "The log has no warnings.", class_="quiet")
    shown = [element("li", text) for text in found[:_MOST_WARNINGS]]
    more = len(found) - len(shown)
    rest = element("p", f"{more} more stand in run.log.") if more else ""
    return element("div", element("h3", "Warnings"), element("ul", shown), rest, class_="warnings")


def _decisions(contents: Contents) -> list[Markup]:
    rows = [
        (name, str(decision.value), decision.why)
        for stage in contents.manifest.stages.values()
        for name, decision in stage.decisions.items()
    ]
    if not rows:
        return []
    return [element("h3", "Decisions"), table(("what", "value", "because"), rows)]


def _costs(contents: Contents) -> list[Markup]:
    manifest = contents.manifest
    stages = manifest.stages.items()
    rows = [
        (name, f"{stage.seconds:,.1f}", format_bytes(stage.peak_memory), stage.version)
        for name, stage in stages
    ]
    total = sum(stage.seconds for _, stage in stages)
    file = contents.path / "command.txt"
    commands = file.read_text(errors="replace") if file.exists() else shlex.join(manifest.command)
    return [
        element("h3", "Commands"),
        element("pre", commands.strip()),
        element(
            "details",
            element("summary", f"Stages: {total:,.0f} s in all, begun {manifest.created}"),
            table(("stage", "seconds", "peak memory by its end", "version"), rows, numbers=(1, 2)),
        ),
        element(
            "details",
            element("summary", "Options"),
            table(
                ("option", "value"),
                [(name, _plain(value)) for name, value in sorted(manifest.config.items())],
            ),
        ),
    ]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not given" if value is None else str(value)

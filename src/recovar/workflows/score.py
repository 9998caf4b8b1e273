"""The command `score`: how much of a known truth a result holds, in numbers and in one picture."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from recovar import plots
from recovar.compute.progress import Reporter
from recovar.records import write_whole
from recovar.workflows.configs import ScoreConfig
from recovar.workflows.scoring.components import score_components
from recovar.workflows.scoring.files import Found, read_found
from recovar.workflows.scoring.latent import (
    score_contrast,
    score_latent,
    score_noise,
    score_outliers,
    score_posteriors,
)
from recovar.workflows.scoring.picture import draw_scores
from recovar.workflows.scoring.table import Section, describe, to_tree
from recovar.workflows.scoring.truth import Truth, read_truth
from recovar.workflows.scoring.volumes import (
    regions_of,
    score_conformations,
    score_images,
    score_mean,
    score_states,
)

logger = logging.getLogger(__name__)


def run_score(config: ScoreConfig, reporter: Reporter) -> None:
    """Score everything that a result has, and leave a table, scores.json and scores.png.

    Raises:
        InputError: If truth and result cannot be read, or do not belong together.
    """
    truth, found = read_pair(config)
    sections = judge(truth, found, reporter, config.seed)
    lines = describe(sections)
    output = _output_of(config)
    with write_whole(output / "scores.json") as partial:
        partial.write_text(json.dumps(to_tree(sections), indent=1) + "\n")
    with write_whole(output / "scores.png") as partial:
        plots.save_figure(draw_scores(truth, found, sections), partial)
    for line in lines:
        logger.info("%s", line)
    skipped = [reason for section in sections for reason in section.skipped]
    if skipped:
        logger.info("\nNot scored: %s", "; ".join(skipped))
    logger.info("\nAll numbers are in scores.json, and a picture in scores.png, in %s", output)


def read_pair(config: ScoreConfig) -> tuple[Truth, Found]:
    """Read truth and result, and bring the truth to the box of the result."""
    truth = read_truth(config.truth)
    found = read_found(config.result, truth, config.zdim, config.ind)
    return (truth if found.grid is None else truth.in_box(found.grid.size)), found


def judge(truth: Truth, found: Found, reporter: Reporter, seed: int = 0) -> Sequence[Section]:
    """Compare everything that both truth and result have."""
    regions = regions_of(truth)
    parts: dict[str, Callable[[], Section]] = {
        "mean": lambda: score_mean(truth, found, regions),
        "states": lambda: score_states(truth, found, regions),
        "conformations": lambda: score_conformations(truth, found, regions),
        "volumes of images": lambda: score_images(truth, found, regions, reporter),
        "components": lambda: score_components(truth, found),
        "latent coordinates": lambda: score_latent(truth, found, seed),
        "errors of coordinates": lambda: score_posteriors(truth, found),
        "contrast": lambda: score_contrast(truth, found),
        "outliers": lambda: score_outliers(truth, found),
        "noise": lambda: score_noise(truth, found),
    }
    sections = []
    with reporter.task("Scores", len(parts), "parts") as advance:
        for part in parts.values():
            sections.append(part())
            advance(1)
    return sections


def _output_of(config: ScoreConfig) -> Path:
    if config.output is not None:
        return config.output
    folder = config.result.parent if config.result.is_file() else config.result
    return folder / "score"

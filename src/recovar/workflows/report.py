"""The command `report`: one page that tells what a run found, to be looked at and passed on."""

import logging
from pathlib import Path

from recovar.compute.memory import format_bytes
from recovar.compute.progress import Reporter
from recovar.records import write_whole
from recovar.workflows.outputs import refuse_overwriting
from recovar.workflows.reporting.config import ReportConfig
from recovar.workflows.reporting.contents import Contents, read_contents
from recovar.workflows.reporting.groups import show_groups
from recovar.workflows.reporting.landscape import show_density
from recovar.workflows.reporting.maps import show_components, show_mean, show_noise
from recovar.workflows.reporting.onward import tell_how_to_go_on
from recovar.workflows.reporting.overview import summarize
from recovar.workflows.reporting.page import Section, make_page
from recovar.workflows.reporting.scatter import show_embedding
from recovar.workflows.reporting.trust import show_nuisances

logger = logging.getLogger(__name__)

REPORT = "report.html"


def run_report(config: ReportConfig, reporter: Reporter) -> None:
    """Write the page of a run.

    Raises:
        InputError: If there is no run, or the file that -o names may not be written.
    """
    del reporter
    if config.output is not None:
        refuse_overwriting(config.output, (), overwrite=config.overwrite)
    write_report(config.run, config.output)


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write a page that tells what a run found; the same run gives the same page.

    Args:
        run: Directory of a run, finished or not.
        output: Page to write; `report.html` in the run if not given.

    Returns:
        Where the page is.

    Raises:
        InputError: If there is no run, or its manifest cannot be read.
    """
    contents = read_contents(run)
    file = run / REPORT if output is None else output
    text = describe_run(contents)
    with write_whole(file) as partial:
        partial.write_text(text, encoding="utf-8")
    logger.info("%s tells what was found, in %s", file, format_bytes(len(text.encode())))
    return file


def describe_run(contents: Contents) -> str:
    """Write the page as text; what the run does not have is left out."""
    sections: list[Section | None] = [
        summarize(contents),
        show_mean(contents),
        show_noise(contents),
        show_components(contents),
        show_embedding(contents),
        show_density(contents),
        show_groups(contents),
        show_nuisances(contents),
        tell_how_to_go_on(contents),
    ]
    images = "" if contents.images is None else f" · {contents.images:,} images"
    return make_page(
        f"{contents.path.name}: report of recovar",
        f"{contents.path}{images} · recovar {contents.manifest.version}",
        [section for section in sections if section is not None],
    )

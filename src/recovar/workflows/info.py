"""The command `info`: what is in files, in words and units, and what about them looks wrong."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

from recovar.compute.progress import Reporter
from recovar.errors import InputError
from recovar.records import write_whole
from recovar.workflows.informing.arrays import report_arrays, report_index_text
from recovar.workflows.informing.config import InfoConfig
from recovar.workflows.informing.directories import report_directory, report_list
from recovar.workflows.informing.images import report_mrc
from recovar.workflows.informing.remarks import remarks_of_readers
from recovar.workflows.informing.report import FileReport, describe, to_plain, without_name
from recovar.workflows.informing.tables import report_cs, report_star
from recovar.workflows.outputs import refuse_overwriting

logger = logging.getLogger(__name__)


def run_info(config: InfoConfig, reporter: Reporter) -> None:
    """Tell about every file that can be read, then stop for those that cannot.

    Raises:
        InputError: If a file cannot be read; the others have been told about by then.
    """
    if config.output is not None:
        refuse_overwriting(config.output, config.files, overwrite=config.overwrite)
    reports: list[FileReport] = []
    refusals: dict[str, str] = {}
    for path in config.files:
        try:
            with remarks_of_readers() as remarks:
                report = report_file(path, config)
        except InputError as refusal:
            refusals[str(path)] = str(refusal)
        else:
            notes = (without_name(path, remark) for remark in dict.fromkeys(remarks))
            reports.append(replace(report, notes=(*report.notes, *notes)))
    if config.json:
        plain = [*map(to_plain, reports)]
        plain += [{"path": path, "error": error} for path, error in refusals.items()]
        text = json.dumps({"files": plain}, indent=1, ensure_ascii=False)
    else:
        text = "\n".join(describe(reports))
    if config.output is None:
        sys.stdout.write(text + "\n" if text else "")
    else:
        with write_whole(config.output) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        logger.info(
            "%s tells about %d of %d files.", config.output, len(reports), len(config.files)
        )
    if refusals:
        raise InputError("\n".join(refusals.values()))


def report_file(path: Path, config: InfoConfig) -> FileReport:
    """Tell about one file, by its suffix, or by its content where that is not telling.

    Raises:
        InputError: If it cannot be read.
    """
    if path.is_dir():
        return report_directory(path)
    if not path.is_file():
        raise InputError(f"Expected a file or a directory at {path}, but there is none.")
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return _TABLES[suffix](path, config)
    if suffix in _ARRAYS:
        return report_arrays(path)
    if suffix not in _IMAGES and _is_text(path):
        raise InputError(
            f"{path} is a text of a kind that is not known. Files that are end in "
            f"{', '.join((*_TABLES, *_ARRAYS, *_IMAGES))}."
        )
    return report_mrc(path)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(256)
    return start.isascii() and b"\0" not in start


def _report_text(path: Path, config: InfoConfig) -> FileReport:
    words = path.read_text(errors="replace").split(maxsplit=1)
    if words and words[0].lstrip("-").replace(".", "", 1).isdigit():
        return report_index_text(path)
    return report_list(path, config)


_TABLES = {".star": report_star, ".cs": report_cs, ".csg": report_cs, ".txt": _report_text}
_ARRAYS = (".pkl", ".npz", ".npy")
_IMAGES = (".mrcs", ".mrc", ".map", ".ccp4")

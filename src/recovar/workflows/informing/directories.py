"""Runs, known truths, groups of cryoSPARC and lists of stacks in words."""

import json
from pathlib import Path

import numpy as np

from recovar.data.locate import StackLocator
from recovar.data.mrc_header import read_header
from recovar.errors import InputError
from recovar.manifest import MANIFEST, read_manifest
from recovar.records import load_arrays
from recovar.workflows.informing.config import InfoConfig
from recovar.workflows.informing.report import Fact, FileReport, count_of, number_of, tally


def report_directory(path: Path) -> FileReport:
    """Tell about a run or a known truth.

    Raises:
        InputError: If it is neither.
    """
    if (path / MANIFEST).is_file():
        return _report_run(path)
    for place in (path, path / "truth"):
        if (place / "per_image.npz").is_file():
            return _report_truth(place)
    raise InputError(
        f"{path} is a directory, but neither a run (it has no {MANIFEST}) nor a known truth (no "
        "per_image.npz). Give the files in it that you want to know about."
    )


def _report_run(path: Path) -> FileReport:
    manifest = read_manifest(path)
    stages = manifest.stages
    seconds = sum(stage.seconds for stage in stages.values())
    facts = [
        Fact("version", manifest.version, manifest.version),
        Fact("begun", manifest.created, manifest.created),
        Fact("command", " ".join(manifest.command) or "none", manifest.command),
        Fact("stages done", ", ".join(stages) or "none", list(stages)),
        Fact("time of stages", f"{number_of(seconds)} s", seconds),
    ]
    for name, stage in stages.items():
        for what, decision in stage.decisions.items():
            facts.append(
                Fact(f"{name}: {what}", f"{decision.value} ({decision.why})", decision.value)
            )
    maps = sorted(path.glob("output/volumes/*.mrc"))
    if maps:
        header = read_header(maps[0])
        size = "unknown" if header.voxel_size is None else number_of(header.voxel_size)
        text = f"{len(maps):,} of {header.shape[0]} voxels a side of {size} Å"
        facts.append(Fact("volumes", text, {"count": len(maps), "box": header.shape[0]}))
    embeddings = sorted(each.stem for each in path.glob("output/embedding/*.npz"))
    if embeddings:
        facts.append(Fact("embeddings", ", ".join(embeddings), embeddings))
    lost = [
        output.path
        for stage in stages.values()
        for output in stage.outputs
        if not (path / output.path).is_file()
    ]
    missing = (f"{count_of(len(lost), 'file')} of the run, such as {lost[0]}.",) if lost else ()
    return FileReport(path, "run of recovar", tuple(facts), missing)


def _report_truth(place: Path) -> FileReport:
    each = load_arrays(place / "per_image.npz")
    count = len(each["latent"]) if "latent" in each else 0
    head = [Fact("images", f"{count:,}", count)]
    if "kind" in each:
        head.append(Fact("kinds of images", str(tally(each["kind"])), tally(each["kind"])))
    volumes = sorted(place.glob("vol_*.mrc"))
    targets = sorted(place.glob("target_*.mrc"))
    for name, found in (("volumes", volumes), ("targets", targets)):
        head.append(Fact(name, f"{len(found):,}", len(found)))
    missing = [
        f"{name}: scores that need it are left out."
        for name in ("mean.mrc", "mask.mrc", "noise_radial.npy", "grid.npz")
        if not (place / name).is_file()
    ]
    return FileReport(
        place,
        "known truth",
        (*_meta_facts(place), *head, Fact("known of images", ", ".join(each), list(each))),
        tuple(missing),
    )


def _meta_facts(place: Path) -> list[Fact]:
    if not (place / "meta.json").is_file():
        return []
    try:
        meta = json.loads((place / "meta.json").read_text())
    except ValueError as error:
        raise InputError(f"{place / 'meta.json'} is not JSON that can be read: {error}.") from error
    plain = meta.items() if isinstance(meta, dict) else ()
    return [
        Fact(name, str(value), value)
        for name, value in plain
        if isinstance(value, str | int | float)
    ]


def report_list(path: Path, config: InfoConfig) -> FileReport:
    """Tell about a text file with one stack per line."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    if not any(name.endswith((".mrc", ".mrcs")) for name in names):
        raise InputError(
            f"{path}: expected indices, or one stack (.mrcs, .mrc) per line, found neither."
        )
    locator = StackLocator(path, config.datadir, config.strip_prefix)
    places = {name: locator.find(name) for name in names}
    found = [place for place in places.values() if place is not None]
    headers = [read_header(place) for place in found]
    count = sum(header.sections_in_file for header in headers)
    boxes = np.unique([header.shape[2] for header in headers]).tolist()
    facts = (
        Fact("stacks", f"{len(names):,} named, {len(found):,} found", [len(names), len(found)]),
        Fact("images", f"{count:,}", count),
        Fact("box", f"{', '.join(map(str, boxes)) or 'unknown'} pixels", boxes),
    )
    lost = [name for name, place in places.items() if place is None]
    missing = (
        (f"Image file {lost[0]}: looked for {locator.describe_search(lost[0])}.",) if lost else ()
    )
    return FileReport(path, "list of stacks", facts, missing)

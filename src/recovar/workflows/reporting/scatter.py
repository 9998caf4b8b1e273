"""The section on embeddings: points that can be looked at from all sides, and chosen."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped
from matplotlib import colormaps
from matplotlib.colors import to_hex

from recovar.data.legacy import read_halfsets
from recovar.workflows.reporting.analyses import Analysis
from recovar.workflows.reporting.charts import draw_histogram
from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import Markup, element, embed_json, figure
from recovar.workflows.reporting.onward import command_line
from recovar.workflows.reporting.page import Section
from recovar.workflows.run_outliers import read_outliers

MOST_POINTS = 50_000
"""Points on a page; of more images so many are drawn by chance."""
_MOST_COORDINATES = 20
_LEVELS = 65_534
"""Steps that numbers are rounded to; one more stands for what is not known."""
_ANGSTROM_PER_MICRON = 1e4
_MOST_ODDS = 20.0
"""Powers of ten; beyond them odds look alike."""


@dataclass(frozen=True)
class Column:
    """Something known of every image."""

    name: str
    group: str
    values: Float[np.ndarray, " images"]
    """Not finite where unknown."""
    is_category: bool = False
    coordinate: tuple[int, int] | None = None
    """Of a latent coordinate: dimensions of its embedding, and its number from 1."""

    def pack(self, rows: Int64[np.ndarray, " chosen"]) -> dict[str, Any]:
        """Round the values of some images, for the script of the page."""
        values = self.values[rows]
        known = np.isfinite(values)
        low, high = (values[known].min(), values[known].max()) if known.any() else (0.0, 0.0)
        step = 1.0 if self.is_category else float(high - low) / _LEVELS or 1.0
        levels = np.full(len(values), 65_535, "<u2")
        levels[known] = np.rint((values[known] - low) / step).astype("<u2")
        packed: dict[str, Any] = {
            "name": self.name,
            "group": self.group,
            "category": self.is_category,
            "low": float(low),
            "step": step,
            "data": base64.b64encode(levels.tobytes()).decode("ascii"),
        }
        if self.coordinate is not None:
            packed["zdim"], packed["number"] = self.coordinate
        return packed


def show_embedding(contents: Contents) -> Section | None:
    """Write the section on where images lie, if that is known."""
    if not contents.embeddings:
        return None
    largest = list(contents.embeddings.values())[-1]
    body = [*_scatter(contents)]
    if contents.manifest.config.get("correct_contrast"):
        body += [
            element("h3", "Contrasts"),
            figure(
                draw_histogram("Contrasts", largest.contrast, "contrast", "images"),
                "Factors on the signal of the images. They spread around 1; a second peak near 0 "
                "is images without a molecule.",
            ),
        ]
    return Section(
        "embedding",
        "Embedding",
        "Every point is an image. Groups are states, paths and clouds are motions; but noise "
        "spreads points as well, so that two states can touch and one state has a width. UMAP "
        "keeps neighbours together and bends everything else: distances in it mean little.",
        body,
    )


def pack_points(contents: Contents, most: int = MOST_POINTS) -> dict[str, Any]:
    """Give everything that the script of the page knows of the images."""
    embedding = list(contents.embeddings.values())[-1]
    total = len(embedding)
    rows = np.arange(total)
    if total > most:
        rows = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    return {
        "total": total,
        "row": embedding.row[rows].tolist(),
        "identity": _pack_identities(embedding.identity[rows]),
        "columns": [column.pack(rows) for column in _columns(contents)],
        "colours": [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 1, 64))],
        "export": command_line("recovar", "export", contents.path),
    }


def _columns(contents: Contents) -> Iterator[Column]:
    """List what points can lie along and be coloured by."""
    analyses = contents.analyses
    for zdim in {analysis.zdim: None for analysis in analyses} or [max(contents.embeddings)]:
        if zdim not in contents.embeddings:
            continue
        embedding, group = contents.embeddings[zdim], f"embedding of {zdim}"
        for k, values in enumerate(embedding.coordinates.T[:_MOST_COORDINATES], 1):
            yield Column(f"coordinate {k}", group, values, coordinate=(zdim, k))
        for analysis in analyses:
            if analysis.zdim == zdim:
                yield from _columns_of_analysis(analysis, group)
    yield from _columns_of_images(contents)


def _columns_of_analysis(analysis: Analysis, group: str) -> Iterator[Column]:
    if analysis.umap is not None:
        for k, values in enumerate(analysis.umap.T[:2], 1):
            yield Column(f"UMAP {k}", group, values.astype(np.float64))
    for clustering in analysis.clusterings:
        labels = clustering.labels.astype(np.float64)
        yield Column(
            f"cluster of {clustering.count}", group, np.where(labels < 0, np.nan, labels), True
        )


def _columns_of_images(contents: Contents) -> Iterator[Column]:
    group = "image"
    embedding = list(contents.embeddings.values())[-1]
    if contents.manifest.config.get("correct_contrast"):
        yield Column("contrast", group, embedding.contrast)
    outliers = read_outliers(contents.path)
    if outliers is not None:
        odds = outliers.log_odds / np.log(10)
        yield Column("log₁₀ odds of junk", group, np.clip(odds, -_MOST_ODDS, _MOST_ODDS))
    halves = contents.path / "model" / "halfsets.pkl"
    if halves.exists():
        _, second = read_halfsets(halves)
        yield Column("half set", group, 1.0 + np.isin(embedding.row, second), True)
    defocus = [
        values
        for label in ("rlnDefocusU", "rlnDefocusV")
        if (values := contents.column(label)) is not None
    ]
    if defocus:
        yield Column("defocus (µm)", group, np.mean(defocus, axis=0) / _ANGSTROM_PER_MICRON)
    for label, name in (("rlnAngleRot", "rot (°)"), ("rlnAngleTilt", "tilt (°)")):
        values = contents.column(label)
        if values is not None:
            yield Column(name, group, values)
    yield Column("row", group, embedding.row.astype(np.float64))


def _pack_identities(identity: Shaped[np.ndarray, " images"]) -> dict[str, Any]:
    """Split names as 000012@stack.mrcs, so that names of stacks stand there once."""
    heads, names, which = [], {}, []
    for text in identity.astype(str).tolist():
        head, mark, name = text.rpartition("@")
        heads.append(head + mark)
        which.append(names.setdefault(name, len(names)))
    return {"heads": heads, "names": list(names), "which": which}


def _scatter(contents: Contents) -> list[Markup]:
    packed = pack_points(contents)
    shown, total = len(packed["row"]), packed["total"]
    few = (
        f"{shown:,} of {total:,} images are shown, drawn by chance. A list of chosen points holds "
        "only images that are shown; the polygon below the list takes all images inside."
        if shown < total
        else ""
    )
    choices = [
        element("label", text, " ", element("select", id=f"scatter-{name}"))
        for name, text in (("x", "across"), ("y", "up"), ("colour", "colour"))
    ]
    buttons = [
        element(
            "button", text, type="button", data_mode=mode, aria_pressed=str(mode == "pan").lower()
        )
        for mode, text in (("pan", "move"), ("lasso", "lasso"), ("box", "rectangle"))
    ]
    return [
        element("p", few, class_="quiet") if few else Markup(""),
        element(
            "div",
            element(
                "div",
                choices,
                element("span", buttons, role="group", aria_label="What dragging does"),
                element("button", "whole view", type="button", id="scatter-reset"),
                class_="controls",
            ),
            element("canvas", id="scatter-canvas", role="img", aria_label="Images as points"),
            element("div", id="scatter-key"),
            element(
                "p",
                "Drag moves, the wheel zooms. With lasso or rectangle, Shift adds to what is "
                "chosen and Alt takes away.",
                class_="quiet",
            ),
            _selection(),
            id="scatter",
        ),
        embed_json("scatter-data", packed),
    ]  # fmt: skip


def _selection() -> Markup:
    buttons = [
        element("button", text, type="button", id=f"selection-{name}", disabled=True)
        for name, text in (("copy", "copy"), ("save", "download .txt"), ("clear", "clear"))
    ]
    return element(
        "div",
        element("p", element("strong", "0", id="selection-count"), " images chosen ", buttons),
        element(
            "textarea", id="selection-list", readonly=True, rows=4, spellcheck="false",
            aria_label="Rows of the chosen images",
        ),
        element("pre", id="selection-command"),
        element(
            "div",
            element(
                "p",
                element("button", "download polygon", type="button", id="polygon-save"),
                " takes ", element("em", "all"), " images inside, also those that are not shown:",
            ),
            element("pre", id="polygon-command"),
            id="polygon", hidden=True,
        ),
        class_="selection",
    )  # fmt: skip

"""The section on clusters and paths: how many images there are, and what they look like."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recovar.core.grid import Grid
from recovar.regularization import resolution_at
from recovar.workflows.reporting.analyses import Analysis, Clustering, LatentRoute
from recovar.workflows.reporting.charts import Axis, Series, draw_chart, spanning_axis
from recovar.workflows.reporting.contents import Contents
from recovar.workflows.reporting.markup import Markup, element, figure, table
from recovar.workflows.reporting.page import Section
from recovar.workflows.reporting.pictures import embed_picture

STATE_FSC = 1 / 7
"""Correlation of half-maps at which the resolution of a state is told."""
_MOST_ROUTES = 8
_OPEN_ROWS = 12
"""Longer tables are folded."""


def show_groups(contents: Contents) -> Section | None:
    """Write the section, if there are clusters or paths."""
    grid = contents.grid
    body = [part for analysis in contents.analyses for part in _show_analysis(analysis, grid)]
    if contents.routes:
        body.append(element("h3", "Further paths"))
        body += [part for route in contents.routes for part in _show_route(route, grid)]
    if not body:
        return None
    return Section(
        "groups",
        "Clusters and paths",
        "Images that lie near each other, and volumes made of them. K-means divides a continuum as "
        "readily as separate states: clusters are places to look at, not kinds of molecules. A "
        "path that is density-based goes where many images are; one that is only visual just "
        "shows what lies between its ends.",
        body,
    )


def _show_analysis(analysis: Analysis, grid: Grid | None) -> Iterator[Markup]:
    if not analysis.clusterings and not analysis.routes:
        return
    yield element("h3", f"Embedding of {analysis.zdim}")
    for clustering in analysis.clusterings:
        yield element("h4", f"{clustering.count} clusters")
        yield from _show_clusters(clustering, grid)
    for route in analysis.routes[:_MOST_ROUTES]:
        yield from _show_route(route, grid)
    more = len(analysis.routes) - _MOST_ROUTES
    if more > 0:
        yield element("p", f"{more} more paths lie in {analysis.path}.", class_="quiet")


def _show_clusters(clustering: Clustering, grid: Grid | None) -> Iterator[Markup]:
    sizes, resolutions = clustering.sizes, _resolutions(clustering.path, grid)
    most, total = max(1, int(sizes.max())), max(1, int(sizes.sum()))
    head = ["cluster", "images", "%", ""]
    rows: list[list[str]] = [
        [
            str(number),
            f"{size:,}",
            f"{100 * size / total:.1f}",
            element("span", class_="bar-cell", style=f"width:{8 * size / most:.2f}rem"),
        ]
        for number, size in enumerate(sizes.tolist())
    ]
    if len(resolutions) == len(rows):
        head.append("volume, Å")
        for row, resolution in zip(rows, resolutions, strict=True):
            row.append(f"{resolution:.3g}")
    listed = table(head, rows, numbers=(0, 1, 2, 4))
    if len(rows) > _OPEN_ROWS:
        listed = element("details", element("summary", "Images in every cluster"), listed)
    yield listed
    yield from _show_states(clustering.path, resolutions)


def _show_route(route: LatentRoute, grid: Grid | None) -> Iterator[Markup]:
    badge = ("density-based", "dense") if route.follows_density else ("only visual", "visual")
    yield element(
        "h4", f"{route.path.name} ", element("span", badge[0], class_=f"badge {badge[1]}")
    )
    yield element("p", route.remark)
    across = Axis("distance along the path", (0.0, float(route.arc_length[-1]) or 1.0))
    up = spanning_axis("density", np.append(route.density, 0.0))
    series = [Series("density", route.density)]
    yield figure(
        draw_chart("Density along the path", route.arc_length, series, (across, up)),
        "Density along the path. Valleys between two hills are barriers, or places that few "
        "images happened to show.",
    )
    yield from _show_states(route.path, _resolutions(route.path, grid))


def _show_states(path: Path, resolutions: Float64[np.ndarray, " states"]) -> Iterator[Markup]:
    pictures = [
        embed_picture(path / name, caption)
        for name, caption in (
            ("montage.png", "Every state as a surface, and slices; colours are differences."),
            ("turntable.gif", "States that turn, at one contour."),
            ("states.gif", "From state to state and back, at one contour."),
        )
        if (path / name).exists()
    ]
    if pictures:
        yield element("div", pictures, class_="pictures")
    if len(resolutions) > 1:
        number = np.arange(len(resolutions), dtype=np.float64)
        axes = (
            Axis("state", (-0.6, len(number) - 0.4), whole=True),
            Axis("resolution (Å)", (0.0, 1.08 * float(resolutions.max()))),
        )
        yield figure(
            draw_chart(
                "Resolution by state", number, [Series("resolution (Å)", resolutions, "bars")], axes
            ),
            "Resolution of each state by its own half-maps in the mask; lower is finer. States "
            "with few images near them rest on their neighbours.",
        )


def _resolutions(path: Path, grid: Grid | None) -> Float64[np.ndarray, " states"]:
    """Read how well half-maps of states agree, in the order of their numbers."""
    files = sorted(path.glob("fsc_*.txt"))
    if grid is None:
        return np.empty(0)
    return np.array([resolution_at(np.loadtxt(file)[:, -1], STATE_FSC, grid) for file in files])

"""Pictures of how far a result can be trusted."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from recovar.held_out import LEVEL
from recovar.nuisance import Audit, Dependence
from recovar.reproducibility import LEAST_CONFIRMED, Reproducibility

_INK, _MUTED = "#1f2933", "#9aa5b1"
_BLUE, _ORANGE = "#2b6cb0", "#dd6b20"
_LEAST_TOLD = 0.01
"""Share from which on it stands in its cell."""
_LEAST_TOP = 0.1
"""Share that the darkest colour stands for at least."""


def draw_nuisance(audit: Audit) -> Figure:
    """Draw what each nuisance explains of each coordinate, with a frame around what is flagged."""
    pcs, rows = audit.mean.share.shape[1], len(audit.names)
    figure = Figure((3.2 + 0.75 * pcs, 1.6 + 0.3 * rows), layout="constrained")
    figure.suptitle("share of variance explained", fontsize=10)
    panels = figure.subplots(1, 2, sharey=True)
    top = max(_LEAST_TOP, float(audit.mean.share.max()), float(audit.spread.share.max()))
    norm = Normalize(0, top)
    for axes, each, title in zip(
        panels, (audit.mean, audit.spread), ("of the coordinate", "of its spread"), strict=True
    ):
        cells = _draw_shares(axes, each, norm)
        axes.set_title(title, fontsize=9)
        axes.set_xticks(np.arange(pcs), np.arange(1, pcs + 1).astype(str))
        axes.set_xlabel("coordinate")
        axes.tick_params(length=0, labelsize=8)
    panels[0].set_yticks(np.arange(rows), audit.names)
    bar = figure.colorbar(
        cells, ax=panels.tolist(), shrink=0.85, pad=0.01, format=PercentFormatter(1, 0)
    )
    bar.ax.tick_params(labelsize=7)
    return figure


def draw_reproducibility(found: Reproducibility) -> Figure:
    """Draw what halves share of each component, and what it is worth for images held out."""
    figure = Figure((10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    count = int(found.real.sum())
    title = (
        f"{count} of {len(found.shared)} components are real" if count else "No component is real"
    )
    figure.suptitle(title, fontsize=10)
    _draw_halves(left, found)
    _draw_gains(right, found)
    return figure


def _draw_halves(axes: Axes, found: Reproducibility) -> None:
    number = np.arange(1, len(found.shared) + 1)
    colours = np.where(found.real, _BLUE, _MUTED)
    axes.bar(number, np.maximum(found.shared, 0), width=0.6, color=colours, zorder=2)
    axes.hlines(
        found.null, number - 0.42, number + 0.42, color=_ORANGE, linewidth=2, zorder=3,
        label=f"{1 - LEVEL:.0%} level of noise",
    )  # fmt: skip
    axes.plot(
        number, np.maximum(found.confirmed, 0), "d", color=_INK, markersize=4, zorder=5,
        label="by components that gain",
    )  # fmt: skip
    for each, label in ((found.first, "within one of the halves"), (found.second, None)):
        axes.plot(number, each, "o", color=_INK, markersize=2.5, zorder=4, label=label)
    axes.axhline(LEAST_CONFIRMED, color=_MUTED, linewidth=1, linestyle="--", zorder=1)
    axes.set_ylim(0, 1.03)
    axes.set_xticks(number)
    axes.set_xlabel("component")
    axes.set_ylabel("share of the component in both halves")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def _draw_gains(axes: Axes, found: Reproducibility) -> None:
    gains = found.gains
    number = np.arange(len(gains.mean) + 1)
    mean, error = np.append(0.0, gains.mean), np.append(0.0, gains.error)
    axes.errorbar(number, mean, error, color=_BLUE, marker="o", markersize=3, capsize=2)
    axes.axhline(0, color=_MUTED, linewidth=1, linestyle="--", zorder=1)
    axes.axvline(found.suggested_zdim, color=_ORANGE, linewidth=1.5, zorder=1)
    axes.set_title(f"suggested zdim {found.suggested_zdim}", fontsize=9)
    axes.set_xlabel("components of one half")
    axes.set_ylabel("log likelihood of images of the other, each")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_shares(axes: Axes, dependence: Dependence, norm: Normalize):  # noqa: ANN202
    shares = dependence.share
    cells = axes.imshow(np.maximum(shares, 0), cmap="Blues", norm=norm, aspect="auto")
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(shares >= _LEAST_TOLD).tolist():
        share = shares[row, column]
        colour = "white" if norm(share) > 0.55 else _INK
        axes.text(
            column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour
        )
    for row, column in np.argwhere(dependence.flagged).tolist():
        frame = Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False)
        frame.set(edgecolor=_ORANGE, linewidth=1.5)
        axes.add_patch(frame)
    return cells

"""Pictures of clusters of images."""

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from recovar.plots import COLOURS, INK, MUTED, draw_embedding, make_axes

_MOST_POINTS = 30_000
"""More cover each other."""
_CLUSTERS = "turbo"


def draw_centres(
    coordinates: Float[np.ndarray, "images axes"],
    centres: Float[np.ndarray, "clusters axes"],
    names: tuple[str, str],
    *,
    annotate: bool,
) -> Figure:
    """Draw the density of images along one or two axes, and the centres of clusters in it.

    Args:
        coordinates: Of the images.
        centres: Along the same axes.
        names: Of the axes; the second one counts if there are two.
        annotate: Write the number of each cluster beside its centre.
    """
    figure = draw_embedding(coordinates, names)
    axes = figure.axes[0]
    alone = centres.shape[1] == 1
    if alone:
        places = np.column_stack([centres[:, 0], np.full(len(centres), 0.02 * axes.get_ylim()[1])])
    else:
        places = centres
        for values, get, put in (
            (centres[:, 0], axes.get_xlim, axes.set_xlim),
            (centres[:, 1], axes.get_ylim, axes.set_ylim),
        ):
            low, high = get()
            margin = 0.02 * (high - low)
            put(min(low, values.min() - margin), max(high, values.max() + margin))
    axes.plot(*places.T, "o", color=COLOURS[1], markeredgecolor="white", markersize=5, zorder=3)
    for number, place in enumerate(places if annotate else ()):
        axes.annotate(
            str(number), place, xytext=(3, 3 + alone * (6 + 10 * (number % 4))),
            textcoords="offset points", fontsize=8, color=INK, zorder=4,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
    return figure


def draw_clusters(
    coordinates: Float[np.ndarray, "images 2"],
    labels: Int64[np.ndarray, " images"],
    names: tuple[str, str],
    seed: int,
) -> Figure:
    """Draw every image in the colour of its cluster; of very many, some that are drawn by chance.

    Args:
        coordinates: Along two axes.
        labels: Cluster of every image, from 0; clusters near to each other have near numbers.
        names: Of the axes.
        seed: Of the choice of images.
    """
    figure, axes = make_axes(5.6, 5.0)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:_MOST_POINTS]
    points = axes.scatter(
        *coordinates[chosen].T, c=labels[chosen], s=float(np.clip(2e4 / len(chosen), 0.8, 12)),
        cmap=_CLUSTERS, linewidths=0, rasterized=True,
    )  # fmt: skip
    for values, put in zip(coordinates.T, (axes.set_xlim, axes.set_ylim), strict=True):
        low, high = np.percentile(values, (0.1, 99.9))
        margin = 0.06 * (high - low) + 1e-12
        put(low - margin, high + margin)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    figure.colorbar(points, label="cluster", shrink=0.8)
    return figure


def draw_sizes(sizes: Int64[np.ndarray, " clusters"]) -> Figure:
    """Draw how many images each cluster has."""
    figure, axes = make_axes(max(6.0, 0.16 * len(sizes)), 3.2)
    axes.bar(np.arange(len(sizes)), sizes, color=COLOURS[0], width=0.8)
    mean = float(sizes.mean())
    axes.axhline(mean, color=MUTED, linewidth=1, linestyle="--")
    axes.set_xlim(-0.6, len(sizes) - 0.4)
    axes.set_xlabel("cluster")
    axes.set_ylabel("images")
    axes.set_title(
        f"smallest {sizes.min():,}, median {np.median(sizes):,.0f}, largest {sizes.max():,}",
        fontsize=10,
    )
    return figure

"""Sections on what all images share, on noise, and on how molecules differ."""

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from recovar.core.grid import Grid
from recovar.noise import Noise
from recovar.regularization import resolution_at
from recovar.rendering import default_level, face, make_surface, turntable
from recovar.reproducibility import Reproducibility
from recovar.workflows.mean import LEAST_FSC, Start
from recovar.workflows.reporting.charts import (
    Axis,
    Mark,
    Series,
    draw_chart,
    resolution_axis,
    spanning_axis,
)
from recovar.workflows.reporting.contents import Contents, Curves, reliability_of
from recovar.workflows.reporting.markup import Markup, element, figure
from recovar.workflows.reporting.page import Section
from recovar.workflows.reporting.pictures import (
    AXES,
    encode_turning,
    grey_shade,
    heat_shade,
    signed_shade,
    slices_of,
    tile,
    tiles,
)

_SHOWN_COMPONENTS = 6
_REPRODUCIBILITY = "reproducibility", Reproducibility
_OUTLINE = 0.3
"""Of the largest density, where the outline of the mean is drawn."""
_FRAMES, _TURNING_PIXELS, _FRAME_SECONDS = 14, 128, 0.15
"""Of the surface of the mean that turns."""
_LEAST_GAP = 0.06
"""Between two marked frequencies, in 1/voxel; of closer ones the first is marked."""
_BLUR = 0.02
"""Of the box, by which the mean is blurred before its outline is drawn."""


def show_mean(contents: Contents) -> Section | None:
    """Write the section on the mean, if there is one."""
    grid, curves, mean = contents.grid, contents.curves, contents.volume("volumes/mean")
    if grid is None or curves is None or mean is None:
        return None
    mask = contents.volume("volumes/mask")
    return Section(
        "mean",
        "Mean",
        "The average of all molecules. Half-maps come from disjoint halves of the particles, so "
        "their correlation is fair; but a mask that is too tight makes the curve inside it too "
        "good, and moving parts are blurred here however many images there are.",
        [
            element(
                "div",
                figure(
                    _draw_fsc(curves, grid),
                    f"Correlation of the half-maps. Where it falls below {LEAST_FSC}, noise wins.",
                ),
                _turning(mean, mask),
                class_="pair",
            ),
            element("h3", "Slices and projections"),
            tiles(_views(mean, mask)),
            _note("The line is the outline of the solvent mask.") if mask is not None else "",
        ],
    )


def show_noise(contents: Contents) -> Section | None:
    """Write the section on the power of images and of their noise."""
    grid = contents.grid
    noise, start = contents.result("noise", Noise), contents.result("inputs", Start)
    if grid is None or noise is None or start is None:
        return None
    shells = slice(1, len(noise.variance))
    frequency = np.arange(len(noise.variance))[shells] / (grid.size * grid.voxel_size)
    series = [
        Series("images", start.power[shells] / grid.size**2, colour=1),
        Series("noise", noise.variance[shells] / grid.size**2),
    ]
    y = spanning_axis("power per pixel", *(each.values for each in series), is_logarithmic=True)
    return Section(
        "noise",
        "Noise and power",
        "Power of the images and of their noise at every frequency. The signal is the gap between "
        "the curves; where they meet, single images say nothing. Noise that rises at low "
        "frequencies is often ice or neighbouring particles.",
        [
            figure(
                draw_chart(
                    "Power spectra", frequency, series, (resolution_axis(grid.voxel_size), y)
                ),
                "In units of a pixel's variance: white noise of variance 1 would lie at 1.",
            )
        ],
    )


def show_components(contents: Contents) -> Section | None:
    """Write the section on principal components, if there are any."""
    mean = contents.volume("volumes/mean")
    if not contents.embeddings or mean is None:
        return None
    largest = list(contents.embeddings.values())[-1]
    body = [
        element(
            "div",
            figure(
                _draw_decay(largest.eigenvalues),
                "How much of all variance lies along each component.",
            ),
            _draw_trust(reliability_of(largest), contents.result(*_REPRODUCIBILITY)),
            class_="pair",
        )
    ]
    volumes = []
    for number in range(min(_SHOWN_COMPONENTS, len(largest.eigenvalues))):
        volume = contents.volume(f"volumes/eigen_pos{number:03d}")
        if volume is not None:
            volumes.append(volume * np.sqrt(max(0.0, float(largest.eigenvalues[number]))))
    if volumes:
        body += _component_tiles(np.stack(volumes), body_of(mean))
    body += _variance_tiles(contents, body_of(mean))
    return Section(
        "components",
        "Components",
        "The directions along which molecules differ most. Real motion changes connected parts; a "
        "shell around the whole molecule comes from errors of contrast or pose. One motion can "
        "fill several components, and two motions can share one.",
        body,
    )


def centre_of_change(deviations: Float[np.ndarray, "pcs z y x"]) -> tuple[int, ...]:
    """Give the voxel that varies most, where slices tell most."""
    variance = np.einsum("kzyx,kzyx->zyx", deviations, deviations)
    return tuple(int(i) for i in np.unravel_index(np.argmax(variance), variance.shape))


def body_of(mean: Float[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z y x"]:
    """Blur a mean until its outline is that of its body."""
    return ndimage.gaussian_filter(np.asarray(mean, np.float32), _BLUR * len(mean))


def outline_level(mean: Float[np.ndarray, "z y x"]) -> float:
    """Give the density at which the outline of a mean is drawn."""
    return _OUTLINE * float(np.percentile(mean, 99.8))


def _draw_fsc(curves: Curves, grid: Grid) -> Markup:
    series, marks, reached = [], [Mark(f"{LEAST_FSC}", y=LEAST_FSC)], []
    for colour, (name, curve) in enumerate(
        (("in the mask", curves.masked), ("whole box", curves.whole))
    ):
        resolution = resolution_at(curve, LEAST_FSC, grid)
        reached.append(1 / resolution)
        series.append(Series(f"{name}: {resolution:.3g} Å", curve, colour=colour))
        marks.append(Mark(f"{resolution:.3g} Å", x=1 / resolution))
    if abs(reached[0] - reached[1]) < _LEAST_GAP / grid.voxel_size:
        marks.pop()
    low = min(-0.05, float(curves.whole.min()), float(curves.masked.min()))
    axes = resolution_axis(grid.voxel_size), Axis("correlation of half-maps", (low, 1.03))
    return draw_chart("Fourier shell correlation", curves.frequency, series, axes, marks=marks)


def _turning(mean: Float[np.ndarray, "z y x"], mask: Float[np.ndarray, "z y x"] | None) -> Markup:
    """Show the surface of the mean while it turns."""
    level = default_level(mean, mask)
    frames = turntable(make_surface(mean, level), face(mean, level), _FRAMES, _TURNING_PIXELS)
    caption = "surface, turning"
    picture = element("img", src=encode_turning(frames, _FRAME_SECONDS), alt=caption)
    return element("figure", picture, element("figcaption", caption), class_="turning")


def _views(
    volume: Float[np.ndarray, "z y x"], mask: Float[np.ndarray, "z y x"] | None
) -> list[Markup]:
    cuts = slices_of(volume)
    sums = [volume.sum(axis) for axis in range(3)]
    cut_lines = [[]] * 3 if mask is None else [[(cut, 0.5)] for cut in slices_of(mask)]
    sum_lines = [[]] * 3 if mask is None else [[(mask.max(axis), 0.5)] for axis in range(3)]
    views = []
    for kind, images, lines in (("slice", cuts, cut_lines), ("projection", sums, sum_lines)):
        shade = grey_shade(images)
        views += [
            tile(image, shade, f"{kind} across {axis}", outline)
            for image, axis, outline in zip(images, AXES, lines, strict=True)
        ]
    return views


def _draw_decay(eigenvalues: Float[np.ndarray, " pcs"]) -> Markup:
    share = eigenvalues / max(float(eigenvalues.sum()), np.finfo(float).tiny)
    return draw_chart(
        "Share of the variance by component",
        _numbers(len(share)),
        [Series("share of the variance", share, "both")],
        (
            _component_axis(len(share)),
            spanning_axis("share of the variance", share, is_logarithmic=True),
        ),
    )


def _draw_trust(
    reliability: Float[np.ndarray, " pcs"], reproducibility: Reproducibility | None
) -> Markup:
    """Draw how far components can be trusted, by single images and by halves of them."""
    count = len(reliability)
    series = [Series("reliability of coordinates", reliability, "bars")]
    caption = (
        "Reliability: the share of a coordinate's variance that single images determine. Near 0, "
        "images say nothing about it."
    )
    if reproducibility is not None:
        shared, null = (
            _padded(values, count) for values in (reproducibility.shared, reproducibility.null)
        )
        series += [
            Series("found in both halves", shared, "points", colour=1),
            Series("noise would be below", null, "line", colour=5),
        ]
        caption += (
            " Dots: the share of a component that both half sets find, fitted apart at low "
            f"resolution. {int(reproducibility.real.sum())} of {len(reproducibility.shared)} "
            "components are real: found again, and confirmed by images of the other half; "
            f"suggested zdim {reproducibility.suggested_zdim}."
        )
    axes = _component_axis(count), Axis("share", (0.0, 1.0))
    return figure(draw_chart("Trust by component", _numbers(count), series, axes), caption)


def _padded(values: Float[np.ndarray, "..."], count: int) -> Float[np.ndarray, " pcs"]:
    """Leave open what was not asked of the last components."""
    padded = np.full(count, np.nan)
    padded[: len(values)] = values[:count]
    return padded


def _numbers(count: int) -> Float[np.ndarray, " pcs"]:
    return np.arange(1, count + 1, dtype=np.float64)


def _component_axis(count: int) -> Axis:
    return Axis("component", (0.4, count + 0.6), whole=True)


def _component_tiles(
    deviations: Float[np.ndarray, "pcs z y x"], mean: Float[np.ndarray, "z y x"]
) -> list[Markup]:
    centre, level = centre_of_change(deviations), outline_level(mean)
    cuts, shadows = slices_of(mean, centre), [mean.max(axis) for axis in range(3)]
    parts = []
    for number, volume in enumerate(deviations, 1):
        slices, sums = slices_of(volume, centre), [volume.sum(axis) for axis in range(3)]
        shade, summed = signed_shade(slices), signed_shade(sums)
        row = [
            tile(image, shade, f"slice across {axis}", [(cut, level)])
            for image, axis, cut in zip(slices, AXES, cuts, strict=True)
        ] + [
            tile(image, summed, f"projection across {axis}", [(cut, level)])
            for image, axis, cut in zip(sums, AXES, shadows, strict=True)
        ]
        parts += [element("h4", f"Component {number}"), tiles(row)]
    return [
        element("h3", "Volumes of the components"),
        _note(
            "One standard deviation along each component: red is gained and blue is lost as the "
            "coordinate grows. The sign as a whole means nothing. Slices go through the voxel "
            "that varies most; the line is the outline of the mean."
        ),
        *parts,
    ]


def _variance_tiles(contents: Contents, mean: Float[np.ndarray, "z y x"]) -> list[Markup]:
    parts = []
    for name, title in (
        ("variance4", "Variance by the first 4 components"),
        ("heterogeneity_mask", "Where the molecule was found to vary"),
    ):
        volume = contents.volume(f"volumes/{name}")
        if volume is None:
            continue
        place = np.unravel_index(int(np.argmax(volume)), volume.shape)
        centre = [int(i) for i in place] if name.startswith("variance") else None
        level, images = outline_level(mean), slices_of(volume, centre)
        images += [volume.max(axis) for axis in range(3)]
        lines = [*slices_of(mean, centre), *(mean.max(axis) for axis in range(3))]
        names = [f"{kind} across {axis}" for kind in ("slice", "maximum") for axis in AXES]
        shade = heat_shade(images)
        parts += [
            element("h4", title),
            tiles(
                [
                    tile(image, shade, caption, [(line, level)])
                    for image, caption, line in zip(images, names, lines, strict=True)
                ]
            ),
        ]
    return [element("h3", "Maps of the variance"), *parts] if parts else []


def _note(text: str) -> Markup:
    return element("p", text, class_="quiet")

"""Scores of volumes: of the mean, of states, of conformations and of single images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from recovar.compute.progress import Reporter
from recovar.core import fourier
from recovar.metrics import (
    Agreement,
    LocalError,
    compare_maps,
    cryobench_auc,
    cryobench_fsc,
    cryobench_images,
    local_error,
    low_pass,
    scale_of,
    varying_region,
)
from recovar.workflows.scoring.files import Found, VolumeModel, read_on
from recovar.workflows.scoring.table import Score, Section
from recovar.workflows.scoring.truth import Truth

_LOCAL = 8.0
"""Width in Å of the surroundings of a voxel."""
_MOST_STATES = 6
"""States that the table tells of one by one."""

Maps = Mapping[str, Float[np.ndarray, "z y x"] | None]


def regions_of(truth: Truth) -> Maps:
    """Name the regions that maps are compared in."""
    moving = varying_region(truth.volumes, truth.weights, truth.grid.voxel_size)
    regions: dict[str, Float[np.ndarray, "z y x"] | None] = {"unmasked": None}
    if truth.mask is not None:
        regions["masked"] = truth.mask
    if moving.any():
        regions["moving"] = moving
    return regions


def score_mean(truth: Truth, found: Found, regions: Maps) -> Section:
    """Compare the mean with the true one."""
    if found.mean is None:
        return Section("Mean", (), skipped=("the mean: no mean.mrc",))
    kept = {name: mask for name, mask in regions.items() if name != "moving"}
    each = _compare(found.mean, truth.mean, truth, kept)
    scores = list(
        _of_agreements("mean", each, "correlation of the mean with the true one, over all shells")
    )
    if truth.mask is not None:
        error = local_error(found.mean, truth.mean, truth.mask, _LOCAL / truth.grid.voxel_size)
        scores.append(
            Score(
                "mean.local_error",
                {"median": error.median, "90%": error.worst},
                "error within 8 Å of a voxel in the mask, over the density's rms",
                0.0,
            )
        )
    scores.append(
        Score(
            "mean.scale",
            scale_of(*low_pass(np.stack([found.mean, truth.scale * truth.mean]))),
            "scale of the mean over that of the images, up to half Nyquist",
            1.0,
        )
    )
    curves = {f"mean, {name}": agreement.curve for name, agreement in each.items()}
    return Section("Mean", tuple(scores), curves)


def _compare(
    found: Float[np.ndarray, "z y x"],
    true: Float[np.ndarray, "z y x"],
    truth: Truth,
    regions: Maps,
) -> dict[str, Agreement]:
    return {name: compare_maps(found, true, truth.grid, mask) for name, mask in regions.items()}


def _of_agreements(prefix: str, each: Mapping[str, Agreement], meaning: str) -> Iterator[Score]:
    """Tell correlations and resolutions; without a meaning in scores.json alone."""
    yield Score(
        f"{prefix}.auc", {name: agreement.auc for name, agreement in each.items()}, meaning, 1.0
    )
    for threshold, name in ((0.5, "res05"), (0.143, "res0143")):
        yield Score(
            f"{prefix}.{name}",
            {region: agreement.resolution(threshold) for region, agreement in each.items()},
            "Å, where that falls below one half" if meaning and threshold == 0.5 else "",
        )


def score_states(truth: Truth, found: Found, regions: Maps) -> Section:
    """Compare volumes at the targets with the true ones."""
    scores: list[Score] = []
    curves: dict[str, Float[np.ndarray, " points"]] = {}
    areas: list[list[float]] = []
    errors: list[LocalError] = []
    moving = regions.get("moving")
    for number, volume in _volumes_of_states(truth, found):
        true = truth.targets[number]
        each = _compare(volume, true, truth, regions)
        areas.append([agreement.auc for agreement in each.values()])
        place = ", ".join(f"{x:.3g}" for x in truth.target_latent[number])
        meaning = f"correlation of state {place} with the true one, over all shells"
        if number >= _MOST_STATES:
            meaning = ""
        scores += _of_agreements(f"states.{number:02d}", each, meaning)
        if moving is None:
            curves[f"state {place}"] = each["unmasked"].curve
            continue
        curves[f"state {place}, where it moves"] = each["moving"].curve
        errors.append(local_error(volume, true, moving, _LOCAL / truth.grid.voxel_size))
    if not areas:
        lacking = "no state_00.mrc" if len(truth.targets) else "the truth has no targets"
        return Section("States", (), skipped=(f"states: {lacking}",))
    names = list(regions)
    scores.append(Score("states.auc", _means(names, areas), "the same, mean over all states", 1.0))
    if errors:
        scores.append(
            Score(
                "states.local_error",
                _means(["median", "90%"], [[error.median, error.worst] for error in errors]),
                "error within 8 Å of a voxel that moves, over the density's rms; mean over states",
                0.0,
            )
        )
    return Section("States", tuple(scores), curves)


def _means(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, float]:
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def _volumes_of_states(
    truth: Truth, found: Found
) -> Iterator[tuple[int, Float[np.ndarray, "z y x"]]]:
    """Give the volumes at the targets: those of files, or those of a model of volumes."""
    if found.model is not None:
        usable = _usable(truth, found, found.model)
        for number, target in enumerate(truth.target_latent):
            chosen = usable[truth.near(target, found.rows[usable])]
            yield number, found.model.at(found.model.coordinates[chosen].mean(0))
        return
    for path in found.states:
        number = _number_of(path)
        if number < len(truth.targets):
            yield number, read_on(path, truth.grid)


def _usable(truth: Truth, found: Found, model: VolumeModel) -> Int[np.ndarray, " chosen"]:
    """List the places of images that are no junk and have coordinates."""
    return np.flatnonzero(truth.good[found.rows] & np.isfinite(model.coordinates).all(1))


def score_conformations(truth: Truth, found: Found, regions: Maps) -> Section:
    """Compare the volume at the mean coordinates of each conformation's images with its truth."""
    title, model = "Conformations", found.model
    if model is None:
        reason = "conformations: only a run tells the volume at any coordinates"
        return Section(title, (), skipped=(reason,))
    usable = _usable(truth, found, model)
    seen = truth.nearest_volumes(found.rows[usable])
    areas = []
    for number in np.unique(seen).tolist():
        volume = model.at(model.coordinates[usable[seen == number]].mean(0))
        areas.append(_cryobench_areas(volume, truth.volumes[number], regions))
    best = (truth.grid.size / 2 - 1) / truth.grid.size
    names = list(regions)
    scores = (
        Score(
            "conformations.auc",
            _means(names, areas),
            f"area under the FSC, mean of {len(areas)} conformations, each at the mean coordinates "
            "of its images (CryoBench)",
            best,
        ),
        Score(
            "conformations.auc_least",
            dict(zip(names, np.min(areas, axis=0).tolist(), strict=True)),
            "the worst of them",
            best,
        ),
    )
    return Section(title, scores)


def score_images(truth: Truth, found: Found, regions: Maps, reporter: Reporter) -> Section:
    """Compare volumes of single images with the true ones, as CryoBench does."""
    title, names = "Volumes of single images", list(regions)
    chosen = cryobench_images(len(found.rows))
    rows = found.rows[chosen]
    nearest = truth.nearest_volumes(rows)
    kept, areas = [], []
    with reporter.task("Volumes of images", len(chosen), "volumes") as advance:
        for place, volume in _volumes_of_images(truth, found, chosen):
            if truth.good[rows[place]]:
                areas.append(_cryobench_areas(volume, truth.volumes[nearest[place]], regions))
                kept.append(int(nearest[place]))
            advance(1)
    if not areas:
        return Section(title, (), skipped=("volumes of single images: no per_image/vol_000.mrc",))
    best = (truth.grid.size / 2 - 1) / truth.grid.size
    each = np.array(areas)
    scores = [
        Score(
            "per_image.auc",
            _means(names, areas),
            f"area under the FSC, mean of {len(areas)} images (CryoBench)",
            best,
        ),
        Score("per_image.auc_median", dict(zip(names, np.median(each, 0).tolist(), strict=True))),
        Score("per_image.auc_sd", dict(zip(names, each.std(0).tolist(), strict=True))),
    ]
    curves = {f"images, {name}": values for name, values in zip(names, each.T, strict=True)}
    if found.mean is not None:
        mean = found.mean
        plain = {
            number: _cryobench_areas(mean, truth.volumes[number], regions) for number in set(kept)
        }
        same = [plain[number] for number in kept]
        meaning = "the same if every image is given the mean"
        scores.append(Score("per_image.auc_of_mean", _means(names, same), meaning))
        curves |= {
            f"mean for images, {name}": values
            for name, values in zip(names, np.array(same).T, strict=True)
        }
    return Section(title, tuple(scores), curves)


def _cryobench_areas(
    found: Float[np.ndarray, "z y x"], true: Float[np.ndarray, "z y x"], regions: Maps
) -> list[float]:
    """Give the area under the correlation of two volumes in each region."""
    areas = []
    for mask in regions.values():
        pair = (found, true) if mask is None else (found * mask, true * mask)
        first, second = (fourier.to_spectrum(volume) for volume in pair)
        areas.append(cryobench_auc(cryobench_fsc(first, second)))
    return areas


def _volumes_of_images(
    truth: Truth, found: Found, chosen: Int[np.ndarray, " chosen"]
) -> Iterator[tuple[int, Float[np.ndarray, "z y x"]]]:
    """Give volumes with their places in `chosen`."""
    if found.model is not None:
        for place, z in enumerate(found.model.coordinates[chosen]):
            if np.isfinite(z).all():
                yield place, found.model.at(z)
        return
    for path in found.image_volumes:
        place = _number_of(path)
        if place < len(chosen):
            yield place, read_on(path, truth.grid)


def _number_of(path: Path) -> int:
    return int(path.stem.split("_")[1])

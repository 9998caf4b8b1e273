"""Scores of single images: coordinates, their errors, contrast, outliers; and of the noise."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float, Int

from recovar.metrics import (
    chance_similarity,
    clustering_ari,
    compare_contrasts,
    compare_noise,
    compare_posteriors,
    explained_variance,
    information_imbalance,
    label_points,
    linear_accuracy,
    neighbourhood_similarity,
    outlier_auc,
    regression_r2,
    sample,
    standardize,
    within_label_share,
)
from recovar.workflows.scoring.files import Found
from recovar.workflows.scoring.table import Score, Section
from recovar.workflows.scoring.truth import Truth

_MOST_IMAGES = 10_000
"""Images that coordinates are judged by."""
_MOST_PAIRED = 5_000
"""Images of which all pairs are compared."""
_NEIGHBOURS = (10, 30, 100, 300, 1000)


def score_latent(truth: Truth, found: Found, seed: int) -> Section:
    """Tell what latent coordinates say of the truth, and whether they say more than they should."""
    title = "Latent coordinates"
    if found.coordinates is None:
        return Section(title, (), skipped=("latent coordinates: no embedding",))
    finite = np.isfinite(found.coordinates).all(1)
    usable = np.flatnonzero(finite & truth.good[found.rows])
    if len(usable) < 2 * _NEIGHBOURS[0]:
        return Section(title, (), skipped=("latent coordinates: too few images have finite ones",))
    chosen = usable[sample(len(usable), _MOST_IMAGES, seed)]
    z, rows = found.coordinates[chosen], found.rows[chosen]
    scores = [
        Score(
            "latent.images",
            {"judged": len(chosen), "usable": len(usable), "without": int((~finite).sum())},
            f"{z.shape[1]} coordinates of so many images, of how many, and images without any",
        )
    ]
    if truth.is_continuous:
        scores += _score_regression(z, truth.latent[rows])
    if truth.labels is not None:
        scores += _score_labels(z, truth.labels[rows], seed)
    few = sample(len(chosen), _MOST_PAIRED, seed)
    scores += _score_neighbourhoods(z[few], truth, rows[few])
    return Section(title, tuple(scores))


def _score_regression(
    z: Float[np.ndarray, "images zdim"], latent: Float[np.ndarray, "images coordinates"]
) -> Iterator[Score]:
    """Predict every true coordinate that varies."""
    whitened = standardize(z)
    models: dict[str, tuple[str, Callable[[np.ndarray], float]]] = {
        "r2_linear": ("an affine map", lambda y: regression_r2(z, y, "linear")),
        "r2_quadratic": ("a quadratic one", lambda y: regression_r2(z, y, "quadratic")),
        "r2_knn50_raw": ("the mean of 50 neighbours", lambda y: regression_r2(z, y, "neighbours")),
        "r2_knn50_whitened": ("", lambda y: regression_r2(whitened, y, "neighbours")),
        "r2_neighbours": ("the mean of 20 neighbours", lambda y: explained_variance(z, y)),
    }
    varying = [number for number, y in enumerate(latent.T) if y.std() > 0]
    for name, (what, predict) in models.items():
        values = {str(number + 1): predict(latent[:, number]) for number in varying}
        yield Score(
            f"latent.{name}",
            values["1"] if list(values) == ["1"] else values,
            f"share of the variance of the truth that {what} predicts" if what else "",
            1.0,
        )


def _score_labels(
    z: Float[np.ndarray, "images zdim"], labels: Int[np.ndarray, " images"], seed: int
) -> Iterator[Score]:
    commonest = float(np.bincount(labels).max() / len(labels))
    yield Score(
        "latent.ari_kmeans",
        clustering_ari(z, labels, "kmeans", seed),
        "adjusted Rand index of k-means clusters and true states",
        1.0,
    )
    yield Score(
        "latent.ari_gmm",
        clustering_ari(z, labels, "mixture", seed),
        "the same for a mixture of Gaussians",
        1.0,
    )
    yield Score(
        "latent.linear_classifier_accuracy",
        linear_accuracy(z, labels),
        f"share of images whose state affine functions tell; guessing is right in {commonest:.3f}",
        1.0,
    )
    yield Score(
        "latent.within_label_share",
        within_label_share(z, labels),
        "share of the variance of coordinates that is left within states",
        0.0,
    )


def _score_neighbourhoods(
    z: Float[np.ndarray, "images zdim"], truth: Truth, rows: Int[np.ndarray, " images"]
) -> Iterator[Score]:
    """Compare what is near with what is alike, and with what should not matter."""
    count = len(rows)
    true = truth.latent[rows]
    if truth.labels is not None:
        labels = label_points(truth.labels[rows])
        true = (
            np.concatenate([standardize(true), labels], axis=1) if truth.is_continuous else labels
        )
    most = count / 2
    if truth.labels is not None and not truth.is_continuous:
        most = min(most, np.unique(truth.labels[rows], return_counts=True)[1].min())
    counts = [k for k in _NEIGHBOURS if k < most]
    if counts:
        similar = neighbourhood_similarity(z, true, counts)
        chance = chance_similarity(true, counts)
        yield Score(
            "latent.neighbours_in_common",
            _named(counts, similar),
            f"share of so many nearest neighbours that are nearest in the truth, {count} images",
            1.0,
        )
        yield Score("latent.neighbours_by_chance", _named(counts, chance), "the same by chance")
    yield Score(
        "latent.imbalance",
        {
            "to truth": information_imbalance(z, true),
            "from truth": information_imbalance(true, z),
            "truth itself": information_imbalance(true, true),
        },
        "what coordinates leave open of the truth, and the reverse: 0 nothing, 1 all",
    )
    others = {}
    if truth.rotations is not None:
        others["rotation"] = truth.rotations[rows].reshape(count, 9)
        others["view"] = truth.rotations[rows, 2]
    if truth.defocus is not None:
        others["defocus"] = truth.defocus[rows, None]
    for name, points in others.items():
        if len(np.unique(points, axis=0)) > 1:
            yield Score(
                f"latent.imbalance_{name}",
                {
                    "to": information_imbalance(z, points),
                    "from": information_imbalance(points, z),
                },
                f"the same for the {name}, of which coordinates should tell nothing",
                1.0,
            )


def _named(counts: list[int], values: Float[np.ndarray, " counts"]) -> Mapping[str, float]:
    return {str(k): float(value) for k, value in zip(counts, values, strict=True)}


def score_posteriors(truth: Truth, found: Found) -> Section:
    """Compare the errors of coordinates with what their covariances say."""
    title, model = "Errors of coordinates", found.model
    if model is None or found.covariance is None:
        reason = "errors of coordinates: only a run tells what volumes they stand for"
        return Section(title, (), skipped=(reason,))
    usable = np.flatnonzero(truth.good[found.rows] & np.isfinite(model.coordinates).all(1))
    basis = model.components.reshape(len(model.components), -1).astype(np.float64)
    rest = (truth.scale * truth.volumes - model.mean).reshape(len(truth.volumes), -1)
    places = np.linalg.solve(basis @ basis.T, basis @ rest.T).T
    true = places[truth.nearest_volumes(found.rows[usable])]
    scores = compare_posteriors(model.coordinates[usable], found.covariance[usable], true)
    return Section(
        title,
        (
            Score(
                "posterior.square",
                scores.square,
                "mean of (z − ẑ)ᵀ C⁻¹ (z − ẑ) per coordinate; above 1 is too confident",
                1.0,
            ),
            Score(
                "posterior.spread",
                {str(k): float(v) for k, v in enumerate(scores.spreads[:6], 1)},
                "rms error of a coordinate over its standard deviation",
                1.0,
            ),
        ),
    )


def score_contrast(truth: Truth, found: Found) -> Section:
    """Compare contrasts with true ones."""
    title = "Contrast"
    if found.contrast is None or truth.contrast is None:
        lacking = "result" if found.contrast is None else "truth"
        return Section(title, (), skipped=(f"contrast: the {lacking} has none",))
    usable = np.flatnonzero(truth.good[found.rows] & np.isfinite(found.contrast))
    estimated, true = found.contrast[usable], truth.contrast[found.rows[usable]]
    if true.std() == 0:
        return Section(title, (), skipped=("contrast: the true ones are all alike",))
    scores = compare_contrasts(estimated, true)
    return Section(
        title,
        (
            Score("contrast.corr", scores.correlation, "correlation with the true contrasts", 1.0),
            Score("contrast.rmse", scores.error, "rms difference, both with mean 1", 0.0),
            Score(
                "contrast.sd_ratio",
                scores.spread / scores.true_spread,
                "their spread over the true one; estimates drawn to 1 spread less",
            ),
            Score("contrast.sd_est", scores.spread),
            Score("contrast.sd_true", scores.true_spread),
        ),
        {"estimated": estimated / estimated.mean(), "true": true / true.mean()},
    )


def score_outliers(truth: Truth, found: Found) -> Section:
    """Compare scores of images with which of them are junk."""
    title, junk = "Outliers", ~truth.good[found.rows]
    if found.outlier_scores is None or not junk.any() or junk.all():
        missing = ("outliers: no outlier_scores.npy",) if junk.any() else ()
        return Section(title, (), skipped=missing if found.outlier_scores is None else ())
    return Section(
        title,
        (
            Score(
                "outliers.auc",
                outlier_auc(found.outlier_scores, junk),
                "chance that junk has a higher score than a good image; ½ is guessing",
                1.0,
            ),
        ),
    )


def score_noise(truth: Truth, found: Found) -> Section:
    """Compare the power of the noise with the true one."""
    if found.noise is None or truth.noise is None:
        lacking = "result" if found.noise is None else "truth"
        return Section("Noise", (), skipped=(f"noise: the {lacking} has no noise_radial.npy",))
    scores = compare_noise(found.noise, truth.noise)
    return Section(
        "Noise",
        (
            Score(
                "noise.ratio_median",
                scores.median,
                "estimated over true variance, median over shells",
                1.0,
            ),
            Score("noise.ratio_min", scores.smallest, "on the shell where it is least", 1.0),
            Score("noise.ratio_max", scores.largest, "and where it is largest", 1.0),
        ),
        {"ratio": scores.ratios},
    )

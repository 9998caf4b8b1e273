"""Scores of results whose truth is known: plain functions of arrays, by what they look at.

`subspaces`: principal components; `maps`: volumes; `latent`: coordinates; `neighbourhoods`:
what is near what; `images`: contrast, noise, outliers and errors of single images.
"""

from recovar.metrics.images import (
    ContrastScores,
    NoiseScores,
    PosteriorScores,
    compare_contrasts,
    compare_noise,
    compare_posteriors,
    outlier_auc,
)
from recovar.metrics.latent import (
    classification_accuracy,
    clustering_ari,
    explained_variance,
    linear_accuracy,
    predict_by_neighbours,
    regression_r2,
    standardize,
    within_label_share,
)
from recovar.metrics.maps import (
    Agreement,
    LocalError,
    compare_maps,
    cryobench_auc,
    cryobench_fsc,
    cryobench_images,
    fsc_auc,
    local_error,
    low_pass,
    scale_of,
    varying_region,
)
from recovar.metrics.neighbourhoods import (
    chance_similarity,
    information_imbalance,
    label_points,
    neighbourhood_similarity,
    sample,
)
from recovar.metrics.subspaces import (
    Alignment,
    Population,
    align,
    captured_variance,
    describe_population,
)

__all__ = [
    "Agreement",
    "Alignment",
    "ContrastScores",
    "LocalError",
    "NoiseScores",
    "Population",
    "PosteriorScores",
    "align",
    "captured_variance",
    "chance_similarity",
    "classification_accuracy",
    "clustering_ari",
    "compare_contrasts",
    "compare_maps",
    "compare_noise",
    "compare_posteriors",
    "cryobench_auc",
    "cryobench_fsc",
    "cryobench_images",
    "describe_population",
    "explained_variance",
    "fsc_auc",
    "information_imbalance",
    "label_points",
    "linear_accuracy",
    "local_error",
    "low_pass",
    "neighbourhood_similarity",
    "outlier_auc",
    "predict_by_neighbours",
    "regression_r2",
    "sample",
    "scale_of",
    "standardize",
    "varying_region",
    "within_label_share",
]

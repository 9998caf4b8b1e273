"""Which centres of clusters trajectories go between."""

import numpy as np
from jaxtyping import Float64, Int64
from scipy.spatial.distance import cdist


def choose_pairs(
    centres: Float64[np.ndarray, "clusters zdim"], count: int
) -> Int64[np.ndarray, "pairs 2"]:
    """Choose the ends of trajectories among centres.

    The first half are pairs as far from each other as any that are left, no centre in two of
    them; the others go from the smallest to the largest value along coordinate 1, 2 and so on,
    unless that pair is there. With one coordinate there is one trajectory.

    Args:
        centres: Of clusters.
        count: Number of pairs that are wanted; there are fewer where there are too few centres
            or coordinates.

    Example:
        >>> choose_pairs(np.array([[0.0, 0], [1, 0], [5, 0], [5, 1]]), 3).tolist()
        [[0, 3], [1, 2], [0, 2]]
    """
    clusters, zdim = centres.shape
    if clusters < 2:
        return np.empty((0, 2), np.int64)
    far = 0 if zdim == 1 else (count + 1) // 2
    distances = cdist(centres, centres)
    pairs = []
    for _ in range(min(far, clusters // 2)):
        pair = np.unravel_index(distances.argmax(), distances.shape)
        pairs.append(pair)
        distances[list(pair)] = distances[:, list(pair)] = -1
    for values in centres.T:
        pair = (values.argmin(), values.argmax())
        is_new = pair[0] != pair[1] and not {pair, pair[::-1]} & set(pairs)
        if is_new and len(pairs) < count:
            pairs.append(pair)
    return np.array(pairs, np.int64).reshape(-1, 2)

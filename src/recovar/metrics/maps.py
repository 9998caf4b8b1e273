"""How well a map agrees with the true one.

Correlations ignore the scale of a map and see its sign; maps lie in one box with one origin.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy import ndimage

from recovar.core import fourier
from recovar.core.grid import Grid, half_weights, volume_radii
from recovar.core.masks import soft_edge
from recovar.regularization import fsc, resolution_at, shell_sums

_CRYOBENCH_IMAGES = 100
"""Images whose volumes CryoBench looks at."""
_BLUR = 8.0
"""Width in Å of the field that tells where molecules vary."""
_LEAST_SPREAD = 0.25
"""Share of the largest standard deviation above which a place is said to vary."""
_MARGIN, _EDGE = 6.0, 20.0
"""Width in Å of the rim around such places, and of the soft edge around it."""


@dataclass(frozen=True)
class Agreement:
    """A map compared with the true one, shell by shell."""

    curve: Float[np.ndarray, " shells"]
    """Fourier shell correlation on shells 0 … size/2 − 1, shell = round(|k|)."""
    grid: Grid

    @property
    def auc(self) -> float:
        """Mean correlation over the shells."""
        return fsc_auc(self.curve)

    def resolution(self, threshold: float) -> float:
        """Give the resolution in Å at which the correlation first falls below a threshold.

        A curve that never does gives the last shell, size/2 − 1. Against the truth the correlation
        is √(SNR/(1 + SNR)), so one half means here what 0.143 means for half-maps.

        Source: `Rosenthal & Henderson 2003`.
        """
        return resolution_at(self.curve, threshold, self.grid)


def compare_maps(
    found: Float[np.ndarray, "z y x"],
    true: Float[np.ndarray, "z y x"],
    grid: Grid,
    mask: Float[np.ndarray, "z y x"] | None = None,
) -> Agreement:
    """Correlate a map with the true one, both multiplied by a mask if there is one.

    A mask that follows the molecule closely correlates by itself: what is masked compares with
    what is masked alike, not with unmasked figures.

    Source: `Harauz & van Heel 1986`.
    """
    if mask is not None:
        found, true = found * mask, true * mask
    return Agreement(fsc(fourier.to_spectrum(found), fourier.to_spectrum(true)), grid)


def fsc_auc(curve: Float[np.ndarray, " shells"]) -> float:
    """Average a correlation over shells 1 … size/2 − 1, each with the same weight.

    From −1 to 1, which is perfect; 0 for maps that have nothing in common. Shell 0, the mean
    density, does not count. `cryobench_auc` is another area.

    Example:
        >>> fsc_auc(np.array([1.0, 1.0, 0.5, 0.0]))
        0.5
    """
    return float(np.mean(curve[1:]))


def cryobench_images(count: int) -> Int[np.ndarray, " chosen"]:
    """Choose the images whose volumes CryoBench looks at: arange(0, N, N // 100).

    Source: `Jeon et al. 2024` (CryoBench). Data sets whose size is no multiple of 100 give some
    more than 100; of fewer than 100 images all are taken.

    Example:
        >>> cryobench_images(100_000)[[0, 1, -1]].tolist()
        [0, 1000, 99000]
    """
    return np.arange(0, count, max(1, count // _CRYOBENCH_IMAGES))


def cryobench_fsc(
    first: Complex[np.ndarray, "z y half_x"], second: Complex[np.ndarray, "z y half_x"]
) -> Float[np.ndarray, " shells"]:
    """Correlate two half-complex volumes on the shells of CryoBench: i − 1 ≤ |k| < i.

    Returns:
        Entry 0 is 1, and entry i = 1 … size/2 − 1 belongs to shell i, so entry 1 to the zero
        frequency alone. It stands at i/size cycles per pixel.

    Source: `Jeon et al. 2024`, per-image FSC. Other than there, a shell without power counts 0.
    """
    size = first.shape[0]
    shells = np.floor(volume_radii(size)).astype(np.int64) + 1
    weights = np.broadcast_to(half_weights(size), shells.shape)
    cross = shell_sums(np.real(first.conj() * second), shells, weights)
    powers = [shell_sums(np.abs(each) ** 2, shells, weights) for each in (first, second)]
    norm = np.sqrt(powers[0] * powers[1])
    curve = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)[: size // 2]
    curve[0] = 1.0
    return curve


def cryobench_auc(curve: Float[np.ndarray, " shells"]) -> float:
    """Give the area under a curve of `cryobench_fsc` over cycles per pixel, by trapezoids.

    A perfect map of size D scores (D/2 − 1)/D, just below one half.

    Source: `Jeon et al. 2024`.

    Example:
        >>> cryobench_auc(np.ones(32)) == 31 / 64
        True
        >>> cryobench_auc(np.array([1.0, 1.0, 0.0, 0.0]))  # (1 + ½ + 0) / 8
        0.1875
    """
    return float(np.trapezoid(curve, dx=1 / (2 * len(curve))))


@dataclass(frozen=True)
class LocalError:
    """Errors of a map around the voxels of a region, as shares of the true density's strength."""

    median: float
    worst: float
    """Nine in ten voxels have smaller ones."""


def local_error(
    found: Float[np.ndarray, "z y x"],
    true: Float[np.ndarray, "z y x"],
    mask: Float[np.ndarray, "z y x"],
    width: float,
) -> LocalError:
    """Measure how far a map is off around each voxel.

    √(G ∗ (a·found − true)²) over the root mean square of `true` in the mask, where G is a Gaussian
    and a the factor that fits best, so that scale does not count. 0 is perfect; a map that says
    nothing has errors around 1.

    Args:
        found: The map.
        true: What it should be.
        mask: Voxels above one half are looked at; both maps are multiplied by it.
        width: Standard deviation of the Gaussian in voxels.

    Example:
        >>> true = np.ones((8, 8, 8))
        >>> found = local_error(0 * true, true, true, 1.0)
        >>> round(found.median, 6), round(found.worst, 6)
        (1.0, 1.0)
    """
    inside = mask > 0.5
    found, true = found * mask, true * mask
    power = max(float(np.vdot(found, found)), np.finfo(np.float32).tiny)
    error = found * (float(np.vdot(found, true)) / power) - true
    around = np.sqrt(np.maximum(ndimage.gaussian_filter(error**2, width)[inside], 0))
    strength = max(float(np.sqrt(np.mean(true[inside] ** 2))), np.finfo(np.float32).tiny)
    median, worst = np.percentile(around / strength, (50, 90))
    return LocalError(float(median), float(worst))


def scale_of(found: Float[np.ndarray, "z y x"], true: Float[np.ndarray, "z y x"]) -> float:
    """Give the factor by which the true map must be multiplied to fit the found one best.

    1 where both have one scale. Noise in `found` does not change it on average, but what was
    filtered away makes it smaller.

    Example:
        >>> true = np.arange(8.0).reshape(2, 2, 2)
        >>> scale_of(3 * true, true)
        3.0
    """
    return float(np.vdot(true, found) / np.vdot(true, true))


def low_pass(
    volumes: Float[np.ndarray, "pcs z y x"], share: float = 0.5
) -> Float[np.ndarray, "pcs z y x"]:
    """Keep the frequencies up to a share of the largest one along an axis.

    Example:
        >>> volume = np.zeros((1, 4, 4, 4))
        >>> volume[0, 2, 2, 2] = 64.0
        >>> low_pass(volume, 0.5)[0, 2, 2, 2].item()  # the zero frequency and six others
        7.0
    """
    size = volumes.shape[-1]
    kept = volume_radii(size) <= 0.5 * size * share
    return np.stack([fourier.to_volume(fourier.to_spectrum(each) * kept) for each in volumes])


def varying_region(
    volumes: Float[np.ndarray, "states z y x"],
    weights: Float[np.ndarray, " states"],
    voxel_size: float,
) -> Float[np.ndarray, "z y x"]:
    """Mark with a soft mask where molecules of a population differ.

    Voxels whose standard deviation, blurred by 8 Å, exceeds a quarter of the largest one, with a
    rim of 6 Å and an edge that falls as a cosine over 20 Å.

    Args:
        volumes: The distinct volumes.
        weights: Share of the molecules that look like each; they sum to 1.
        voxel_size: In Å.
    """
    mean = np.tensordot(weights, volumes, 1)
    variance = np.zeros(mean.shape)
    for volume, weight in zip(volumes, weights, strict=True):
        variance += weight * (volume - mean) ** 2
    spread = np.sqrt(np.maximum(ndimage.gaussian_filter(variance, _BLUR / voxel_size), 0))
    varying = spread > _LEAST_SPREAD * spread.max()
    return soft_edge(varying, _EDGE / voxel_size, _MARGIN / voxel_size)

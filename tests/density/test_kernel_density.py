import numpy as np
import pytest

from recovar.density.kernel_density import estimate_kernel_density, silverman_covariance


def direct_sum(points, data, kernel):
    """Add up all kernels; the reference."""
    inverse = np.linalg.inv(kernel)
    rest = points[:, None] - data
    return np.exp(-0.5 * np.einsum("pni,ij,pnj->pn", rest, inverse, rest)).sum(1)


@pytest.mark.parametrize(("zdim", "count"), [(1, 400), (2, 120), (3, 40), (4, 20)])
def test_the_density_is_the_sum_of_all_kernels(zdim, count):
    rng = np.random.default_rng(zdim)
    data = rng.normal(size=(400, zdim)) @ (np.eye(zdim) + 0.2 * rng.normal(size=(zdim, zdim))) + 10
    low, high = np.percentile(data, (20, 80), axis=0)
    axes = tuple(np.linspace(a, b, count) for a, b in zip(low, high, strict=True))
    found = estimate_kernel_density(data, axes)
    cells = rng.integers(0, count, (200, zdim))
    points = np.stack([axis[cells[:, k]] for k, axis in enumerate(axes)], 1)
    kernel = silverman_covariance(data)
    expected = direct_sum(points, data, kernel)
    values = found.values[tuple(cells.T)]
    values *= (values @ expected) / (values @ values)
    # Sharing out points blurs by up to h²/4 per axis, which changes a density by h²/8 times its
    # curvature; that is at most the inverse of the kernel's variance, relative to the peak.
    spacing = np.array([axis[1] - axis[0] for axis in axes])
    margin = spacing @ np.abs(np.linalg.inv(kernel)) @ spacing / 8
    assert np.abs(values - expected).max() < margin * expected.max() + 1e-5 * expected.max()
    assert margin < 0.1


def test_the_default_grid_spans_percentiles():
    data = np.random.default_rng(0).normal(size=(1000, 2))
    density = estimate_kernel_density(data)
    assert density.values.shape == (200, 200)
    np.testing.assert_allclose(density.axes[1][[0, -1]], np.percentile(data[:, 1], (1, 99)))

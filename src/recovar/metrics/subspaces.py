"""How well principal components describe the ways in which true volumes differ.

Scale and sign of components mean nothing, nor does the basis of what they span; eigenvalues do,
and are compared as variances of all voxels together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_LEAST_SHARE = 1e-12
"""Variances below this share of the largest one are rounding."""
_LEAST_LENGTH = 1e-6
"""Parts of a volume below this share of it are rounding."""
_BLOCK = 2**18
"""Voxels whose products are summed at once, in float64."""


@dataclass(frozen=True)
class Population:
    """True volumes of many molecules, as mean and principal components."""

    mean: Float[np.ndarray, "z y x"]
    components: Float[np.ndarray, "pcs z y x"]
    """Orthonormal: Σ component² = 1."""
    variances: Float[np.ndarray, " pcs"]
    """Along each component, descending; their sum is the variance of all voxels together."""

    @property
    def shares(self) -> Float[np.ndarray, " pcs"]:
        """Share of the variance within the first 1, 2, … components: no others hold more."""
        return np.cumsum(self.variances) / self.variances.sum()


def describe_population(
    volumes: Float[np.ndarray, "states z y x"], weights: Float[np.ndarray, " states"]
) -> Population:
    """Compute mean and all principal components of molecules of which some are alike.

    Args:
        volumes: The distinct volumes.
        weights: How many molecules look like each.

    Source: Σ_k p_k (V_k − V̄)(V_k − V̄)ᵀ = U Λ Uᵀ, from the eigenvectors of the small matrix of
    inner products of √p_k (V_k − V̄).

    Example:
        >>> volumes = np.zeros((2, 4, 4, 4))
        >>> volumes[1, 0, 0, 0] = 4.0
        >>> found = describe_population(volumes, np.array([3.0, 1.0]))
        >>> found.mean[0, 0, 0].item(), found.variances.tolist()
        (1.0, [3.0])
    """
    shares = weights / weights.sum()
    rows = volumes.reshape(len(volumes), -1)
    mean = shares @ rows
    roots = np.sqrt(shares)[:, None]
    products = np.zeros((len(rows), len(rows)))
    for part in _blocks(mean.size):
        block = roots * (rows[:, part] - mean[part])
        products += block @ block.T
    variances, vectors = np.linalg.eigh(products)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    kept = variances > _LEAST_SHARE * max(float(variances[0]), np.finfo(float).tiny)
    mixing = (vectors[:, kept] / np.sqrt(variances[kept]) * roots).T
    components = np.empty((len(mixing), mean.size), rows.dtype)
    for part in _blocks(mean.size):
        components[:, part] = mixing @ (rows[:, part] - mean[part])
    shape = volumes.shape[1:]
    return Population(mean.reshape(shape), components.reshape(-1, *shape), variances[kept])


@dataclass(frozen=True)
class Alignment:
    """How components that were found lie to the true ones; everything else follows from this."""

    turned: Float[np.ndarray, "pcs true"]
    """Products with the true components of the found ones, made orthonormal in their order."""
    products: Float[np.ndarray, "pcs true"]
    """The same of the found components as they are."""
    gram: Float[np.ndarray, "pcs pcs"]
    """Products of the found components with each other."""
    variances: Float[np.ndarray, " true"]
    """Along the true components, descending."""

    @property
    def captured(self) -> Float[np.ndarray, " pcs"]:
        """Share of the variance within the span of the first 1, 2, … found components."""
        return np.cumsum(self.turned**2 @ self.variances) / self.variances.sum()

    def cosines(self, rank: int) -> Float[np.ndarray, " rank"]:
        """Give cosines of the principal angles between the first `rank` found and true components.

        Descending, from 1 (a shared direction) to 0 (none in common).

        Source: `Björck & Golub 1973`, the singular values of QᵀU.
        """
        found = np.linalg.svd(self.turned[:rank, :rank], compute_uv=False)
        return np.append(np.minimum(found, 1.0), np.zeros(rank - len(found)))

    @property
    def sines(self) -> Float[np.ndarray, " ranks"]:
        """Sine of the largest principal angle at rank 1, 2, …: 0 is perfect, 1 the worst."""
        ranks = range(1, min(self.turned.shape) + 1)
        return np.array([np.sqrt(1 - self.cosines(rank)[-1] ** 2) for rank in ranks])

    def covariance_error(self, eigenvalues: Float[np.ndarray, " pcs"]) -> float:
        """Give ‖Σ λ u uᵀ − Σ_true‖_F / ‖Σ_true‖_F, without any matrix of voxels.

        0 is perfect, 1 is what no components at all have; larger is worse than nothing.

        Args:
            eigenvalues: Variance of the coordinate along each found component, as it is scaled.

        Source: ‖A − B‖² = ‖A‖² + ‖B‖² − 2⟨A, B⟩, each from inner products of the factors.
        """
        own = np.einsum("i,ij,j->", eigenvalues, self.gram**2, eigenvalues)
        true = float(np.sum(self.variances**2))
        mixed = np.einsum("i,ij,j->", eigenvalues, self.products**2, self.variances)
        return float(np.sqrt(max(0.0, own + true - 2 * mixed) / true))

    def calibration(self, eigenvalues: Float[np.ndarray, " pcs"]) -> Float[np.ndarray, " pcs"]:
        """Divide estimated variances by those of the truth along the same found components.

        1 is right and below 1 too cautious, whether or not the component itself is a true one.
        Infinite where the truth does not vary along a component.
        """
        along = self.products**2 @ self.variances / np.diag(self.gram)
        estimated = eigenvalues * np.diag(self.gram)
        return np.divide(estimated, along, out=np.full(len(along), np.inf), where=along > 0)

    def sorted_calibration(
        self, eigenvalues: Float[np.ndarray, " pcs"]
    ) -> Float[np.ndarray, " ranks"]:
        """Divide estimated variances by the true eigenvalues of the same rank; 1 is right.

        Components in another order, or mixtures of true ones, are punished.
        """
        estimated = np.sort(eigenvalues * np.diag(self.gram))[::-1]
        count = min(len(estimated), len(self.variances))
        return estimated[:count] / self.variances[:count]


def align(volumes: Float[np.ndarray, "pcs z y x"], population: Population) -> Alignment:
    """Take inner products of components that were found with the true ones.

    A population of masked or low-passed volumes is compared with components that went through
    the same.

    Example:
        Two true components; the first that was found lies half way between them, too long:

        >>> volumes = np.zeros((4, 4, 4, 4))
        >>> volumes[[0, 1], 0, 0, 0] = 2.0, -2.0
        >>> volumes[[2, 3], 1, 1, 1] = 1.0, -1.0
        >>> population = describe_population(volumes, np.ones(4))
        >>> population.variances.tolist()
        [2.0, 0.5]
        >>> found = align((population.components[:1] + population.components[1:]), population)
        >>> found.captured.round(3).tolist(), found.sines.round(3).tolist()
        ([0.5], [0.707])
        >>> found.calibration(np.array([0.625])).round(3).tolist()  # its length² is 2
        [1.0]
        >>> found.sorted_calibration(np.array([0.625])).round(3).tolist()
        [0.625]
        >>> exact = align(population.components, population)
        >>> round(exact.covariance_error(population.variances), 3)
        0.0
        >>> round(exact.covariance_error(np.array([2.0, 0.0])), 3)  # 0.5 / √(2² + 0.5²)
        0.243
    """
    rows = volumes.reshape(len(volumes), -1).astype(np.float64)
    true = population.components.reshape(len(population.components), -1)
    products, gram = _products(rows, true), rows @ rows.T
    return Alignment(_products(_orthonormalize(rows), true), products, gram, population.variances)


def captured_variance(
    volumes: Float[np.ndarray, "pcs z y x"], population: Population
) -> Float[np.ndarray, " pcs"]:
    """Give the share of a population's variance within the span of the first 1, 2, … volumes.

    Σ_j λ_j |Q uⱼ|² / Σ_j λ_j, from 0 to `Population.shares`, which is the most that is possible.
    Scale and sign of the volumes do not count; volumes that span nothing new add nothing.

    Example:
        >>> volumes = np.zeros((3, 4, 4, 4))
        >>> volumes[1, 0, 0, 0], volumes[2, 1, 1, 1] = 1.0, 1.0
        >>> population = describe_population(volumes, np.ones(3))
        >>> captured_variance(population.components, population).round(2).tolist()
        [0.75, 1.0]
        >>> captured_variance(np.roll(volumes[1:], 2, axis=1), population).tolist()
        [0.0, 0.0]
    """
    return align(volumes, population).captured


def _products(
    first: Float[np.ndarray, "rows n"], second: Float[np.ndarray, "others n"]
) -> Float[np.ndarray, "rows others"]:
    total = np.zeros((len(first), len(second)))
    for part in _blocks(first.shape[1]):
        total += first[:, part] @ second[:, part].astype(np.float64).T
    return total


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _orthonormalize(rows: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, "rows n"]:
    """Make each row orthogonal to those before it; one that lies in their span becomes 0."""
    span = np.zeros_like(rows)
    for number, row in enumerate(rows):
        rest = row / max(float(np.linalg.norm(row)), np.finfo(float).tiny)
        for _ in range(2):  # the second time removes the rounding of the first
            rest = rest - (span[:number] @ rest) @ span[:number]
        length = float(np.linalg.norm(rest))
        if length > _LEAST_LENGTH:
            span[number] = rest / length
    return span

"""Study how the subspace converges, on data sets whose truth is known.

    python benchmarks/subspace.py STUDY SET [SET ...] --work WORK

SET is a directory that `recovar simulate` made, or particles.mrcs, poses.pkl, ctf.pkl and truth/.
STUDY is one of

    seeds     angles between fits from different random coordinates
    starts    random coordinates, components from few columns of the covariance, half of either
    schedule  what images that are held out, and the truth, say after every iteration
    noise     noise of the residuals of the fit, and noise outside of the molecule
    many      time, memory and states told apart with more and more components

and prints a table in Markdown. Means, masks, noise and the outcome of every fit are kept in WORK;
what is there is not done again. Times are those of the processor, as others depend on what else the
machine does; NUMBA_NUM_THREADS=1 makes them comparable.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from recovar.compute.accumulate import Images
from recovar.compute.progress import SilentReporter
from recovar.core import fourier
from recovar.core.batch import ImageBatch
from recovar.core.frequencies import Ball
from recovar.core.volumes import to_ball
from recovar.covariance import ColumnOptions
from recovar.covariance_core import centre_on, estimate_contrast
from recovar.embedding import embed, estimate_contrast_sd
from recovar.expectation import FIRST_CONTRAST_SD, Model
from recovar.metrics import (
    align,
    classification_accuracy,
    clustering_ari,
    describe_population,
    linear_accuracy,
    low_pass,
    regression_r2,
)
from recovar.noise import residual_noise
from recovar.posterior import image_statistics, infer, log_likelihood
from recovar.run import Run, Stage
from recovar.subspace import (
    Subspace,
    SubspaceOptions,
    estimate_subspace,
    plan_radii,
    principal_axes,
)
from recovar.workflows.columns import ColumnFit
from recovar.workflows.components import Components, compare_images
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.heterogeneity import choose_subject
from recovar.workflows.inputs import read_inputs
from recovar.workflows.mean import Homogeneous, analyse_mean
from recovar.workflows.scoring.truth import Truth, read_truth
from recovar.workflows.work import Work, maps_bytes, start_work

SEEDS = range(4)
MANY = (10, 20, 50)
COLUMNS, COLUMN_RADIUS = 50, 14
HELD_OUT = 0.1
LONG = (20, 10, 6)
"""More iterations than anyone needs."""
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A data set, all that is known of it before the fit, and where outcomes are kept."""

    name: str
    work: Work
    whole: Homogeneous
    truth: Truth
    folder: Path

    def outcome(self, name: str, make: Callable[[], Outcome]) -> Outcome:
        """Do something, unless it was done before."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            found = make()
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(found))
            partial.rename(file)
        return json.loads(file.read_text())


def open_problem(place: Path, folder: Path) -> Problem:
    """Estimate mean, mask and noise, or read them."""
    own, star = folder / place.name, place / "particles.star"
    has_star = star.exists()
    config = PipelineConfig(
        particles=(star if has_star else place / "particles.mrcs",),
        poses=None if has_star else place / "poses.pkl",
        ctf=None if has_star else place / "ctf.pkl",
        output=own / "run",
        zdim=(4,),
        correct_contrast=True,
    )
    run = Run.create_or_resume(config.output, (), asdict(config)).__enter__()
    work = start_work(config, read_inputs(config), run, SilentReporter())
    return Problem(place.name, work, analyse_mean(work), read_truth(place), own)


@dataclass
class Recorder:
    """Keeps the model of every iteration."""

    models: list[Model] = field(default_factory=list)

    def save(self, **arrays: Any) -> None:
        """Take note of a model."""
        self.models.append(Model(arrays["volumes"], arrays["contrast_sd"], arrays["reliability"]))

    def load(self) -> None:
        """Begin anew."""


def fit(problem: Problem, images: Images | None = None, **options: Any) -> Subspace:
    """Fit the subspace as the pipeline does."""
    work, whole = problem.work, problem.whole
    subject = choose_subject(work, whole)
    arguments = {key: options.pop(key) for key in ("seed", "start", "checkpoint") if key in options}
    usual = {"components": work.config.fitted_components, "correct_contrast": True}
    return estimate_subspace(
        subject.images if images is None else images,
        work.inputs.grid,
        whole.spectra,
        subject.region,
        SubspaceOptions(**usual | options),
        work.executor,
        last_radius=whole.means.radius,
        memory=work.room(whole.images) - maps_bytes(work.config, work.inputs.grid),
        **arguments,
    )


def timed_fit(problem: Problem, **options: Any) -> tuple[Subspace, float]:
    """Fit, and tell how long that took."""
    started = time.process_time()
    found = fit(problem, **options)
    return found, round(time.process_time() - started, 1)


def captured(
    problem: Problem, components: np.ndarray, ranks: tuple[int, ...] = (1, 2, 4)
) -> list[float]:
    """Give the share of the true variance in the span of the first components, low-passed."""
    truth = problem.truth
    population = describe_population(low_pass(truth.volumes) * truth.mask, truth.weights)
    found = align(low_pass(components[: max(ranks)]) * truth.mask, population).captured
    return [round(float(found[min(rank, len(found)) - 1]), 4) for rank in ranks]


def tell_apart(problem: Problem, found: Subspace, zdim: int) -> Outcome:
    """Embed all images, and tell how well coordinates know the true states."""
    principal = found.components.leading(zdim)
    components = Components(found.mean, principal, found.contrast_sd, None, found.radius)
    statistics = compare_images(problem.work, problem.whole, components)
    variances = principal.eigenvalues
    spread = estimate_contrast_sd(statistics, variances, max(found.contrast_sd, 0.05))
    z = embed(statistics, variances, len(variances), spread).coordinates
    truth = problem.truth
    if truth.labels is None:
        varying = [y for y in truth.latent.T if y.std() > 0]
        return {"R² kNN": [round(regression_r2(z, y, "neighbours"), 3) for y in varying]}
    return {
        "ARI": round(clustering_ari(z, truth.labels, "kmeans", 0), 3),
        "linear": round(linear_accuracy(z, truth.labels), 3),
        "kNN": round(classification_accuracy(z, truth.labels), 3),
    }


def score(problem: Problem, found: Subspace, seconds: float, zdim: int = 4) -> Outcome:
    """Describe a fit by what it took and what it found."""
    return {
        "s": seconds,
        "captured k=1, 2, 4": captured(problem, found.components.volumes),
        "reliability": [round(float(share), 3) for share in found.reliability[:4]],
        **tell_apart(problem, found, zdim),
    }


def study_seeds(problem: Problem) -> Iterator[Outcome]:
    """Fit from several random coordinates, and compare all fits with the first."""
    spans = problem.folder / "spans"
    spans.mkdir(exist_ok=True)
    first = None
    for seed in SEEDS:

        def make(seed: int = seed) -> Outcome:
            found, seconds = timed_fit(problem, seed=seed)
            np.save(spans / f"{seed}.npy", found.components.volumes[:4])
            return score(problem, found, seconds)

        row = problem.outcome(f"seed {seed}", make)
        volumes = np.load(spans / f"{seed}.npy")
        basis = np.linalg.qr(volumes.reshape(len(volumes), -1).T.astype(np.float64))[0]
        first = basis if first is None else first
        cosines = {
            f"angles k={k}": [
                round(float(np.degrees(np.arccos(min(1.0, cosine)))), 1)
                for cosine in np.linalg.svd(first[:, :k].T @ basis[:, :k], compute_uv=False)
            ]
            for k in (1, 2, 4)
            if k <= basis.shape[1]
        }
        yield {"seed": seed, **row, **cosines}


class FewColumns(ColumnFit):
    """Columns that are few and short, as a start."""

    @property
    def options(self) -> ColumnOptions:
        """Take low frequencies only."""
        return ColumnOptions(row_radius=COLUMN_RADIUS, count=COLUMNS, last_shell=COLUMN_RADIUS - 2)


def find_columns(problem: Problem) -> tuple[Components, float]:
    """Find components from columns, and tell how long that took."""
    work, whole = problem.work, problem.whole
    mean, radius = whole.means.masked.regularized, whole.means.radius

    def make(stage: Stage) -> Components:
        started = time.process_time()
        centring = centre_on(mean, whole.spectra, radius)
        contrast = estimate_contrast(whole.images, centring, work.executor)
        columns = FewColumns(work, whole, stage, mean, contrast)
        basis = columns.find_basis()
        found = columns.diagonalize(basis, columns.compare(basis), work.config.fitted_components)
        (problem.folder / "columns.txt").write_text(f"{time.process_time() - started:.1f}")
        return found

    found = work.run.stage("few columns", Components, make, depends=["mean", "noise", "mask"])
    return found, float((problem.folder / "columns.txt").read_text())


def study_starts(problem: Problem) -> Iterator[Outcome]:
    """Begin with random coordinates, with columns, and with half of either."""
    total = problem.work.config.fitted_components
    for kind, share in {"random": 0.0, "columns": 1.0, "both": 0.5}.items():
        for iterations in ((11, 4, 3), (5, 4, 3)):

            def make(share: float = share, iterations: tuple[int, ...] = iterations) -> Outcome:
                start, before = None, 0.0
                if share:
                    columns, before = find_columns(problem)
                    start = start_from(columns, round(share * total), total)
                quick = {} if iterations[0] > 8 else {"shrinkage_start": 2, "shrinkage_rise": 2}
                found, seconds = timed_fit(problem, start=start, iterations=iterations, **quick)
                return {"s before": before, **score(problem, found, seconds)}

            label = f"{kind} {iterations[0]}"
            yield {"start, iterations": label, **problem.outcome(label, make)}


def start_from(columns: Components, known: int, total: int) -> Model:
    """Fill up components with noise as strong as the weakest of them."""
    few = columns.principal.leading(known)
    factors = few.volumes * np.sqrt(few.eigenvalues)[:, None, None, None]
    noise = np.random.default_rng(0).standard_normal((total - len(factors), *columns.mean.shape))
    noise = low_pass(noise) * np.sqrt(np.mean(factors[-1] ** 2))
    volumes = np.concatenate([columns.mean[None], factors, noise]).astype(np.float32)
    return Model(volumes, FIRST_CONTRAST_SD, np.ones(total))


@dataclass(frozen=True)
class Others:
    """All images but those that are held out, as a set of their own."""

    images: Images
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, start: int = 0) -> Iterator[ImageBatch]:
        """Visit them once."""
        if start:
            raise NotImplementedError
        for batch in self.images.blocks():
            kept = batch.select(np.flatnonzero(np.isin(batch.rows, self.rows)))
            yield replace(kept, rows=np.searchsorted(self.rows, kept.rows))


def study_schedule(problem: Problem) -> Iterator[Outcome]:
    """Follow a long fit, iteration by iteration."""

    def make() -> Outcome:
        images = choose_subject(problem.work, problem.whole).images
        order = np.random.default_rng(1).permutation(len(images))
        held, others = np.split(order, [round(HELD_OUT * len(order))])
        recorder = Recorder()
        fit(
            problem,
            Others(images, np.sort(others)),
            iterations=LONG,
            early_images=len(others),
            checkpoint=recorder,
        )
        return {"rows": list(judge(problem, recorder.models, images, np.sort(held)))}

    yield from problem.outcome("schedule", make)["rows"]


def judge(
    problem: Problem, models: list[Model], images: Images, held: np.ndarray
) -> Iterator[Outcome]:
    """Compute how likely images that were held out are under every model."""
    grid, operators = problem.work.inputs.grid, problem.work.executor.operators
    kept = [batch.select(np.flatnonzero(np.isin(batch.rows, held))) for batch in images.blocks()]
    plan = plan_radii(SubspaceOptions(), problem.whole.means.radius)
    radii = [r for stage, r in enumerate(plan) for _ in range(LONG[min(stage, len(LONG) - 1)])]
    before = np.zeros(len(held))
    for number, model in enumerate(models):
        size, radius = model.volumes.shape[-1], radii[number]
        ball, spread = Ball(size, radius), model.contrast_sd or None
        spectra = np.stack([to_ball(volume, ball) for volume in model.volumes], axis=1)
        parts = []
        for batch in kept:
            whitened = batch.at_radius(size, radius).whitened(problem.whole.spectra)
            statistics = image_statistics(whitened, spectra, ball, operators)
            parts.append(log_likelihood(statistics, infer(statistics, spread)))
        now = np.concatenate(parts)
        gains = now - before
        factors = np.stack([resize(volume, grid.size) for volume in model.volumes[1:]])
        row: Outcome = {"iteration": number + 1, "radius": radius}
        if number and radius == radii[number - 1]:
            row["gain"] = round(float(gains.mean()), 4)
            row["error"] = round(float(gains.std() / np.sqrt(len(gains))), 4)
        yield {**row, "captured k=1, 2, 4": captured(problem, principal_axes(factors).volumes)}
        before = now


def resize(volume: np.ndarray, size: int) -> np.ndarray:
    """Change the box over the same cube."""
    return fourier.to_volume(fourier.pad_spectrum(fourier.to_spectrum(volume), size))


def study_noise(problem: Problem) -> Iterator[Outcome]:
    """Compare the noise outside of the molecule, and that of residuals, with the truth."""

    def make() -> Outcome:
        found = fit(problem)
        radius = found.radius + 1
        outside = problem.whole.noise.variance
        true = np.asarray(problem.truth.noise)[: len(outside)] * problem.truth.grid.size**2
        ratios = {
            "outside": outside[1:radius] / true[1:radius],
            "residuals": noise_of_residuals(problem, found)[1:radius] / true[1:radius],
        }
        return {
            f"{name} {what}": round(float(value), 4)
            for name, ratio in ratios.items()
            for what, value in (
                ("median", np.median(ratio)),
                ("least", ratio.min()),
                ("most", ratio.max()),
                ("rms error", np.sqrt(np.mean((ratio - 1) ** 2))),
            )
        }

    yield problem.outcome("noise", make)


def noise_of_residuals(problem: Problem, found: Subspace) -> np.ndarray:
    """Take one step of expectation maximization for the noise."""
    operators, noise = problem.work.executor.operators, problem.whole.noise.variance
    ball = Ball(problem.work.inputs.grid.size, found.radius)
    factors = found.components.volumes * np.sqrt(found.components.eigenvalues)[:, None, None, None]
    volumes = np.concatenate([found.mean[None], factors])
    spectra = np.stack([to_ball(volume.astype(np.float32), ball) for volume in volumes], axis=1)
    sums = np.zeros((3, found.radius + 1))
    for whole in choose_subject(problem.work, problem.whole).images.blocks():
        batch = whole.at_radius(ball.size, ball.radius)
        whitened = batch.whitened(problem.whole.spectra)
        latents = infer(image_statistics(whitened, spectra, ball, operators), found.contrast_sd)
        slices = operators.slice_volumes(spectra, batch.rotations, batch.disc, ball)
        slices = np.asarray(slices) * (latents.contrast[:, None] * batch.transfer)[..., None]
        extended = np.concatenate([np.ones((len(batch), 1)), latents.means], axis=1)
        shown = np.einsum("npk,nk->np", slices, extended)
        spread = latents.contrast_variance / latents.contrast**2
        unsure = np.einsum(
            "npk,nkl,npl->np",
            slices[..., 1:].conj(),
            latents.covariances,
            slices[..., 1:],
            optimize=True,
        ).real
        unsure += spread[:, None] * np.abs(shown) ** 2
        for total, each in zip(
            sums, (np.abs(batch.values - shown) ** 2, np.ones(shown.shape), unsure), strict=True
        ):
            weighted = each.sum(0) * batch.disc.multiplicity
            total += np.bincount(batch.disc.shells, weighted, len(total))
    squares, counts, posterior = sums
    return residual_noise(squares, counts, posterior, noise)


def study_many(problem: Problem) -> Iterator[Outcome]:
    """Fit more and more components."""
    for components in MANY:

        def make(components: int = components) -> Outcome:
            found, seconds = timed_fit(problem, components=components)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            return {
                "s": seconds,
                "GB": round(peak, 2),
                "above 2 %": int((found.reliability > 0.02).sum()),
                "captured k=1, 4, 9": captured(problem, found.components.volumes, (1, 4, 9)),
                **tell_apart(problem, found, components),
            }

        yield {"components": components, **problem.outcome(f"components {components}", make)}


def show(value: object) -> str:
    """Write a number, or several, into a cell of a table."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


STUDIES: dict[str, Callable[[Problem], Iterator[Outcome]]] = {
    "seeds": study_seeds,
    "starts": study_starts,
    "schedule": study_schedule,
    "noise": study_noise,
    "many": study_many,
}


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET")
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    for place in arguments.sets:
        problem = open_problem(place, arguments.work)
        rows = list(STUDIES[arguments.study](problem))
        names = list(dict.fromkeys(name for row in rows for name in row))
        print(f"\n{place.name}, {len(problem.truth)} images\n")
        print("|", " | ".join(names), "|")
        print("|", " | ".join("---" for _ in names), "|")
        for row in rows:
            print("|", " | ".join(show(row.get(name, "")) for name in names), "|")


if __name__ == "__main__":
    main()

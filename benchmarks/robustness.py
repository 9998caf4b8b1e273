"""How well variants find components, on a matrix of noise, numbers of images and kinds of motion.

    python benchmarks/robustness.py --output DIR [--cells 'hinge-*' none-0.03-2000] [--threads 1]
    python benchmarks/robustness.py --output DIR --table

Every cell, such as hinge-0.03-2000 (kind, signal to noise, images), and every seed, which draws the
molecule as well, is a data set of its own. It is simulated, analysed by all variants and removed.
DIR/LABEL/CELL-SEED.json holds the scores and is written whole; cells that are there are skipped,
so that the same command goes on after a stop. A variant that fails leaves its message.

Variants share the images in memory, and where they may the mean, the noise and the columns:

* published: `--preset published`, with fewer columns and dimensions to save time.
* LS, ML: columns weighted by where the molecule varies, variances by least squares or likelihood.
* EM: the default.
* oracle: only embeds, with the true mean, principal components and variances.
"""

import argparse
import fnmatch
import itertools
import json
import logging
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from recovar import plots
from recovar.acquisition import Choice, random_stream
from recovar.compute.executors import LocalExecutor
from recovar.compute.memory import default_budget
from recovar.compute.progress import SilentReporter
from recovar.covariance import ColumnOptions
from recovar.data.bank import ImageBank
from recovar.embedding import Embedding, embed, estimate_contrast_sd
from recovar.invented_molecules import HingedMolecule, invent_molecule
from recovar.metrics import (
    Population,
    align,
    clustering_ari,
    describe_population,
    linear_accuracy,
    low_pass,
    regression_r2,
)
from recovar.pca import PrincipalComponents
from recovar.posterior import ImageStatistics
from recovar.published_contrast import embed_published
from recovar.run import Run, Stage
from recovar.workflows.columns import ColumnFit, finish_fit
from recovar.workflows.components import Components, compare_images
from recovar.workflows.configs import PipelineConfig
from recovar.workflows.heterogeneity import analyse_heterogeneity
from recovar.workflows.inputs import read_inputs
from recovar.workflows.mean import Homogeneous, analyse_mean
from recovar.workflows.reproducibility import reproduce_components
from recovar.workflows.scoring.files import Found, VolumeModel
from recovar.workflows.scoring.latent import score_contrast, score_posteriors
from recovar.workflows.scoring.table import to_tree
from recovar.workflows.scoring.truth import read_truth
from recovar.workflows.scoring.volumes import score_images
from recovar.workflows.simulate import run_simulate
from recovar.workflows.simulating.config import SimulateConfig
from recovar.workflows.work import Work

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "benchmarks" / "results" / "robustness.md"
PICTURE = ROOT / "docs" / "images" / "robustness.png"

BOX, ZDIM, SEEDS = 64, 4, 3
COLUMNS, DIMENSIONS = 60, 50
"""Published are 300 and 200, of which most hold noise; the reference figures of the published
program for the set `small` are of 50 columns, too."""
RANKS = (1, 2, 4)
RATIOS, COUNTS = (0.1, 0.03, 0.01), (2_000, 10_000)
KINDS: dict[str, dict[str, Any]] = {
    "hinge": {"motion": "hinge", "moving": ("arm",), "axis": (0.0, 0.0, 1.0), "angle": 25.0},
    "occupancy": {
        "motion": "composition",
        "compositions": "body,arm,domain;body,arm",
        "weights": (0.6, 0.4),
    },
    "modes": {"motion": "modes", "modes": 2, "amplitude": 6.0, "density": "uniform"},
    "none": {"motion": "none"},
}
"""An arm that bends; a domain that is there in 60 %; two soft normal modes; one state."""
VARIANTS = ("published", "LS", "ML", "EM", "oracle")

Tree = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Images of one kind of molecule."""

    kind: str
    snr: float
    images: int

    @property
    def name(self) -> str:
        """Kind, signal to noise and number of images."""
        return f"{self.kind}-{self.snr:g}-{self.images}"


def all_cells() -> list[Cell]:
    """List the matrix, cheap cells first."""
    cells = [
        Cell(kind, snr, count)
        for count, snr, kind in itertools.product(COUNTS, RATIOS, KINDS)
    ]  # fmt: skip
    return [*cells, Cell("hinge", 0.01, 50_000)]


def write_molecule(place: Path, seed: int) -> None:
    """Write the residues of an invented molecule, with names of its parts."""
    molecule: HingedMolecule = invent_molecule(random_stream(seed, Choice.SPECIMEN))
    atoms = molecule.atoms_at(np.ones(2))
    rest = molecule.atoms_at(np.array([0.0, 1.0]))
    counts = len(molecule.body), len(molecule.arm), len(molecule.domain)
    chains = np.repeat(["body", "arm", "domain"], counts)
    np.savez(place, xyz=rest.positions, element=atoms.elements, chain=chains)


def simulate(cell: Cell, seed: int, folder: Path) -> Path:
    """Make the images and their truth."""
    write_molecule(folder / "molecule.npz", seed)
    place = folder / "set"
    config = SimulateConfig(
        output=place,
        structure=(str(folder / "molecule.npz"),),
        n_images=cell.images,
        box=BOX,
        snr=cell.snr,
        contrast=0.15,
        noise="coloured",
        b_factor=150.0,
        seed=seed,
        **KINDS[cell.kind],
    )
    run_simulate(config, SilentReporter())
    return place


@dataclass(frozen=True)
class SharedWork(Work):
    """Work that takes its images from another."""

    images: ImageBank | None = None

    def bank(self, sign: float) -> ImageBank:
        """Give the images that are in memory already, where their sign is right."""
        return self.images if self.images and sign > 0 else super().bank(sign)


class FewerColumns(ColumnFit):
    """What is published, scaled to what fits into an evening."""

    @property
    def options(self) -> ColumnOptions:
        """Take fewer columns."""
        return replace(super().options, count=COLUMNS)

    def affordable_rank(self) -> int:
        """Take fewer dimensions."""
        return min(super().affordable_rank(), DIMENSIONS)


@dataclass(frozen=True)
class Fit:
    """What a variant found."""

    components: Components
    embedding: Embedding
    extra: Tree


class Bench:
    """One data set, and what variants share of it; what is costly is made when first needed."""

    def __init__(self, place: Path, folder: Path) -> None:
        """Open a data set; `folder` is for runs."""
        self.folder = folder
        self.truth = read_truth(place)
        self.particles = place / "particles.star"
        self.seconds: Tree = {}
        self.runs: list[Run] = []

    def close(self) -> None:
        """Close all runs."""
        for run in self.runs:
            run.close()

    def timed(self, name: str, make: Callable[[], Any]) -> Any:
        """Note the time of the processor that something takes."""
        started = time.process_time()
        result = make()
        self.seconds[name] = round(time.process_time() - started, 1)
        return result

    def work(self, name: str, images: ImageBank | None = None, **options: Any) -> Work:
        """Open a run."""
        config = PipelineConfig(
            particles=(self.particles,),
            output=self.folder / name,
            zdim=(ZDIM,),
            correct_contrast=True,
            **options,
        )
        run = Run.create_or_resume(config.output, (), asdict(config))
        self.runs.append(run)
        executor = LocalExecutor(progress=SilentReporter())
        return SharedWork(config, read_inputs(config), run, executor, default_budget(), images)

    @cached_property
    def ours(self) -> tuple[Work, Homogeneous]:
        """The default, up to the mean."""
        work = self.work("ours")
        whole = self.timed("mean", lambda: analyse_mean(work))
        return work, whole

    @cached_property
    def weighted(self) -> tuple[ColumnFit, ImageStatistics, Any]:
        """Columns, weighted, and the images compared with what they span."""
        work, whole = self.ours
        work = self.work("columns", whole.images, subspace="columns")
        fit = FewerColumns(work, whole, self.stage(work), whole.means.masked.regularized)

        def make() -> tuple[ColumnFit, ImageStatistics, Any]:
            found = fit.with_contrast()
            basis = found.find_basis()
            return found, found.compare(basis), basis

        return self.timed("columns", make)

    def stage(self, work: Work) -> Stage:
        """Make a stage that is not kept."""
        return Stage(work.run.path, work.run.path / "model" / "checkpoints" / "benchmark")

    def published(self) -> Fit:
        """Do what is published."""
        work = self.work("published", self.ours[1].images, preset="published")
        whole = analyse_mean(work)
        fit = FewerColumns(work, whole, self.stage(work), whole.means.masked.volume)
        components = finish_fit(fit)
        statistics = compare_images(work, whole, components)
        found = embed_published(statistics, components.principal.eigenvalues, ZDIM)
        return Fit(components, found, _decided(fit.stage))

    def of_columns(self, method: str) -> Fit:
        """Estimate variances along the columns' components, and embed the images."""
        fit, statistics, basis = self.weighted
        options = replace(fit.work.config, covariance=method)
        fit = replace(fit, work=replace(fit.work, config=options))
        components = fit.diagonalize(basis, statistics, ZDIM)
        return Fit(components, self.embed(components), _decided(fit.stage))

    def default(self) -> Fit:
        """Run the default to its end."""
        work, whole = self.ours
        found = analyse_heterogeneity(work, whole)
        again = reproduce_components(work, whole, found.components)
        extra = {} if again is None else {"real": int(again.real.sum())}
        return Fit(found.components, found.embeddings.largest, extra)

    def oracle(self) -> Fit:
        """Embed the images along the true components."""
        truth = self.truth
        population = describe_population(truth.scale * truth.volumes, truth.weights)
        voxels = BOX**3
        volumes = (population.components[:ZDIM] / np.sqrt(voxels)).astype(np.float32)
        principal = PrincipalComponents(volumes, population.variances[:ZDIM] * voxels)
        mean = (truth.scale * truth.mean).astype(np.float32)
        components = Components(mean, principal, 0.15, None, truth.grid.largest_radius)
        return Fit(components, self.embed(components), {})

    def embed(self, components: Components) -> Embedding:
        """Embed the images as the default does."""
        work, whole = self.ours
        statistics = compare_images(work, whole, components)
        eigenvalues = components.principal.eigenvalues
        spread = estimate_contrast_sd(statistics, eigenvalues, max(components.contrast_sd, 0.05))
        return embed(statistics, eigenvalues, min(ZDIM, len(eigenvalues)), spread)

    def fit(self, variant: str) -> Fit:
        """Let a variant do its work."""
        return {
            "published": self.published,
            "LS": lambda: self.of_columns("least-squares"),
            "ML": lambda: self.of_columns("likelihood"),
            "EM": self.default,
            "oracle": self.oracle,
        }[variant]()

    @cached_property
    def varies(self) -> bool:
        """Whether the true molecules differ."""
        return len(self.truth.volumes) > 1

    @cached_property
    def seen(self) -> Population:
        """How the true molecules differ, low-passed and in the mask."""
        return describe_population(self.prepare(self.truth.volumes), self.truth.weights)

    @cached_property
    def whole_truth(self) -> Population:
        """How they differ, on the scale of the images."""
        return describe_population(self.truth.scale * self.truth.volumes, self.truth.weights)

    def prepare(self, volumes: np.ndarray) -> np.ndarray:
        """Low-pass and mask volumes."""
        mask = 1 if self.truth.mask is None else self.truth.mask
        return low_pass(volumes) * mask

    def score(self, fit: Fit) -> Tree:
        """Compare what was found with the truth."""
        truth, principal, embedding = self.truth, fit.components.principal, fit.embedding
        count = embedding.coordinates.shape[1]
        volumes = principal.volumes[:count]
        model = VolumeModel(fit.components.mean, volumes, embedding.coordinates)
        found = Found(
            self.folder,
            np.arange(len(truth)),
            mean=fit.components.mean,
            coordinates=embedding.coordinates,
            covariance=embedding.covariance,
            contrast=embedding.contrast,
            model=model,
        )
        scores: Tree = {
            "reliability": embedding.reliability.tolist(),
            "eigenvalues": embedding.eigenvalues.tolist(),
            **to_tree([score_contrast(truth, found)]),
            **fit.extra,
        }
        masks = {"masked": truth.mask}
        scores |= to_tree([score_images(truth, found, masks, SilentReporter())])
        if self.varies:
            scores |= to_tree([score_posteriors(truth, found)])
            scores |= self._score_components(volumes, embedding)
            scores |= self._score_latent(embedding)
        return scores

    def _score_components(self, volumes: np.ndarray, embedding: Embedding) -> Tree:
        alignment = align(self.prepare(volumes), self.seen)
        shares, captured = self.seen.shares, alignment.captured
        ranks = [rank for rank in RANKS if rank <= len(captured)]
        most = min(len(volumes), len(self.whole_truth.variances))
        plain = align(volumes[:most], self.whole_truth)
        return {
            "captured": {rank: float(captured[rank - 1]) for rank in ranks},
            "possible": {rank: float(shares[min(rank, len(shares)) - 1]) for rank in ranks},
            "cosines": {
                rank: alignment.cosines(rank).tolist() for rank in ranks if rank <= len(shares)
            },
            "calibration": plain.calibration(embedding.eigenvalues[:most]).tolist(),
            "sorted": plain.sorted_calibration(embedding.eigenvalues[:most]).tolist(),
        }

    def _score_latent(self, embedding: Embedding) -> Tree:
        z, latent = embedding.coordinates.astype(np.float64), self.truth.latent
        if self.truth.labels is not None:
            return {
                "ari": clustering_ari(z, self.truth.labels, "kmeans"),
                "accuracy": linear_accuracy(z, self.truth.labels),
            }
        each = [regression_r2(z, y, "neighbours") for y in latent.T]
        return {"r2": float(np.mean(each)), "r2_each": each}


def _decided(stage: Stage) -> Tree:
    return {name: decision.value for name, decision in stage.decisions.items()}


def run_cell(cell: Cell, seed: int, variants: Sequence[str]) -> Tree:
    """Simulate a data set, let all variants analyse it, and score them."""
    with tempfile.TemporaryDirectory(prefix="robustness-") as name:
        folder = Path(name)
        started = time.process_time()
        bench = Bench(simulate(cell, seed, folder), folder)
        bench.seconds["simulation"] = round(time.process_time() - started, 1)
        results: Tree = {}
        for variant in variants:
            if variant == "oracle" and not bench.varies:
                continue
            results[variant] = _run_variant(bench, variant)
            print(f"  {variant}: {_brief(results[variant])}", flush=True)
        bench.close()
        return {**asdict(cell), "seed": seed, "seconds": bench.seconds, "variants": results}


def _run_variant(bench: Bench, variant: str) -> Tree:
    try:
        shared = sum(bench.seconds.values())
        started = time.process_time()
        fit = bench.fit(variant)
        own = time.process_time() - started - (sum(bench.seconds.values()) - shared)
        return {"seconds": round(own, 1), **bench.score(fit)}
    except Exception as error:  # noqa: BLE001 (a failure is a result, too)
        return {"failed": repr(error), "where": traceback.format_exc()[-2000:]}


def _brief(scores: Tree) -> str:
    if "failed" in scores:
        return scores["failed"]
    wanted = ("seconds", "captured", "r2", "accuracy", "real", "reliability")
    return ", ".join(
        f"{name} {json.dumps(scores[name], default=str)}" for name in wanted if name in scores
    )


def plain(value: Any) -> Any:
    """Make what JSON knows; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def run_cells(options: argparse.Namespace) -> None:
    """Run all cells that are asked for and not there yet, seed by seed."""
    folder = options.output / options.label
    folder.mkdir(parents=True, exist_ok=True)
    code = describe_code()
    for cell in chosen_cells(options.cells):
        for seed in options.seeds:
            file = folder / f"{cell.name}-{seed}.json"
            if file.exists():
                continue
            print(f"{time.strftime('%H:%M:%S')} {cell.name}, seed {seed}", flush=True)
            with threadpool_limits(options.threads):
                found = run_cell(cell, seed, options.variants)
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(plain({"code": code, **found}), indent=1) + "\n")
            partial.rename(file)


def describe_code() -> str:
    """Name the commit that is measured, where there is one."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def chosen_cells(patterns: Sequence[str]) -> Iterator[Cell]:
    """Give cells whose names match any of the patterns."""
    return (
        cell
        for cell in all_cells()
        if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)
    )


@dataclass(frozen=True)
class Measure:
    """A number that is told of every variant."""

    title: str
    read: Callable[[Tree], float | None]
    tolerance: float = 0.0
    """Differences that nobody would mind."""


def _at(*path: str | int) -> Callable[[Tree], float | None]:
    def read(scores: Tree) -> float | None:
        value: Any = scores
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    return read


def _told(scores: Tree) -> float | None:
    """Tell how well coordinates tell the state: R² of a motion, or accuracy for labels."""
    return scores.get("r2", scores.get("accuracy"))


def _contrast(scores: Tree) -> float | None:
    contrast = scores.get("contrast", {})
    error, spread = contrast.get("rmse"), contrast.get("sd_true")
    return None if error is None or not spread else error / spread


MEASURES = (
    Measure("captured, k=1", _at("captured", "1"), 0.005),
    Measure("captured, k=2", _at("captured", "2"), 0.005),
    Measure("captured, k=4", _at("captured", "4"), 0.005),
    Measure("last cosine, k=2", _at("cosines", "2", 1), 0.01),
    Measure("eigenvalue ratio, 1", _at("sorted", 0)),
    Measure("eigenvalue ratio, 2", _at("sorted", 1)),
    Measure("z² per coordinate", _at("posterior", "square")),
    Measure("state told", _told, 0.005),
    Measure("contrast error", _contrast),
    Measure("FSC-AUC of images", _at("per_image", "auc", "masked"), 0.002),
    Measure("real components", _at("real")),
    Measure("seconds", _at("seconds")),
)
JUDGED = ("captured, k=1", "captured, k=2", "captured, k=4", "state told", "FSC-AUC of images")


def read_results(folder: Path) -> dict[str, list[Tree]]:
    """Read all cells that are there, in the order of the matrix."""
    found = {}
    for cell in all_cells():
        files = sorted(folder.glob(f"{cell.name}-[0-9]*.json"))
        if files:
            found[cell.name] = [json.loads(file.read_text()) for file in files]
    return found


def values_of(seeds: Sequence[Tree], variant: str, measure: Measure) -> list[float]:
    """Give a measure of a variant for all seeds that have it."""
    found = [measure.read(seed["variants"].get(variant, {})) for seed in seeds]
    return [value for value in found if value is not None]


def judge(seeds: Sequence[Tree], measure: Measure) -> str:
    """Compare the default with what is published, set by set.

    Better or worse if it is so by more than the standard deviation of the differences over seeds,
    or than what nobody would mind.
    """
    pairs = [
        (measure.read(seed["variants"].get("EM", {})),
         measure.read(seed["variants"].get("published", {})))
        for seed in seeds
    ]  # fmt: skip
    gains = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    if not gains:
        return ""
    middle, spread = float(np.median(gains)), float(np.std(gains, ddof=len(gains) > 1))
    margin = max(spread, measure.tolerance)
    return "better" if middle > margin else "worse" if middle < -margin else "equal"


def _told_as(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = float(np.median(values))
    digits = 3 if abs(middle) < 10 else 0
    spread = f" ± {np.ptp(values) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{spread}"


def as_markdown(found: dict[str, list[Tree]]) -> str:
    """Write a table per cell, and one of verdicts."""
    codes = sorted({seed["code"] for seeds in found.values() for seed in seeds})
    about = (
        f"`python benchmarks/robustness.py`, code {', '.join(codes)}. {BOX} pixels, contrast 0.15, "
        f"coloured noise, estimated mask and noise, {ZDIM} coordinates. Median over seeds ± half "
        f"the range. Columns: {COLUMNS}, published reduced to at most {DIMENSIONS} dimensions. "
        "Captured variance is low-passed to half Nyquist and masked; its possible share stands "
        "beside it. Eigenvalue ratios are estimated over true, of the same rank. Seconds are of "
        "one core, without what variants share."
    )
    lines = [
        "# Robustness",
        "",
        about,
        "",
        "## The default against what is published",
        "",
        "| cell | seeds | " + " | ".join(JUDGED) + " | oracle's lead in state told |",
        "|---|---|" + "---|" * (len(JUDGED) + 1),
    ]
    measures = {measure.title: measure for measure in MEASURES}
    for name, seeds in found.items():
        verdicts = [judge(seeds, measures[title]) for title in JUDGED]
        lead = _lead(seeds, measures["state told"])
        lines.append(f"| {name} | {len(seeds)} | " + " | ".join(verdicts) + f" | {lead} |")
    for name, seeds in found.items():
        lines += ["", f"## {name}", "", *_table(seeds)]
    return "\n".join(lines) + "\n"


def _lead(seeds: Sequence[Tree], measure: Measure) -> str:
    ours, best = (values_of(seeds, variant, measure) for variant in ("EM", "oracle"))
    return f"{np.median(best) - np.median(ours):.3f}" if ours and best else ""


def _table(seeds: Sequence[Tree]) -> Iterator[str]:
    yield "| | " + " | ".join(VARIANTS) + " | possible |"
    yield "|---|" + "---|" * (len(VARIANTS) + 1)
    for measure in MEASURES:
        cells = [_told_as(values_of(seeds, variant, measure)) for variant in VARIANTS]
        rank = measure.title.partition("k=")[2] if measure.title.startswith("captured") else ""
        possible = values_of(seeds, "EM", Measure("", _at("possible", rank))) if rank else []
        if any(cells):
            yield f"| {measure.title} | " + " | ".join(cells) + f" | {_told_as(possible)} |"
    for variant in VARIANTS:
        for seed in seeds:
            failed = seed["variants"].get(variant, {}).get("failed")
            if failed:
                yield f"\n{variant} failed with seed {seed['seed']}: `{failed}`"


def draw(found: dict[str, list[Tree]]) -> Figure:
    """Draw the most telling measures of all variants over the cells of every kind."""
    shown = [m for m in MEASURES if m.title in ("captured, k=2", "state told", "FSC-AUC of images")]
    kinds = [kind for kind in KINDS if kind != "none"]
    figure = Figure((4.2 * len(kinds), 3.2 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), len(kinds), squeeze=False, sharey="row")
    for (row, measure), (column, kind) in itertools.product(enumerate(shown), enumerate(kinds)):
        cells = [cell for cell in all_cells() if cell.kind == kind and cell.name in found]
        ax = axes[row, column]
        for variant in VARIANTS:
            points = [
                (place, values_of(found[cell.name], variant, measure))
                for place, cell in enumerate(cells)
            ]
            points = [(place, values) for place, values in points if values]
            middles = [float(np.median(values)) for _, values in points]
            places = [place for place, _ in points]
            (line,) = ax.plot(places, middles, "o-", markersize=4, linewidth=1.2, label=variant)
            for place, values in points:
                ax.plot([place] * 2, [min(values), max(values)], color=line.get_color(), lw=0.8)
        ax.set_xticks(
            range(len(cells)), [f"{cell.snr:g}\n{cell.images:,}" for cell in cells], fontsize=7
        )
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
        if row == 0:
            ax.set_title(kind, fontsize=10)
        if column == 0:
            ax.set_ylabel(measure.title, fontsize=9)
    axes[0, 0].legend(fontsize=7, frameon=False)
    axes[-1, 0].set_xlabel("signal to noise, images", fontsize=8, loc="left")
    return figure


def write_table(folder: Path) -> None:
    """Write the table and the picture of all cells that are there."""
    found = read_results(folder)
    TABLE.write_text(as_markdown(found))
    plots.save_figure(draw(found), PICTURE)
    print(f"{sum(map(len, found.values()))} sets in {TABLE} and {PICTURE}")


def main() -> None:
    """Run cells, or write the table of those that are there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--label", default="default", help="of the code that is measured")
    parser.add_argument("--cells", nargs="+", default=["*"], help="names, or patterns with *")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="write the table, run nothing")
    options = parser.parse_args()
    logging.getLogger("recovar").setLevel(logging.WARNING)
    numba.set_num_threads(options.threads)
    if options.table:
        write_table(options.output / options.label)
    else:
        run_cells(options)


if __name__ == "__main__":
    main()

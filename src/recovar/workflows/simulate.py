"""The command `simulate`: images of molecules whose states are known, as files that users have."""

import logging
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from scipy.spatial import KDTree
from sklearn.cluster import KMeans

from recovar import plots
from recovar.acquisition import (
    NO_TRANSFER,
    Choice,
    Conditions,
    TiltScheme,
    draw_truth,
    noise_from_profile,
    noise_shape,
    random_stream,
    white_noise,
)
from recovar.compute.progress import Reporter
from recovar.core.ctf import Optics
from recovar.core.grid import Grid
from recovar.data.legacy import optics_from_ctf_rows, read_ctf_pickle, read_poses_pickle
from recovar.data.mrc import HEADER_BYTES
from recovar.data.plain_arrays import read_array
from recovar.data_sets import TrueStates, write_simulation
from recovar.errors import InputError
from recovar.invented_molecules import invent_molecule
from recovar.populations import draw_categories
from recovar.records import PARTIAL, write_whole
from recovar.simulate_scattering_potential import AtomicSpecimen
from recovar.simulator import Simulation
from recovar.specimens import MapFiles, SampledStates, Specimen, VolumeSpecimen
from recovar.workflows.simulating.config import CTF_KEYWORDS, POSES_KEYWORDS, SimulateConfig
from recovar.workflows.simulating.lookalikes import LOOKALIKES
from recovar.workflows.simulating.picture import draw_data_set
from recovar.workflows.simulating.subjects import Subject, find_subject

logger = logging.getLogger(__name__)

_LENGTH = 0.6
"""Of the molecule, in boxes, where the pixel size is not given."""
_TARGETS = 5
"""States that results are compared with one by one."""
_ROW_BYTES = 400
"""On disk, of an image in tables and truth."""
_PIXEL_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class _Settings:
    """Options after the defaults of --like, or of the molecule, have been filled in."""

    particles: int
    grid: Grid
    snr: float
    conformations: int
    contrast: float
    noise: str


def run_simulate(config: SimulateConfig, reporter: Reporter) -> None:
    """Simulate a data set, with its truth, and say how to analyse and to score it.

    Raises:
        InputError: If an option cannot be obeyed, the directory holds something, or the disk is
            too small.
    """
    if config.output.exists() and (not config.output.is_dir() or any(config.output.iterdir())):
        raise InputError(f"{config.output} exists and is not empty. Choose another with -o.")
    like = None if config.like is None else LOOKALIKES[config.like]
    own = config.volumes or config.trajectory or config.structure
    if like is None or own:
        subject = find_subject(config)
    else:
        subject = like.invent(random_stream(config.seed, Choice.SPECIMEN))
    settings = _settle(config, subject)
    simulation, true = make_data_set(config, settings, subject)
    _refuse_small_disk(config, simulation)
    _describe(settings, subject, simulation)
    _write(config, simulation, true, subject, reporter)
    _tell_where(config.output, simulation)


def _settle(config: SimulateConfig, subject: Subject) -> _Settings:
    """Fill in what options leave open."""
    if config.like is None:
        count, box, pixel, snr, conformations, plain = 10_000, 128, None, 0.05, 0, False
    else:
        like = LOOKALIKES[config.like]
        count = max(1, round(like.n_images * config.scale))
        box, snr = config.box or like.box, like.snr
        pixel = like.pixel_size * like.box / box
        conformations, plain = like.conformations, True
    box = config.box or box
    if config.pixel_size is not None:
        pixel = config.pixel_size
    elif pixel is None:
        pixel = subject.span / (_LENGTH * box)
    return _Settings(
        particles=config.n_images or count,
        grid=Grid(box, pixel),
        snr=config.snr or snr,
        conformations=conformations if config.conformations is None else config.conformations,
        contrast=(0.0 if plain else 0.15) if config.contrast is None else config.contrast,
        noise=config.noise or ("white" if plain else "coloured"),
    )


def make_data_set(
    config: SimulateConfig, settings: _Settings, subject: Subject
) -> tuple[Simulation, TrueStates]:
    """Draw states and all that images differ in, and choose the states to write volumes of."""
    grid, seed = settings.grid, config.seed
    specimen, states, true = _stage(config, settings, subject)
    truth = draw_truth(
        states,
        grid,
        _conditions(config, settings),
        seed,
        noise=_noise(settings.noise, grid),
        other_states=np.ones((1, 2)) if config.other else None,
    )
    simulation = Simulation(
        specimen, grid, truth, other=_other(config), premultiplied=config.premultiplied
    )
    return simulation.at_signal_to_noise(settings.snr), true


def _stage(
    config: SimulateConfig, settings: _Settings, subject: Subject
) -> tuple[Specimen, Num[np.ndarray, "particles coordinates"], TrueStates]:
    """Draw states, and choose whether images are made from atoms or from volumes."""
    stream = random_stream(config.seed, Choice.STATE)
    count, grid = settings.particles, settings.grid
    if subject.maps:
        states = subject.draw(count, stream)
        return VolumeSpecimen(MapFiles(subject.maps, grid)), states, _true(states, config, True)
    atoms_at = subject.atoms_at
    if atoms_at is None:
        raise TypeError("A subject has atoms or maps.")
    atomic = AtomicSpecimen(atoms_at, config.solvent, config.device)
    if subject.discrete:
        states = subject.draw(count, stream)
        latent = np.arange(states.max() + 1)[:, None]
    elif settings.conformations:
        latent = _spread(subject, settings.conformations, stream)
        states = draw_categories(count, np.ones(len(latent)), stream)[:, None].astype(np.float64)
    else:
        states = subject.draw(count, stream)
        return atomic, states, _true(states, config, False)
    specimen = VolumeSpecimen(SampledStates(atomic, latent, grid))
    true = _true(states, config, True)
    return specimen, states, replace(true, latent=lambda s: latent[s[:, 0].astype(np.int64)])


def _spread(
    subject: Subject, count: int, stream: np.random.Generator
) -> Float[np.ndarray, "count coordinates"]:
    """Choose conformations as they are distributed: quantiles of one coordinate, else draws."""
    drawn = subject.draw(max(count, 10_000), stream)
    if drawn.shape[1] > 1:
        return drawn[:count]
    return np.quantile(drawn[:, 0], (np.arange(count) + 0.5) / count)[:, None]


def _true(
    states: Num[np.ndarray, "particles coordinates"], config: SimulateConfig, few: bool
) -> TrueStates:
    """Choose the states whose volumes are written, each with its share of the particles.

    Distinct states are all taken if they are as few as asked for, or `few` by their making. Else
    those of one coordinate lie at equal distances, and others in the middle of groups of states.
    """
    distinct, counts = np.unique(states, axis=0, return_counts=True)
    if few or len(distinct) <= config.true_volumes:
        chosen, weights = distinct, counts / counts.sum()
    else:
        if states.shape[1] == 1:
            ends = float(states.min()), float(states.max())
            chosen = np.linspace(*ends, config.true_volumes)[:, None]
        else:
            groups = KMeans(config.true_volumes, random_state=config.seed).fit(states)
            middles = groups.cluster_centers_
            chosen = states[np.unique(KDTree(states).query(middles)[1])]
        nearest = np.asarray(KDTree(chosen).query(states)[1])
        weights = np.bincount(nearest, minlength=len(chosen)) / len(states)
    places = np.unique(np.linspace(0, len(chosen) - 1, _TARGETS).round().astype(np.int64))
    return TrueStates(chosen, weights, chosen[places])


def _conditions(config: SimulateConfig, settings: _Settings) -> Conditions:
    grid = settings.grid
    poses = None
    if config.poses not in POSES_KEYWORDS:
        poses = read_poses_pickle(Path(config.poses))
        if config.shift is not None:
            raise InputError("--shift and a file of --poses both give shifts. Leave out --shift.")
    tilts = None
    if config.tilts:
        tilts = TiltScheme(
            count=config.tilts, step=float(np.deg2rad(config.tilt_step)), dose=config.dose
        )
        if config.tilts * config.tilt_step >= 180:
            raise InputError(
                f"{config.tilts} tilts at {config.tilt_step:g}° reach beyond 90°. Take fewer."
            )
    return Conditions(
        defocus=(config.defocus[0], config.defocus[1]),
        optics=_optics(config.ctf),
        b_factor=(config.image_b_factor[0], config.image_b_factor[1]),
        poses=poses,
        shift=2 * grid.voxel_size if config.shift is None else config.shift,
        preferred=0.3 if config.poses == "preferred" else 0.0,
        contrast=settings.contrast,
        noise_scale=config.noise_scale,
        baseline=config.baseline,
        empty=config.empty,
        other=config.other,
        off_centre=config.off_centre,
        neighbours=config.neighbours,
        defocus_error=config.defocus_error,
        pose_error=float(np.deg2rad(config.pose_error)),
        shift_error=config.shift_error,
        tilts=tilts,
    )


def _optics(ctf: str) -> Optics | None:
    if ctf == "none":
        return NO_TRANSFER
    if ctf in CTF_KEYWORDS:
        return None
    return optics_from_ctf_rows(read_ctf_pickle(Path(ctf)))


def _noise(noise: str, grid: Grid) -> Float[np.ndarray, " shells"]:
    if noise == "white":
        return white_noise(grid)
    if noise == "coloured":
        return noise_shape(grid)
    profile = read_array(Path(noise), ("noise_psd",))
    if profile.ndim != 1:
        raise InputError(f"{noise}: expected one power per shell, found shape {profile.shape}.")
    return noise_from_profile(profile.astype(np.float64), grid, 2 * len(profile))


def _other(config: SimulateConfig) -> Specimen | None:
    """Invent the molecule that does not belong to the data set."""
    if not config.other:
        return None
    stranger = invent_molecule(random_stream(config.seed, Choice.OTHER))
    return AtomicSpecimen(stranger.atoms_at)


def _refuse_small_disk(config: SimulateConfig, simulation: Simulation) -> None:
    """Make sure that the files fit before the first is written."""
    parent = config.output.absolute()
    while not parent.exists():
        parent = parent.parent
    pixels = len(simulation) * simulation.grid.size**2
    wanted = HEADER_BYTES + pixels * _PIXEL_BYTES[config.dtype] + len(simulation) * _ROW_BYTES
    wanted += config.true_volumes * simulation.grid.size**3 * 4
    free = shutil.disk_usage(parent).free
    if wanted > free:
        raise InputError(
            f"{len(simulation):,} images need {wanted / 1e9:.3g} GB, but {parent} has "
            f"{free / 1e9:.3g} GB left. Choose another disk, fewer images, or --dtype float16."
        )


def _describe(settings: _Settings, subject: Subject, simulation: Simulation) -> None:
    grid, count = simulation.grid, len(simulation)
    series = "" if count == settings.particles else f" of {settings.particles:,} particles"
    logger.info(
        "%s images%s of %d pixels of %.4g Å; the molecule is %.3g Å long",
        f"{count:,}", series, grid.size, grid.voxel_size, subject.span,
    )  # fmt: skip
    if subject.span > grid.size * grid.voxel_size:
        logger.warning(
            "The molecule is longer than the box, %.4g Å. Its ends will be cut off.",
            grid.size * grid.voxel_size,
        )
    logger.info("States are %s", subject.meaning)
    exact = isinstance(simulation.specimen, AtomicSpecimen)
    logger.info(
        "Images are made from %s",
        "the atoms in the state of each" if exact else "volumes, one per state",
    )
    logger.info(
        "Signal to noise %.3g: mean square of the images without noise over the variance of the "
        "noise, all pixels of the box", settings.snr,
    )  # fmt: skip


def _write(
    config: SimulateConfig,
    simulation: Simulation,
    true: TrueStates,
    subject: Subject,
    reporter: Reporter,
) -> None:
    """Write everything beside its final place, and move it there when it is whole."""
    partial = config.output.with_name(PARTIAL + config.output.name)
    shutil.rmtree(partial, ignore_errors=True)
    options = {name: _plain(value) for name, value in asdict(config).items()}
    about = {"latent": subject.meaning, "options": options, "command": list(reporter.command)}
    began = time.monotonic()
    write_simulation(
        simulation, partial, true, dtype=getattr(np, config.dtype), about=about, progress=reporter
    )
    taken = time.monotonic() - began
    latent = true.latent(simulation.truth.states)
    figure = draw_data_set(simulation, true.targets, latent, subject.meaning)
    with write_whole(partial / "data-set.png") as picture:
        plots.save_figure(figure, picture)
    if config.output.exists():
        config.output.rmdir()
    partial.rename(config.output)
    logger.info(
        "Made in %.3g s, with the true volumes: %.3g images/s", taken, len(simulation) / taken
    )


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _tell_where(output: Path, simulation: Simulation) -> None:
    logger.info("\n  %s: the images, also as particles.cs and pickles", output / "particles.star")
    logger.info("  %s: what is true about them", output / "truth")
    logger.info("  %s: volumes and images in one picture", output / "data-set.png")
    if not simulation.truth.dose.any():
        run = output.with_name(output.name + "-run")
        logger.info(
            "\nAnalyse and judge them with\n  recovar pipeline %s -o %s --correct-contrast && "
            "recovar score %s %s",
            output / "particles.star", run, output, run,
        )  # fmt: skip

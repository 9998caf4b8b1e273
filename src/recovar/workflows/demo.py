"""The command `demo`: a simulated data set in the formats that users have, analysed and judged.

The truth is used only after the run, to say how much of it was recovered.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recovar import plots
from recovar.acquisition import Choice, Conditions, draw_truth, random_stream
from recovar.compute.progress import Reporter
from recovar.core.grid import Grid
from recovar.data_sets import TrueStates, write_simulation
from recovar.errors import InputError
from recovar.invented_molecules import draw_hinged_states, invent_molecule
from recovar.metrics import describe_population
from recovar.records import PARTIAL, load_arrays, write_whole
from recovar.simulate_scattering_potential import AtomicSpecimen
from recovar.simulator import Simulation
from recovar.workflows.configs import DemoConfig, PipelineConfig
from recovar.workflows.demo_picture import draw_demo
from recovar.workflows.demo_scores import (
    ZDIM,
    Molecules,
    describe_scores,
    read_recovered,
    score,
)
from recovar.workflows.pipeline import run_pipeline
from recovar.workflows.report import REPORT

logger = logging.getLogger(__name__)

_WIDTH = 288.0
"""Side of the images in Å."""
_SIGNAL_TO_NOISE = 0.1
_BENDS_PER_UNIT = 16
"""True volumes are made for bends this dense; between two of them the arm moves by 1.6°."""
_SHOWN_STATES = np.array([[bend, present] for bend in (-0.9, 0.0, 0.9) for present in (0.0, 1.0)])
"""States that results can be compared with one by one."""


def run_demo(config: DemoConfig, reporter: Reporter) -> None:
    """Simulate a data set, analyse it, and print and draw how much was recovered.

    A data set that is there already is kept, and the run goes on where it stopped.

    Raises:
        InputError: If the directory holds something else.
    """
    data, run = config.output / "data", config.output / "run"
    simulation = make_simulation(config)
    molecules = make_molecules(simulation, reporter)
    if (data / "truth" / "per_image.npz").exists():
        _refuse_other(data, simulation)
        logger.info("The data set in %s is complete and is used as it is", data)
    else:
        write_data(data, simulation, reporter)
    run_pipeline(
        PipelineConfig(
            particles=(data / "particles.star",),
            output=run,
            zdim=(ZDIM, 2 * ZDIM),
            mask="from_halfmaps",
            correct_contrast=True,
            seed=config.seed,
        ),
        reporter,
    )
    found = read_recovered(run)
    scores = score(found, simulation, molecules.population)
    picture = run / "output" / "plots" / "demo.png"
    with write_whole(picture) as partial:
        plots.save_figure(draw_demo(found, simulation, molecules), partial)
    lines = describe_scores(scores)
    with write_whole(config.output / "recovered.txt") as partial:
        partial.write_text("\n".join(lines) + "\n")
    logger.info("\nWhat was recovered, judged by the truth that only the simulation knows:\n")
    for line in lines:
        logger.info("%s", line)
    _tell_where(config.output, picture)


def make_simulation(config: DemoConfig) -> Simulation:
    """Invent a molecule with an arm that bends and a domain that can be absent, and its images."""
    grid, seed = Grid(config.box, _WIDTH / config.box), config.seed
    molecule = invent_molecule(random_stream(seed, Choice.SPECIMEN))
    states = draw_hinged_states(config.n_images, random_stream(seed, Choice.STATE))
    truth = draw_truth(states, grid, Conditions(shift=_WIDTH / 40), seed)
    simulation = Simulation(AtomicSpecimen(molecule.atoms_at), grid, truth)
    return simulation.at_signal_to_noise(_SIGNAL_TO_NOISE)


def make_molecules(simulation: Simulation, reporter: Reporter) -> Molecules:
    """Compute the true volumes of the states in `true_states`."""
    true = true_states(simulation)
    volumes = []
    with reporter.task("True volumes", len(true.states), "volumes") as advance:
        for state in true.states:
            volumes.append(simulation.volume(state))
            advance(1)
    each = np.stack(volumes)
    return Molecules(true.states, each, describe_population(each, true.weights))


def true_states(simulation: Simulation) -> TrueStates:
    """List the states that are there, with the bends rounded."""
    states = simulation.truth.states.astype(np.float64)
    states[:, 0] = np.rint(states[:, 0] * _BENDS_PER_UNIT) / _BENDS_PER_UNIT
    distinct, counts = np.unique(states, axis=0, return_counts=True)
    return TrueStates(distinct, counts / len(states), _SHOWN_STATES)


def write_data(directory: Path, simulation: Simulation, reporter: Reporter) -> None:
    """Write the data set with its truth, whole or not at all."""
    if directory.exists():
        raise InputError(
            f"{directory} exists and is no data set of the demo. Choose another directory with -o."
        )
    partial = directory.with_name(PARTIAL + directory.name)
    shutil.rmtree(partial, ignore_errors=True)
    about = {"snr": _SIGNAL_TO_NOISE, "latent": "bend of the arm; 1 where the domain is there"}
    write_simulation(simulation, partial, true_states(simulation), about=about, progress=reporter)
    partial.rename(directory)


def _refuse_other(data: Path, simulation: Simulation) -> None:
    """Make sure that a data set is the one that would be made now."""
    before, truth = load_arrays(data / "truth" / "per_image.npz"), simulation.truth
    same = int(before["seed"]) == truth.seed and all(
        np.array_equal(before[name], getattr(truth, name)) for name in ("states", "noise")
    )
    if not same:
        raise InputError(
            f"{data} holds a data set that was made with other options: {len(before['states'])} "
            f"images of {2 * len(before['noise'])} pixels, seed {int(before['seed'])}. Give these "
            "again, or another directory with -o."
        )


def _tell_where(output: Path, picture: Path) -> None:
    run, data = output / "run" / "output", output / "data"
    places: Sequence[tuple[Path, str]] = (
        (output / "run" / REPORT, "everything that every run tells, on one page"),
        (picture, "what was found beside the truth, in one picture"),
        (run / "plots", "the pictures that every run has"),
        (run / "volumes" / "mean.mrc", f"the mean; the true one is {data}/truth/mean.mrc"),
        (run / "volumes" / "eigen_pos000.mrc", "how the molecules differ most"),
        (run / "embedding", "where every image lies among the shapes"),
        (data / "particles.star", "the images, as yours could be; also as particles.cs"),
    )
    logger.info("\nLook at:\n")
    for path, meaning in places:
        logger.info("  %s: %s", path, meaning)
    logger.info(
        "\nThe same with your images: recovar pipeline particles.star -o out --mask from_halfmaps"
    )

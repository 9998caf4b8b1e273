"""What simulated images show: from the options of `recovar simulate` to states and their shapes."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy.spatial import KDTree

from recovar.data.atoms import Atoms, find_structure, read_atoms, read_trajectory
from recovar.data.mrc import read_header
from recovar.errors import InputError
from recovar.invented_molecules import draw_hinged_states, invent_molecule
from recovar.motions import (
    Ensemble,
    Frames,
    Gallery,
    Hinge,
    Morph,
    Motion,
    choose_chains,
    compose_of_chains,
    find_normal_modes,
)
from recovar.populations import draw_categories, name_population
from recovar.workflows.simulating.config import SimulateConfig

logger = logging.getLogger(__name__)

_CONTACT = 8.0
"""Atoms of two parts that are closer than this touch, in Å."""
_STRAIGHT = 0.1
"""Sine of the angle below which two directions count as one."""


@dataclass(frozen=True)
class Subject:
    """Something that has states, and how often it is in each."""

    draw: Callable[[int, np.random.Generator], Num[np.ndarray, "particles coordinates"]]
    """Draws states; the first do not depend on how many there are."""
    meaning: str
    """What the coordinates of a state are."""
    span: float
    """Å, from end to end."""
    atoms_at: Callable[[Num[np.ndarray, " coordinates"]], Atoms] | None = None
    """Gives the atoms in a state; None where there are only maps."""
    maps: Sequence[Path] = ()
    """Files of volumes; the state is the number of one."""
    discrete: bool = False
    """Whether a state is a number without a neighbour."""


def find_subject(config: SimulateConfig) -> Subject:
    """Read, or invent, what the options ask for.

    Raises:
        InputError: If a file cannot be used, or does not have what the motion needs.
    """
    if config.volumes:
        return _of_maps(config)
    if config.trajectory is not None:
        return _of_trajectory(config, config.trajectory)
    if len(config.structure) > 1:
        return _of_structures(config)
    if config.structure:
        return _of_motion(config)
    return invented_subject(np.random.default_rng(config.seed))


def invented_subject(generator: np.random.Generator) -> Subject:
    """Invent a molecule with an arm that bends and a domain that can be absent."""
    molecule = invent_molecule(generator)
    return Subject(
        draw=draw_hinged_states,
        meaning="bend of the arm from -1 to 1; presence of the domain, 0 or 1",
        span=measure_span(molecule.atoms_at(np.ones(2))),
        atoms_at=molecule.atoms_at,
    )


def discrete_subject(
    atoms_at: Callable[[Num[np.ndarray, " coordinates"]], Atoms],
    weights: Float[np.ndarray, " states"],
    meaning: str,
) -> Subject:
    """Make a subject whose one coordinate is the number of a state."""
    return Subject(
        draw=_categories(weights),
        meaning=meaning,
        span=max(measure_span(atoms_at(np.array([state]))) for state in range(len(weights))),
        atoms_at=atoms_at,
        discrete=True,
    )


def measure_span(atoms: Atoms) -> float:
    """Measure twice the distance of the farthest atom from the middle."""
    return 2 * float(np.linalg.norm(atoms.centred().positions, axis=1).max())


def _categories(
    weights: Float[np.ndarray, " states"],
) -> Callable[[int, np.random.Generator], np.ndarray]:
    return lambda count, generator: draw_categories(count, weights, generator)[:, None]


def _of_maps(config: SimulateConfig) -> Subject:
    header = read_header(config.volumes[0])
    if header.voxel_size is None and config.pixel_size is None:
        raise InputError(f"{config.volumes[0]} states no voxel size. Give --pixel-size.")
    side = header.shape[-1] * (header.voxel_size or config.pixel_size or 1.0)
    return Subject(
        draw=_categories(_weights(config, len(config.volumes), "volumes")),
        meaning="number of the map, in the order given",
        span=0.6 * side,
        maps=config.volumes,
        discrete=True,
    )


def _of_structures(config: SimulateConfig) -> Subject:
    molecules = [_read(config, name).centred() for name in config.structure]
    weights = _weights(config, len(molecules), "structures")
    gallery = Gallery(molecules)
    return discrete_subject(
        gallery.atoms_at, weights, "number of the structure, in the order given"
    )


def _of_trajectory(config: SimulateConfig, path: Path) -> Subject:
    topology = find_structure(config.structure[0]) if config.structure else None
    found = read_trajectory(path, topology, hydrogens=config.hydrogens)
    middle = 0.5 * (found.frames.min((0, 1)) + found.frames.max((0, 1)))
    frames = found.frames - middle
    ensemble = Ensemble(_damped(config, found.atoms), [Frames(frames)])
    return _of_ensemble(config, ensemble, [0.0], [len(frames) - 1.0], "place among the frames")


def _of_motion(config: SimulateConfig) -> Subject:
    atoms = _read(config, config.structure[0])
    middle = atoms.centred().positions[0] - atoms.positions[0]
    atoms = atoms.at(atoms.positions + middle)
    if config.motion == "composition":
        composition = compose_of_chains(atoms, config.compositions or "")
        weights = _weights(config, len(composition.present), "compositions")
        ensemble = Ensemble(atoms, [composition])
        return discrete_subject(ensemble.atoms_at, weights, "number of the composition")
    if config.motion == "hinge":
        ensemble = Ensemble(atoms, [_make_hinge(config, atoms, middle)])
        meaning = f"turn about the hinge from -1 to 1, which is {config.angle:g}°"
        return _of_ensemble(config, ensemble, [-1.0], [1.0], meaning)
    if config.motion == "morph":
        ensemble = Ensemble(atoms, [_make_morph(config, atoms, middle)])
        return _of_ensemble(config, ensemble, [0.0], [1.0], "share of the way to the end")
    if config.motion == "modes":
        modes = find_normal_modes(atoms, config.modes, amplitude=config.amplitude)
        count = config.modes
        ensemble = Ensemble(atoms, [modes])
        meaning = f"normal modes, from -1 to 1; 1 of the first is {config.amplitude:g} Å rms"
        return _of_ensemble(config, ensemble, [-1.0] * count, [1.0] * count, meaning)
    return discrete_subject(Gallery([atoms]).atoms_at, np.ones(1), "0: there is one state")


def _of_ensemble(
    config: SimulateConfig, ensemble: Ensemble, low: list[float], high: list[float], meaning: str
) -> Subject:
    population = name_population(config.density, np.array(low), np.array(high))
    ends = [ensemble.atoms_at(np.array(end)) for end in (low, high)]
    return Subject(
        draw=population.draw,
        meaning=meaning,
        span=max(measure_span(end) for end in ends),
        atoms_at=ensemble.atoms_at,
    )


def _weights(config: SimulateConfig, count: int, what: str) -> Float[np.ndarray, " states"]:
    if config.weights and len(config.weights) != count:
        raise InputError(
            f"Expected as many --weights as there are {what}, {count}, got {len(config.weights)}."
        )
    return np.array(config.weights or np.ones(count), np.float64)


def _read(config: SimulateConfig, name: str) -> Atoms:
    path = find_structure(name)
    atoms = read_atoms(path, assembly=config.assembly, hydrogens=config.hydrogens)
    return _damped(config, atoms)


def _damped(config: SimulateConfig, atoms: Atoms) -> Atoms:
    own = atoms.b_factors if config.own_b_factors else None
    return replace(atoms, b_factor=config.b_factor, b_factors=own)


def _make_hinge(config: SimulateConfig, atoms: Atoms, middle: np.ndarray) -> Motion:
    moving = _chosen_chains(config, atoms)
    if config.hinge:
        point = np.array(config.hinge) + middle
    else:
        point = _find_contact(atoms.positions[moving], atoms.positions[~moving])
        logger.info(
            "The hinge is where moving and other atoms touch, at %s Å", _triple(point - middle)
        )
    if config.axis:
        axis = np.array(config.axis)
    else:
        parts = atoms.positions[moving].mean(0) - point, point - atoms.positions[~moving].mean(0)
        axis = _find_axis(*parts)
        logger.info("It turns about the direction %s", _triple(axis))
    if not np.any(axis):
        raise InputError("Expected a direction for --axis, got 0,0,0.")
    return Hinge(moving, point, axis, float(np.deg2rad(config.angle)))


def _chosen_chains(config: SimulateConfig, atoms: Atoms) -> Bool[np.ndarray, " atoms"]:
    moving = np.any([choose_chains(atoms, name) for name in config.moving], axis=0)
    if moving.all():
        raise InputError(
            f"--moving names all chains of {config.structure[0]}. Leave out those that rest."
        )
    return moving


def _find_contact(
    moving: Float[np.ndarray, "moving 3"], resting: Float[np.ndarray, "resting 3"]
) -> Float[np.ndarray, " 3"]:
    """Find the middle of the atoms at which two parts touch, or come closest."""
    distance, nearest = KDTree(resting).query(moving)
    near = distance <= max(_CONTACT, float(distance.min()))
    return 0.5 * (moving[near].mean(0) + resting[np.asarray(nearest)[near]].mean(0))


def _find_axis(
    outwards: Float[np.ndarray, " 3"], inwards: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " 3"]:
    """Find the direction at right angles to both parts; any at right angles if they are in line."""
    lengths = np.linalg.norm(outwards), np.linalg.norm(inwards)
    axis = np.cross(inwards, outwards)
    if np.linalg.norm(axis) < _STRAIGHT * np.prod(lengths):
        axis = np.cross(outwards, np.eye(3)[np.abs(outwards).argmin()])
    return axis / np.linalg.norm(axis)


def _triple(vector: Float[np.ndarray, " 3"]) -> str:
    return ",".join(f"{value:.3g}" for value in vector)


def _make_morph(config: SimulateConfig, atoms: Atoms, middle: np.ndarray) -> Motion:
    name = config.end or ""
    end = _read(config, name)
    same = len(end) == len(atoms) and np.array_equal(end.elements, atoms.elements)
    if not same:
        raise InputError(
            f"Expected the atoms of {config.structure[0]} ({len(atoms):,}) in {name} in the same "
            f"order, found {len(end):,}. Remove those that not both have."
        )
    return Morph(end.positions + middle, config.morph)

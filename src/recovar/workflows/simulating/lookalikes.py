"""Sets of CryoBench by name: their sizes, and invented molecules that move in such a way.

Look-alikes and not the originals: no structure, pose, CTF or image of CryoBench is used.

Source: Jeon et al., CryoBench: Diverse and challenging datasets for the heterogeneity problem in
cryo-EM, NeurIPS 2024.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from recovar.invented_molecules import (
    draw_spike_states,
    invent_antibody,
    invent_assembly,
    invent_complexes,
    invent_spike,
    place_fab,
    turn_fab,
)
from recovar.populations import name_population, uneven_weights
from recovar.workflows.simulating.subjects import Subject, discrete_subject, measure_span


@dataclass(frozen=True)
class LookAlike:
    """What a set is like."""

    n_images: int
    box: int
    pixel_size: float
    """Å."""
    snr: float
    conformations: int
    """Conformations that images share; 0 where each has its own."""
    invent: Callable[[np.random.Generator], Subject]
    """Makes up a molecule, for those who give none."""


def _invent_turning_antibody(generator: np.random.Generator) -> Subject:
    ensemble = turn_fab(invent_antibody(generator))
    population = name_population("uniform", np.zeros(1), np.ones(1))
    return Subject(
        draw=population.draw,
        meaning="turn of a Fab about its linker, as the share of a full circle",
        span=max(measure_span(ensemble.atoms_at(np.array([turn]))) for turn in (0.0, 0.5)),
        atoms_at=ensemble.atoms_at,
    )


def _invent_loose_antibody(generator: np.random.Generator) -> Subject:
    ensemble = place_fab(invent_antibody(generator), generator, _ANTIBODIES)
    return discrete_subject(
        ensemble.atoms_at, np.ones(_ANTIBODIES), "number of a random placement of a Fab"
    )


def _invent_ribosome(generator: np.random.Generator) -> Subject:
    ensemble = invent_assembly(generator, compositions=_ASSEMBLIES)
    return discrete_subject(
        ensemble.atoms_at, uneven_weights(_ASSEMBLIES, 0.5), "number of a state of assembly"
    )


def _invent_mixture(generator: np.random.Generator) -> Subject:
    gallery = invent_complexes(generator, _COMPLEXES)
    return discrete_subject(gallery.atoms_at, np.ones(_COMPLEXES), "number of a molecule")


def _invent_dynamics(generator: np.random.Generator) -> Subject:
    ensemble = invent_spike(generator)
    return Subject(
        draw=draw_spike_states,
        meaning="four normal modes, and the opening of three receptor-binding domains from 0 to 1",
        span=measure_span(ensemble.atoms_at(np.array([0.0, 0, 0, 0, 1, 1, 1]))),
        atoms_at=ensemble.atoms_at,
    )


_ANTIBODIES, _ASSEMBLIES, _COMPLEXES = 100, 16, 100

LOOKALIKES: Mapping[str, LookAlike] = {
    "igg-1d": LookAlike(100_000, 128, 3.0, 0.01, _ANTIBODIES, _invent_turning_antibody),
    "igg-rl": LookAlike(100_000, 128, 3.0, 0.01, _ANTIBODIES, _invent_loose_antibody),
    "ribosembly": LookAlike(335_240, 128, 3.0, 0.01, _ASSEMBLIES, _invent_ribosome),
    "tomotwin-100": LookAlike(100_000, 128, 3.0, 0.01, _COMPLEXES, _invent_mixture),
    "spike-md": LookAlike(46_789, 256, 1.5, 0.1, 0, _invent_dynamics),
}
"""Sets by the name that `recovar simulate --like` knows."""

"""Molecules for those who have no structure at hand: chains folded at random, no sequence.

Every residue is one carbon atom, blurred to the size of a residue.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from scipy.special import ndtr

from recovar.core.poses import random_rotations
from recovar.data.atoms import Atoms
from recovar.errors import InputError
from recovar.motions import Composition, Ensemble, Frames, Gallery, Hinge, find_normal_modes
from recovar.populations import draw_paths

_BOND = 3.8
"""Distance of residues that follow each other, in Å."""
_CONTACT = 4.6
"""Distance that other residues keep, in Å."""
_RESIDUE_VOLUME = 134.0
"""Å³ that a residue fills: 110 Da at 1.21 Å³ each."""
_RESIDUE_MASS = 0.11
"""kDa."""
_BLURRED = 150.0
"""B-factor in Å² that makes points as wide as residues."""
_POINT_GROUPS = (
    *("C1", "C1", "C1", "C2", "C2", "C3", "C4", "C5", "C6", "C7"),
    *("D2", "D3", "D4", "D5", "D7", "T", "O"),
)
"""Symmetries of invented complexes, the common ones more often."""
_HINGE = np.array([0.0, 0.0, 14.0])
"""Where the linkers of an antibody leave its Fc, x y z in Å."""
_PIVOTS = _HINGE + np.array([[14.0, 0.0, 4.0], [-14.0, 0.0, 4.0]])
"""Where its Fabs begin."""


@dataclass(frozen=True)
class HingedMolecule:
    """An invented molecule of residues: a body, an arm on a hinge, and a domain that can be absent.

    Its state is (bend, presence): −1 … 1 for the arm, and above ½ where the domain is there.
    """

    body: Float[np.ndarray, "body 3"]
    """x y z in Å."""
    arm: Float[np.ndarray, "arm 3"]
    domain: Float[np.ndarray, "domain 3"]
    hinge: Float[np.ndarray, " 3"]
    """Where the arm turns about the z axis."""
    largest_bend: float = 0.44
    """Angle of the arm at bend 1, in radians."""
    b_factor: float = _BLURRED
    """Å²."""

    def atoms_at(self, state: Num[np.ndarray, " coordinates"]) -> Atoms:
        """Place the residues, each as one carbon atom."""
        bend, presence = state
        c, s = np.cos(self.largest_bend * bend), np.sin(self.largest_bend * bend)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        parts = [self.body, (self.arm - self.hinge) @ turn.T + self.hinge]
        if presence > 0.5:
            parts.append(self.domain)
        positions = np.concatenate(parts)
        return Atoms(positions, np.full(len(positions), "C"), self.b_factor)


def invent_molecule(generator: np.random.Generator) -> HingedMolecule:
    """Draw a molecule of 3,000 residues, about 220 Å long, as folded chains without a name."""
    body = _fold_chain(generator, 2000, (52.0, 42.0, 36.0))
    arm = _fold_chain(generator, 600, (44.0, 22.0, 20.0)) + np.array([84.0, 14.0, 0.0])
    domain = _fold_chain(generator, 400, (20.0, 24.0, 26.0)) + np.array([-18.0, -52.0, 14.0])
    centre = np.concatenate([body, arm, domain]).mean(0)
    hinge = np.array([46.0, 10.0, 0.0])
    return HingedMolecule(body - centre, arm - centre, domain - centre, hinge - centre)


def draw_hinged_states(count: int, generator: np.random.Generator) -> np.ndarray:
    """Draw states of a `HingedMolecule`: two preferred bends, all between, and a domain in 60 %."""
    kind, spread, place, presence = generator.random((count, 4)).T
    preferred = np.where(kind < 0.4, -0.5, 0.45) + 0.5 * (spread - 0.5)
    bend = np.where(kind < 0.75, preferred, 2 * place - 1)
    return np.stack([bend, (presence < 0.6).astype(np.float64)], axis=1)


def _fold_chain(
    generator: np.random.Generator, count: int, semi_axes: tuple[float, float, float]
) -> Float[np.ndarray, "count 3"]:
    """Walk in steps of 3.8 Å that keep some direction and turn back at an ellipsoid's surface."""
    shape = np.array(semi_axes) ** -2.0
    places = np.zeros((count, 3))
    place, heading = np.zeros(3), np.array([1.0, 0.0, 0.0])
    for i, bend in enumerate(generator.normal(scale=0.6, size=(count, 3))):
        heading = heading + bend
        if shape @ (place + 3.8 * heading / np.linalg.norm(heading)) ** 2 > 1:
            outward = shape * place
            heading = heading - 2 * max(0.0, heading @ outward) / (outward @ outward) * outward
        heading /= np.linalg.norm(heading)
        place = place + 3.8 * heading
        places[i] = place
    return places


def invent_antibody(generator: np.random.Generator) -> Atoms:
    """Fold a molecule like an IgG: 1,280 residues, about 170 Å.

    Its chains are `Fc`, `Fab 1`, `Fab 2`, and the linkers `linker 1` and `linker 2`. Each of its
    twelve domains is an ellipsoid of 40 Å.
    """
    pair = np.array([[13.0, 0.0, 0.0], [-13.0, 0.0, 0.0]])
    along = np.array([0.0, 0.0, 1.0])
    fab = np.concatenate([pair + 24 * along, pair + 60 * along])
    fc = _HINGE - np.concatenate([1.3 * pair + 30 * along, 0.9 * pair + 66 * along])
    fc = _HINGE - np.concatenate(
        [1.3 * pair + np.array([0.0, 0.0, 30.0]), 0.9 * pair + np.array([0.0, 0.0, 66.0])]
    )
    arms = Rotation.from_euler("ZYZ", [[0, 70, 60], [0, -70, 100]], degrees=True).as_matrix()
    centres = np.concatenate([fc, *(fab @ arms.swapaxes(1, 2) + _PIVOTS[:, None])])
    turns = np.repeat(np.stack([np.eye(3), *arms]), 4, axis=0)
    shapes = np.tile([12.5, 12.5, 20.0], (12, 1))
    walks = _walk(generator, 106, shapes) @ turns.swapaxes(1, 2)
    domains = _untangle(walks + centres[:, None])
    parts = dict(zip(("Fc", "Fab 1", "Fab 2"), domains.reshape(3, -1, 3), strict=True))
    links = {f"linker {i + 1}": _link(pivot) for i, pivot in enumerate(_PIVOTS)}
    return _residues(parts | links)


def turn_fab(antibody: Atoms) -> Ensemble:
    """Let a Fab of an invented antibody turn about its linker.

    The state is the share 0 … 1 of a full turn; both ends are the same conformation.
    """
    moving = antibody.chains == "Fab 1"
    return Ensemble(antibody, (Hinge(moving, _PIVOTS[0], np.array([1.0, 0.0, 1.7]), 2 * np.pi),))


def place_fab(antibody: Atoms, generator: np.random.Generator, count: int = 100) -> Ensemble:
    """Let a Fab of an invented antibody hang in any direction from a loose linker.

    The state is the number of a conformation. In all of them the Fab stays 5 Å away from what it
    is not linked to.
    """
    fab, linker = antibody.chains == "Fab 1", antibody.chains == "linker 1"
    rest = KDTree(antibody.positions[~fab & ~linker])
    arm = antibody.positions[fab] - _PIVOTS[0]
    frames = np.repeat(antibody.positions[None], count, axis=0)
    for frame in frames:
        clash = True
        while clash:
            pivot = _PIVOTS[0] + generator.uniform(-5.0, 5.0, 3)
            placed = arm @ random_rotations(1, generator)[0] + pivot
            clash = rest.query(placed)[0].min() < 5.0
            frame[fab], frame[linker] = placed, _link(pivot)
    return Ensemble(antibody, (Frames(frames),))


def _link(end: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "residues 3"]:
    return _HINGE + np.linspace(0.1, 0.9, 4)[:, None] * (end - _HINGE)


def invent_assembly(
    generator: np.random.Generator, segments: int = 9, compositions: int = 16
) -> Ensemble:
    """Fold a molecule like a ribosome on its way to completion: 14,250 residues, about 230 Å.

    To a core, chain `core`, segments of 450 residues are added, chains `1`, `2` …. The state is
    the number of a composition. The first has no segment; then each adds one to that before it,
    until all are there; the rest are branches, which add segments out of order.

    Raises:
        InputError: If there are too few compositions to add all segments, or too many to differ.
    """
    present = _branch(generator, segments, compositions)
    core = 68
    centres = _pack_domains(
        generator, core + 4 * segments, 31.0, np.array([1.1, 1.0, 0.7]), np.eye(3)[None]
    )
    labels = _label_segments(centres, core, segments)
    centres, labels = centres[labels >= 0], labels[labels >= 0]
    domains = _untangle(_fold_domains(generator, 150, centres))
    parts = {"core": domains[labels == 0].reshape(-1, 3)}
    for segment in range(1, segments + 1):
        parts[str(segment)] = domains[labels == segment].reshape(-1, 3)
    counts = [len(part) for part in parts.values()]
    return Ensemble(_residues(parts).centred(), (Composition(np.repeat(present, counts, axis=1)),))


def _branch(
    generator: np.random.Generator, segments: int, compositions: int
) -> Bool[np.ndarray, "compositions parts"]:
    """Tell which parts, the core first, are in each composition."""
    if not segments < compositions <= 2**segments:
        raise InputError(
            f"{segments} segments are added in {segments + 1} to {2**segments} compositions, got "
            f"{compositions}."
        )
    present = np.tri(segments + 1, dtype=np.bool_)
    while len(present) < compositions:
        branch = present[generator.integers(len(present))].copy()
        branch[generator.integers(1, segments + 1)] = True
        if not (branch == present).all(1).any():
            present = np.concatenate([present, branch[None]])
    return present


def _label_segments(
    centres: Float[np.ndarray, "domains 3"], core: int, segments: int
) -> Int[np.ndarray, " domains"]:
    """Give 0 to the core, 1, 2 … to three neighbours each, far apart, and −1 to the rest."""
    labels = np.where(np.arange(len(centres)) < core, 0, -1)
    apart = np.full(len(centres), np.inf)
    for segment in range(1, segments + 1):
        free = labels < 0
        seed = np.where(free, apart, -1.0).argmax()
        away = np.linalg.norm(centres - centres[seed], axis=1)
        labels[np.where(free, away, np.inf).argsort()[:3]] = segment
        apart = np.minimum(apart, away)
    return labels


def invent_complexes(generator: np.random.Generator, count: int = 100) -> Gallery:
    """Fold different compact molecules of 50 to 1,000 kDa, with and without point symmetry.

    The state is the number of a molecule.
    """
    return Gallery(tuple(_invent_complex(generator) for _ in range(count)))


def _invent_complex(generator: np.random.Generator) -> Atoms:
    residues = 50.0 * 20.0 ** generator.random() / _RESIDUE_MASS
    groups = (_point_group(str(name)) for name in generator.permutation(_POINT_GROUPS))
    group = next(group for group in groups if 75 * len(group) < residues)
    unit = int(np.ceil(residues / (150 * len(group))))
    in_domain = round(residues / (unit * len(group)))
    width, height, depth = generator.uniform(0.5, 1.5, 3)
    proportions = np.array([width, width if len(group) > 2 else depth, height])
    spacing = 1.9 * _domain_radius(in_domain)
    centres = _pack_domains(generator, unit, spacing, proportions, group)
    walks = _untangle(_fold_domains(generator, in_domain, centres)).reshape(-1, 3)
    return _residues({str(i): walks @ turn.T for i, turn in enumerate(group)}).centred()


def _point_group(name: str) -> Float[np.ndarray, "copies 3 3"]:
    """List the rotations of a point group, the identity first."""
    turns = Rotation.create_group(name).as_matrix()
    return turns[np.argsort(-turns.trace(axis1=1, axis2=2), kind="stable")]


def invent_spike(generator: np.random.Generator, modes: int = 4) -> Ensemble:
    """Fold a trimer like the spike of a coronavirus: 3,390 residues, about 170 Å.

    Its chains are `A core`, `A NTD`, `A RBD` and so on to `C`. The state has one coordinate
    for each of the softest normal modes, in units of 3 Å for the softest, and then one for each
    receptor-binding domain: 0 lies on the top, and 1 stands up.
    """
    places = np.array(
        [
            [14.0, 0.0, -62.0],
            [15.0, 10.0, -38.0],
            [16.0, 20.0, -14.0],
            [17.0, 30.0, 10.0],
            [42.0, 15.0, -2.0],
            [44.0, 5.0, 26.0],
            [52.0, 40.0, 14.0],
            [56.0, 48.0, 42.0],
            [36.0, -5.0, 56.0],
            [18.0, -10.0, 66.0],
        ]
    )
    r, angle, z = places[:, 0], np.deg2rad(places[:, 1]), places[:, 2]
    centres = np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)
    shapes = np.full((10, 3), _domain_radius(113))
    shapes[:4] = [11.5, 11.5, 27.0]
    walks = _untangle(_walk(generator, 113, shapes) + centres[:, None])
    parts: dict[str, np.ndarray] = {}
    hinges = []
    for number, name in enumerate("ABC"):
        turn = Rotation.from_euler("z", 120 * number, degrees=True).as_matrix()
        copy = walks @ turn.T
        for part, domains in (("core", copy[:6]), ("NTD", copy[6:8]), ("RBD", copy[8:])):
            parts[f"{name} {part}"] = domains.reshape(-1, 3)
        hinges.append((turn @ [44.0, 0.0, 42.0], turn @ [0.0, 1.0, 0.0]))
    atoms = _residues(parts)
    openings = [
        Hinge(atoms.chains == f"{name} RBD", point, axis, 1.0)
        for name, (point, axis) in zip("ABC", hinges, strict=True)
    ]
    return Ensemble(atoms, (find_normal_modes(atoms, modes, amplitude=3.0), *openings))


def draw_spike_states(
    count: int, generator: np.random.Generator, modes: int = 4, memory: float = 100.0
) -> Float[np.ndarray, "count coordinates"]:
    """Draw states of a spike as a simulation of its dynamics passes through them.

    Every state differs from all others; neighbours are alike. The receptor-binding domains are
    mostly down or up, and down more often.

    Args:
        count: How many.
        generator: Source of all random numbers.
        modes: Normal modes of the spike.
        memory: After this many states the correlation has fallen to 1/e.
    """
    paths = draw_paths(count, modes + 3, memory, generator)
    return np.concatenate([paths[:, :modes], ndtr(2.0 * paths[:, modes:] - 0.8)], axis=1)


def _residues(parts: Mapping[str, Float[np.ndarray, "residues 3"]]) -> Atoms:
    """Make chains of residues, each one carbon atom."""
    positions = np.concatenate(list(parts.values()))
    chains = np.repeat(list(parts), [len(part) for part in parts.values()])
    return Atoms(positions, np.full(len(positions), "C"), _BLURRED, chains=chains)


def _domain_radius(residues: int) -> float:
    return (3 * _RESIDUE_VOLUME * residues / (4 * np.pi)) ** (1 / 3)


def _pack_domains(
    generator: np.random.Generator,
    count: int,
    spacing: float,
    proportions: Float[np.ndarray, " 3"],
    group: Float[np.ndarray, "copies 3 3"],
) -> Float[np.ndarray, "count 3"]:
    """Add places one by one beside those that are there, as near to the middle as is free.

    All copies of the places under the point group keep their distance as well.
    """
    chosen, all_places = np.zeros((0, 3)), np.zeros((1, 3))
    reach = spacing * np.linspace(0, 1.5, 200)[:, None]
    while len(chosen) < count:
        tried = all_places[generator.integers(len(all_places), size=200)]
        tried = tried + reach * _unit(generator.normal(size=(200, 3)))
        copies = np.einsum("cij,tj->cti", group, tried)
        distance = np.linalg.norm(copies[1:] - tried, axis=2).min(0, initial=np.inf)
        if len(chosen):
            distance = np.minimum(distance, cdist(tried, all_places).min(1))
        free = np.flatnonzero(distance > 0.95 * spacing)
        if len(free):
            best = free[np.linalg.norm(tried[free] / proportions, axis=1).argmin()]
            chosen = np.concatenate([chosen, tried[best, None]])
            all_places = np.einsum("cij,tj->cti", group, chosen).reshape(-1, 3)
    return chosen


def _fold_domains(
    generator: np.random.Generator,
    residues: int,
    centres: Float[np.ndarray, "domains 3"],
) -> Float[np.ndarray, "domains residues 3"]:
    """Fold domains of irregular shapes in any orientation."""
    shapes = np.exp(generator.normal(scale=0.3, size=centres.shape))
    shapes *= _domain_radius(residues) / shapes.prod(1, keepdims=True) ** (1 / 3)
    turns = random_rotations(len(centres), generator)
    return _walk(generator, residues, shapes) @ turns + centres[:, None]


def _walk(
    generator: np.random.Generator, residues: int, semi_axes: Float[np.ndarray, "domains 3"]
) -> Float[np.ndarray, "domains residues 3"]:
    """Walk as in `_fold_chain`, in many ellipsoids at once."""
    shape = semi_axes**-2.0
    places = np.empty((residues, *semi_axes.shape))
    place = 0.4 * semi_axes * generator.uniform(-1, 1, semi_axes.shape)
    heading = np.zeros_like(place)
    for i, bend in enumerate(generator.normal(scale=0.6, size=places.shape)):
        heading = _unit(heading + bend)
        outward = shape * place
        beyond = (shape * (place + _BOND * heading) ** 2).sum(1, keepdims=True) > 1
        push = np.maximum(0.0, (heading * outward).sum(1, keepdims=True)) * beyond
        heading = _unit(heading - 2 * push / (outward**2).sum(1, keepdims=True) * outward)
        place = place + _BOND * heading
        places[i] = place
    return places.swapaxes(0, 1)


def _unit(vectors: Float[np.ndarray, "domains 3"]) -> Float[np.ndarray, "domains 3"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _untangle(
    domains: Float[np.ndarray, "domains residues 3"], rounds: int = 12
) -> Float[np.ndarray, "domains residues 3"]:
    """Push residues apart that share their place, and pull bonds back to their length."""
    places = domains.copy()
    flat = places.reshape(-1, 3)
    for _ in range(rounds):
        first, second = KDTree(flat).query_pairs(_CONTACT, output_type="ndarray").T
        gap = flat[second] - flat[first]
        gap *= 0.3 * (_CONTACT / np.linalg.norm(gap, axis=1, keepdims=True) - 1)
        for along in range(3):
            flat[:, along] += np.bincount(second, gap[:, along], len(flat))
            flat[:, along] -= np.bincount(first, gap[:, along], len(flat))
        bond = np.diff(places, axis=1)
        bond *= 0.45 * (1 - _BOND / np.linalg.norm(bond, axis=2, keepdims=True))
        places[:, :-1] += bond
        places[:, 1:] -= bond
    return places

"""How molecules move: every motion maps the atoms of a molecule and a state to atoms.

A motion changes places and occupancies, never the list of atoms. So motions compose, and masks
of atoms keep their meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int, Num, Shaped
from scipy.interpolate import RBFInterpolator
from scipy.sparse.linalg import eigsh
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from recovar.data.atoms import Atoms
from recovar.errors import InputError


@runtime_checkable
class Motion(Protocol):
    """What a molecule does as some coordinates of its state change."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates that a state has."""
        ...

    def move(self, atoms: Atoms, state: Num[np.ndarray, " coordinates"]) -> Atoms:
        """Give the same atoms in another state."""
        ...


@dataclass(frozen=True)
class Hinge:
    """A rigid domain that turns about an axis fixed in space.

    Where one domain carries another, the motion of the carried one comes first.
    """

    moving: Bool[np.ndarray, " atoms"]
    """Which atoms turn."""
    point: Float[np.ndarray, " 3"]
    """A place on the axis, x y z in Å."""
    axis: Float[np.ndarray, " 3"]
    """Direction of the axis, of any length; turns are right-handed about it."""
    largest_angle: float
    """Angle in state 1, in radians; state −1 is as far on the other side."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state: the angle."""
        return 1

    def move(self, atoms: Atoms, state: Num[np.ndarray, " 1"]) -> Atoms:
        """Turn the domain by `state` times the largest angle."""
        _require_length(len(self.moving), atoms)
        axis = self.axis / np.linalg.norm(self.axis)
        turn = Rotation.from_rotvec(float(state[0]) * self.largest_angle * axis)
        positions = np.array(atoms.positions, np.float64)
        positions[self.moving] = turn.apply(positions[self.moving] - self.point) + self.point
        return atoms.at(positions)


@dataclass(frozen=True)
class Morph:
    """A way from where the atoms are, in state 0, to another conformation, in state 1.

    Linear: every atom on a straight line, so that what turns also shrinks on its way. Angular:
    every domain turns about its screw axis; what is left of the difference is added in
    proportion, in the frame of the domain.
    """

    end: Float[np.ndarray, "atoms 3"]
    """x y z in Å, in state 1."""
    way: Literal["linear", "angular"] = "linear"
    domains: Shaped[np.ndarray, " atoms"] | None = None
    """Labels of the domains of an angular morph; without labels these are the chains."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state: the share of the way."""
        return 1

    def move(self, atoms: Atoms, state: Num[np.ndarray, " 1"]) -> Atoms:
        """Go the share `state` of the way."""
        _require_length(len(self.end), atoms)
        start, share = atoms.positions, float(state[0])
        if self.way == "linear":
            return atoms.at((1 - share) * start + share * self.end)
        labels = atoms.chains if self.domains is None else self.domains
        if labels is None:
            labels = np.zeros(len(atoms), np.int64)
        positions = np.empty_like(self.end, np.float64)
        for label in np.unique(labels):
            inside = labels == label
            positions[inside] = _turn_part(start[inside], self.end[inside], share)
        return atoms.at(positions)


def _turn_part(
    start: Float[np.ndarray, "atoms 3"], end: Float[np.ndarray, "atoms 3"], share: float
) -> Float[np.ndarray, "atoms 3"]:
    """Go a share of the way along the screw that superposes `start` best on `end`."""
    turn = superpose(start, end)
    shift = end.mean(0) - turn @ start.mean(0)
    remainder = (end - shift) @ turn - start
    vector = Rotation.from_matrix(turn).as_rotvec()
    velocity = np.linalg.solve(_mean_turn(vector), shift)
    passed = share * _mean_turn(share * vector) @ velocity
    return Rotation.from_rotvec(share * vector).apply(start + share * remainder) + passed


def _mean_turn(vector: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Average all rotations on the way to a rotation vector; on a screw, velocity to shift."""
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.linalg.norm(vector)
    second = (1 - np.sinc(angle / np.pi)) / angle**2 if angle > 1e-4 else 1 / 6
    return np.eye(3) + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross + second * cross @ cross


def superpose(
    start: Float[np.ndarray, "atoms 3"], end: Float[np.ndarray, "atoms 3"]
) -> Float[np.ndarray, "3 3"]:
    """Find the rotation that brings centred `start` closest to centred `end`.

    Source: Kabsch, Acta Cryst. A 34 (1978) 827.
    """
    left, _, right = np.linalg.svd((end - end.mean(0)).T @ (start - start.mean(0)))
    left[:, 2] *= np.linalg.det(left @ right)
    return left @ right


@dataclass(frozen=True)
class Frames:
    """Conformations in a row; between two of them atoms move on straight lines.

    It replaces the places of the atoms, and so comes before other motions.
    """

    frames: Float[np.ndarray, "frames atoms 3"]
    """x y z in Å."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state: the place among the frames."""
        return 1

    def move(self, atoms: Atoms, state: Num[np.ndarray, " 1"]) -> Atoms:
        """Go to the place 0 … frames − 1.

        Raises:
            InputError: If the place is not among the frames.
        """
        _require_length(self.frames.shape[1], atoms)
        place, last = float(state[0]), len(self.frames) - 1
        if not 0 <= place <= last:
            raise InputError(f"Expected a place from 0 to {last} among frames, got {place:g}.")
        before = min(int(place), max(last - 1, 0))
        share = place - before
        positions = (1 - share) * self.frames[before]
        if share > 0:
            positions = positions + share * self.frames[before + 1]
        return atoms.at(positions)


@dataclass(frozen=True)
class NormalModes:
    """Displacements along directions that a molecule yields to; state 0 is at rest."""

    modes: Float[np.ndarray, "modes atoms 3"]
    """Displacements in Å that one unit of each coordinate brings."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state: one for each mode."""
        return len(self.modes)

    def move(self, atoms: Atoms, state: Num[np.ndarray, " modes"]) -> Atoms:
        """Add all displacements."""
        _require_length(self.modes.shape[1], atoms)
        return atoms.at(atoms.positions + np.tensordot(state, self.modes, 1))


def find_normal_modes(
    atoms: Atoms, count: int, cutoff: float = 15.0, amplitude: float = 1.0, nodes: int = 1000
) -> NormalModes:
    """Find the softest modes of the anisotropic network of a molecule.

    One node stands for each residue: CA or P where atoms have names, every atom where they have
    none. Of more than `nodes` only each second, third … is kept, and the cutoff grows with the
    distance between them. All atoms follow by the smoothest interpolation that is exact on the
    nodes and for rigid motions. The result does not depend on the number of threads.

    Source: Atilgan et al., Biophys. J. 80 (2001) 505; coarse nodes: Doruker et al., J. Comput.
    Chem. 23 (2002) 119.

    Args:
        atoms: The molecule at rest.
        count: Modes wanted, softest first; the rigid motions are not among them.
        cutoff: Residues closer than this are joined by springs, in Å.
        amplitude: Root mean square displacement of the nodes for one unit of the softest mode,
            in Å. The others have amplitudes in proportion to their thermal motion.
        nodes: Most nodes.

    Raises:
        InputError: If there are fewer modes, or the network falls apart.
    """
    rows = _find_nodes(atoms)
    every = max(1, -(-len(rows) // nodes))
    places = np.asarray(atoms.positions[rows[::every]], np.float64)
    if 3 * len(places) <= count + 6:
        raise InputError(
            f"{len(places)} nodes have no more than {max(3 * len(places) - 7, 0)} modes, got "
            f"{count}. Nodes are the atoms CA and P, or all where atoms have no names."
        )
    # Symmetric molecules have pairs of equally soft modes, which rounding would mix.
    with threadpool_limits(1, "blas"):
        shapes = amplitude * _find_soft_directions(places, count, cutoff * every ** (1 / 3))
        field = RBFInterpolator(places, shapes.reshape(len(places), -1), kernel="linear", degree=1)
        moved = field(atoms.positions).reshape(len(atoms), 3, count)
    return NormalModes(np.moveaxis(moved, 2, 0))


def _find_soft_directions(
    places: Float[np.ndarray, "nodes 3"], count: int, cutoff: float
) -> Float[np.ndarray, "coordinates count"]:
    """Find modes with the amplitudes of thermal motion, 1 Å for the softest."""
    hessian = _join_nodes(places, cutoff)
    start = np.cos(np.arange(3.0 * len(places)))
    values, vectors = eigsh(hessian, count + 6, sigma=-1e-3, v0=start)
    order = np.argsort(values)[6:]
    if values[order[0]] < 1e-6:
        raise InputError(
            f"The network of {len(places)} nodes falls apart at a cutoff of {cutoff:g} Å. "
            "Choose a larger cutoff, or remove what is far from the rest."
        )
    softness = np.sqrt(len(places) * values[order[0]] / values[order])
    return vectors[:, order] * softness * np.sign(start @ vectors[:, order])


def _find_nodes(atoms: Atoms) -> Int[np.ndarray, " nodes"]:
    if atoms.names is None:
        return np.arange(len(atoms))
    return np.flatnonzero(np.isin(atoms.names, ["CA", "P"]))


def _join_nodes(places: Float[np.ndarray, "nodes 3"], cutoff: float) -> scipy.sparse.csc_array:
    """Sum the springs between nodes: second derivatives of the energy, with unit stiffness."""
    first, second = KDTree(places).query_pairs(cutoff, output_type="ndarray").T
    along = places[first] - places[second]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    springs = np.einsum("pi,pj->pij", along, along)
    rows = np.concatenate([first, second, first, second])
    columns = np.concatenate([first, second, second, first])
    blocks = np.concatenate([springs, springs, -springs, -springs])
    i, j = np.indices((3, 3))
    index = (3 * rows[:, None, None] + i).ravel(), (3 * columns[:, None, None] + j).ravel()
    side = 3 * len(places)
    return scipy.sparse.csc_array((blocks.ravel(), index), shape=(side, side))


@dataclass(frozen=True)
class Composition:
    """Parts that are there or not; a state is the number of a composition."""

    present: Bool[np.ndarray, "compositions atoms"]
    """Which atoms each composition has."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state: the number of the composition."""
        return 1

    def move(self, atoms: Atoms, state: Num[np.ndarray, " 1"]) -> Atoms:
        """Set the occupancy of what is absent to 0.

        Raises:
            InputError: If there is no composition of that number.
        """
        _require_length(self.present.shape[1], atoms)
        present = self.present[_whole_number(state, len(self.present), "composition")]
        before = np.ones(len(atoms)) if atoms.occupancy is None else atoms.occupancy
        return replace(atoms, occupancy=np.where(present, before, 0.0))


def compose_of_chains(atoms: Atoms, compositions: str) -> Composition:
    """Make compositions from names of chains.

    Args:
        atoms: The molecule with all of its chains.
        compositions: Such as `A,B,C;A,B;A`: commas between chains, semicolons between
            compositions; `RNA*` are all chains whose name starts so.

    Raises:
        InputError: If a chain does not exist.
    """
    parts = [
        np.any([choose_chains(atoms, name.strip()) for name in composition.split(",")], axis=0)
        for composition in compositions.split(";")
    ]
    return Composition(np.array(parts))


def choose_chains(atoms: Atoms, pattern: str) -> Bool[np.ndarray, " atoms"]:
    """Tell which atoms are in chains of a name, in which * stands for any text.

    Raises:
        InputError: If there is no such chain.
    """
    chains = np.full(len(atoms), "") if atoms.chains is None else np.asarray(atoms.chains, str)
    names = np.unique(chains).tolist()
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not pattern or not found:
        raise InputError(
            f"There is no chain {pattern!r}. The chains are {', '.join(names) or 'without names'}."
        )
    return np.isin(chains, found)


@dataclass(frozen=True)
class Ensemble:
    """A molecule and all its motions."""

    atoms: Atoms
    """The molecule at rest, with all its parts."""
    motions: Sequence[Motion]
    """They share the coordinates of a state among them, and act, in this order."""

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state."""
        return sum(motion.dimensions for motion in self.motions)

    def atoms_at(self, state: Num[np.ndarray, " coordinates"]) -> Atoms:
        """Give the atoms that are there in a state.

        Raises:
            InputError: If the state has more or fewer coordinates than the motions.
        """
        _require_coordinates(state, self.dimensions)
        atoms, used = self.atoms, 0
        for motion in self.motions:
            atoms = motion.move(atoms, state[used : used + motion.dimensions])
            used += motion.dimensions
        return atoms if atoms.occupancy is None else atoms.select(atoms.occupancy > 0)


@dataclass(frozen=True)
class Gallery:
    """Molecules that have nothing to do with each other; a state is the number of a molecule."""

    molecules: Sequence[Atoms]

    @property
    def dimensions(self) -> int:
        """Count the coordinates of a state: the number of the molecule."""
        return 1

    def atoms_at(self, state: Num[np.ndarray, " coordinates"]) -> Atoms:
        """Give the atoms of a molecule.

        Raises:
            InputError: If there is no molecule of that number.
        """
        _require_coordinates(state, self.dimensions)
        return self.molecules[_whole_number(state, len(self.molecules), "molecule")]


def _require_length(count: int, atoms: Atoms) -> None:
    if count != len(atoms):
        raise InputError(f"Expected the {count} atoms that this motion is for, got {len(atoms)}.")


def _require_coordinates(state: Num[np.ndarray, " coordinates"], dimensions: int) -> None:
    if len(state) != dimensions:
        raise InputError(
            f"Expected a state of {dimensions} coordinates, one or more for each motion, "
            f"got {len(state)}."
        )


def _whole_number(state: Num[np.ndarray, " 1"], count: int, kind: str) -> int:
    number = float(state[0])
    if number not in range(count):
        raise InputError(f"Expected the number of a {kind} from 0 to {count - 1}, got {number:g}.")
    return int(number)

"""Molecules for those who have no structure at hand: chains folded at random, no sequence.

Every residue is one carbon atom, blurred to the size of a residue.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from recovar.data.atoms import Atoms


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
    b_factor: float = 150.0
    """Å²; makes points as wide as residues."""

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

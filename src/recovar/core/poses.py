"""Orientations and shifts; the angle conventions of other programs live here only.

Rows of a rotation are the image axes in the frame of the molecule: row 2 is the viewing
direction, and the plane point (kx, ky, 0) @ R is where an image samples the volume (x y z).
"""

import numpy as np
from jaxtyping import Float


def _turns(angles: Float[np.ndarray, " n"], axis: int) -> Float[np.ndarray, "n 3 3"]:
    """Build active rotations about a coordinate axis."""
    matrices = np.zeros((len(angles), 3, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrices[:, axis, axis] = 1.0
    matrices[:, first, first] = matrices[:, second, second] = np.cos(angles)
    matrices[:, second, first] = np.sin(angles)
    matrices[:, first, second] = -np.sin(angles)
    return matrices


def rotations_from_relion_euler(angles: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Convert RELION's rot, tilt, psi (radians) to rotations.

    R = [Rz(rot) Ry(tilt) Rz(psi)]ᵀ; its third row is (sin tilt cos rot, sin tilt sin rot,
    cos tilt).
    """
    rot, tilt, psi = np.asarray(angles, np.float64).T
    return (_turns(rot, 2) @ _turns(tilt, 1) @ _turns(psi, 2)).swapaxes(1, 2)


def relion_euler_from_rotations(
    rotations: Float[np.ndarray, "n 3 3"],
) -> Float[np.ndarray, "n 3"]:
    """Convert rotations to RELION's rot, tilt, psi in radians, tilt in [0, π].

    Where tilt is 0 or π only rot ± psi is defined; psi is then set to zero.
    """
    r = np.asarray(rotations, np.float64)
    sine = np.hypot(r[:, 2, 0], r[:, 2, 1])
    tilt = np.arctan2(sine, r[:, 2, 2])
    regular = sine > 1e-9
    rot = np.arctan2(r[:, 2, 1], r[:, 2, 0])
    psi = np.where(regular, np.arctan2(r[:, 1, 2], -r[:, 0, 2]), 0.0)
    polar = np.arctan2(-r[:, 1, 0], r[:, 1, 1])
    return np.stack([np.where(regular, rot, polar), tilt, psi], axis=1)


def rotations_from_rotation_vectors(
    vectors: Float[np.ndarray, "n 3"],
) -> Float[np.ndarray, "n 3 3"]:
    """Convert cryoSPARC's rotation vectors (axis × angle in radians) to rotations.

    The result is the transpose of the usual axis-angle matrix.
    """
    v = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(v, axis=1)
    axis = v / np.maximum(angle, 1e-300)[:, None]
    cross = np.zeros((len(v), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = axis
    cross -= cross.swapaxes(1, 2)
    matrices = (
        np.eye(3)
        + np.sin(angle)[:, None, None] * cross
        + (1 - np.cos(angle))[:, None, None] * (cross @ cross)
    )
    return matrices.swapaxes(1, 2)


def random_rotations(count: int, generator: np.random.Generator) -> Float[np.ndarray, "n 3 3"]:
    """Draw rotations uniformly (Haar) from unit quaternions."""
    w, x, y, z = (q := generator.standard_normal((count, 4))).T / np.linalg.norm(q, axis=1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)

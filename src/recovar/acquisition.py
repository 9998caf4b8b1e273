"""What a microscope does to a molecule, image by image: poses, optics, noise, junk, tilts.

All random choices come from counters keyed by the seed, the kind of choice and, for noise, the
image. So what is drawn for one choice does not depend on which others are drawn.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.spatial.transform import Rotation

from recovar.core.ctf import Optics
from recovar.core.grid import Grid, expand_shells
from recovar.core.poses import random_rotations, rotations_from_relion_euler
from recovar.data.legacy import FractionalPoses
from recovar.errors import InputError

_LEAST_FACTOR = 0.1
"""Of contrasts and scales of noise."""

NO_TRANSFER = Optics(*(np.array([value], np.float32) for value in (0, 0, 0, 300, 0, -1, 0, 0, 1)))
"""One row of optics whose transfer function is 1 at all frequencies; particles are then bright."""


class Choice(IntEnum):
    """What a stream of random numbers decides."""

    ROTATION = 0
    VIEW = 1
    PREFERENCE = 2
    SHIFT = 3
    DEFOCUS = 4
    CONTRAST = 5
    NOISE = 6
    STATE = 7
    SPECIMEN = 8
    POSE_ROW = 9
    OPTICS_ROW = 10
    NOISE_SCALE = 11
    ENVELOPE = 12
    BASELINE = 13
    KIND = 14
    DISPLACEMENT = 15
    OTHER = 16
    OTHER_ROTATION = 17
    NEIGHBOUR = 18
    NEIGHBOUR_ROTATION = 19
    JITTER = 20
    DEFOCUS_ERROR = 21
    POSE_ERROR = 22
    SHIFT_ERROR = 23


def random_stream(seed: int, choice: Choice, image: int = 0) -> np.random.Generator:
    """Start the stream of random numbers for one kind of choice, and for noise for one image."""
    return np.random.Generator(np.random.Philox(key=[seed, image], counter=[0, 0, 0, choice]))


class Kind(IntEnum):
    """What an image shows."""

    MOLECULE = 0
    EMPTY = 1
    """Ice alone."""
    OTHER = 2
    """Another molecule, in an orientation unrelated to what the files say."""
    OFF_CENTRE = 3
    """The molecule, far from where the files say."""


@dataclass(frozen=True, kw_only=True)
class TiltScheme:
    """A series of images of each particle, dose-symmetric: 0, +, −, −, +, + … steps of tilt.

    Source: Hagen, Wan and Briggs, J. Struct. Biol. 197 (2017) 191.
    """

    count: int = 41
    """Images per particle."""
    step: float = float(np.deg2rad(3.0))
    """Radians."""
    dose: float = 3.0
    """Electrons per Å² and image."""
    jitter: float = 0.0
    """Standard deviation of the error of alignment along x and y in Å, of every image anew; the
    files tell it as part of the shifts."""
    thickening: bool = False
    """Whether noise grows as 1/cos tilt, as the path through the ice does."""

    def angles(self) -> Float[np.ndarray, " tilts"]:
        """List the tilts about y in the order of exposure."""
        number = np.arange(self.count)
        return self.step * np.where(number % 4 < 2, 1, -1) * ((number + 1) // 2)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How the images of a data set differ from one another; in a tilt series, the particles."""

    defocus: tuple[float, float] = (8_000.0, 25_000.0)
    """Å, from and to."""
    astigmatism: float = 150.0
    """Largest difference of a defocus from its mean over directions, in Å."""
    voltage: float = 300.0
    """kV."""
    spherical_aberration: float = 2.7
    """mm."""
    amplitude_contrast: float = 0.1
    optics: Optics | None = None
    """Rows to draw from, whatever the poses, in place of the five above; see `NO_TRANSFER`."""
    b_factor: tuple[float, float] = (0.0, 0.0)
    """Å², from and to; added to that of the optics, and told by the files that can."""
    poses: FractionalPoses | None = None
    """Rows to draw from, in place of `shift` and preferred views. Their mean shift stays."""
    shift: float = 5.0
    """Standard deviation along x and y, in Å."""
    preferred: float = 0.3
    """Share of images that are seen about along the y axis; the rest is seen from anywhere."""
    preferred_spread: float = 0.3
    """Spread of the preferred views in radians."""
    contrast: float = 0.15
    """Standard deviation of the factor that multiplies an image's signal; its mean is 1."""
    noise_scale: float = 0.0
    """Standard deviation of the factor that multiplies an image's noise; its mean is 1."""
    baseline: float = 0.0
    """Standard deviation of a constant added to an image; pixels of noise have 1."""
    empty: float = 0.0
    """Share of images of ice alone."""
    other: float = 0.0
    """Share of images of another molecule."""
    off_centre: float = 0.0
    """Share of images whose molecule is elsewhere than the files say."""
    displacement: tuple[float, float] = (0.2, 0.5)
    """How far they are off, in boxes, from and to; in any direction."""
    neighbours: float = 0.0
    """Share of images in which a second molecule is near; its state and orientation are random."""
    distance: tuple[float, float] = (0.45, 0.75)
    """How far it is from the first, in boxes, from and to; in any direction."""
    defocus_error: float = 0.0
    """Standard deviation in Å of what files leave out of the defocus."""
    pose_error: float = 0.0
    """Standard deviation in radians of the turns, about each axis, that files leave out."""
    shift_error: float = 0.0
    """Standard deviation in Å, along x and y, of the displacement that files leave out."""
    tilts: TiltScheme | None = None
    """Makes a series of every particle."""

    def __post_init__(self) -> None:
        shares = {
            name: getattr(self, name) for name in ("empty", "other", "off_centre", "neighbours")
        }
        wrong = {name: share for name, share in shares.items() if not 0 <= share <= 1}
        junk = self.empty + self.other + self.off_centre
        if wrong or junk > 1:
            raise InputError(
                f"Expected shares of images between 0 and 1, that of junk in all too, got {shares}."
            )


@dataclass(frozen=True)
class Guests:
    """Molecules that some images show beside, or in place of, their own; files do not tell them."""

    rows: Int[np.ndarray, " guests"]
    """Images that show them, ascending."""
    states: Num[np.ndarray, "guests coordinates"]
    rotations: Float[np.ndarray, "guests 3 3"]
    offsets: Float[np.ndarray, "guests 2"]
    """Å from where the files say that the image's own molecule is."""

    def __len__(self) -> int:
        """Count them."""
        return len(self.rows)


@dataclass(frozen=True)
class Truth:
    """All that is known about simulated images."""

    states: Num[np.ndarray, "images coordinates"]
    """State of the specimen in every image."""
    rotations: Float[np.ndarray, "images 3 3"]
    """As the files tell them; those of another molecule are in `others`."""
    shifts: Float[np.ndarray, "images 2"]
    """Offsets in Å that centre the images, as the files tell; the images carry the opposite."""
    optics: Optics
    """As the files tell."""
    contrast: Float[np.ndarray, " images"]
    """Factor of the signal."""
    noise: Float[np.ndarray, " shells"]
    """Variance of the unnormalized coefficients of the noise; the last value continues."""
    seed: int
    """Makes the noise."""
    noise_scale: Float[np.ndarray, " images"]
    """Factor of the noise."""
    baseline: Float[np.ndarray, " images"]
    """Constant that is added to every pixel."""
    kind: Int[np.ndarray, " images"]
    """`Kind` of every image."""
    offset: Float[np.ndarray, "images 2"]
    """Displacement in Å of what an image shows from where the files say it is."""
    defocus_error: Float[np.ndarray, " images"]
    """What is to be added to the defocus that the files tell, in Å."""
    pose_error: Float[np.ndarray, "images 3"]
    """Turn, in radians about the x, y and z axes of the image, that follows the one that the files
    tell."""
    particle: Int[np.ndarray, " images"]
    """Which particle an image shows."""
    tilt: Float[np.ndarray, " images"]
    """Radians about the y axis of the image; `rotations` have it."""
    dose: Float[np.ndarray, " images"]
    """Electrons per Å² that the particle received before the image."""
    others: Guests
    """Other molecules, in place of the own."""
    neighbours: Guests
    """More of the own molecules, beside it."""
    amplitude: float = 1.0
    """Factor from the specimen's volumes to those that the images show."""

    @property
    def true_rotations(self) -> Float[np.ndarray, "images 3 3"]:
        """Rotations of the molecules, whatever the files tell."""
        turns = Rotation.from_rotvec(self.pose_error).as_matrix()
        turned = np.any(self.pose_error, axis=1, keepdims=True)[..., None]
        return np.where(turned, turns @ self.rotations, self.rotations)

    @property
    def true_optics(self) -> Optics:
        """Optics that made the images, whatever the files tell."""
        error = self.defocus_error.astype(np.float32)
        return replace(
            self.optics,
            defocus_u=np.asarray(self.optics.defocus_u + error),
            defocus_v=np.asarray(self.optics.defocus_v + error),
        )


def draw_truth(
    states: Num[np.ndarray, "particles coordinates"],
    grid: Grid,
    conditions: Conditions,
    seed: int,
    *,
    noise: Float[np.ndarray, " shells"] | None = None,
    other_states: Num[np.ndarray, "population others"] | None = None,
) -> Truth:
    """Draw how particles of given states are seen.

    Args:
        states: One per particle, which gives one image, or as many as there are tilts.
        grid: Grid of the images.
        conditions: What is drawn.
        seed: Of all choices.
        noise: Variance of unnormalized coefficients; as in `noise_shape` if not given.
        other_states: States of the other molecule, of which the images that show it get some.

    Raises:
        InputError: If there shall be other molecules, and their states are not given.
    """
    count = len(states)
    rotations, shifts = _draw_poses(count, grid, conditions, seed)
    kind = _draw_kinds(count, conditions, seed)
    truth = Truth(
        states=states,
        rotations=rotations,
        shifts=shifts,
        optics=_draw_optics(count, conditions, seed),
        contrast=_draw_factors(count, conditions.contrast, seed, Choice.CONTRAST),
        noise=noise_shape(grid) if noise is None else noise,
        seed=seed,
        noise_scale=_draw_factors(count, conditions.noise_scale, seed, Choice.NOISE_SCALE),
        baseline=random_stream(seed, Choice.BASELINE).normal(0.0, conditions.baseline, count),
        kind=kind,
        offset=_draw_displacements(kind, grid, conditions, seed),
        defocus_error=_draw_errors(seed, Choice.DEFOCUS_ERROR, conditions.defocus_error, (count,)),
        pose_error=_draw_errors(seed, Choice.POSE_ERROR, conditions.pose_error, (count, 3)),
        particle=np.arange(count),
        tilt=np.zeros(count),
        dose=np.zeros(count),
        others=_draw_others(kind, other_states, seed),
        neighbours=_draw_neighbours(states, grid, conditions, seed),
    )
    return truth if conditions.tilts is None else _tilted(truth, conditions.tilts)


def _draw_factors(
    count: int, deviation: float, seed: int, choice: Choice
) -> Float[np.ndarray, " n"]:
    return np.maximum(_LEAST_FACTOR, random_stream(seed, choice).normal(1.0, deviation, count))


def _draw_poses(
    count: int, grid: Grid, conditions: Conditions, seed: int
) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 2"]]:
    given = conditions.poses
    if given is None:
        shifts = random_stream(seed, Choice.SHIFT).normal(0.0, conditions.shift, (count, 2))
        return _draw_rotations(count, conditions, seed), shifts
    rows = _draw_rows(count, len(given.rotations), seed, Choice.POSE_ROW)
    width = grid.size * grid.voxel_size
    return given.rotations[rows], width * given.shift_fractions[rows]


def _draw_rows(count: int, given: int, seed: int, choice: Choice) -> Int[np.ndarray, " n"]:
    """Draw rows, each once where there are enough."""
    return random_stream(seed, choice).choice(given, count, replace=given < count)


def _draw_rotations(count: int, conditions: Conditions, seed: int) -> Float[np.ndarray, "n 3 3"]:
    rotations = random_rotations(count, random_stream(seed, Choice.ROTATION))
    spread = random_stream(seed, Choice.VIEW).normal(0, conditions.preferred_spread, (count, 3))
    chosen = random_stream(seed, Choice.PREFERENCE).random(count) < conditions.preferred
    views = spread[chosen] + np.array([0.0, 1.0, 0.0])
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    across = rotations[chosen, 0]
    across = across - (across * views).sum(1, keepdims=True) * views
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    rotations[chosen] = np.stack([across, np.cross(views, across), views], axis=1)
    return rotations


def _draw_optics(count: int, conditions: Conditions, seed: int) -> Optics:
    if conditions.optics is None:
        choices = random_stream(seed, Choice.DEFOCUS).random((count, 3))
        defocus = conditions.defocus[0] + np.ptp(conditions.defocus) * choices[:, 0]
        difference = conditions.astigmatism * choices[:, 1]
        lens = conditions.voltage, conditions.spherical_aberration, conditions.amplitude_contrast
        optics = Optics(
            *(
                values.astype(np.float32)
                for values in (defocus + difference, defocus - difference, np.pi * choices[:, 2])
            ),
            *(np.full(count, value, np.float32) for value in (*lens, 0.0, 0.0, 1.0)),
        )
    else:
        given = conditions.optics
        optics = given[_draw_rows(count, len(given), seed, Choice.OPTICS_ROW)]
    least, most = conditions.b_factor
    added = random_stream(seed, Choice.ENVELOPE).uniform(least, most, count)
    return replace(optics, b_factor=np.asarray(optics.b_factor + added, np.float32))


def _draw_kinds(count: int, conditions: Conditions, seed: int) -> Int[np.ndarray, " n"]:
    shares = np.cumsum([conditions.empty, conditions.other, conditions.off_centre])
    kinds = np.array([Kind.EMPTY, Kind.OTHER, Kind.OFF_CENTRE, Kind.MOLECULE], np.int8)
    chance = random_stream(seed, Choice.KIND).random(count)
    return kinds[np.searchsorted(shares, chance, side="right")]


def _draw_displacements(
    kind: Int[np.ndarray, " n"], grid: Grid, conditions: Conditions, seed: int
) -> Float[np.ndarray, "n 2"]:
    offset = _draw_errors(seed, Choice.SHIFT_ERROR, conditions.shift_error, (len(kind), 2))
    chosen = kind == Kind.OFF_CENTRE
    stream = random_stream(seed, Choice.DISPLACEMENT)
    offset[chosen] = _draw_vectors(int(chosen.sum()), grid, conditions.displacement, stream)
    return offset


def _draw_errors(
    seed: int, choice: Choice, deviation: float, shape: tuple[int, ...]
) -> Float[np.ndarray, "images *axes"]:
    return deviation * random_stream(seed, choice).standard_normal(shape)


def _draw_vectors(
    count: int, grid: Grid, boxes: tuple[float, float], stream: np.random.Generator
) -> Float[np.ndarray, "n 2"]:
    """Draw vectors in Å of a length between two limits, and of any direction."""
    length, turn = stream.random((count, 2)).T
    length = grid.size * grid.voxel_size * (boxes[0] + np.ptp(boxes) * length)
    return length[:, None] * np.stack([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], axis=1)


def _draw_others(
    kind: Int[np.ndarray, " n"], population: Num[np.ndarray, "m others"] | None, seed: int
) -> Guests:
    rows = np.flatnonzero(kind == Kind.OTHER)
    if population is None:
        if rows.size:
            raise InputError(
                f"{rows.size} images shall show another molecule, but its states are not given. "
                "Give `other_states`, or a share of 0."
            )
        population = np.zeros((1, 0))
    chosen = random_stream(seed, Choice.OTHER).integers(len(population), size=len(rows))
    rotations = random_rotations(len(rows), random_stream(seed, Choice.OTHER_ROTATION))
    return Guests(rows, population[chosen], rotations, np.zeros((len(rows), 2)))


def _draw_neighbours(
    states: Num[np.ndarray, "n coordinates"], grid: Grid, conditions: Conditions, seed: int
) -> Guests:
    stream = random_stream(seed, Choice.NEIGHBOUR)
    rows = np.flatnonzero(stream.random(len(states)) < conditions.neighbours)
    chosen = stream.integers(len(states), size=len(rows))
    offsets = _draw_vectors(len(rows), grid, conditions.distance, stream)
    rotations = random_rotations(len(rows), random_stream(seed, Choice.NEIGHBOUR_ROTATION))
    return Guests(rows, states[chosen], rotations, offsets)


def _tilted(truth: Truth, scheme: TiltScheme) -> Truth:
    """Make a series of images of every particle, with all that is known about it."""
    angles, count = scheme.angles(), scheme.count
    tilt = np.tile(angles, len(truth.states))
    dose = np.tile(scheme.dose * np.arange(count), len(truth.states))
    optics = truth.optics[np.repeat(np.arange(len(truth.states)), count)]
    each = {
        name: np.repeat(getattr(truth, name), count, axis=0)
        for name in ("states", "contrast", "baseline", "kind", "defocus_error", "particle")
    }
    jitter = random_stream(truth.seed, Choice.JITTER).normal(0.0, scheme.jitter, (len(tilt), 2))
    thickness = 1 / np.cos(tilt) if scheme.thickening else 1.0
    return replace(
        truth,
        **each,
        rotations=_turned(truth.rotations, angles),
        shifts=_foreshortened(truth.shifts, angles) + jitter,
        offset=_foreshortened(truth.offset, angles),
        pose_error=_tilted_vectors(truth.pose_error, angles),
        optics=replace(
            optics,
            b_factor=np.asarray(optics.b_factor + 4 * dose, np.float32),
            scale=np.asarray(optics.scale * np.cos(tilt), np.float32),
        ),
        noise_scale=thickness * np.repeat(truth.noise_scale, count),
        tilt=tilt,
        dose=dose,
        others=_tilted_guests(truth.others, angles),
        neighbours=_tilted_guests(truth.neighbours, angles),
    )


def _tilted_guests(guests: Guests, angles: Float[np.ndarray, " tilts"]) -> Guests:
    count = len(angles)
    return Guests(
        (guests.rows[:, None] * count + np.arange(count)).ravel(),
        np.repeat(guests.states, count, axis=0),
        _turned(guests.rotations, angles),
        _foreshortened(guests.offsets, angles),
    )


def _tilted_vectors(
    vectors: Float[np.ndarray, "n 3"], angles: Float[np.ndarray, " tilts"]
) -> Float[np.ndarray, "images 3"]:
    """Tell vectors in the axes of each image of a series."""
    return np.einsum("tij,nj->nti", _tilts_about_y(angles), vectors).reshape(-1, 3)


def _turned(
    rotations: Float[np.ndarray, "n 3 3"], angles: Float[np.ndarray, " tilts"]
) -> Float[np.ndarray, "images 3 3"]:
    """Tilt every particle about the y axis of the image: R_y(tilt) R."""
    return (_tilts_about_y(angles) @ rotations[:, None]).reshape(-1, 3, 3)


def _tilts_about_y(angles: Float[np.ndarray, " tilts"]) -> Float[np.ndarray, "tilts 3 3"]:
    zero = np.zeros_like(angles)
    return rotations_from_relion_euler(np.stack([zero, -angles, zero], axis=1))


def _foreshortened(
    vectors: Float[np.ndarray, "n 2"], angles: Float[np.ndarray, " tilts"]
) -> Float[np.ndarray, "images 2"]:
    """See vectors in the plane of the specimen when it is tilted about y."""
    seen = np.stack([np.cos(angles), np.ones_like(angles)], axis=1)
    return (vectors[:, None] * seen).reshape(-1, 2)


def noise_shape(grid: Grid) -> Float[np.ndarray, " shells"]:
    """Make up coloured noise: flat, and up to three times as strong below 1/40 Å.

    Returns:
        Variance of the unnormalized coefficients, scaled so that pixels have a variance of 1.
    """
    frequency = np.arange(grid.shells) / (grid.size * grid.voxel_size)
    return _with_unit_pixels(1 + 2 / (1 + (40 * frequency) ** 2), grid)


def white_noise(grid: Grid) -> Float[np.ndarray, " shells"]:
    """Make white noise whose pixels have a variance of 1."""
    return np.full(grid.shells, float(grid.size) ** 2)


def noise_from_profile(
    profile: Float[np.ndarray, " given"], grid: Grid, box: int, pixel_size: float | None = None
) -> Float[np.ndarray, " shells"]:
    """Take the colour of noise from a radial profile that was measured in another box.

    Between its shells it is interpolated, beyond its last one the last value continues.

    Args:
        profile: Power of the noise on shells 0, 1 …, on any scale; that on shell 0 is ignored.
        grid: Grid of the images.
        box: Pixels along a side of the images in which it was measured.
        pixel_size: Å per pixel of those images: then power is taken at the same 1/Å. If not
            given, at the same cycles per pixel, as if the detector had made it.

    Returns:
        Variance of the unnormalized coefficients, scaled so that pixels have a variance of 1.

    Raises:
        InputError: If there are fewer than two shells, or power is not finite and above 0.
    """
    known = np.asarray(profile, np.float64)[1:]
    if not known.size or not np.isfinite(known).all() or (known <= 0).any():
        raise InputError(
            f"Expected a profile of noise with finite power above 0 on shells 1, 2 …, got "
            f"{known.size} shells from {known.min(initial=0):g} to {known.max(initial=0):g}."
        )
    scale = 1.0 if pixel_size is None else grid.voxel_size / pixel_size
    places = np.arange(grid.shells) / grid.size * box / scale
    return _with_unit_pixels(np.interp(places, np.arange(1, 1 + len(known)), known), grid)


def _with_unit_pixels(noise: Float[np.ndarray, " shells"], grid: Grid) -> np.ndarray:
    return noise / pixel_variance(noise, grid.size)


def pixel_variance(noise: Float[np.ndarray, " shells"], size: int) -> float:
    """Compute the variance of the pixels of noise with given variances of its coefficients."""
    k = np.fft.fftfreq(size, 1 / size)
    return float(expand_shells(noise, np.hypot(k[:, None], k)).sum()) / size**4

"""The mistakes that files are known for, each as a change of what they say."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recovar.conventions import Form, Reading
from recovar.core.ctf import Optics
from recovar.core.poses import relion_euler_from_rotations, rotations_from_relion_euler

_DEGREE = np.pi / 180
_SWAP_ROWS = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_FLIP_ROWS = np.diag([1.0, -1.0, -1.0])
"""The image axis y turned round; the viewing direction follows, so that rotations stay proper."""
_PLAUSIBLE_CONTRAST = (0.07, 0.1)


@dataclass(frozen=True)
class Alternative:
    """One thing that files may say wrongly, and what would be right."""

    factor: str
    """What it is about; alternatives of one factor exclude each other."""
    name: str
    """A short sentence on what is right."""
    remedy: str
    """What the user can do about it."""
    change: Callable[[Reading], Reading]
    """From what files say to what is right."""
    is_main: bool = False
    """Whether the pipeline looks at it."""


@dataclass(frozen=True)
class Stated:
    """What alternatives need to know about the files."""

    reading: Reading
    pixel_size: float
    """Å of the images in the files, which may be larger than those of the sample."""
    box: int
    """Pixels of the images in the files."""


def list_alternatives(stated: Stated) -> list[Alternative]:
    """List the mistakes that would make a difference to these images."""
    reading = stated.reading
    listed = [
        *_orders(),
        *_poses(reading),
        *_frames(),
        *_shifts(stated),
        *_corrections(reading),
        *_defoci(reading),
        *_astigmatisms(reading),
        *_amplitudes(reading),
        *_phases(reading),
        *_microscopes(reading),
        *_pixel_sizes(),
    ]
    return [each for each in listed if not each.change(reading).says_the_same(reading)]


def is_possible(reading: Reading) -> bool:
    """Tell whether a transfer function exists for the parameters."""
    return bool((np.abs(reading.optics.amplitude_contrast) <= 1).all())


def _orders() -> Iterator[Alternative]:
    sort = "Make the table and the stack again in one order; rows must not be dropped in one alone."
    for step, name in (
        (-1, "every row belongs to the image after it"),
        (1, "every row belongs to the image before it"),
    ):
        yield Alternative(
            "order", name, sort, lambda r, s=step: replace(r, order=np.roll(r.order, s)), True
        )
    yield Alternative(
        "order", "the rows are in reverse order", sort, lambda r: replace(r, order=r.order[::-1])
    )
    for step, name in (
        (-1, "poses are one row late, CTFs are not"),
        (1, "poses are one row early, CTFs are not"),
    ):
        yield Alternative("order", name, sort, lambda r, s=step: _roll_poses(r, s))


def _roll_poses(reading: Reading, step: int) -> Reading:
    rolled = (np.roll(values, step, axis=0) for values in (reading.rotations, reading.shifts))
    rotations, shifts = rolled
    return replace(reading, rotations=rotations, shifts=shifts)


def _poses(reading: Reading) -> Iterator[Alternative]:
    def turned(matrix: Float[np.ndarray, "3 3"]) -> Callable[[Reading], Reading]:
        return lambda r: replace(r, rotations=matrix @ r.rotations)

    def transposed(r: Reading) -> Reading:
        return replace(r, rotations=r.rotations.swapaxes(1, 2))

    again = "Convert the poses again with this changed, and give them with --poses."
    yield Alternative("rotations", "rotations are transposed", again, transposed, True)
    yield Alternative(
        "rotations",
        "rotations are those of images with one axis turned round (all angles negated)",
        again,
        turned(_FLIP_ROWS),
    )
    yield Alternative(
        "rotations",
        "rotations are transposed, with one axis of the images turned round",
        again,
        lambda r: turned(_FLIP_ROWS)(transposed(r)),
    )
    yield Alternative(
        "rotations", "rotations are those of images with x and y exchanged", again,
        turned(_SWAP_ROWS),
    )  # fmt: skip
    yield Alternative("rotations", "the angle psi has the other sign", again, _negate_psi)
    angles = relion_euler_from_rotations(reading.rotations)
    if np.abs(angles).max() <= 2 * np.pi * _DEGREE:
        yield Alternative("rotations", "angles are radians, not degrees", again, _angles_in_radians)


def _negate_psi(reading: Reading) -> Reading:
    angles = relion_euler_from_rotations(reading.rotations) * [1, 1, -1]
    return replace(reading, rotations=rotations_from_relion_euler(angles))


def _angles_in_radians(reading: Reading) -> Reading:
    angles = relion_euler_from_rotations(reading.rotations) / _DEGREE
    return replace(reading, rotations=rotations_from_relion_euler(angles))


def _frames() -> Iterator[Alternative]:
    remedy = "Turn the images, or convert poses and CTFs again for images stored in this way."
    for signs, name in (
        ([1, -1], "images are stored upside down: y runs the other way"),
        ([-1, 1], "images are stored as their mirror: x runs the other way"),
    ):
        yield Alternative(
            "image axes", f"{name} than poses and CTFs say", remedy,
            lambda r, signs=signs: replace(
                _with_optics(r, defocus_angle=-np.asarray(r.optics.defocus_angle)),
                rotations=np.diag([*signs, -1.0]) @ r.rotations,
                shifts=r.shifts * signs,
            ),
        )  # fmt: skip
    yield Alternative(
        "image axes",
        "images are stored with rows and columns exchanged",
        remedy,
        lambda r: replace(
            _with_optics(r, defocus_angle=np.pi / 2 - np.asarray(r.optics.defocus_angle)),
            rotations=_SWAP_ROWS @ r.rotations,
            shifts=r.shifts[:, ::-1],
        ),
    )


def _shifts(stated: Stated) -> Iterator[Alternative]:
    def scaled(factor: float | int) -> Callable[[Reading], Reading]:
        return lambda r: replace(r, shifts=factor * r.shifts)

    def mixed(signs: tuple[int, int], exchanged: bool) -> Callable[[Reading], Reading]:
        step = -1 if exchanged else 1
        return lambda r: replace(r, shifts=r.shifts[:, ::step] * signs)

    column = "Write the shifts again with this changed (_rlnOriginXAngst, _rlnOriginYAngst in Å)."
    found = float(np.abs(stated.reading.shifts).max())
    yield Alternative("shifts", "shifts have the opposite sign", column, scaled(-1), True)
    yield Alternative(
        "shifts", "the shift along x has the other sign", column, mixed((-1, 1), False)
    )
    yield Alternative(
        "shifts", "the shift along y has the other sign", column, mixed((1, -1), False)
    )
    yield Alternative(
        "shifts", "shifts along x and y are exchanged", column, mixed((1, 1), True), True
    )
    for signs, words in (((-1, -1), "both"), ((-1, 1), "x"), ((1, -1), "y")):
        yield Alternative(
            "shifts", f"shifts are exchanged, and the other sign is right for {words}", column,
            mixed(signs, True),
        )  # fmt: skip
    yield Alternative(
        "shifts", "images are centred already", "Set the shifts to 0.", scaled(0), True
    )
    if abs(stated.pixel_size - 1) > 0.05:
        yield Alternative(
            "shifts", "shifts are pixels, not Å",
            "Name the columns _rlnOriginX and _rlnOriginY, or multiply by the pixel size of "
            f"{stated.pixel_size:.4g} Å.",
            scaled(stated.pixel_size), True,
        )  # fmt: skip
        yield Alternative(
            "shifts", "shifts are Å, not pixels",
            "Name the columns _rlnOriginXAngst and _rlnOriginYAngst, or divide by the pixel size "
            f"of {stated.pixel_size:.4g} Å.",
            scaled(1 / stated.pixel_size), True,
        )  # fmt: skip
    for factor, words in ((2.0, "twice"), (0.5, "half")):
        yield Alternative(
            "shifts", f"shifts are {words} as large, as where images were binned after refinement",
            column, scaled(factor), True,
        )  # fmt: skip
    if found <= 1:
        yield Alternative(
            "shifts", "shifts are fractions of the box, not Å",
            f"Multiply them by the box of {stated.box * stated.pixel_size:.4g} Å.",
            scaled(stated.box * stated.pixel_size),
        )  # fmt: skip
    if found <= stated.pixel_size:
        yield Alternative(
            "shifts", "shifts are fractions of the box, not pixels",
            f"Multiply them by the box of {stated.box} pixels.", scaled(stated.box),
        )  # fmt: skip


def _corrections(reading: Reading) -> Iterator[Alternative]:
    forms: dict[Form, tuple[str, str]] = {
        "plain": (
            "images were neither multiplied by their CTFs nor were phases flipped",
            "Set _rlnCtfDataAreCtfPremultiplied and _rlnCtfDataArePhaseFlipped to 0.",
        ),
        "flipped": (
            "the phases of the images' CTFs were flipped",
            "Set _rlnCtfDataArePhaseFlipped to 1 in data_optics.",
        ),
        "premultiplied": (
            "images were multiplied by their CTFs",
            "Set _rlnCtfDataAreCtfPremultiplied to 1 in data_optics.",
        ),
        "corrected": (
            "images have no CTF, or were corrected for it",
            "Extract the images again without correction.",
        ),
    }
    for form, (name, remedy) in forms.items():
        if form != reading.form:
            yield Alternative(
                "CTF", name, remedy, lambda r, form=form: replace(r, form=form), is_main=True
            )


def _with_optics(reading: Reading, **fields: np.ndarray) -> Reading:
    values = {**vars(reading.optics), **fields}
    return replace(reading, optics=Optics(**values))


def _with_defocus(factor: float | int) -> Callable[[Reading], Reading]:
    return lambda r: _with_optics(
        r,
        defocus_u=factor * np.asarray(r.optics.defocus_u),
        defocus_v=factor * np.asarray(r.optics.defocus_v),
    )


def _defoci(reading: Reading) -> Iterator[Alternative]:
    angstrom = "Write the defocus again in Å, positive for underfocus."
    largest = float(np.abs(reading.optics.defocus_u).max())
    yield Alternative("defocus", "defocus has the opposite sign", angstrom, _with_defocus(-1), True)
    yield Alternative("defocus", "defocus is in nm, not Å", angstrom, _with_defocus(10), True)
    if largest > 20_000:
        yield Alternative(
            "defocus", "defocus is in tenths of an Å, not Å", angstrom, _with_defocus(0.1)
        )
    if largest < 100:
        yield Alternative("defocus", "defocus is in µm, not Å", angstrom, _with_defocus(1e4), True)


def _astigmatisms(reading: Reading) -> Iterator[Alternative]:
    optics = reading.optics
    if np.allclose(optics.defocus_u, optics.defocus_v, atol=0.1):
        return

    def angle(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Reading], Reading]:
        return lambda r: _with_optics(r, defocus_angle=function(np.asarray(r.optics.defocus_angle)))

    degrees = "Write the angle of astigmatism again: degrees in .star files, radians in .cs files."
    for name, function in (
        ("the angle of astigmatism has the other sign", lambda a: -a),
        ("the angle of astigmatism is of the minor axis", lambda a: a + np.pi / 2),
        ("the angle of astigmatism is in radians, not degrees", lambda a: a / _DEGREE),
        ("the angle of astigmatism is in degrees, not radians", lambda a: a * _DEGREE),
    ):
        yield Alternative("astigmatism", name, degrees, angle(function))


def _amplitudes(reading: Reading) -> Iterator[Alternative]:
    def to(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Reading], Reading]:
        return lambda r: _with_optics(
            r, amplitude_contrast=function(np.asarray(r.optics.amplitude_contrast))
        )

    stated = np.asarray(reading.optics.amplitude_contrast)
    remedy = "Write the amplitude contrast again, as a fraction such as 0.1."
    if (np.abs(stated) > 1).any():
        yield Alternative(
            "amplitude contrast", "amplitude contrast is in percent", remedy, to(lambda w: w / 100)
        )
    elif (stated == 0).all():
        for value in _PLAUSIBLE_CONTRAST:
            yield Alternative(
                "amplitude contrast", f"amplitude contrast is about {value:g}, not 0", remedy,
                to(lambda w, value=value: np.full_like(w, value)),
            )  # fmt: skip
    else:
        yield Alternative(
            "amplitude contrast", "amplitude contrast is 0", remedy, to(np.zeros_like)
        )
        yield Alternative(
            "amplitude contrast", "amplitude contrast has the opposite sign", remedy,
            to(np.negative),
        )  # fmt: skip
        if np.abs(stated).max() < 0.01:
            yield Alternative(
                "amplitude contrast", "amplitude contrast is a hundred times larger", remedy,
                to(lambda w: 100 * w),
            )  # fmt: skip


def _phases(reading: Reading) -> Iterator[Alternative]:
    if not np.any(reading.optics.phase_shift):
        return

    def scaled(factor: float | int) -> Callable[[Reading], Reading]:
        return lambda r: _with_optics(r, phase_shift=factor * np.asarray(r.optics.phase_shift))

    remedy = "Write the phase shift again: degrees in .star files, radians in .cs files."
    yield Alternative("phase shift", "there is no phase shift", remedy, scaled(0))
    yield Alternative("phase shift", "the phase shift has the other sign", remedy, scaled(-1))
    yield Alternative(
        "phase shift", "the phase shift is in radians, not degrees", remedy, scaled(1 / _DEGREE)
    )
    yield Alternative(
        "phase shift", "the phase shift is in degrees, not radians", remedy, scaled(_DEGREE)
    )


def _microscopes(reading: Reading) -> Iterator[Alternative]:
    remedy = "Write the voltage again in kV."
    stated = np.asarray(reading.optics.voltage)
    choices = (
        (1e-3, "voltage is in V, not kV", stated.max() > 2000),
        (1e3, "voltage is in MV, not kV", stated.min() < 2),
    )
    for factor, name, sensible in choices:
        if sensible:
            yield Alternative(
                "voltage", name, remedy,
                lambda r, f=factor: _with_optics(r, voltage=f * np.asarray(r.optics.voltage)),
            )  # fmt: skip
    for kv in (120.0, 200.0, 300.0):
        if not np.allclose(stated, kv):
            yield Alternative(
                "voltage", f"the voltage is {kv:g} kV", remedy,
                lambda r, kv=kv: _with_optics(r, voltage=np.full(len(r.optics), kv)),
            )  # fmt: skip


def _pixel_sizes() -> Iterator[Alternative]:
    remedy = "Give the pixel size with --pixel-size, or correct it in the file."
    for factor, words in ((2.0, "twice"), (0.5, "half")):
        yield Alternative(
            "pixel size", f"pixels are {words} as large, with shifts in Å as stated", remedy,
            lambda r, f=factor: replace(r, pixel_size=f * r.pixel_size), True,
        )  # fmt: skip
        yield Alternative(
            "pixel size", f"pixels are {words} as large, with shifts in pixels as stated", remedy,
            lambda r, f=factor: replace(r, pixel_size=f * r.pixel_size, shifts=f * r.shifts),
        )  # fmt: skip

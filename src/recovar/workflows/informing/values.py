"""Poses, shifts and transfer functions in words, and what about them looks wrong."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Shaped

from recovar.core.ctf import Optics
from recovar.workflows.informing.report import Fact, count_of, limits, number_of, range_of
from recovar.workflows.informing.views import LEAST_IMAGES, measure_coverage

_UNEVEN = 0.4
"""Efficiency of views below which it is worth a word; a ring of side views has 0.81."""
_FEW = 20
"""Angles that are few may all be small by chance."""


def pose_facts(rotations: Float[np.ndarray, "images 3 3"]) -> Iterator[Fact]:
    """Tell what directions molecules are seen from."""
    tilt = np.rad2deg(np.arccos(np.clip(rotations[:, 2, 2], -1, 1)))
    text = f"tilt {range_of(np.round(tilt, 2), '°')}"
    value: dict[str, object] = {"tilt_degrees": limits(tilt)}
    if len(rotations) >= LEAST_IMAGES:
        coverage = measure_coverage(rotations)
        text += (
            f"; views are worth {coverage.efficiency:.0%} of as many even ones, and "
            f"{coverage.hardly_sampled:.0%} of Fourier space is hardly sampled"
        )
        value |= {
            "efficiency": coverage.efficiency,
            "hardly_sampled": coverage.hardly_sampled,
        }
    yield Fact("orientations", text, value)


def pose_doubts(rotations: Float[np.ndarray, "images 3 3"]) -> Iterator[str]:
    """Look for poses that are none."""
    with np.errstate(over="ignore", invalid="ignore"):
        products = rotations @ rotations.swapaxes(1, 2)
    wrong = np.asarray(~(np.abs(products - np.eye(3)) <= 1e-3).all(axis=(1, 2)))
    if wrong.any():
        yield row_doubt("has a matrix that is not a rotation", wrong)
        return
    mirrored = np.linalg.det(rotations) < 0
    if mirrored.any():
        yield row_doubt("has a matrix that mirrors, of determinant −1", mirrored)
    if len(rotations) > 1 and np.ptp(rotations, axis=0).max() < 1e-6:
        yield f"All {len(rotations):,} poses are equal: was there a refinement?"
    elif len(rotations) >= LEAST_IMAGES:
        efficiency = measure_coverage(rotations).efficiency
        if efficiency < _UNEVEN:
            yield (
                f"Views are uneven: they are worth {efficiency:.0%} of as many even ones, so that "
                "maps are blurred along some directions."
            )


def shift_facts(
    shifts: Float[np.ndarray, "images 2"], pixel_size: Float[np.ndarray, " images"] | None
) -> Iterator[Fact]:
    """Tell how far molecules are from the centres of their images."""
    lengths = np.hypot(*shifts.T)
    with np.errstate(over="ignore"):
        typical = np.sqrt(np.square(lengths).mean())
    text = f"up to {number_of(lengths.max())} Å, root mean square {number_of(typical)} Å"
    value = {
        "largest_angstrom": float(lengths.max()),
        "x_angstrom": limits(shifts[:, 0]),
        "y_angstrom": limits(shifts[:, 1]),
    }
    if pixel_size is not None:
        pixels = lengths / pixel_size
        text += f"; up to {number_of(pixels.max())} pixels"
        value["largest_pixels"] = float(pixels.max())
    yield Fact("shifts", text, value)


def shift_doubts(fractions: Float[np.ndarray, "images 2"]) -> Iterator[str]:
    """Look for shifts, in boxes, that put the molecule at the rim."""
    far = np.abs(fractions).max(axis=1) > 0.25
    if far.any():
        largest = np.nanmax(np.abs(fractions))
        yield (
            f"{row_doubt('is shifted by more than a quarter of the box', far)} The largest shift "
            f"is {largest:.2f} boxes: is the unit, pixels or Å, that of the file?"
        )


def optics_facts(optics: Optics) -> Iterator[Fact]:
    """Tell the ranges of the parameters that differ between images."""
    u, v = np.asarray(optics.defocus_u, np.float64), np.asarray(optics.defocus_v, np.float64)
    yield Fact("defocus", f"{range_of((u + v) / 2, 'Å')}, underfocus positive", limits((u + v) / 2))
    yield Fact("astigmatism", f"up to {number_of(np.abs(u - v).max())} Å", limits(np.abs(u - v)))
    phase = np.rad2deg(np.asarray(optics.phase_shift, np.float64))
    yield Fact("phase shift", range_of(phase, "°"), limits(phase))
    b_factor, scale = np.asarray(optics.b_factor), np.asarray(optics.scale)
    if b_factor.any():
        yield Fact("B-factor of images", range_of(b_factor, "Å²"), limits(b_factor))
    if (scale != 1).any():
        yield Fact("scale of images", range_of(scale), limits(scale))


def optics_doubts(optics: Optics) -> Iterator[str]:
    """Look for units that are not those of the format, and for values that no microscope has."""
    defocus = (np.asarray(optics.defocus_u) + np.asarray(optics.defocus_v)) / 2
    yield from _if_any("is overfocused (negative defocus)", defocus < 0)
    yield from _if_any(
        "has a defocus below 1,000 Å: is it in Å, not in µm or nm?",
        (defocus >= 0) & (defocus < 1e3),
    )
    yield from _if_any("has a defocus above 60,000 Å", defocus > 6e4)
    voltage = np.asarray(optics.voltage)
    odd = (voltage < 80) | (voltage > 300)
    if odd.any():
        hint = " It looks like V in place of kV." if voltage.max() >= 5e4 else ""
        what = row_doubt("has a voltage that is not 80 to 300 kV", odd)
        yield f"{what} It is {range_of(voltage)}.{hint}"
    contrast = np.asarray(optics.amplitude_contrast)
    if (np.abs(contrast) > 1).any():
        yield f"Amplitude contrast is {range_of(contrast)}: is it in per cent?"
    elif (contrast > 0.5).any() or (contrast < 0).any():
        yield f"Amplitude contrast is {range_of(contrast)}; 0.07 to 0.2 is usual."
    aberration = np.asarray(optics.spherical_aberration)
    yield from _if_any(
        "has no spherical aberration (Cs), which only corrected microscopes have", aberration < 0.01
    )
    yield from _if_any(
        "has a spherical aberration above 10 mm: is it in mm, not in µm?", aberration > 10
    )
    yield from _phase_doubts(np.asarray(optics.phase_shift, np.float64))


def _phase_doubts(phase: Float[np.ndarray, " images"]) -> Iterator[str]:
    """Look for degrees among radians and the reverse."""
    largest = np.abs(phase).max()
    if largest > 2 * np.pi:
        yield (
            f"Phase shifts reach {np.rad2deg(largest):,.0f}°: are degrees stated where the format "
            "has radians?"
        )
    elif 0 < largest < np.deg2rad(3.2):
        yield (
            f"Phase shifts are below {np.rad2deg(largest):.3g}°: are radians stated where the "
            "format has degrees?"
        )


def angle_doubts(rot: Float[np.ndarray, " n"], psi: Float[np.ndarray, " n"]) -> Iterator[str]:
    """Look for Euler angles, in degrees, that are all as small as radians are."""
    largest = max(np.abs(rot).max(), np.abs(psi).max())
    if len(rot) >= _FEW and 0 < largest <= 2 * np.pi + 0.01:
        yield (f"No angle exceeds {largest:.3g}°: are they in radians? STAR files have degrees.")


def half_doubts(half: Shaped[np.ndarray, " images"]) -> Iterator[str]:
    """Look for half-sets of different sizes."""
    share = np.mean(half == 0)
    if len(half) >= LEAST_IMAGES and abs(share - 0.5) > 0.1:
        yield f"Half-sets are unbalanced: {share:.0%} and {1 - share:.0%} of the images."


def repeated_doubts(
    stack: Shaped[np.ndarray, " images"], place: Shaped[np.ndarray, " images"]
) -> Iterator[str]:
    """Look for images that are named more than once."""
    order = np.lexsort((place, stack))
    same = (np.diff(stack[order]) == 0) & (np.diff(place[order]) == 0)
    if same.any():
        yield (
            f"{count_of(int(same.sum()), 'row')} of {len(stack):,} name an image that another row "
            f"names as well; the first is row {order[1:][same].min() + 1:,}."
        )


def _if_any(what: str, wrong: Bool[np.ndarray, " images"]) -> Iterator[str]:
    if wrong.any():
        yield row_doubt(what, wrong)


def row_doubt(what: str, wrong: Bool[np.ndarray, " images"]) -> str:
    """Say how many rows are so, and which is the first."""
    end = "" if what.endswith("?") else "."
    return f"Row {np.flatnonzero(wrong)[0] + 1:,} {what} ({wrong.sum():,} of {len(wrong):,}){end}"

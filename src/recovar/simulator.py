"""Volumes and molecules to data sets with known truth.

All random choices come from counters keyed by the seed, the kind of choice and, for noise, the
image. So image 7 is the same bits whatever the block it is made in and the images after it.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.fft
from jaxtyping import Complex, Float, Int, Num

from recovar.acquisition import Choice, Guests, Kind, Truth, pixel_variance, random_stream
from recovar.core.exposure_numba import (
    add_disc,
    add_shifted,
    multiply_transfer,
    transfer_parameters,
)
from recovar.core.frequencies import Disc
from recovar.core.grid import Grid, expand_shells, image_radii
from recovar.errors import InputError
from recovar.specimens import Specimen

_BLOCK_PIXELS = 1 << 24
"""Pixels of images that are made at a time; no result depends on it."""
_STILL = np.zeros(2)


@dataclass(frozen=True)
class _Shown:
    """Projections that the images of a block add up."""

    spectra: Complex[np.ndarray, "shown pixels"]
    shifts: Float[np.ndarray, "shown 2"]
    """Offsets (x, y) in pixels that centre them."""
    ends: Int[np.ndarray, " images"]
    """Where those of each image of the block end; they start where the previous ones end."""


@dataclass(frozen=True)
class Simulation:
    """A data set that exists as a recipe: any of its images can be made at any time."""

    specimen: Specimen
    grid: Grid
    truth: Truth
    delocalized: bool = True
    """Whether the transfer function acts in a field of twice the box, so that what it carries out
    of an image is lost; else it comes in again at the other side."""
    premultiplied: bool = False
    """Whether images with their noise are multiplied by the transfer function once more, in the
    same field, as programs do that extract such images from micrographs."""
    other: Specimen | None = None
    """What images of the kind `Kind.OTHER` show."""

    def __post_init__(self) -> None:
        if self.other is None and len(self.truth.others):
            raise InputError(
                f"{len(self.truth.others)} images show another molecule, but there is none. Give "
                "`other`."
            )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.truth.states)

    def signals(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k y x"]:
        """Make images without noise and without a baseline."""
        return self._make(rows, noisy=False)

    def images(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k y x"]:
        """Make images with noise, as a detector would give them."""
        return self._make(rows, noisy=True)

    @property
    def block_size(self) -> int:
        """Images that are best made at a time."""
        return int(np.clip(_BLOCK_PIXELS // self.grid.size**2, 8, 256))

    def volume(self, state: Num[np.ndarray, " coordinates"]) -> Float[np.ndarray, "z y x"]:
        """Sample the specimen in one state, on the scale of the images."""
        volume = self.specimen.volume(state, self.grid)
        return (self.truth.amplitude * volume).astype(np.float32)

    def at_signal_to_noise(self, ratio: float, sample: int = 1024) -> "Simulation":
        """Scale the specimen so that pixels have a given ratio of signal to noise variance.

        The signal is that of the images that show the molecule and of nothing else in them: its
        mean square over all pixels of the box, without noise and baseline, with contrast and
        transfer function (once). The noise is the variance of the pixels of all images.

        Args:
            ratio: The mean square of the one over the variance of the other.
            sample: The signal is measured on at most so many images all over the set, apart from
                their contrasts, which are all known.

        Raises:
            InputError: If no image shows the molecule.
        """
        truth = self.truth
        rows = np.flatnonzero(truth.kind == Kind.MOLECULE)
        if not rows.size:
            raise InputError("No image shows the molecule, so it cannot be scaled. Make some.")
        strength = np.square(truth.contrast[rows]).mean()
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, sample).astype(np.int64))]
        rows = rows[np.lexsort(truth.states[rows].T)]  # so that each block has few of them
        rows = rows[np.lexsort(truth.states[rows].T)]
        alone = replace(truth, neighbours=_guests_of(truth.neighbours, np.zeros(0, np.int64)))
        plain = replace(self, truth=alone, premultiplied=False)
        power = sum(
            float(np.square(plain.signals(block), dtype=np.float64).mean((1, 2)).sum())
            for block in np.array_split(rows, -(-len(rows) // self.block_size))
        )
        power *= strength / np.square(truth.contrast[rows]).sum()
        noise = pixel_variance(truth.noise, self.grid.size) * np.square(truth.noise_scale).mean()
        amplitude = truth.amplitude * (ratio * noise / power) ** 0.5
        return replace(self, truth=replace(truth, amplitude=float(amplitude)))

    def _make(self, rows: Int[np.ndarray, " k"], *, noisy: bool) -> Float[np.ndarray, "k y x"]:
        """Work on every image alone, so that no result depends on its neighbours in a block."""
        shown = self._show(rows)
        parameters = transfer_parameters(self.truth.true_optics[rows])
        size = self.grid.size
        images = np.empty((len(rows), size, size), np.float32)

        def make(i: int) -> None:
            part = slice(shown.ends[i - 1] if i else 0, shown.ends[i])
            field = self._add_up(shown.spectra[part], shown.shifts[part])
            images[i] = self._expose(field, parameters[i], int(rows[i]), noisy=noisy)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(make, range(len(rows))))
        return images

    def _show(self, rows: Int[np.ndarray, " k"]) -> _Shown:
        """Project all molecules that images show, image by image."""
        truth = self.truth
        seen = self._seen(rows)
        owner = np.concatenate([places for _, places, _ in seen])
        offsets = np.concatenate([guests.offsets for _, _, guests in seen])
        nothing = np.zeros((0, len(self._disc)), np.complex64)
        spectra = [
            specimen.spectra(guests.states, guests.rotations, self.grid) if len(guests) else nothing
            for specimen, _, guests in seen
        ]
        order = np.argsort(owner, kind="stable")
        owner = owner[order]
        values = np.concatenate(spectra)[order]
        values *= (truth.amplitude * truth.contrast[rows[owner], None]).astype(np.float32)
        shifts = (truth.shifts[rows[owner]] - offsets[order]) / self.grid.voxel_size
        ends = np.searchsorted(owner, np.arange(len(rows)), side="right")
        return _Shown(values, shifts, ends)

    def _seen(
        self, rows: Int[np.ndarray, " k"]
    ) -> list[tuple[Specimen, Int[np.ndarray, " seen"], Guests]]:
        """List what is seen in which of some images: the molecule, the other one, neighbours."""
        truth = self.truth
        places = np.flatnonzero(np.isin(truth.kind[rows], (Kind.MOLECULE, Kind.OFF_CENTRE)))
        own = rows[places]
        guests = Guests(own, truth.states[own], self._rotations[own], truth.offset[own])
        seen = [(self.specimen, places, guests)]
        for specimen, others in ((self.other, truth.others), (self.specimen, truth.neighbours)):
            places, found = _find(others.rows, rows)
            if specimen is not None:
                seen.append((specimen, places, _guests_of(others, found)))
        return seen

    def _add_up(
        self, spectra: Complex[np.ndarray, "shown pixels"], shifts: Float[np.ndarray, "shown 2"]
    ) -> Complex[np.ndarray, "v half"]:
        """Put projections at their places in the field, in Fourier space.

        The box is the corner of a wide field, with its origin in its own middle.
        """
        size, disc = self.grid.size, self._disc
        total = np.zeros((self._field, self._field // 2 + 1), np.complex64)
        if not self.delocalized:
            for values, shift in zip(spectra, shifts, strict=True):
                add_disc(total, values, disc, shift)
            return total
        for values, shift in zip(spectra, shifts, strict=True):
            narrow = np.zeros((size, size // 2 + 1), np.complex64)
            add_disc(narrow, values, disc, _STILL)
            add_shifted(total, _to_field(np.asarray(scipy.fft.irfft2(narrow)), self._field), shift)
        return total

    def _expose(
        self,
        field: Complex[np.ndarray, "v half"],
        parameters: Float[np.ndarray, " 7"],
        row: int,
        *,
        noisy: bool,
    ) -> Float[np.ndarray, "y x"]:
        """Pass a field through the microscope, add noise, and cut out the image."""
        step = 1 / (self._field * self.grid.voxel_size)
        multiply_transfer(field, step, parameters)
        within = self.premultiplied or not self.delocalized
        if noisy and within:
            field += self._noise(row, self._field)
        if self.premultiplied:
            multiply_transfer(field, step, parameters)
        image = _from_field(field, self.grid.size)
        if not noisy:
            return image
        if not within:
            image += np.asarray(scipy.fft.irfft2(self._noise(row, self.grid.size)))
        return image + np.float32(self.truth.baseline[row])

    def _noise(self, row: int, size: int) -> Complex[np.ndarray, "v half"]:
        """Make the noise of one image in a field of some size."""
        stream = random_stream(self.truth.seed, Choice.NOISE, row)
        noise = np.asarray(scipy.fft.rfft2(stream.standard_normal((size, size), np.float32)))
        noise *= self._deviation * np.float32(self.truth.noise_scale[row])
        return noise

    @property
    def _field(self) -> int:
        """Side of the field that the transfer function acts in."""
        return 2 * self.grid.size if self.delocalized else self.grid.size

    @cached_property
    def _rotations(self) -> Float[np.ndarray, "images 3 3"]:
        return self.truth.true_rotations

    @cached_property
    def _disc(self) -> Disc:
        return Disc(self.grid.size, self.grid.largest_radius)

    @cached_property
    def _deviation(self) -> Float[np.ndarray, "v half"]:
        """Factors that colour white noise, in the field where it is made."""
        size = self._field if self.premultiplied else self.grid.size
        radii = image_radii(size) * (self.grid.size / size)
        return (np.sqrt(expand_shells(self.truth.noise, radii)) / self.grid.size).astype(np.float32)


def _guests_of(guests: Guests, places: Int[np.ndarray, " chosen"]) -> Guests:
    return Guests(*(values[places] for values in vars(guests).values()))


def _find(
    rows: Int[np.ndarray, " guests"], wanted: Int[np.ndarray, " k"]
) -> tuple[Int[np.ndarray, " found"], Int[np.ndarray, " found"]]:
    """Find ascending, distinct rows: their places in `wanted`, and in `rows`."""
    place = np.searchsorted(rows, wanted)
    found = np.flatnonzero(np.append(rows, -1)[place] == wanted)
    return found, place[found]


def _to_field(image: Float[np.ndarray, "y x"], size: int) -> Complex[np.ndarray, "v half"]:
    """Transform an image in the corner of an empty field; its rows alone hold something."""
    rows = scipy.fft.rfft(image, n=size, axis=1)
    return np.asarray(scipy.fft.fft(rows, n=size, axis=0, overwrite_x=True))


def _from_field(field: Complex[np.ndarray, "v half"], size: int) -> Float[np.ndarray, "y x"]:
    """Transform a field back, and only the rows that the corner needs."""
    rows = np.asarray(scipy.fft.ifft(field, axis=0, overwrite_x=True))[:size]
    return np.asarray(scipy.fft.irfft(rows, n=len(field), axis=1))[:, :size]

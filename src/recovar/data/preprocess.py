"""Images made smaller, normalized and of the other sign, on all cores and in bounded memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

import numpy as np
import scipy.fft
from jaxtyping import Float, Float32, Int

from recovar.core.fourier import crop_volume
from recovar.core.grid import Grid
from recovar.core.resampling import resample
from recovar.data.mrc import Volume
from recovar.data.particles import Particles
from recovar.data.stack import ImageReader
from recovar.errors import InputError

_BACKGROUND_RADIUS = 0.375
"""In boxes; as RELION has it where nothing is said."""
_BLOCK_BYTES = 2 << 20
"""Of images that are handled together, so few that they stay in the cache of a core."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What is done to images, in the order of the fields."""

    crop: int
    """Side of the centred square that is kept, in pixels."""
    box: int
    """Side after that, by cropping the transforms."""
    inverted: bool = False
    """Whether dark becomes bright."""
    normalized: bool = False
    """Whether the background gets mean 0 and standard deviation 1."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the pixels."""

    @property
    def scale(self) -> float:
        """New pixel size over the old one."""
        return self.crop / self.box


def downsample_images(
    images: Float32[np.ndarray, "images y x"], box: int
) -> Float32[np.ndarray, "images new_y new_x"]:
    """Shrink images by cropping their transforms to |k| < box/2 along both axes.

    Pixels keep their meaning: what is flat stays as high as it was. The origin stays at index
    size/2: moving it there from index 0 changes the signs of the same waves in both sizes.

    Args:
        images: Square images of even size.
        box: Even size that is wanted; images of it are given back as they are.
    """
    size, half = images.shape[-1], box // 2
    if box == size:
        return images
    # One axis after the other; of the first, only what is kept is transformed along the second.
    columns = np.asarray(scipy.fft.rfft(images, axis=2))[:, :, :half]
    columns = np.asarray(scipy.fft.fft(columns, axis=1))
    kept = np.zeros((len(images), box, half), np.complex64)
    kept[:, :half] = columns[:, :half]
    kept[:, half + 1 :] = columns[:, size - half + 1 :]
    kept *= np.float32((box / size) ** 2)
    rows = scipy.fft.ifft(kept, axis=1, overwrite_x=True)
    return np.asarray(scipy.fft.irfft(rows, box, axis=2))


def background(box: int) -> np.ndarray:
    """Tell which pixels of an image are background: those outside a circle of 3/8 of the box."""
    place = np.arange(box) - box // 2
    return np.hypot(place[:, None], place) > _BACKGROUND_RADIUS * box


def preprocess_volume(
    volume: Float32[np.ndarray, "z y x"], voxel_size: float, wanted: Preprocessing
) -> Volume:
    """Do with a volume as with images; voxels keep their meaning."""
    cropped = crop_volume(volume, wanted.crop)
    grid = Grid(wanted.box, voxel_size * wanted.scale)
    small = cropped if wanted.box == wanted.crop else resample(cropped, voxel_size, grid)
    return Volume(-small if wanted.inverted else small, grid.voxel_size)


def preprocess_images(
    particles: Particles, wanted: Preprocessing, threads: int, start: int = 0
) -> Iterator[Float[np.ndarray, "images y x"]]:
    """Make images anew, in the order of the table, reading ahead of their use.

    Blocks begin at the same images wherever the start is, so that neither it nor the number of
    threads changes a bit.

    Args:
        particles: Where images are.
        wanted: What is done to them.
        threads: That read and compute; each has a few blocks of 2 MiB in memory.
        start: Image to begin with.

    Yields:
        Images of some rows after those before.

    Raises:
        InputError: If an image cannot be read, or cannot be stored or normalized as wanted.
    """
    size = max(1, _BLOCK_BYTES // (4 * particles.box**2))
    first = start // size * size
    readers: SimpleQueue[ImageReader] = SimpleQueue()
    for _ in range(threads):
        readers.put(ImageReader(particles))

    def make(rows: Int[np.ndarray, " images"]) -> np.ndarray:
        reader = readers.get()
        try:
            images = reader.read(rows)
        finally:
            readers.put(reader)
        return _preprocess(particles, rows, images, wanted)

    pool = ThreadPoolExecutor(threads, "recovar-preprocess")
    pending: deque[Future[np.ndarray]] = deque()
    try:
        for begin in range(first, len(particles), size):
            rows = np.arange(begin, min(begin + size, len(particles)))
            pending.append(pool.submit(make, rows))
            if begin == first:
                yield pending.popleft().result()[start - first :]
            elif len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _preprocess(
    particles: Particles,
    rows: Int[np.ndarray, " images"],
    images: Float32[np.ndarray, "images y x"],
    wanted: Preprocessing,
) -> Float[np.ndarray, "images new_y new_x"]:
    edge = (particles.box - wanted.crop) // 2
    square = slice(edge, edge + wanted.crop)
    small = downsample_images(images[:, square, square], wanted.box)
    if wanted.inverted:
        small = -small
    if wanted.normalized:
        small = _normalize(particles, rows, small)
    with np.errstate(over="ignore"):
        stored = small.astype(wanted.dtype, copy=False)
    largest = float(np.finfo(stored.dtype).max)
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        row = rows[np.argmax(~np.isfinite(stored).all((1, 2)))]
        raise InputError(
            f"{_name(particles, int(row))} has values beyond ±{largest:g}, the largest of float16. "
            "Write them with --dtype float32, or with --normalize."
        )
    return stored


def _normalize(
    particles: Particles,
    rows: Int[np.ndarray, " images"],
    images: Float32[np.ndarray, "images y x"],
) -> Float32[np.ndarray, "images y x"]:
    pixels = images[:, background(images.shape[-1])].astype(np.float64)
    mean, deviation = pixels.mean(1), pixels.std(1)
    flat = deviation <= 1e-6 * np.abs(mean)
    if flat.any():
        raise InputError(
            f"{_name(particles, int(rows[np.argmax(flat)]))} has the same value all over its "
            "background, which cannot get a standard deviation of 1. Leave it out with --ind."
        )
    return ((images - mean[:, None, None]) / deviation[:, None, None]).astype(np.float32)


def _name(particles: Particles, row: int) -> str:
    stack = particles.stacks[particles.stack_index[row]]
    return f"{stack}: image {particles.slice_index[row] + 1} ({particles.identity[row]})"

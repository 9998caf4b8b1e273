"""Images from disk, in any order, on one grid, and ahead of their use."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, Int

from recovar.data import opened
from recovar.data.grids import bring_to_grid
from recovar.data.mrc import MrcHeader, read_header, read_sections
from recovar.data.particles import Particles
from recovar.errors import InputError

_HEADERS = 1024
"""Headers that are kept."""


class ImageReader:
    """Reads images of a table of particles; keeps a bounded number of headers.

    Files are read and not mapped into memory, where their pages would count as those of the
    process, and where one that is cut short meanwhile would end it.
    """

    def __init__(self, particles: Particles, headers: int = _HEADERS) -> None:
        self._particles = particles
        self._most = headers
        self._headers: OrderedDict[int, MrcHeader] = OrderedDict()

    def read(self, rows: Int[np.ndarray, " k"]) -> Float32[np.ndarray, "k y x"]:
        """Read images in the order of `rows`, though from disk in the order of the files.

        Images of several kinds are brought to the grid of the particles.

        Raises:
            InputError: If a file is missing or short, or an image has NaN or infinity.
        """
        particles = self._particles
        stacks, places = particles.stack_index[rows], particles.slice_index[rows]
        images = np.empty((len(rows), particles.box, particles.box), np.float32)
        kinds = np.zeros(len(rows), np.int16) if particles.kind is None else particles.kind[rows]
        order = np.lexsort((places, kinds, stacks))
        starts = (np.diff(stacks[order]) != 0) | (np.diff(kinds[order]) != 0)
        for part in np.split(order, np.flatnonzero(starts) + 1):
            if part.size:
                kind = particles.kinds_in_files[kinds[part[0]]]
                header = self._header(int(stacks[part[0]]), int(places[part[-1]]), kind.box)
                with opened(header.path, "an MRC file") as file:
                    for run in np.split(part, np.flatnonzero(np.diff(places[part]) != 1) + 1):
                        read = read_sections(file, header, int(places[run[0]]), len(run))
                        images[run] = bring_to_grid(read, kind, particles.target)
        self._refuse_infinite(rows, images)
        return images

    def _header(self, stack: int, last: int, box: int) -> MrcHeader:
        """Read the header of a stack, which must have this box and hold the image `last`."""
        if stack not in self._headers:
            header = read_header(self._particles.stacks[stack])
            if header.shape[1:] != (box, box):
                raise InputError(
                    f"{header.path}: expected images of {box} × {box} pixels like the others, "
                    f"found {header.shape[2]} × {header.shape[1]}. Select images of one size."
                )
            self._headers[stack] = header
            if len(self._headers) > self._most:
                self._headers.popitem(last=False)
        self._headers.move_to_end(stack)
        header = self._headers[stack]
        if last >= header.sections_in_file:
            raise InputError(
                f"{self._particles.stacks[stack]}: expected at least {last + 1} images, found "
                f"{header.sections_in_file}. Copy the stack again."
            )
        return header

    def _refuse_infinite(self, rows: np.ndarray, images: np.ndarray) -> None:
        """A sum that is not finite is cheap to find; only then look at every pixel."""
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = np.flatnonzero(~np.isfinite(images.sum(axis=(1, 2))))
        for k in suspect:
            if not np.isfinite(images[k]).all():
                row = rows[k]
                stack = self._particles.stacks[self._particles.stack_index[row]]
                raise InputError(
                    f"{stack}: image {self._particles.slice_index[row] + 1} "
                    f"({self._particles.identity[row]}) has values that are NaN or infinite. "
                    "Leave it out with --ind, or extract it again."
                )


def read_images(particles: Particles, rows: Int[np.ndarray, " k"]) -> Float32[np.ndarray, "k y x"]:
    """Read images of these rows, in this order."""
    return ImageReader(particles).read(rows)


def stream(
    particles: Particles, rows: Int[np.ndarray, " n"], batch_size: int, prefetch: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read batch after batch, with `prefetch` batches read ahead by one thread.

    Errors of the thread are raised here; it ends when the consumer stops.

    Yields:
        Rows of a batch and their images (float32, rows y x), in the order of `rows`.
    """
    reader = ImageReader(particles)
    pool = ThreadPoolExecutor(1, "recovar-images")
    pending: deque[tuple[np.ndarray, Future[np.ndarray]]] = deque()
    try:
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            pending.append((batch, pool.submit(reader.read, batch)))
            if len(pending) > prefetch:
                ready, images = pending.popleft()
                yield ready, images.result()
        while pending:
            ready, images = pending.popleft()
            yield ready, images.result()
    finally:
        pool.shutdown(cancel_futures=True)

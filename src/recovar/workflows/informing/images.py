"""Stacks and volumes in words: what their headers say, and a bounded sample of their values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from recovar.data.mrc import open_sections
from recovar.data.mrc_header import MrcHeader, read_header
from recovar.workflows.informing.report import (
    Fact,
    FileReport,
    count_of,
    number_of,
)

_SAMPLE = 64
"""Images that are looked at."""
_SAMPLE_BYTES = 128 << 20
_FEWEST = 4
"""Images from which a contrast is told."""
_SLAB_BYTES = 32 << 20
_AXES = {1: "x", 2: "y", 3: "z"}


@dataclass(frozen=True)
class Grey:
    """Grey values of one image."""

    mean: float
    deviation: float
    not_finite: int
    rim_mean: float
    """Outside the inscribed circle."""
    rim_deviation: float
    contrast: float
    """Mean within half the radius less that of the rim, in deviations of the rim."""


def sample_sections(header: MrcHeader, count: int = _SAMPLE) -> list[Grey]:
    """Measure images that are evenly spread over a stack."""
    if header.sections_in_file == 0:
        return []
    sections = open_sections(header)
    affordable = _SAMPLE_BYTES // max(1, 4 * header.shape[1] * header.shape[2])
    count = max(1, min(count, len(sections), affordable))
    rows = np.linspace(0, len(sections) - 1, count).astype(np.int64)
    return [_measure(np.asarray(sections[row], np.float32)) for row in rows]


def _measure(image: Float[np.ndarray, "y x"]) -> Grey:
    finite = np.isfinite(image)
    side = min(image.shape)
    square = np.where(finite, image, 0.0)[:side, :side]
    from_centre = np.arange(side, dtype=np.float32) - side // 2
    radii = np.hypot(from_centre[:, None], from_centre)
    rim, centre = square[radii > side / 2], square[radii < side / 4]
    rim = rim if rim.size else square.reshape(-1)
    spread = float(rim.std())
    known = image[finite] if finite.any() else np.zeros(1)
    return Grey(
        mean=float(known.mean(dtype=np.float64)),
        deviation=float(known.std(dtype=np.float64)),
        not_finite=int((~finite).sum()),
        rim_mean=float(rim.mean()),
        rim_deviation=spread,
        contrast=float((centre.mean() - rim.mean()) / spread) if spread else 0.0,
    )


def grey_facts(sample: Sequence[Grey]) -> Iterator[Fact]:
    """Tell scale, background and sign of a sample of images."""
    if not sample:
        return
    mean, deviation = _mean(g.mean for g in sample), _mean(g.deviation for g in sample)
    yield Fact(
        "grey values",
        f"mean {number_of(mean)}, standard deviation {number_of(deviation)} "
        f"({count_of(len(sample), 'image')} looked at)",
        {"mean": mean, "deviation": deviation, "images": len(sample)},
    )
    level, spread = _mean(g.rim_mean for g in sample), _mean(g.rim_deviation for g in sample)
    normalised = abs(level) < 0.1 and abs(spread - 1) < 0.15
    yield Fact(
        "background",
        f"mean {number_of(level)}, standard deviation {number_of(spread)} outside the circle: "
        + ("normalised" if normalised else "not normalised to 0 and 1"),
        {"mean": level, "deviation": spread, "normalised": normalised},
    )
    yield _contrast(sample)


def _contrast(sample: Sequence[Grey]) -> Fact:
    mean, error = _contrast_of(sample)
    sign = seen_sign(sample)
    words = "not clear" if sign is None else describe_sign(sign)
    text = f"{words}: centres differ from rims by {mean:+.3f} ± {error:.3f} standard deviations"
    return Fact("particles look", text, {"sign": sign, "mean": mean, "error": error})


def _contrast_of(sample: Sequence[Grey]) -> tuple[float, float]:
    """Average how much centres differ from rims, with the standard error."""
    values = np.array([grey.contrast for grey in sample])
    return float(values.mean()), float(values.std() / max(1, len(values) - 1) ** 0.5)


def seen_sign(sample: Sequence[Grey]) -> int | None:
    """Guess whether particles are dark (−1) or bright (1); None where it is not clear."""
    if len(sample) < _FEWEST:
        return None
    mean, error = _contrast_of(sample)
    return int(np.sign(mean)) if abs(mean) > 4 * error else None


def describe_sign(sign: int) -> str:
    """Say what particles look like."""
    return "dark" if sign < 0 else "bright"


def grey_doubts(sample: Sequence[Grey]) -> Iterator[str]:
    """Look for values that are none, and for images that are empty."""
    broken = sum(g.not_finite > 0 for g in sample)
    if broken:
        yield f"{broken} of {count_of(len(sample), 'image')} looked at have NaN or infinite pixels."
    flat = sum(g.deviation == 0 for g in sample)
    if flat:
        yield f"{flat} of {count_of(len(sample), 'image')} looked at have one value everywhere."


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def report_mrc(path: Path) -> FileReport:
    """Tell about an MRC file, a volume where all sides are equal or the header says so.

    Raises:
        InputError: If it is not an MRC file that can be read.
    """
    header = read_header(path)
    cubic = len(set(header.shape)) == 1
    images = path.suffix in (".mrcs", ".st") or (not cubic and header.space_group == 0)
    return _report_stack(header) if images else _report_volume(header)


def _header_facts(header: MrcHeader) -> Iterator[Fact]:
    """Tell type, pixel size and length of a file."""
    order = {"<": "little", ">": "big"}.get(header.dtype.byteorder, "little")
    yield Fact("values", f"{header.dtype.name}, {order}-endian", header.dtype.name)
    sizes = header.voxel_sizes
    text = "not stated" if header.voxel_size is None else f"{number_of(header.voxel_size)} Å"
    if header.voxel_size is None and any(sizes):
        text = f"{' × '.join(number_of(size) for size in sizes)} Å (x y z)"
    yield Fact("pixel size", text, list(sizes))


def _header_doubts(header: MrcHeader) -> Iterator[str]:
    """Look for pixel sizes that programs write when they do not know, and for missing ends."""
    if header.voxel_size is not None and abs(header.voxel_size - 1) < 1e-6:
        yield "The pixel size in the header is exactly 1 Å, as programs write when it is unknown."
    if header.truncated:
        yield (
            f"The header promises {header.shape[0]:,} sections, the file holds "
            f"{header.sections_in_file:,}: copy it again, unless it was cut on purpose."
        )


def _report_stack(header: MrcHeader) -> FileReport:
    _, rows, columns = header.shape
    doubts = list(_header_doubts(header))
    if rows != columns or rows % 2:
        doubts.append(
            f"Images are {columns} × {rows} pixels; square ones with an even side are wanted."
        )
    sample = sample_sections(header)
    count = Fact("images", f"{header.sections_in_file:,}", header.sections_in_file)
    box = Fact("box", f"{columns} × {rows} pixels", [columns, rows])
    return FileReport(
        header.path,
        "stack of images, MRC",
        (count, box, *_header_facts(header), *grey_facts(sample)),
        doubts=(*doubts, *grey_doubts(sample)),
        missing=("Poses and CTF parameters: a stack holds images only.",),
    )


@dataclass
class _Moments:
    """Sums over the voxels of a volume, slab by slab."""

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    squares: float = 0.0
    inside: int = 0
    """Voxels above ½."""
    edges: int = 0
    """Voxels between 0 and 1."""

    def add(self, values: Float[np.ndarray, " n"]) -> None:
        if not values.size:
            return
        self.count += values.size
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        self.total += values.sum(dtype=np.float64)
        self.squares += np.square(values, dtype=np.float64).sum()
        self.inside += int((values > 0.5).sum())
        self.edges += int(((values > 0) & (values < 1)).sum())


def _report_volume(header: MrcHeader) -> FileReport:
    """Read slab after slab, so that memory stays bounded."""
    sections, rows, columns = header.shape
    moments, missing = _Moments(), 0
    if header.sections_in_file:
        stored = open_sections(header)
        step = max(1, _SLAB_BYTES // max(1, 4 * rows * columns))
        for start in range(0, len(stored), step):
            slab = np.asarray(stored[start : start + step], np.float32).reshape(-1)
            finite = np.isfinite(slab)
            missing += int(finite.size - finite.sum())
            moments.add(slab[finite])
    doubts = list(_header_doubts(header))
    if missing:
        doubts.append(f"{missing:,} voxels are NaN or infinite.")
    if len({sections, rows, columns}) > 1 or rows % 2:
        doubts.append("Volumes and masks must be cubic, with an even number of voxels a side.")
    if any(header.origin) or any(header.start):
        doubts.append(
            "Origin or first voxel is not 0, which is not looked at: maps are taken to be centred "
            "in their boxes."
        )
    facts = [
        Fact("box", f"{columns} × {rows} × {sections} voxels", [columns, rows, sections]),
        *_header_facts(header),
        *_value_facts(moments),
        _axes(header),
        Fact("origin", f"{_triple(header.origin)} Å, first voxel {_triple(header.start)}",
             {"origin": list(header.origin), "start": list(header.start)}),
    ]  # fmt: skip
    return FileReport(header.path, "volume, MRC", tuple(facts), doubts=tuple(doubts))


def _value_facts(moments: _Moments) -> Iterator[Fact]:
    if not moments.count:
        return
    mean = moments.total / moments.count
    deviation = max(0.0, moments.squares / moments.count - mean**2) ** 0.5
    low, high = float(moments.low), float(moments.high)
    yield Fact(
        "densities",
        f"{number_of(low)} … {number_of(high)}, mean {number_of(mean)}, standard deviation "
        f"{number_of(deviation)}",
        {"min": low, "max": high, "mean": mean, "deviation": deviation},
    )
    mask = low >= -1e-6 and 0.5 < high <= 1 + 1e-6
    share = moments.inside / moments.count
    text = "no: values leave 0 … 1"
    if mask:
        edge = "soft" if moments.edges else "hard"
        text = f"as it seems, with {share:.1%} of the box inside and a {edge} edge"
    yield Fact("a mask", text, {"mask": mask, "inside": share if mask else None})


def _axes(header: MrcHeader) -> Fact:
    names = [_AXES.get(axis, "?") for axis in header.axes]
    usual = "as usual" if header.axes == (1, 2, 3) else "permuted; they are put in order when read"
    text = f"columns, rows, sections run along {', '.join(names)}: {usual}"
    return Fact("axes", text, list(header.axes))


def _triple(values: Sequence[float | int]) -> str:
    return ", ".join(number_of(value) for value in values)

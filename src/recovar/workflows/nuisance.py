"""The stage of the pipeline that asks whether coordinates follow what they should not."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
from jaxtyping import Float, Int

from recovar import plots, trust_plots
from recovar.data.particles import Particles
from recovar.embedding import LEAST_RELIABILITY, Embedding
from recovar.nuisance import (
    LEVEL,
    PERMUTATIONS,
    Audit,
    Dependence,
    Nuisance,
    audit,
    from_direction,
    from_groups,
    from_number,
    from_turn,
)
from recovar.run import Stage
from recovar.workflows.work import Work

logger = logging.getLogger(__name__)

_MOST_IMAGES = 100_000
_MOST_COORDINATES = 20
_MOST_LINES = 5
_LEAST_FILES = 20
"""Image files that are taken for micrographs where these are not named."""


def audit_embedding(work: Work, embedding: Embedding) -> Audit:
    """Run the stage on the coordinates of an embedding that are seen in single images.

    Those that follow the last of these are noise, drawn to 0, and have nothing to follow.
    """
    return work.run.stage(
        "nuisance",
        Audit,
        lambda stage: _audit(stage, work, embedding),
        options={"seed": work.config.seed, "correct_contrast": work.config.correct_contrast},
        depends=["inputs", "embedding"],
    )


def _audit(stage: Stage, work: Work, embedding: Embedding) -> Audit:
    particles, halves = work.inputs.particles, work.inputs.halves
    count = len(particles)
    rows = np.arange(count)
    if count > _MOST_IMAGES:
        generator = np.random.default_rng(work.config.seed)
        rows = np.sort(generator.choice(count, _MOST_IMAGES, replace=False))
        logger.info("Nuisances: %d of the %d images are asked", len(rows), count)
        particles, halves = particles.select(rows), halves[rows]
    contrast = embedding.contrast[rows] if work.config.correct_contrast else None
    seen = np.flatnonzero(embedding.reliability > LEAST_RELIABILITY)
    few = slice(min(int(seen[-1]) + 1 if seen.size else 1, _MOST_COORDINATES))
    variances = np.einsum("nkk->nk", embedding.covariance)[rows, few]
    found = audit(
        embedding.coordinates[rows, few],
        variances,
        list(list_nuisances(particles, halves, contrast)),
        kept_together(particles),
        work.config.seed,
    )
    with stage.write("output/nuisance.json") as partial:
        text = json.dumps(_describe(found, count, embedding.coordinates.shape[1]), indent=1)
        partial.write_text(text + "\n")
    with stage.write("output/nuisance.txt") as partial:
        partial.write_text(describe_audit(found))
    with stage.write("output/plots/nuisance.png") as partial:
        plots.save_figure(trust_plots.draw_nuisance(found), partial)
    for line in _conclude(found)[:_MOST_LINES]:
        logger.info("%s", line)
    if len(found.flags) > _MOST_LINES:
        logger.info("All %d such dependences are in output/nuisance.txt", len(found.flags))
    return found


def list_nuisances(
    particles: Particles,
    halves: Int[np.ndarray, " images"],
    contrast: Float[np.ndarray, " images"] | None,
) -> Iterator[Nuisance]:
    """Give everything that is known of images besides their pixels; some may not vary."""
    optics, rotations, shifts = particles.optics, particles.rotations, particles.shifts
    if optics is not None:
        u, v = np.asarray(optics.defocus_u), np.asarray(optics.defocus_v)
        yield from_number("defocus", 0.5 * (u + v))
        yield from_number("astigmatism", np.abs(u - v))
        yield from_number("phase shift", np.asarray(optics.phase_shift))
    if rotations is not None:
        yield from_direction("viewing direction", rotations[:, 2])
        yield from_turn("in-plane angle", rotations)
    if contrast is not None:
        yield from_number("contrast", contrast)
    if shifts is not None:
        yield from_number("shift along x", shifts[:, 0])
        yield from_number("shift along y", shifts[:, 1])
        yield from_number("shift length", np.hypot(*shifts.T))
    if particles.dose is not None:
        yield from_number("dose", particles.dose)
    micrograph = _micrograph_of(particles)
    if micrograph is not None:
        yield from_groups("micrograph", micrograph, in_blocks=False)
    if particles.optics_group is not None:
        yield from_groups("optics group", particles.optics_group)
    yield from_groups("particles file", particles.source)
    yield from_groups("half set", halves)
    yield from_number("order in file", particles.source_row.astype(np.float64))


def _micrograph_of(particles: Particles) -> Int[np.ndarray, " images"] | None:
    """Give the micrographs that files name, or else image files, one for each as a rule."""
    if particles.micrograph is not None:
        return particles.micrograph
    return particles.stack_index if len(particles.stacks) >= _LEAST_FILES else None


def kept_together(particles: Particles) -> Int[np.ndarray, " images"] | None:
    """Tell which images are alike for other reasons: those of a particle or of a micrograph."""
    if len(np.unique(particles.particle)) < len(particles):
        return particles.particle
    return _micrograph_of(particles)


def _describe(found: Audit, images: int, zdim: int) -> dict[str, object]:
    """Put everything into plain values."""

    def plain(each: Dependence, row: int) -> dict[str, list[float]]:
        values = {"share": each.share[row], "chance": each.chance[row]}
        return {name: np.round(value, 5).tolist() for name, value in values.items()}

    return {
        "images": images,
        "audited": found.images,
        "zdim": zdim,
        "coordinates": list(range(1, found.mean.share.shape[1] + 1)),
        "permuted": f"{found.blocks} groups of images" if found.blocks else "images",
        "permutations": PERMUTATIONS,
        "least_share": {"mean": found.mean.least, "spread": found.spread.least},
        "level": LEVEL,
        "nuisances": [
            {
                "name": name,
                "functions": int(found.functions[row]),
                "mean": plain(found.mean, row),
                "spread": plain(found.spread, row),
            }
            for row, name in enumerate(found.names)
        ],
        "flags": [{**asdict(flag), "text": flag.text} for flag in found.flags],
    }


def describe_audit(found: Audit) -> str:
    """Write the table that people read."""
    lines = [
        f"How coordinates of {found.images} images depend on what they should not: the share of",
        "their variance that each explains, in %, less what it would explain by chance.",
        f"* Chance gives so much in fewer than {LEVEL:.0%} of analyses, and it is not small:",
        f"  {found.mean.least:.0%} of a coordinate or {found.spread.least:.0%} of its spread.",
    ]
    for title, each in (("coordinate", found.mean), ("spread of it", found.spread)):
        numbers = "".join(f"{k:7d}" for k in range(1, each.share.shape[1] + 1))
        lines += ["", f"{title:<18}{numbers}"]
        for name, shares, flagged in zip(found.names, each.share, each.flagged, strict=True):
            cells = (
                f"{round(100 * share, 1) + 0.0:6.1f}{'*' if star else ' '}"
                for share, star in zip(shares, flagged, strict=True)
            )
            lines.append(f"{name:<18}{''.join(cells)}".rstrip())
    return "\n".join([*lines, "", *_conclude(found), ""])


def _conclude(found: Audit) -> list[str]:
    if not found.flags:
        return [f"No coordinate follows any of: {', '.join(found.names)}."]
    return [flag.text for flag in found.flags]

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recovar import plots, trust_plots
from recovar.data.legacy import optics_from_ctf_rows
from recovar.data.particles import Particles
from recovar.nuisance import audit
from recovar.workflows.nuisance import describe_audit, kept_together, list_nuisances

COUNT = 600
RNG = np.random.default_rng(0)
HALVES = RNG.integers(0, 2, COUNT)


@pytest.fixture(scope="module")
def particles():
    """Images of 30 micrographs, each with a defocus and an image file of its own."""
    micrograph = np.sort(np.arange(COUNT) % 30)
    defocus = RNG.uniform(8e3, 2e4, 30)[micrograph]
    ctf = np.tile([64, 1.5, 0, 0, 30, 300, 2.7, 0.1, 0], (COUNT, 1)).astype(np.float64)
    ctf[:, 2], ctf[:, 3] = defocus + 200, defocus - 200
    return Particles(
        stacks=tuple(Path(f"{k}.mrcs") for k in range(30)),
        stack_index=micrograph.astype(np.int32),
        slice_index=np.arange(COUNT, dtype=np.int64),
        rotations=Rotation.random(COUNT, rng=RNG).as_matrix(),
        shifts=RNG.normal(size=(COUNT, 2)),
        optics=optics_from_ctf_rows(ctf),
        box=64,
        pixel_size=1.5,
        particle=np.arange(COUNT, dtype=np.int64),
        half=None,
        identity=np.arange(COUNT),
        sources=(Path("p.star"),),
        source_row=np.arange(COUNT, dtype=np.int64),
        source_sizes=(COUNT,),
    )


def judge(particles, coordinates, contrast=None):
    nuisances = list(list_nuisances(particles, HALVES, contrast))
    variances = np.full_like(coordinates, 0.3)
    return audit(coordinates, variances, nuisances, kept_together(particles))


def test_everything_known_is_asked_for_as_far_as_it_varies(particles):
    coordinates = np.random.default_rng(1).normal(size=(COUNT, 1))
    found = judge(particles, coordinates)
    assert found.names == (
        *("defocus", "viewing direction", "in-plane angle"),
        *("shift along x", "shift along y", "shift length"),
        *("micrograph", "half set", "order in file"),
    )
    more = replace(
        particles,
        dose=np.tile([0.0, 3.0], COUNT // 2),
        optics_group=np.arange(COUNT) % 3,
        source_sizes=(100, COUNT - 100),
        sources=(Path("p.star"), Path("q.star")),
    )
    contrast = np.linspace(0.5, 1.5, COUNT)
    names = set(judge(more, coordinates, contrast).names) - set(found.names)
    assert names == {"contrast", "dose", "optics group", "particles file"}


def test_micrographs_are_those_that_are_named_or_else_image_files(particles):
    assert kept_together(particles) is particles.stack_index
    named = replace(particles, micrograph=np.arange(COUNT) // 7)
    assert kept_together(named) is named.micrograph
    alone = replace(particles, stacks=(Path("a.mrcs"),), stack_index=np.zeros(COUNT, np.int32))
    assert kept_together(alone) is None
    tilts = replace(named, particle=np.arange(COUNT) // 5)
    assert kept_together(tilts) is tilts.particle


def test_a_table_tells_shares_and_marks_what_should_be_looked_at(particles, tmp_path):
    coordinates = np.random.default_rng(2).normal(size=(COUNT, 2))
    coordinates[:, 1] += 2 * particles.rotations[:, 2, 2]
    found = judge(particles, coordinates)
    table = describe_audit(found)
    (row, _) = [line.split() for line in table.splitlines() if line.startswith("viewing")]
    assert row[-1].endswith("*")
    assert not row[-2].endswith("*")
    assert 50 < float(row[-1].rstrip("*")) < 65  # 4/3 of variance over 4/3 + 1
    assert "Coordinate 2 follows viewing direction (R² 0.5" in table
    file = tmp_path / "nuisance.png"
    plots.save_figure(trust_plots.draw_nuisance(found), file)
    assert file.read_bytes().startswith(b"\x89PNG")

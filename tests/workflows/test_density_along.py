"""The density along a path of a run."""

import json
from contextlib import contextmanager

import numpy as np
import pytest

from recovar.density.record import read_density
from recovar.trajectory import find_path
from recovar.workflows.finished import open_finished
from recovar.workflows.tracing.along import write_density_along


def test_the_density_along_a_path_of_a_run_is_left_with_its_states(run, tmp_path):
    finished = open_finished(run)
    embedding = finished.embedding(2)
    order = np.argsort(embedding.coordinates[:, 0])
    start, end = embedding.coordinates[order[[2, -3]]]
    path = find_path(embedding.coordinates, start, end, method="line")

    @contextmanager
    def write(name):
        yield tmp_path / name

    particles = finished.inputs.particles.particle
    along = write_density_along(write, path, path.choose(3), embedding, particles)
    density = read_density(tmp_path / "density_along_path.npz")
    np.testing.assert_array_equal(density.values, along.found.density.values)
    assert density.axes[0][0] < 0 < path.arc_length[-1] < density.axes[0][-1]
    assert density.bands is not None
    told = json.loads((tmp_path / "density_along_path.json").read_text())
    assert told["misfit"] == along.misfit > 0
    inside = sum(state["population"] for state in told["states"])
    assert inside + told["beyond_ends"] == pytest.approx(1)
    for state in told["states"]:
        assert 0 <= state["arc_length"] <= path.arc_length[-1]
    picture = (tmp_path / "density_along_path.png").read_bytes()
    assert picture.startswith(b"\x89PNG")

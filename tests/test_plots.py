import numpy as np
import pytest

from recovar import plots
from recovar.core.grid import Grid
from recovar.data.legacy import optics_from_ctf_rows

GRID = Grid(16, 3.0)
RNG = np.random.default_rng(0)
VOLUMES = RNG.normal(size=(3, 16, 16, 16)).astype(np.float32)
CURVE = np.linspace(1, 0, 8)
OPTICS = optics_from_ctf_rows(np.array([[16, 1.5, 15000, 12000, 30, 300, 2.7, 0.1, 0]]))

FIGURES = {
    "fsc": lambda: plots.draw_fsc({"one": CURVE, "other": CURVE**2}, GRID),
    "noise": lambda: plots.draw_noise(1 + CURVE, 2 + CURVE, GRID),
    "eigenvalues": lambda: plots.draw_eigenvalues(np.array([3.0, 1.0, 0.0]), np.ones(3)),
    "transfer function": lambda: plots.draw_transfer_function(OPTICS, 1.5),
    "contrast": lambda: plots.draw_contrast(RNG.normal(1, 0.1, 50)),
    "embedding": lambda: plots.draw_embedding(RNG.normal(size=(200, 2))),
    "line": lambda: plots.draw_embedding(RNG.normal(size=(200, 1))),
    "point": lambda: plots.draw_embedding(np.zeros((4, 2))),
    "map": lambda: plots.draw_map(VOLUMES[0], (VOLUMES[1] > 1).astype(np.float32), GRID),
    "no mask": lambda: plots.draw_map(VOLUMES[0], np.ones((16,) * 3, np.float32), GRID),
    "components": lambda: plots.draw_components(VOLUMES, np.array([2.0, 1, 0]), VOLUMES[0], GRID),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_written(name, tmp_path):
    file = tmp_path / "picture.png"
    plots.save_figure(FIGURES[name](), file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_resolution_stands_beside_each_curve():
    figure = plots.draw_fsc({"half-maps": np.array([1, 1, 1, 1, 0.5, 0.0, 0, 0])}, GRID, 0.5)
    (entry,) = figure.axes[0].get_legend().get_texts()
    assert entry.get_text() == "half-maps: 12 Å"


def test_frequencies_are_labelled_by_resolution():
    figure = plots.draw_noise(1 + CURVE, 2 + CURVE, GRID)
    axes = figure.axes[0]
    assert axes.get_xlim() == (0, pytest.approx(1 / 6))
    assert axes.xaxis.get_major_formatter()(0.1, None) == "10"


def test_transfer_functions_begin_at_the_amplitude_contrast_and_tell_both_defoci():
    axes = plots.draw_transfer_function(OPTICS, 1.5).axes[0]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["major axis: defocus 15,000 Å", "minor axis: defocus 12,000 Å"]
    assert all(line.get_ydata()[0] == pytest.approx(-0.1) for line in axes.lines[:2])

import numpy as np
import pytest

from recovar import plots
from recovar.cluster_plots import draw_centres, draw_clusters, draw_sizes

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(300, 2))
CENTRES = np.array([[0.0, 0.0], [9.0, 1.0]])
NAMES = ("coordinate 1", "coordinate 3")

FIGURES = {
    "centres": lambda: draw_centres(POINTS, CENTRES, NAMES, annotate=True),
    "centres on a line": lambda: draw_centres(POINTS[:, :1], CENTRES[:, :1], NAMES, annotate=True),
    "clusters": lambda: draw_clusters(POINTS, RNG.integers(0, 5, 300), NAMES, 0),
    "one point": lambda: draw_clusters(np.zeros((3, 2)), np.zeros(3, int), NAMES, 0),
    "sizes": lambda: draw_sizes(np.array([4, 1, 9])),
    "one size": lambda: draw_sizes(np.array([4])),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_is_written(name, tmp_path):
    file = tmp_path / "picture.png"
    plots.save_figure(FIGURES[name](), file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_centres_far_out_are_shown_with_their_numbers_if_wanted():
    for annotate in (True, False):
        axes = draw_centres(POINTS, CENTRES, NAMES, annotate=annotate).axes[0]
        assert axes.get_xlim()[1] > 9
        assert (axes.get_xlabel(), axes.get_ylabel()) == NAMES
        assert [text.get_text() for text in axes.texts] == (["0", "1"] if annotate else [])


def test_of_very_many_images_some_are_drawn():
    points = np.zeros((10**5, 2))
    figure = draw_clusters(points, np.zeros(10**5, int), NAMES, 0)
    assert len(figure.axes[0].collections[0].get_offsets()) == 30_000

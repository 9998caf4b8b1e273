import numpy as np
import pytest
from PIL import Image

from recovar.errors import InputError
from recovar.picture_sheets import (
    Row,
    colour_values,
    on_white,
    rows_used,
    save_animation,
    save_picture,
    sheet,
)

RED = np.tile(np.array([255, 0, 0, 255], np.uint8), (20, 30, 1))


def test_what_is_transparent_becomes_white():
    faint = RED.copy()
    faint[..., 3] = 51
    np.testing.assert_array_equal(on_white(faint)[0, 0], [255, 204, 204])
    np.testing.assert_array_equal(on_white(on_white(faint)), on_white(faint))


def test_rows_of_a_sheet_lie_below_each_other():
    shades = [np.full((4, 4, 3), shade, np.uint8) for shade in (10, 20, 30)]
    page = sheet([Row("", shades[:2]), Row("", shades[2:])])
    assert page.shape == (14, 14, 3)
    assert [int(page[r, c, 0]) for r, c in ((0, 0), (0, 12), (12, 0), (12, 12))] == [
        10, 20, 30, 255,
    ]  # fmt: skip


def test_pictures_of_a_sheet_keep_their_pixels():
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    page = sheet([Row("a row", [noise, noise], ["one\nof two", "$other_$"])])
    assert page.shape == (70, 15 + 106, 3)
    np.testing.assert_array_equal(page[30:, 15:65], noise)


def test_words_are_written_above_and_beside():
    page = sheet([Row("beside", [np.full((80, 80, 3), 255, np.uint8)], ["above"])])
    assert page[:15, 15:].min() < 100
    assert page[15:, :15].min() < 100
    assert page[15:, 15:].min() == 255


def test_upper_rows_of_pictures_are_last_rows_of_images():
    image = np.zeros((4, 4), np.float32)
    image[3] = 1
    picture = colour_values(image, (0.0, 1.0), "gray", 16)
    assert picture[0].min() > 250
    assert picture[-1].max() < 5


def test_flat_images_have_one_colour():
    assert np.ptp(colour_values(np.zeros((4, 4)), (0.0, 0.0), "gray", 8)) == 0


def test_only_rows_with_something_are_kept():
    empty = np.zeros((100, 10, 4), np.uint8)
    one, other = empty.copy(), empty.copy()
    one[40, 3, 3], other[60, 2, 3] = 9, 9
    assert rows_used([one, other]) == slice(35, 66)
    assert rows_used([empty]) == slice(None)


def test_a_picture_is_read_back_as_it_was(tmp_path):
    save_picture(RED, tmp_path / "red.png")
    with Image.open(tmp_path / "red.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), RED)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_its_frames_and_a_white_page(suffix, tmp_path):
    frames = [RED.copy() for _ in range(5)]
    for number, frame in enumerate(frames):
        frame[:10] = (0, 255, 0, 255)
        frame[:, 2 * number : 2 * number + 3, 3] = 0
    save_animation(frames, tmp_path / f"turn{suffix}", seconds=0.2)
    with Image.open(tmp_path / f"turn{suffix}") as film:
        assert (film.n_frames, film.size) == (5, (30, 20))
        film.seek(4)
        shown = np.asarray(film.convert("RGB")).astype(int)
    assert np.abs(shown[:, 9] - 255).max() < 40
    assert np.abs(shown[15, 25] - [255, 0, 0]).max() < 40


def test_an_animation_is_made_smaller_until_it_fits(tmp_path):
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(4)]
    save_animation(frames, tmp_path / "noise.gif", most_bytes=8000)
    assert (tmp_path / "noise.gif").stat().st_size <= 8000
    with Image.open(tmp_path / "noise.gif") as film:
        assert film.size[0] < 64


def test_other_kinds_of_animation_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.gif or \.webp, got turn\.avi"):
        save_animation([RED], tmp_path / "turn.avi")
    assert not list(tmp_path.iterdir())

"""Charts, markup and pictures of the report, each by itself."""

import base64
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from recovar.workflows.reporting.charts import (
    Axis,
    Mark,
    Series,
    draw_chart,
    draw_histogram,
    resolution_axis,
    spanning_axis,
)
from recovar.workflows.reporting.markup import Markup, element, embed_json, join, table
from recovar.workflows.reporting.page import Section, make_page
from recovar.workflows.reporting.pictures import (
    encode_picture,
    grey_shade,
    signed_shade,
    tile,
    trace_outline,
)
from recovar.workflows.reporting.scatter import Column

HOSTILE = '</script><script>alert("1")</script>&amp;'


def parse(markup):
    return ElementTree.fromstring(markup)


def parts(drawing, name):
    return list(parse(drawing).iter(name))


def line(**changes):
    x = np.linspace(0, 1, 11)
    axes = Axis("x", (0.0, 1.0)), Axis("y", (0.0, 2.0))
    return draw_chart("a line", x, [Series("twice", 2 * x, **changes)], axes)


@given(text=st.text())
def test_text_never_becomes_markup(text):
    written = element("p", text, title=text)
    assert "<" not in written.removeprefix("<p").removesuffix("</p>").replace("\x00", "")
    shown = re.fullmatch(r'<p title="([^"<]*)">([^<]*)</p>', written, re.DOTALL)
    assert shown is not None
    assert shown[1] == shown[2]


@given(text=st.text())
def test_values_for_scripts_come_back_as_they_were_and_cannot_end_the_script(text):
    written = embed_json("x", {"a": [text]})
    inside = written.split(">", 1)[1].rsplit("</script>", 1)[0]
    assert "<" not in inside
    assert json.loads(inside) == {"a": [text]}


def test_markup_is_not_escaped_twice():
    assert join(["a<", [element("b", "&")]]) == "a&lt;<b>&amp;</b>"


def test_tables_hold_all_cells_and_align_numbers():
    cells = parts(table(("a", "b"), [("1", HOSTILE)], numbers=(0,)), "td")
    assert [cell.text for cell in cells] == ["1", HOSTILE]
    assert [cell.get("class") for cell in cells] == ["number", None]


def test_a_line_goes_through_its_values():
    (points,) = [part.get("points") for part in parts(line(), "polyline")]
    pixels = np.array([[float(x) for x in pair.split(",")] for pair in points.split()])
    steps = np.diff(pixels, axis=0)
    np.testing.assert_allclose(steps, np.tile(steps.mean(0), (10, 1)), atol=0.11)
    assert steps[0, 0] > 0 > steps[0, 1]


def test_charts_tell_the_value_under_the_pointer():
    (drawing,) = parts(line(), "svg")
    hover = json.loads(drawing.get("data-hover"))
    assert len(hover) == 11
    assert hover[5][1] == "x: 0.5\ntwice: 1"
    ticks = [part for part in drawing.iter("line") if part.get("class") == "axis"]
    middle = (float(ticks[0].get("x1")) + float(ticks[-2].get("x1"))) / 2
    assert hover[5][0] == pytest.approx(middle, abs=0.1)


def test_bars_stand_on_the_axis_and_are_as_high_as_their_values():
    bars = parts(line(kind="bars"), "rect")
    heights = np.array([float(bar.get("height")) for bar in bars])
    np.testing.assert_allclose(heights, heights[-1] * np.linspace(0, 1, 11), atol=0.02)
    assert len({round(float(b.get("y")) + float(b.get("height")), 1) for b in bars}) == 1


def test_a_band_lies_between_its_edges():
    x = np.array([0.0, 1.0])
    axes = Axis("x", (0.0, 1.0)), Axis("y", (0.0, 1.0))
    drawing = draw_chart("b", x, [Series("b", x * 0, "band", upper=x * 0 + 1)], axes)
    (outline,) = [part.get("points") for part in parts(drawing, "polygon")]
    heights = [float(pair.split(",")[1]) for pair in outline.split()]
    assert heights[0] == heights[1] > heights[2] == heights[3]


def test_values_that_are_not_finite_are_not_drawn_as_points():
    x = np.arange(3.0)
    axes = Axis("x", (0.0, 2.0)), Axis("y", (0.0, 1.0))
    drawing = draw_chart("p", x, [Series("p", np.array([0, np.nan, 1]), "points")], axes)
    assert len(parts(drawing, "circle")) == 2


def test_marks_are_named():
    axes = Axis("x", (0.0, 1.0)), Axis("y", (0.0, 1.0))
    drawing = draw_chart("m", np.zeros(0), [], axes, marks=[Mark("here", x=0.4), Mark("so", y=1.0)])
    notes = [part.text for part in parts(drawing, "text") if part.get("class") == "note"]
    assert notes == ["here", "so"]


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_lie_on_their_axis_and_are_few(low, width):
    ticks = Axis("x", (low, low + width)).ticks()
    assert 1 <= len(ticks) <= 8
    assert low - 1e-6 * width <= ticks[0]
    assert ticks[-1] <= low + width * (1 + 1e-6)


@given(low=st.floats(-12, 12), decades=st.floats(0.3, 20))
def test_logarithmic_ticks_lie_on_their_axis_and_are_few(low, decades):
    limits = 10.0**low, 10.0 ** (low + decades)
    ticks = Axis("x", limits, is_logarithmic=True).ticks()
    assert 1 <= len(ticks) <= 21
    assert limits[0] <= min(ticks)
    assert max(ticks) <= limits[1]


@pytest.mark.parametrize("pixel", [0.5, 1.06, 6.55])
def test_frequencies_are_marked_by_round_resolutions(pixel):
    axis = resolution_axis(pixel)
    words = [axis.describe(tick) for tick in axis.ticks()]
    assert words[0] == "∞"
    assert 4 <= len(words) <= 11
    assert all(len(word) <= 4 for word in words)
    assert float(words[-1]) >= 2 * pixel


def test_an_axis_of_equal_values_still_has_a_width():
    assert spanning_axis("x", np.ones(3)).limits == (0.5, 1.5)
    low, high = spanning_axis("x", np.zeros(3), is_logarithmic=True).limits
    assert 0 < low < high


def test_histograms_count_every_value_that_is_not_far_away():
    values = np.r_[np.repeat([1.0, 2.0, 3.0], [100, 500, 400])]
    (drawing,) = parts(draw_histogram("h", values, "value", "images", bins=4), "svg")
    counts = [
        int(tip.split("\n")[1].split()[0]) for _, tip in json.loads(drawing.get("data-hover"))
    ]
    assert counts == [100, 0, 500, 400]


def picture_of(address):
    kind, content = address.split(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_pictures_show_the_last_row_on_top_and_are_bounded():
    image = np.zeros((400, 400))
    image[300:] = 1
    shown = picture_of(encode_picture(grey_shade([image]).paint(image)))
    assert shown.shape == (192, 192, 3)
    assert shown[:40].min() > 240
    assert shown[60:].max() < 15


def test_colours_of_signed_values_are_fair():
    image = np.array([[-2.0, 0.0, 2.0]])
    (blue, white, red) = signed_shade([image]).paint(image)[0].astype(int)
    assert blue[2] > blue[0] + 50
    assert red[0] > red[2] + 50
    assert white.min() > 240


def test_outlines_are_where_values_cross_the_level():
    y, x = np.mgrid[:20, :20] - 9.5
    path = trace_outline(np.hypot(x, y) * -1.0, -5.0)
    corners = np.array(
        [[float(v) for v in pair.split()] for pair in re.split("[ML]", path) if pair]
    )
    np.testing.assert_allclose(np.hypot(*(corners - 10).T), 5, atol=0.15)
    assert trace_outline(np.ones((4, 4)), 0.5) == ""


def test_tiles_are_well_formed_whatever_the_caption():
    image = np.arange(16.0).reshape(4, 4)
    drawing = parse(tile(image, grey_shade([image]), HOSTILE, [(image, 7.5)]))
    assert drawing.find("figcaption").text == HOSTILE
    assert drawing.find(".//path").get("d")


@given(seed=st.integers(0, 2**16))
def test_packed_numbers_come_back_within_half_a_step(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=50) * 10.0 ** rng.integers(-6, 6)
    values[3] = np.nan
    packed = Column("c", "g", values).pack(np.arange(50))
    levels = np.frombuffer(base64.b64decode(packed["data"]), "<u2")
    back = packed["low"] + packed["step"] * levels
    known = np.arange(50) != 3
    np.testing.assert_allclose(back[known], values[known], atol=0.51 * packed["step"])
    assert packed["step"] <= np.ptp(values[known]) / 65_000
    assert levels[3] == 65_535
    assert levels[known].max() < 65_535


def test_pages_hold_nothing_from_elsewhere():
    page = make_page("t", HOSTILE, [Section("a", HOSTILE, "lead", [Markup("<p>x</p>")])])
    assert "alert(" in page
    assert "<script>alert" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)

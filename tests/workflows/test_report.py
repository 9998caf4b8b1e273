"""Reports of small runs, in files and in a browser."""

import base64
import io
import json
import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType

import numpy as np
import pytest
from PIL import Image

from recovar.cli import main
from recovar.core.grid import Grid
from recovar.data.legacy import read_indices, write_pickle
from recovar.data.mrc import write_volume
from recovar.data.star_blocks import StarTable, write_star
from recovar.density.record import normalize, write_density
from recovar.errors import InputError
from recovar.held_out import GainCurve
from recovar.noise import Noise
from recovar.nuisance import Audit, audit, from_number
from recovar.records import save_arrays
from recovar.reproducibility import Reproducibility
from recovar.run import Run
from recovar.workflows.mean import Start
from recovar.workflows.report import write_report
from recovar.workflows.reporting.contents import read_contents
from recovar.workflows.reporting.scatter import pack_points

GRID, COUNT, ZDIM = Grid(16, 4.0), 300, 3
HOSTILE = "<script>alert(1)</script>"
BROWSER = "/usr/bin/chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A run with what was put into it."""

    path: Path
    z: np.ndarray
    row: np.ndarray
    labels: np.ndarray


def blob(centre):
    z, y, x = np.mgrid[:16, :16, :16] - 8.0
    distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
    return np.exp(-distance / 8).astype(np.float32)


def write_maps(stage):
    maps = {"mean": blob((0, 0, 0)), "mask": (blob((0, 0, 0)) > 0.2).astype(np.float32)}
    maps |= {f"eigen_pos{k:03d}": blob((2, k, 0)) - blob((-2, k, 0)) for k in range(ZDIM)}
    maps |= {"variance4": blob((2, 0, 0)) ** 2, "heterogeneity_mask": blob((2, 0, 0))}
    for name, values in maps.items():
        with stage.write(f"output/volumes/{name}.mrc") as partial:
            write_volume(partial, values, GRID.voxel_size)
    shells = np.arange(8)
    curve = np.clip(1 - shells / 7, 0, 1)
    with stage.write("output/fsc.txt") as partial:
        np.savetxt(partial, np.stack([shells, shells / 64, curve, np.sqrt(curve)], 1))


def write_embeddings(stage, z, row, identity):
    values = (row % 7).astype(float)
    for zdim in (1, ZDIM):
        with stage.write(f"output/embedding/zdim{zdim}.npz") as partial:
            covariance = np.tile(0.1 * np.eye(zdim, dtype=np.float32), (COUNT, 1, 1))
            save_arrays(
                partial,
                z=z[:, :zdim],
                covariance=covariance,
                z_noreg=z[:, :zdim],
                covariance_noreg=covariance,
                contrast=np.linspace(0.7, 1.3, COUNT),
                eigenvalues=np.array([4.0, 2.0, 0.1])[:zdim],
                identity=identity,
                row=row,
            )
    table = {
        "rlnImageName": identity.tolist(),
        "rlnDefocusU": (10_000 + 100 * values).astype(str).tolist(),
        "rlnAngleTilt": ["unknown"] * COUNT,
    }
    with stage.write("output/particles.star") as partial:
        write_star(partial, [StarTable("particles", table)])


def write_analysis(run, labels, z):
    """Leave what later commands leave, as far as the page shows it."""
    analysis = run / "output" / f"analysis_{ZDIM}"
    clusters = analysis / "kmeans_3"
    clusters.mkdir(parents=True)
    np.save(analysis / "umap_embedding.npy", z[:, 1:])
    np.save(clusters / "labels.npy", labels)
    shells = np.arange(8)
    for state in range(3):
        curve = np.where(shells < 3 + state, 1.0, 0.0)
        columns = (shells, shells / 64, curve, curve, curve)
        np.savetxt(clusters / f"fsc_{state:03d}.txt", np.stack(columns, 1))
    frames = [Image.new("RGB", (900, 300), colour) for colour in ("red", "white", "blue")]
    frames[0].save(clusters / "montage.png")
    frames[0].save(clusters / "turntable.gif", save_all=True, append_images=frames[1:])
    for number, kind in enumerate(("density", "visual")):
        path = clusters / f"path{number}"
        path.mkdir()
        found = {"kind": kind, "remark": f"A path of {HOSTILE}."}
        found |= {"arc_length": [0.0, 1.0, 2.5], "density": [0.3, 0.1, 0.2]}
        (path / "path.json").write_text(json.dumps(found))
    axis = np.linspace(-6, 6, 25)
    hills = np.exp(-((np.abs(axis) - 4) ** 2))
    (run / "output" / "density_1").mkdir()
    line = normalize((axis,), hills)
    bands = np.stack([0.8 * line.values, 1.2 * line.values])
    write_density(run / "output" / "density_1" / "density.npz", replace(line, bands=bands))
    (run / "output" / "density_2").mkdir()
    told = [
        {"position": [x, 1.0], "population": p, "interval_95": [p - 0.1, p + 0.1]}
        for x, p in ((-4.0, 0.6), (4.0, 0.4))
    ]
    (run / "output" / "density_2" / "populations.json").write_text(json.dumps({"states": told}))
    plane = normalize((axis, axis), hills[:, None] * np.ones(25))
    write_density(run / "output" / "density_2" / "density.npz", plane)


def make_audit():
    """Coordinate 2 follows defocus, and nothing else follows anything."""
    defocus = np.linspace(-1, 1, COUNT)
    noise = np.random.default_rng(1).normal(size=(COUNT, 4))
    z = noise[:, :3] + 3 * defocus[:, None] * [0, 1, 0]
    nuisances = [from_number(f"defocus {HOSTILE}", defocus), from_number("contrast", noise[:, 3])]
    return audit(z, np.full((COUNT, ZDIM), 0.1), nuisances)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A run as the pipeline would leave it, in which three groups of images lie apart."""
    place = tmp_path_factory.mktemp("runs") / "a run"
    rng = np.random.default_rng(0)
    row = rng.permutation(1000)[:COUNT]
    labels = np.arange(COUNT) % 3
    centres = np.array([[-4.0, -4, 0], [4, -4, 0], [0, 4, 0]])
    z = (centres[labels] + rng.uniform(-1, 1, (COUNT, ZDIM))).astype(np.float32)
    identity = np.array([f"{number + 1:06d}@{HOSTILE}/stack.mrcs" for number in row])
    power = np.linspace(3, 1, 8)

    def start(stage):
        stage.decide("half sets", "150 and 150 images", f"of {HOSTILE}")
        with stage.write("model/halfsets.pkl") as partial:
            write_pickle(partial, [np.sort(row[half::2]) for half in (0, 1)])
        return Start(256 * power)

    config = {"particles": f"{HOSTILE}.star", "correct_contrast": True, "zdim": [1, ZDIM]}
    with Run.create_or_resume(place, ["recovar", "pipeline", HOSTILE], config) as run:
        options = {"box": GRID.size, "pixel_size": GRID.voxel_size}
        run.stage("inputs", Start, start, options=options)
        noise = Noise(*(128 * power for _ in range(5)))
        run.stage("noise", Noise, lambda _: noise)
        shared, null = np.array([0.9, 0.1]), np.array([0.3, 0.2])
        again = Reproducibility(
            shared > null, shared, null, null, shared, shared, shared, shared, shared, null,
            GainCurve(shared, null), 5,
        )  # fmt: skip
        run.stage("reproducibility", Reproducibility, lambda _: again)
        run.stage("nuisance", Audit, lambda _: make_audit())
        run.stage("embedding", NoneType, lambda stage: write_embeddings(stage, z, row, identity))
        run.stage("volumes", NoneType, write_maps)
    (place / "run.log").write_text(
        "2026-11-22 14:17:46,565 INFO    all is well\n"
        f"2026-11-22 14:17:47,565 WARNING Something {HOSTILE} is odd.\n"
        f"2026-11-22 14:17:48,565 WARNING Something {HOSTILE} is odd.\n"
    )
    write_analysis(place, labels, z)
    return Made(place, z, row, labels)


@pytest.fixture(scope="module")
def file(once, tmp_path_factory):
    return write_report(once.path, tmp_path_factory.mktemp("pages") / "report.html")


@pytest.fixture(scope="module")
def page(file):
    return file.read_text()


@pytest.fixture
def made(once, tmp_path):
    """That run for one test."""
    shutil.copytree(once.path, tmp_path / "a run")
    return Made(tmp_path / "a run", once.z, once.row, once.labels)


def sections(page):
    return re.findall(r'<section id="([a-z]+)"', page)


def page_of(path):
    return write_report(path).read_text()


def test_a_page_has_a_section_for_everything_that_the_run_has(page):
    assert sections(page) == [
        "summary", "mean", "noise", "components", "embedding", "density", "groups", "nuisances",
        "next",
    ]  # fmt: skip


def test_the_summary_tells_numbers_decisions_warnings_and_commands(page):
    for words in (
        "<dt>images</dt><dd>300 <small></small></dd>",
        "<dd>16 pixels <small>of 4 Å</small></dd>",
        "150 and 150 images",
        "recovar pipeline &#x27;&lt;script&gt;",
    ):
        assert words in page
    assert page.count("Something &lt;script&gt;") == 1
    assert "all is well" not in page


def test_clusters_are_told_with_their_sizes_and_the_resolution_of_their_volumes(page):
    cells = re.findall(r'<td class="number">([^<]*)</td>', page.split('id="groups"')[1])[:12]
    assert [cells[k : k + 3] for k in (0, 4, 8)] == [[str(k), "100", "33.3"] for k in range(3)]
    coarse, middle, fine = (float(cells[place]) for place in (3, 7, 11))
    assert 64 / 2 > coarse > middle > fine > 64 / 5


def test_components_tell_what_halves_find_again(page):
    part = page.split('id="components"')[1].split('id="embedding"')[0]
    assert "1 of 2 components are real" in part
    assert "suggested zdim 1" in part
    (chart,) = re.findall(r"<title>Trust by component</title>.*?</svg>", part)
    assert chart.count("<circle") == 2
    assert chart.count("<rect") == ZDIM


def test_paths_tell_whether_they_follow_the_density(page):
    part = page.split('id="groups"')[1]
    badges = re.findall(r'(path\d) <span class="badge \w+">([^<]*)<', part)
    assert badges == [("path0", "density-based"), ("path1", "only visual")]


def test_pictures_of_states_are_in_the_page_and_small_and_move_if_they_did(page):
    part = page.split('id="groups"')[1]
    sources = re.findall(r'<img src="data:image/webp;base64,([^"]*)"', part)
    still, moving = (Image.open(io.BytesIO(base64.b64decode(source))) for source in sources)
    assert (still.size, getattr(still, "n_frames", 1)) == ((900, 300), 1)
    assert (moving.size, moving.n_frames) == ((640, 213), 3)


def test_densities_are_drawn_along_coordinates_and_with_bands_where_these_are_known(page):
    part = page.split('id="density"')[1].split('id="groups"')[0]
    titles = re.findall(r"<title>([^<]*)</title>", part)
    assert titles == [
        "Density along coordinate 1",
        "Density over the first two coordinates",
        "Density along coordinate 1",
        "Density along coordinate 2",
    ]
    assert part.count("<polygon") == 1
    assert part.count('class="place"') == 2
    cells = re.findall(r'<td class="number">([^<]*)</td>', part)
    assert cells == ["0", "60.0", "50.0 … 70.0", "1", "40.0", "30.0 … 50.0"]


def test_the_strongest_dependence_on_a_nuisance_is_framed_and_has_most_colour(page):
    part = page.split('id="nuisances"')[1]
    cell = r'<td class="framed" title="R² ([^,]*),[^"]*" style="[^"]* 75%[^"]*">'
    framed, *_ = re.findall(cell, part)
    assert float(framed) == pytest.approx(0.75, abs=0.1)
    assert "Coordinate 2 follows defocus &lt;script&gt;" in part


def test_names_from_files_never_become_markup(page):
    assert HOSTILE not in page
    assert "alert(1)" in page


def test_the_same_run_gives_the_same_page_wherever_it_is_written(once, page, tmp_path):
    assert write_report(once.path, tmp_path / "x.html").read_text() == page


def test_what_is_absent_is_left_out(made):
    shutil.rmtree(made.path / "output")
    assert sections(page_of(made.path)) == ["summary", "noise", "nuisances", "next"]
    shutil.rmtree(made.path / "model")
    page = page_of(made.path)
    assert sections(page) == ["summary", "next"]
    assert "recovar pipeline" in page


def test_the_pipeline_ends_with_a_page_of_all_that_it_found(run):
    text = (run / "report.html").read_text()
    found = ["summary", "mean", "noise", "components", "embedding", "nuisances", "next"]
    assert sections(text) == found
    assert "report.html tells what was found" in (run / "run.log").read_text()


def test_a_result_of_another_version_is_left_out_with_a_warning(made, caplog):
    save_arrays(made.path / "model" / "noise.npz", something=np.ones(1))
    assert "noise" not in sections(page_of(made.path))
    assert "The report leaves it out" in caplog.text


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    with Run.create_or_resume(tmp_path / "run", ["recovar", "pipeline"], {}):
        pass
    assert sections(page_of(tmp_path / "run")) == ["summary", "next"]


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.json"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="there is none"):
        write_report(tmp_path / "absent")


def test_the_command_writes_where_it_is_told_and_keeps_files_that_are_there(made, tmp_path, caplog):
    assert main(["report", str(made.path)]) == 0
    assert (made.path / "report.html").stat().st_size < 2_000_000
    assert main(["report", str(made.path)]) == 0
    other = tmp_path / "other.html"
    other.write_text("mine")
    assert main(["report", str(made.path), "-o", str(other)]) == 2
    assert other.read_text() == "mine"
    assert main(["report", str(made.path), "-o", str(other), "--overwrite"]) == 0
    assert other.read_text().startswith("<!doctype html>")
    assert main(["report", str(made.path), "-o", str(tmp_path / "other.pdf")]) == 2
    assert "ending in .html" in caplog.text


def test_of_many_images_some_are_shown_by_chance_and_the_page_says_so(once):
    contents = read_contents(once.path)
    few = pack_points(contents, most=50)
    assert len(few["row"]) == len(set(few["row"])) == 50
    assert few["total"] == COUNT
    assert set(few["row"]) < set(once.row.tolist())
    assert few == pack_points(read_contents(once.path), most=50)


def test_points_can_lie_along_and_be_coloured_by_all_that_is_known(once):
    columns = pack_points(read_contents(once.path))["columns"]
    names = [column["name"] for column in columns]
    assert names[:6] == [
        "coordinate 1", "coordinate 2", "coordinate 3", "UMAP 1", "UMAP 2", "cluster of 3",
    ]  # fmt: skip
    assert {"contrast", "half set", "defocus (µm)", "row"} <= set(names)
    assert "tilt (°)" not in names


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed.")
    if not Path(BROWSER).exists():
        pytest.skip(f"There is no browser at {BROWSER}.")
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield started
        started.close()


@contextmanager
def opened(chromium, file, **options):
    """Open a page and make sure that it is silent and asks for nothing from elsewhere."""
    said, asked = [], []
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("#scatter-canvas[data-view]")
    yield page
    context.close()
    assert said == []
    others = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert others == [file.as_uri()]


@dataclass(frozen=True)
class Screen:
    """Where values lie on the canvas, found from its limits and margins."""

    page: object

    def seen(self):
        return json.loads(self.page.get_attribute("#scatter-canvas", "data-view"))

    def wait_until(self, holds):
        """Wait for limits, left, right, low and high, of which something holds."""
        end = time.monotonic() + 10
        while not holds(*self.seen()["view"]):
            assert time.monotonic() < end
            self.page.wait_for_timeout(20)

    def place(self, x, y):
        seen = self.seen()
        x, y, (left, right, low, high) = float(x), float(y), seen["view"]
        margin, box = seen["margin"], self.page.locator("#scatter-canvas").bounding_box()
        width = box["width"] - 2 - margin["left"] - margin["right"]
        height = box["height"] - 2 - margin["top"] - margin["bottom"]
        return (
            box["x"] + 1 + margin["left"] + width * (x - left) / (right - left),
            box["y"] + 1 + margin["top"] + height * (high - y) / (high - low),
        )

    def drag(self, *corners):
        self.page.locator("#scatter-canvas").scroll_into_view_if_needed()
        places = [self.place(*corner) for corner in corners]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=4)
        self.page.mouse.up()


def rows_of(made, *clusters):
    return np.sort(made.row[np.isin(made.labels, clusters)]).tolist()


def test_a_lasso_and_a_rectangle_choose_exactly_the_images_inside(once, chromium, file, tmp_path):
    with opened(chromium, file) as page:
        screen = Screen(page)
        page.click("[data-mode=lasso]")
        screen.drag((-5.6, -5.7), (-2.3, -5.6), (-2.1, -4), (-2.5, -2.4), (-5.6, -2.6))
        expected = rows_of(once, 0)
        assert page.input_value("#selection-list").split() == [str(row) for row in expected]
        assert page.inner_text("#selection-count") == "100"
        with page.expect_download() as download:
            page.click("#selection-save")
        download.value.save_as(tmp_path / "selected.txt")
        assert read_indices(tmp_path / "selected.txt").tolist() == expected
        with page.expect_download() as download:
            page.click("#polygon-save")
        download.value.save_as(tmp_path / "polygon.txt")
        command = page.inner_text("#polygon-command")
        assert f"--zdim {ZDIM} --polygon polygon.txt --axes 1,2" in command

        page.click("[data-mode=box]")
        page.keyboard.down("Shift")
        screen.drag((2.2, -5.8), (5.6, -2.2))
        page.keyboard.up("Shift")
        assert page.input_value("#selection-list").split() == [str(r) for r in rows_of(once, 0, 1)]
        page.click("#selection-clear")
        assert page.inner_text("#selection-count") == "0"
        assert page.is_disabled("#selection-save")

    for words in (("--ind", "selected.txt"), ("--zdim", "3", "--polygon", "polygon.txt")):
        files = [str(tmp_path / word) if word.endswith(".txt") else word for word in words]
        output = tmp_path / f"{words[-1]}-rows.txt"
        assert main(["export", str(once.path), "-o", str(output), *files]) == 0
        assert read_indices(output).tolist() == expected


def test_points_are_drawn_and_tell_who_they_are(once, chromium, file):
    with opened(chromium, file) as page:
        colours = page.evaluate(
            """() => {
              const canvas = document.getElementById("scatter-canvas");
              const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const seen = new Set(new Uint32Array(all.data.buffer));
              return seen.size;
            }"""
        )
        assert colours > 20
        page.locator("#scatter-canvas").scroll_into_view_if_needed()
        page.mouse.move(*Screen(page).place(*once.z[5, :2]))
        told = page.inner_text("#tip").split("\n")
        assert told[0].endswith(f"@{HOSTILE}/stack.mrcs")
        row = int(told[1].removeprefix("row "))
        assert told[0].startswith(f"{row + 1:06d}@")
        assert f"cluster of 3: {once.labels[once.row.tolist().index(row)]}" in told


def test_axes_can_be_changed_and_the_view_be_moved(chromium, file):
    with opened(chromium, file) as page:
        screen = Screen(page)
        left, right, _, _ = screen.seen()["view"]
        page.select_option("#scatter-y", label="contrast")
        screen.wait_until(lambda a, b, low, high: 0.5 < low < 0.7 and 1.3 < high < 1.5)
        page.locator("#scatter-canvas").scroll_into_view_if_needed()
        page.mouse.move(*screen.place(0, 1))
        page.mouse.wheel(0, -200)
        screen.wait_until(lambda a, b, low, high: b - a < 0.9 * (right - left))
        a, _, _, _ = screen.seen()["view"]
        screen.drag((0, 1), (1, 1))
        screen.wait_until(lambda now, b, low, high: abs(now - (a - 1)) < 0.05)
        page.click("#scatter-reset")
        screen.wait_until(lambda a, b, low, high: (a, b) == (left, right))
        page.click("#scatter-key button:first-child")
        assert page.inner_text("#selection-count") == "100"
        assert page.is_hidden("#polygon")


def test_charts_show_values_under_the_pointer_and_by_keys(chromium, file):
    with opened(chromium, file) as page:
        page.locator("#mean svg.plot").hover()
        assert page.inner_text("#tip").startswith("resolution (Å): ")
        page.locator("#mean svg.plot").focus()
        page.keyboard.press("ArrowRight")
        assert "whole box" in page.inner_text("#tip")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_colours_of_the_system_and_fits_a_phone(chromium, file, scheme):
    size = {"width": 390, "height": 800}
    with opened(chromium, file, color_scheme=scheme, viewport=size) as page:
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        level = int(re.findall(r"\d+", paper)[0])
        assert (level < 60) == (scheme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

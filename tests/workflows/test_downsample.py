import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from recovar.cli import main
from recovar.compute.progress import SilentReporter
from recovar.core import fourier
from recovar.data.bank import ImageBank
from recovar.data.cryosparc import read_cs
from recovar.data.mrc import (
    open_sections,
    read_header,
    read_volume,
    write_stack,
    write_volume,
)
from recovar.data.particles import read_image_list, read_particles
from recovar.data.stack import read_images
from recovar.data.star_blocks import StarTable, read_star, write_star
from recovar.errors import InputError
from recovar.workflows.configs import DownsampleConfig
from recovar.workflows.downsample import run_downsample
from recovar.workflows.simulate import run_simulate
from recovar.workflows.simulating.config import SimulateConfig

COUNT, BOX = 23, 32
HALVES = np.zeros(COUNT, np.int8)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    output = tmp_path_factory.mktemp("downsample") / "set"
    options = SimulateConfig(output=output, n_images=COUNT, box=BOX, true_volumes=1, seed=5)
    run_simulate(options, SilentReporter())
    return output


def downsample(particles, output, box=16, **options):
    config = DownsampleConfig(particles=Path(particles), box=box, output=output, **options)
    run_downsample(config, SilentReporter())


def pixels(path):
    return np.array(open_sections(read_header(path)))


def left_in(directory):
    return sorted(path.name for path in directory.iterdir())


def particles_table(path):
    return next(table for table in read_star(path) if "rlnImageName" in table)


@pytest.mark.parametrize("kind", ["star", "cs"])
def test_small_images_are_what_a_run_with_downsampling_sees(simulated, tmp_path, kind):
    source = simulated / f"particles.{kind}"
    downsample(source, tmp_path / "small.mrcs", box=20)
    assert set(left_in(tmp_path)) == {f"small.{kind}", "small.mrcs"}
    (whole,) = ImageBank(read_particles(source), HALVES, memory=0, box=20).blocks()
    small = read_particles(tmp_path / f"small.{kind}")
    (read,) = ImageBank(small, HALVES, memory=0).blocks()
    scale = np.abs(whole.values).max()
    np.testing.assert_allclose(read.values, whole.values, atol=2e-6 * scale)
    np.testing.assert_allclose(read.transfer, whole.transfer, atol=1e-4)
    np.testing.assert_allclose(read.rotations, whole.rotations, atol=1e-6)
    assert read.disc == whole.disc
    assert read_header(tmp_path / "small.mrcs").voxel_size == pytest.approx(small.pixel_size)


def test_a_star_file_keeps_every_value_but_names_and_sizes(simulated, tmp_path):
    downsample(simulated / "particles.star", tmp_path / "small.star")
    for before, after in zip(
        read_star(simulated / "particles.star"), read_star(tmp_path / "small.star"), strict=True
    ):
        changed = {n for n, v in before.columns.items() if list(v) != list(after.columns[n])}
        expected = {"rlnImagePixelSize", "rlnImageSize"}
        assert changed == (expected if before.name == "optics" else {"rlnImageName"})
        assert list(before.columns) == list(after.columns)
    assert particles_table(tmp_path / "small.star").columns["rlnImageName"][-1] == (
        f"{COUNT:06d}@small.mrcs"
    )


def test_a_cs_file_keeps_every_field_but_those_of_images(simulated, tmp_path):
    downsample(simulated / "particles.cs", tmp_path / "small.mrcs", invert=True)
    before, after = read_cs(simulated / "particles.cs"), read_cs(tmp_path / "small.cs")
    names = before.dtype.names
    assert names == after.dtype.names
    changed = {name for name in names if not np.array_equal(before[name], after[name])}
    assert changed == {"blob/path", "blob/shape", "blob/psize_A", "blob/sign"}
    assert (after["blob/sign"] == -before["blob/sign"]).all()
    assert (after["blob/path"] == b"small.mrcs").all()


def test_shifts_in_pixels_of_an_alignment_stay_true_where_its_pixel_size_is_not_told(
    simulated, tmp_path
):
    rows = read_cs(simulated / "particles.cs")
    names = [name for name in rows.dtype.names if name != "alignments3D/psize_A"]
    shutil.copy(simulated / "particles.mrcs", tmp_path)
    np.save(tmp_path / "x.npy", rows[names].astype([(n, rows.dtype[n]) for n in names]))
    (tmp_path / "x.npy").rename(tmp_path / "old.cs")
    downsample(tmp_path / "old.cs", tmp_path / "new.mrcs")
    before, after = read_particles(tmp_path / "old.cs"), read_particles(tmp_path / "new.cs")
    assert before.shifts is not None
    assert np.abs(before.shifts).max() > 1
    np.testing.assert_allclose(after.shifts, before.shifts, rtol=1e-6)


def test_a_pixel_size_that_is_given_corrects_that_of_alignments(simulated, tmp_path):
    source = simulated / "particles.cs"
    downsample(source, tmp_path / "new.mrcs", pixel_size=3.0)
    before = read_particles(source, pixel_size=3.0)
    after = read_particles(tmp_path / "new.cs")
    assert after.pixel_size == pytest.approx(6)
    np.testing.assert_allclose(after.shifts, before.shifts, rtol=1e-6)


def write_old_star(directory, count=5):
    """Make a file as of RELION 3.0, with shifts in pixels."""
    generator = np.random.default_rng(0)
    write_stack(directory / "a.mrcs", generator.standard_normal((count, 16, 16)).astype("f4"), 1.25)
    columns = {
        "rlnImageName": [f"{count - i}@a.mrcs" for i in range(count)],
        "rlnMagnification": ["40000.000000"] * count,
        "rlnDetectorPixelSize": ["    5.000000".strip()] * count,
        "rlnVoltage": ["300.000000"] * (count - 2) + ["200.000000"] * 2,
        "rlnSphericalAberration": ["2.700000"] * count,
        "rlnAmplitudeContrast": ["0.100000"] * count,
        **{f"rlnDefocus{k}": ["1.2e4"] * count for k in ("U", "V")},
        "rlnDefocusAngle": ["12.0"] * count,
        **{f"rlnAngle{k}": ["10.0"] * count for k in ("Rot", "Tilt", "Psi")},
        "rlnOriginX": ["1.500000", "-2.0", "0", "0.5", "3"],
        "rlnOriginY": ["0.000000", "-1.0", "0", "0.25", "-3"],
        "rlnComment": ["as written"] * count,
    }
    write_star(directory / "old.star", [StarTable("images", columns)])


@pytest.mark.parametrize("relion31", [False, True])
def test_old_star_files_keep_their_pixel_size_and_shifts(tmp_path, relion31):
    write_old_star(tmp_path)
    downsample(tmp_path / "old.star", tmp_path / "new.mrcs", box=8, relion31=relion31)
    before, after = read_particles(tmp_path / "old.star"), read_particles(tmp_path / "new.star")
    assert after.pixel_size == pytest.approx(2.5)
    np.testing.assert_allclose(after.shifts, before.shifts, rtol=1e-6)
    for name, value in vars(before.optics).items():
        np.testing.assert_array_equal(getattr(after.optics, name), value, name)
    tables = {table.name: table.columns for table in read_star(tmp_path / "new.star")}
    if relion31:
        assert list(tables["optics"]["rlnVoltage"]) == ["300.000000", "200.000000"]
        assert list(tables["particles"]["rlnOpticsGroup"]) == ["1", "1", "1", "2", "2"]
        assert list(tables["particles"]["rlnComment"]) == ["as written"] * 5
        assert {"rlnMagnification", "rlnOriginX"}.isdisjoint(tables["particles"])
    else:
        assert list(tables["images"]["rlnDetectorPixelSize"]) == ["10"] * 5
        assert list(tables["images"]["rlnMagnification"]) == ["40000.000000"] * 5
        assert list(tables["images"]["rlnOriginX"]) == ["0.75", "-1", "0", "0.25", "1.5"]


@pytest.mark.parametrize("relion31", [False, True])
def test_a_pixel_size_that_is_given_is_the_one_that_is_written(tmp_path, relion31):
    write_old_star(tmp_path)
    options = {"relion31": relion31, "pixel_size": 3.0}
    downsample(tmp_path / "old.star", tmp_path / "new.mrcs", box=8, **options)
    after = read_particles(tmp_path / "new.star")
    assert after.pixel_size == pytest.approx(6)
    assert read_header(tmp_path / "new.mrcs").voxel_size == pytest.approx(6)
    before = read_particles(tmp_path / "old.star", pixel_size=3.0)
    np.testing.assert_allclose(after.shifts, before.shifts, rtol=1e-6)


def test_images_of_several_kinds_come_to_one(tmp_path):
    def wave(box):
        place = np.arange(box) - box // 2
        return np.cos(2 * np.pi * (2 * place[:, None] - 3 * place) / box).astype(np.float32)

    write_stack(tmp_path / "fine.mrcs", np.stack([wave(24), wave(24)]), 1.0)
    write_stack(tmp_path / "coarse.mrcs", wave(16)[None], 1.5)
    optics = {
        "rlnOpticsGroup": ["1", "2"],
        "rlnImagePixelSize": ["1.0", "1.5"],
        "rlnImageSize": ["24", "16"],
    }
    particles = {
        "rlnImageName": ["1@fine.mrcs", "1@coarse.mrcs", "2@fine.mrcs"],
        "rlnOpticsGroup": ["1", "2", "1"],
        "rlnOriginX": ["3", "2", "-3"],
        "rlnOriginY": ["0", "0", "0"],
    }
    tables = [StarTable("optics", optics), StarTable("particles", particles)]
    write_star(tmp_path / "mixed.star", tables)
    downsample(tmp_path / "mixed.star", tmp_path / "small.mrcs", box=8)
    kept, rows = read_star(tmp_path / "small.star")
    assert list(kept.columns["rlnImagePixelSize"]) == ["3", "3"]
    assert list(kept.columns["rlnImageSize"]) == ["8", "8"]
    assert list(rows.columns["rlnOriginX"]) == ["1", "1", "-1"]
    np.testing.assert_allclose(pixels(tmp_path / "small.mrcs"), [wave(8)] * 3, atol=1e-5)


def test_only_groups_of_optics_in_use_are_kept(simulated, tmp_path):
    optics, particles = read_star(simulated / "particles.star")
    groups = np.arange(len(particles)) % 2 + 3
    two = {name: list(values) * 2 for name, values in optics.columns.items()}
    two["rlnOpticsGroup"] = ["4", "3"]
    tables = [
        StarTable("optics", two),
        StarTable("particles", {**particles.columns, "rlnOpticsGroup": groups}),
    ]
    shutil.copy(simulated / "particles.mrcs", tmp_path)
    write_star(tmp_path / "two.star", tables)
    np.save(tmp_path / "ind.npy", [5, 1, 7])
    downsample(tmp_path / "two.star", tmp_path / "few.mrcs", ind=tmp_path / "ind.npy")
    kept, chosen = read_star(tmp_path / "few.star")
    assert list(kept.columns["rlnOpticsGroup"]) == ["4"]
    assert list(chosen.columns["rlnDefocusU"]) == [
        particles.columns["rlnDefocusU"][row] for row in (5, 1, 7)
    ]
    downsample(tmp_path / "two.star", tmp_path / "all.mrcs")
    np.testing.assert_array_equal(
        pixels(tmp_path / "few.mrcs"), pixels(tmp_path / "all.mrcs")[[5, 1, 7]]
    )


def test_chunks_one_after_the_other_are_the_whole(simulated, tmp_path):
    downsample(simulated / "particles.star", tmp_path / "whole.mrcs", max_threads=1)
    downsample(simulated / "particles.star", tmp_path / "part.mrcs", chunk=9, max_threads=3)
    assert left_in(tmp_path) == [
        *("part.0.mrcs", "part.1.mrcs", "part.2.mrcs", "part.star", "part.txt"),
        *("whole.mrcs", "whole.star"),
    ]
    parts = [pixels(tmp_path / f"part.{k}.mrcs") for k in range(3)]
    assert [len(part) for part in parts] == [9, 9, 5]
    whole = pixels(tmp_path / "whole.mrcs")
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for name in ("part.star", "part.txt"):
        listed = read_image_list(tmp_path / name)
        np.testing.assert_array_equal(read_images(listed, np.arange(COUNT)), whole)


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from recovar.compute.progress import SilentReporter
from recovar.data import preprocess
from recovar.workflows import downsample
from recovar.workflows.configs import DownsampleConfig

class Killer(SilentReporter):
    @contextmanager
    def task(self, title, total, unit="images"):
        done = 0
        def advance(count):
            nonlocal done
            done += count
            if done >= 12:
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

preprocess._BLOCK_BYTES = 4 * 4 * 32**2
downsample._SECONDS_BETWEEN_NOTES = 0
config = DownsampleConfig(particles=Path(sys.argv[1]), output=Path(sys.argv[2]), box=16, chunk=7)
downsample.run_downsample(config, Killer())
"""


def test_a_command_that_was_killed_goes_on_where_it_was(simulated, tmp_path, monkeypatch, caplog):
    source, output = simulated / "particles.star", tmp_path / "small.mrcs"
    done = subprocess.run([sys.executable, "-c", KILLED, source, output], check=False)
    assert done.returncode == -signal.SIGKILL
    assert left_in(tmp_path) == [".partial.small.mrcs"]
    monkeypatch.setattr("recovar.data.preprocess._BLOCK_BYTES", 4 * 4 * BOX**2)
    caplog.set_level("INFO")
    downsample(source, output, chunk=7)
    assert "Going on after the first 12 images" in caplog.text
    (tmp_path / "other").mkdir()
    downsample(source, tmp_path / "other" / "small.mrcs", chunk=7)
    assert left_in(tmp_path)[1:] == left_in(tmp_path / "other")
    for name in left_in(tmp_path / "other"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_other_options_start_again(simulated, tmp_path, caplog):
    source, output = simulated / "particles.star", tmp_path / "small.mrcs"
    subprocess.run([sys.executable, "-c", KILLED, source, output], check=False)
    caplog.set_level("INFO")
    downsample(source, output, box=12, chunk=7)
    assert "Going on" not in caplog.text
    assert read_particles(tmp_path / "small.star").box == 12
    assert "small.3.mrcs" in left_in(tmp_path)


def test_two_commands_cannot_write_the_same_file(simulated, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".partial.small.mrcs").mkdir()
    with (tmp_path / ".partial.small.mrcs" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="being written by another process"):
            downsample(simulated / "particles.star", tmp_path / "small.mrcs")


def test_files_are_not_overwritten(simulated, tmp_path):
    before = (simulated / "particles.mrcs").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        downsample(simulated / "particles.mrcs", simulated / "particles.mrcs")
    with pytest.raises(InputError, match=r"particles.star exists already"):
        downsample(simulated / "particles.star", simulated / "particles.star", chunk=10)
    assert (simulated / "particles.mrcs").read_bytes() == before
    assert not list(simulated.glob(".partial*"))


def test_wrong_images_leave_nothing_behind(tmp_path):
    images = np.zeros((6, 16, 16), np.float32)
    images[4, 3, 3] = 1e6
    write_stack(tmp_path / "a.mrcs", images, 1.0)
    with pytest.raises(InputError, match="beyond ±65504"):
        downsample(tmp_path / "a.mrcs", tmp_path / "b.mrcs", dtype="float16")
    raw = bytearray((tmp_path / "a.mrcs").read_bytes())
    raw[1024:1028] = np.float32(np.nan).tobytes()
    (tmp_path / "a.mrcs").write_bytes(raw)
    with pytest.raises(InputError, match=r"image 1 .* NaN"):
        downsample(tmp_path / "a.mrcs", tmp_path / "b.mrcs", box=8)
    assert left_in(tmp_path) == ["a.mrcs"]


def test_a_small_disk_is_noticed_before_the_start(simulated, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**5, 99_000, 1000))
    with pytest.raises(InputError, match=r"23 images need .* Choose another disk"):
        downsample(simulated / "particles.star", tmp_path / "small.mrcs")
    assert left_in(tmp_path) == []


def test_a_directory_that_may_not_be_written_is_refused(simulated, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="is not yours to write"):
        downsample(simulated / "particles.star", tmp_path / "small.mrcs")


def test_float16_is_written_as_such(simulated, tmp_path):
    downsample(simulated / "particles.mrcs", tmp_path / "half.mrcs", dtype="float16")
    downsample(simulated / "particles.mrcs", tmp_path / "full.mrcs")
    half, full = pixels(tmp_path / "half.mrcs"), pixels(tmp_path / "full.mrcs")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, full.astype(np.float16))


def test_the_command_line_makes_volumes_smaller(tmp_path):
    volume = np.random.default_rng(0).standard_normal((24, 24, 24)).astype(np.float32)
    write_volume(tmp_path / "map.mrc", volume, 1.5)
    output = tmp_path / "small.mrc"
    command = ["downsample", str(tmp_path / "map.mrc"), "-D", "16", "-o", str(output)]
    assert main([*command, "--is-vol", "--crop", "20"]) == 0
    small = read_volume(output)
    assert small.voxel_size == pytest.approx(1.5 * 20 / 16)
    inner = fourier.to_spectrum(volume[2:22, 2:22, 2:22])[:5, :5, :5]
    found = fourier.to_spectrum(small.values)[:5, :5, :5]
    np.testing.assert_allclose(found, inner * 0.8**3, atol=1e-2)
    assert main([*command, "--is-vol"]) == 2
    assert main([*command, "--is_vol", "--chunk", "3"]) == 2


def test_images_that_look_like_a_volume_are_pointed_out(tmp_path, caplog):
    write_stack(tmp_path / "a.mrc", np.ones((16, 16, 16), np.float32), 1.0)
    downsample(tmp_path / "a.mrc", tmp_path / "b.mrcs", box=8)
    assert "is taken for 16 images. If it is a volume, give --is-vol" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box": 40}, "32 pixels along a side, fewer than -D 40. Images are only made smaller"),
        ({"crop": 64}, "fewer than --crop 64"),
        ({"box": 15}, "even number of at least 8 pixels for -D, got 15"),
        ({"crop": 12}, "--crop 12 leaves fewer pixels than -D 16"),
        ({"chunk": 0}, "at least 1 for --chunk"),
        ({"max_threads": 0}, "at least 1 for --max-threads"),
        ({"pixel_size": 0.0}, "--pixel-size above 0"),
        ({"output": "x.mrc"}, r"ends in .mrcs or .star for -o, got"),
        ({"output": "no/x.mrcs"}, r"Cannot write to .*no: directory does not exist"),
        ({"is_vol": True}, "ends in .mrc for -o"),
        ({"is_vol": True, "normalize": True}, "--normalize is for images, not for a volume"),
        ({"particles": "particles.cs", "relion31": True}, "--relion31 is for a .star file"),
    ],
)
def test_what_cannot_be_done_is_refused(simulated, tmp_path, options, message):
    options = {"particles": "particles.star", "output": "x.mrcs", **options}
    particles, output = simulated / options.pop("particles"), tmp_path / options.pop("output")
    with pytest.raises(InputError, match=message):
        downsample(particles, output, **options)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["empiar_10076_rows0-3.star", "relion31.star"])
def test_files_of_other_programs_are_read_back_with_the_same_shifts(shared, tmp_path, name):
    source = shared / "data" / "zoo" / "cryodrgn" / name
    downsample(source, tmp_path / "small.mrcs", box=64, datadir=source.parent)
    before = read_image_list(source, datadir=source.parent)
    after = read_image_list(tmp_path / "small.star")
    assert after.pixel_size == pytest.approx(before.pixel_size * before.box / 64)
    if before.shifts is not None:
        np.testing.assert_allclose(after.shifts, before.shifts, atol=1e-5)
    assert after.stacks[0].samefile(tmp_path / "small.mrcs")

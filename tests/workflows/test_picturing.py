import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recovar.data.mrc import write_volume
from recovar.errors import InputError
from recovar.records import write_whole
from recovar.rendering import default_level
from recovar.workflows.picturing.chimerax import (
    Colouring,
    RunScript,
    StateScript,
    describe_movie,
    describe_run,
    describe_states,
    quote,
)
from recovar.workflows.picturing.run import PicturedRun, largest_on_surface, write_run_pictures
from recovar.workflows.picturing.states import PicturedStates, write_state_pictures

SIZE = 24
PLACES = np.moveaxis(np.indices((SIZE,) * 3) - SIZE // 2, 0, -1)[..., ::-1]

NUMBER = r"-?\d+(\.\d+)?(e-?\d+)?"
MODELS = r"#(?P<first>\d+)(-(?P<last>\d+))?"
GRAMMAR = [
    r"#( .*)?",
    r"close session",
    r"set bgColor white",
    r"windowsize \d+ \d+",
    r"lighting soft",
    r"graphics silhouettes true",
    r"view",
    rf"(show|hide) {MODELS} models",
    rf"volume {MODELS} style surface step 1 level {NUMBER}",
    rf"color {MODELS} [a-z]+",
    rf"color sample {MODELS} map #\d+ palette [a-z]+(:[a-z]+)+ range {NUMBER},{NUMBER}",
    r"movie record",
    r"movie encode \w+\.mp4",
    rf"volume morph {MODELS} frames \d+ playStep {NUMBER}",
    rf"turn y {NUMBER} \d+",
    r"wait \d+",
]
OPEN = re.compile(r"open (?:\"(?P<double>[^\"]+)\"|'(?P<single>[^']+)'|(?P<bare>[^\s\"';]+))")


def blob(x, y=0.0, z=0.0):
    squares = ((PLACES - (x, y, z)) ** 2).sum(-1)
    return np.exp(-0.5 * squares / 3.0**2).astype(np.float32)


def parse(text, directory):
    """Check every line of a script, and that it names files and models that are there."""
    assert text.endswith("\n")
    opened = []
    for line in text.splitlines():
        if match := OPEN.fullmatch(line):
            opened.append(directory / next(name for name in match.groups() if name))
            assert opened[-1].is_file(), line
            continue
        matches = [m for rule in GRAMMAR if (m := re.fullmatch(rule, line))]
        assert matches, f"not a line of a script: {line}"
        for name, number in matches[0].groupdict().items():
            if number is not None:
                assert 1 <= int(number) <= len(opened), f"{name} model of {line}"
    return opened


@pytest.fixture
def states(tmp_path):
    """Three states beside each other, with what a run has elsewhere."""
    directory = tmp_path / "a run's" / "kmeans 3"
    volumes, maps = directory, tmp_path / "a run's" / "volumes"
    for place in (volumes, maps):
        place.mkdir(parents=True)
    bodies = [blob(-3) + blob(4, y) for y in (-4, 0, 4)]
    for number, body in enumerate(bodies):
        write_volume(volumes / f"reweight_{number:03d}.mrc", body, 2.0)
    write_volume(maps / "mean.mrc", np.mean(bodies, axis=0), 2.0)
    write_volume(maps / "variance4.mrc", np.var(bodies, axis=0), 2.0)
    write_volume(maps / "mask.mrc", (np.mean(bodies, axis=0) > 0.05).astype(np.float32), 2.0)
    return PicturedStates(
        volumes=sorted(volumes.glob("*.mrc")),
        mean=maps / "mean.mrc",
        mask=maps / "mask.mrc",
        variance=maps / "variance4.mrc",
        labels=["one", "two", "three\n5 Å"],
    )


def test_states_get_pictures_and_scripts_beside_them(states):
    write_state_pictures(states)
    directory = states.volumes[0].parent
    assert {path.name for path in directory.iterdir()} - {p.name for p in states.volumes} == {
        "montage.png", "turntable.gif", "states.gif", "chimerax.cxc", "chimerax_movie.cxc",
    }  # fmt: skip
    with Image.open(directory / "montage.png") as picture:
        montage = np.asarray(picture).astype(int)
    assert montage.shape[1] == 15 + 3 * 220 + 2 * 6
    first = montage[:, 15 : 15 + 220]
    differences = first[..., 0] - first[..., 2]
    assert (differences > 60).sum() > 100, "nothing is red where the state has more than the mean"
    assert (differences < -60).sum() > 100, "nothing is blue where it has less"
    with Image.open(directory / "states.gif") as film:
        assert film.n_frames == 4
    for name in ("chimerax.cxc", "chimerax_movie.cxc"):
        opened = parse((directory / name).read_text(), directory)
        assert [p.resolve() for p in opened[:3]] == [p.resolve() for p in states.volumes]


def test_one_state_has_no_movie_and_a_writer_is_asked_for_every_file(states, tmp_path):
    asked = []

    @contextmanager
    def write(name):
        asked.append(name)
        with write_whole(tmp_path / "elsewhere" / name) as path:
            yield path

    write_state_pictures(PicturedStates(volumes=states.volumes[:1]), write)
    assert sorted(asked) == ["chimerax.cxc", "montage.png", "states.gif", "turntable.gif"]
    assert sorted(asked) == sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    assert {path.suffix for path in states.volumes[0].parent.iterdir()} == {".mrc"}


def test_a_mean_in_another_box_is_sampled_anew(states):
    write_volume(states.mean, np.zeros((2 * SIZE,) * 3, np.float32), 1.0)
    write_state_pictures(PicturedStates(volumes=states.volumes[:1], mean=states.mean))
    assert (states.volumes[0].parent / "montage.png").exists()


def test_volumes_of_different_sizes_are_refused(states):
    write_volume(states.volumes[0], np.zeros((8,) * 3, np.float32), 2.0)
    with pytest.raises(InputError, match=r"one size, found boxes of \[8, 24\] voxels"):
        write_state_pictures(states)


def test_volumes_in_different_directories_are_refused(states):
    with pytest.raises(InputError, match="one directory, found 2 in 2 directories"):
        write_state_pictures(PicturedStates(volumes=[states.volumes[0], states.mean]))


def test_a_path_is_morphed_and_clusters_follow_each_other(tmp_path):
    volumes = tuple(tmp_path / f"reweight_{k:03d}.mrc" for k in range(3))
    for path in volumes:
        path.touch()
    along = describe_movie(StateScript(tmp_path, volumes, 0.5, along_path=True))
    apart = describe_movie(StateScript(tmp_path, volumes, 0.5))
    parse(along, tmp_path)
    parse(apart, tmp_path)
    assert "volume morph #1-3 frames 50 playStep 0.020000" in along.splitlines()
    assert "morph" not in apart
    assert apart.count("show #") == 3


@pytest.mark.parametrize("name", ["mean.mrc", "my map.mrc", "O'Neil.mrc", '2" x.mrc', "-a;b.mrc"])
def test_odd_names_are_one_word(name, tmp_path):
    (tmp_path / name).touch()
    text = describe_states(StateScript(tmp_path, (tmp_path / name,), 1.0))
    assert parse(text, tmp_path) == [tmp_path / name]
    assert quote("plain_1.mrc") == "plain_1.mrc"


def test_a_run_shows_its_mean_and_what_is_gained_and_lost(tmp_path):
    names = ["mean", "variance4", *(f"eigen_{s}00{k}" for k in range(2) for s in ("pos", "neg"))]
    for name in names:
        (tmp_path / f"{name}.mrc").touch()
    pairs = tuple(
        (tmp_path / f"eigen_pos00{k}.mrc", tmp_path / f"eigen_neg00{k}.mrc") for k in range(2)
    )
    colouring = Colouring(tmp_path / "variance4.mrc", 0.2)
    script = RunScript(tmp_path, tmp_path / "mean.mrc", 1.0, pairs, (1e-5, 0.3), colouring)
    assert [p.stem for p in parse(describe_run(script), tmp_path)] == names


def test_pictures_of_a_run_are_written_with_its_script(tmp_path):
    mean, directory = blob(-3) + blob(4), tmp_path / "output" / "volumes"
    components = np.stack([blob(5, y) - blob(5, -y) for y in (1, 3)])
    for name in ("mean", "variance4", *(f"eigen_{s}00{k}" for s in ("pos", "neg") for k in (0, 1))):
        write_whole_touch(directory / f"{name}.mrc")
    run = PicturedRun(
        directory, mean, (mean > 0.05).astype(np.float32), components, np.array([2.0, 1.0])
    )
    write_run_pictures(run, lambda name: write_whole(tmp_path / name))
    script = (directory / "chimerax.cxc").read_text()
    assert len(parse(script, directory)) == 6
    assert f"level {default_level(mean, run.mask):.6g}" in script
    with Image.open(tmp_path / "output" / "plots" / "surface.png") as picture:
        assert picture.size[0] == 15 + 3 * 300 + 2 * 6


def write_whole_touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_scales_end_where_values_on_the_surface_do():
    body = blob(0)
    assert largest_on_surface(np.full_like(body, 3), body, 0.5) == 3
    assert largest_on_surface(np.zeros_like(body), body, 0.5) == 1

from dataclasses import dataclass, field, fields
from typing import Literal

import pytest
from cyclopts import App, CycloptsError

from recovar.cli.options import (
    CommonOptions,
    make_command,
    normalize,
    read_attribute_texts,
)


@dataclass(frozen=True, kw_only=True)
class Base:
    output: str
    """Where results go."""
    seed: int = 0
    """Seed of all random choices."""


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    """A config as commands have them."""

    particles: str = field(metadata={"positional": True})
    """Particle images
    (.star)."""
    zdim: tuple[int, ...] = (4, 10, 20)
    """Dimensions to embed in."""
    endpoints: tuple[float, ...] | None = None
    """Ends of the path."""
    mask: str = field(default="sphere", metadata={"keywords": ("from_halfmaps", "sphere")})
    """Solvent mask (.mrc), or from_halfmaps or sphere."""
    mask_dilate_iter: int = field(
        default=0, metadata={"aliases": ("--dilate-mask-iter",), "group": "Mask"}
    )
    """Voxels that the mask grows by."""
    noise_model: Literal["radial", "very_white"] = "radial"
    """How noise varies."""
    correct_contrast: bool = False
    """Estimate each image's contrast."""
    undocumented: int = 3


def call(app: App, tokens: list[str]) -> None:
    app(tokens, exit_on_error=False, print_error=False, result_action="return_none")


def parse(*tokens: str) -> Config:
    found = []
    app = App()
    app.default(make_command(Config, lambda config, common: found.append(config), "Do it."))
    call(app, normalize(["go", *tokens])[1:])
    return found[0]


def test_texts_under_fields_are_their_help():
    assert read_attribute_texts(Config)["particles"] == "Particle images (.star)."
    assert read_attribute_texts(Config)["output"] == "Where results go."
    assert set(read_attribute_texts(Config)) == {f.name for f in fields(Config)} - {"undocumented"}


def test_options_not_given_keep_the_defaults_of_the_config():
    assert parse("a.star", "-o", "out") == Config(particles="a.star", output="out")


@pytest.mark.parametrize(
    ("tokens", "name", "value"),
    [
        (["--zdim", "4,10"], "zdim", (4, 10)),
        (["--zdim", "4"], "zdim", (4,)),
        (["--zdim", "4", "--zdim=10"], "zdim", (4, 10)),
        (["--endpoints=-1.5,2"], "endpoints", (-1.5, 2.0)),
        (["--mask", "from-halfmaps"], "mask", "from_halfmaps"),
        (["--mask", "From_Halfmaps"], "mask", "from_halfmaps"),
        (["--mask", "my_own-mask.mrc"], "mask", "my_own-mask.mrc"),
        (["--mask-dilate-iter", "3"], "mask_dilate_iter", 3),
        (["--mask_dilate_iter", "3"], "mask_dilate_iter", 3),
        (["--dilate-mask-iter=3"], "mask_dilate_iter", 3),
        (["--dilate_mask_iter=3"], "mask_dilate_iter", 3),
        (["--noise-model", "very-white"], "noise_model", "very_white"),
        (["--correct-contrast"], "correct_contrast", True),
        (["--no-correct-contrast"], "correct_contrast", False),
        (["--seed", "7"], "seed", 7),
    ],
)
def test_an_option_may_be_spelled_in_both_ways(tokens, name, value):
    assert getattr(parse("a.star", "-o", "out", *tokens), name) == value


def test_options_may_stand_before_what_they_are_about():
    config = parse("--zdim", "4,10", "--output", "out_dir", "my_particles.star")
    assert (config.particles, config.output) == ("my_particles.star", "out_dir")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a.star"], "output"),
        (["-o", "out"], "PARTICLES"),
        (["a.star", "-o", "out", "--zdimm", "4"], 'Did you mean "?--zdim'),
        (["a.star", "-o", "out", "--zdim", "four"], "--zdim.*four"),
        (["a.star", "-o", "out", "--noise-model", "pink"], "radial, very_white, got 'pink'"),
        (["a.star", "b.star", "-o", "out"], r"b\.star"),
    ],
)
def test_what_cannot_be_understood_is_named(tokens, message):
    with pytest.raises(CycloptsError, match=message):
        parse(*tokens)


def test_common_options_are_kept_apart_from_the_config():
    found = []
    app = App()
    app.default(make_command(Base, lambda config, common: found.append((config, common)), "Go."))
    call(app, ["-o", "out", "--cpu"])
    assert found == [(Base(output="out"), CommonOptions(cpu=True))]

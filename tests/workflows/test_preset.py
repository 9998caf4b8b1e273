"""What `--preset` changes, and what it leaves alone."""

import logging
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from two_states import COUNT, QUICK, call

from recovar.errors import InputError
from recovar.manifest import read_manifest
from recovar.run import read_result
from recovar.workflows.components import Components
from recovar.workflows.configs import PRESETS, PipelineConfig
from recovar.workflows.state_options import StateOptions, follow_preset


def config(**options) -> PipelineConfig:
    return PipelineConfig(particles=(Path("a.star"),), output=Path("run"), **options)


def test_presets_set_the_same_options_and_these_exist():
    names = {option.name for option in fields(PipelineConfig)}
    assert set(PRESETS["recommended"]) == set(PRESETS["published"]) <= names


def test_the_default_sets_nothing_that_would_have_to_be_told():
    assert not config().preset_options
    assert config().subspace == "em"
    assert config().noise_method == "residual"


def test_options_that_are_given_win_over_the_preset():
    given = config(preset="published", covariance="likelihood", correct_contrast=True)
    assert given.covariance == "likelihood"
    assert given.preset_options.items() >= {
        ("--subspace", "columns"),
        ("--columns", "published"),
        ("--noise-method", "published"),
        ("--contrast-method", "published"),
    }
    assert "--covariance" not in given.preset_options


def test_options_of_columns_are_left_alone_where_there_are_none():
    fitted = config(preset="published", subspace="em")
    assert (fitted.columns, fitted.covariance, fitted.contrast_method) == (None, None, None)
    assert fitted.noise_method == "published"
    assert not {"--subspace", "--columns", "--covariance"} & set(fitted.preset_options)


@pytest.mark.parametrize(
    ("options", "condition"),
    [
        ({"covariance": "least-squares"}, "--covariance is for --subspace columns"),
        ({"columns": "weighted"}, "--columns is for --subspace columns"),
        ({"contrast_method": "published"}, "--contrast-method is for --correct-contrast"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, condition):
    with pytest.raises(InputError, match=condition):
        config(**options)


def test_states_of_a_published_run_are_published_unless_options_say_otherwise():
    assert follow_preset(StateOptions(), "published").selection == "published"
    assert follow_preset(StateOptions(), "published").bandwidths == 50
    assert follow_preset(StateOptions(), "recommended").selection == "regression"
    assert follow_preset(StateOptions(q=0.95), "published").selection == "quantile"
    assert (
        follow_preset(StateOptions(state_method="regression"), "published").selection
        == "regression"
    )


@pytest.fixture(scope="module")
def published(data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "published"
    options = (*QUICK, "--preset", "published", "--correct-contrast", "--no-reproducibility")
    assert call(data, output, *options) == 0
    return output


def test_a_published_run_tells_what_the_preset_set_and_what_it_decided(published):
    log = (published / "run.log").read_text()
    assert "--preset published sets --subspace columns, --columns published" in log
    decisions = read_manifest(published).stages["subspace"].decisions
    assert 20 <= decisions["dimensions"].value <= 200
    assert decisions["columns"].value <= 300


def test_a_published_run_tells_states_apart_and_estimates_contrast(published):
    found = np.load(published / "output" / "embedding" / "zdim2.npz")
    states = np.arange(COUNT) % 2
    first = found["z"][:, 0]
    right = np.mean((first > np.median(first)) == states)
    # Few images of 20 pixels: chance gives 0.5 ± 0.03, and the default 0.95.
    assert max(right, 1 - right) > 0.75
    assert found["contrast"].std() > 0.02
    assert found["contrast"].max() <= 2


def test_the_way_variances_are_estimated_can_be_chosen(data, tmp_path, caplog):
    options = (*QUICK, "--subspace", "columns", "--no-reproducibility", "--quiet")
    found = {}
    for method in ("likelihood", "least-squares"):
        output = tmp_path / method
        assert call(data, output, *options, "--covariance", method) == 0
        found[method] = read_result(output, "subspace", Components).principal.eigenvalues
    assert found["likelihood"].shape == found["least-squares"].shape
    assert np.all(found["likelihood"] > 0)
    assert not np.allclose(found["likelihood"], found["least-squares"], rtol=1e-3)
    with caplog.at_level(logging.INFO, "recovar"):
        assert call(data, tmp_path / "likelihood", *options) == 0
    assert "Stage subspace is done" in caplog.text

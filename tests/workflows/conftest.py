"""A data set and a finished run that tests share; they copy it before they change it."""

from pathlib import Path

import pytest
from two_states import QUICK, call, write_two_states


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Two states in turn."""
    directory = tmp_path_factory.mktemp("data")
    write_two_states(directory)
    return directory


@pytest.fixture(scope="session")
def run(data, tmp_path_factory) -> Path:
    """A run with contrast correction, as users make it."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert call(data, output, *QUICK, "--correct-contrast", "--quiet") == 0
    return output

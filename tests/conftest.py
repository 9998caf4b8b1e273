"""Settings for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Compilation makes the first example slow and machines differ, so time alone fails no law.
settings.register_profile("recovar", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("recovar")


@pytest.fixture(scope="session")
def shared():
    """Files of others, kept outside the repository."""
    place = os.environ.get("RECOVAR_SHARED")
    if not place:
        pytest.skip("Set RECOVAR_SHARED to the directory that holds data and eval.")
    return Path(place)

"""Settings for every test."""

from hypothesis import settings

# Compilation makes the first example slow and machines differ, so time alone fails no law.
settings.register_profile("recovar", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("recovar")

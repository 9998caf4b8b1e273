"""Settings of the documentation."""

project = "recovar"
author = "The recovar developers"
extensions = ["myst_parser"]
html_title = "recovar"
exclude_patterns = ["_build"]

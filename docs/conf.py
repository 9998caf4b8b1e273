"""Settings of the documentation."""

project = "recovar"
author = "The recovar developers"
extensions = ["myst_nb"]
html_title = "recovar"
exclude_patterns = ["_build"]
# Notebooks run whenever pages are built: what they show is what the code does now.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

"""How trajectories of a finished run are found and written."""

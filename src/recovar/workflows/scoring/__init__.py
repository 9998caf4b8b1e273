"""The parts of `recovar score`: what is read, compared, told and drawn."""

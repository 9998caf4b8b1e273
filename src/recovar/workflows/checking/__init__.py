"""The parts of the command `check`."""

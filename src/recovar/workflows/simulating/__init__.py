"""The parts of `recovar simulate`: options, molecules, sets by name, and the picture."""

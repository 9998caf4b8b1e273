"""How states of a finished run are reconstructed."""

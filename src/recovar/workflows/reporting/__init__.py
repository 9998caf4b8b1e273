"""The parts of `recovar report`: what is read, what is drawn, and the page that holds it."""

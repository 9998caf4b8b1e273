"""How sums over images are run: batches, devices, memory and progress."""

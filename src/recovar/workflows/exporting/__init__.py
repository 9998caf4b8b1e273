"""What `recovar export` is made of."""

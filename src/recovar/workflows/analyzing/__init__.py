"""What `recovar analyze` is made of."""

"""Parts of the command `density`."""

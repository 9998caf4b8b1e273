"""Parts of the command `info`."""

"""What the commands do: one function per command, and its options."""

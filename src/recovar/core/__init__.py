"""Operators on arrays: no files, no logging, no options."""

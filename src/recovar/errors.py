"""The exceptions that recovar raises on purpose.

A message says what was wanted, what was found, where, and what to do about it.
"""


class RecovarError(Exception):
    """Anything that recovar raises on purpose."""


class InputError(RecovarError, ValueError):
    """Something a user can fix; the command line prints it without a traceback."""


class RunInUseError(InputError):
    """Another process is writing to the run directory."""

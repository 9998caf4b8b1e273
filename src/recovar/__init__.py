"""Conformational heterogeneity of molecules from cryo-EM images.

Importing this package does nothing; import the module you need, such as `recovar.simulator`.
"""

from importlib import metadata


def __getattr__(name: str) -> str:
    if name == "__version__":
        return metadata.version("recovar")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""One thing per half set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Thing = TypeVar("Thing")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Halves(Generic[Thing]):
    """Two independent estimates, from the even and the odd half of the particles."""

    first: Thing
    second: Thing

    def __iter__(self) -> Iterator[Thing]:
        """Visit both."""
        yield self.first
        yield self.second

    def map(self, function: Callable[[Thing], Other]) -> "Halves[Other]":
        """Apply a function to each."""
        return Halves(function(self.first), function(self.second))

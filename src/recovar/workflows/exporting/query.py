"""Comparisons that a user writes, such as `contrast > 0.7 and latent1 < 0`.

They are read as Python would read them, but only comparisons, sums, differences and products of
numbers and known names are computed; everything else is refused.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float64

from recovar.errors import InputError

Values: TypeAlias = Float64[np.ndarray, " images"] | Float64[np.ndarray, ""]

_COMPARISONS = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_OPERATIONS = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply}
_HINT = "Write comparisons joined by and, or, not, such as: contrast > 0.7 and latent1 < 0"


def evaluate_query(
    text: str, images: int, column: Callable[[str], Float64[np.ndarray, " images"]]
) -> Bool[np.ndarray, " images"]:
    """Tell for which images a query holds; what is not known of an image compares as false.

    Args:
        text: The query.
        images: How many images there are.
        column: Gives the values of a name, or raises `InputError`.

    Raises:
        InputError: If the query is anything but comparisons of numbers.

    Example:
        >>> columns = {"a": np.arange(4.0), "ctf/b": np.array([0.0, 5.0, 5.0, 0.0])}
        >>> evaluate_query("0 < a <= 2 and not ctf/b != 5", 4, columns.__getitem__).tolist()
        [False, True, True, False]
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        found = _Query(text.strip(), column).truth(tree)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"--where {text!r} cannot be read: {error}. {_HINT}.") from error
    return np.broadcast_to(found, images)


@dataclass(frozen=True)
class _Query:
    text: str
    column: Callable[[str], Float64[np.ndarray, " images"]]

    def truth(self, node: ast.expr) -> np.ndarray:
        match node:
            case ast.BoolOp(op=operator, values=values):
                join = np.logical_and if isinstance(operator, ast.And) else np.logical_or
                return reduce(join, [self.truth(value) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.truth(operand)
            case ast.Compare(left=left, ops=operators, comparators=right):
                if any(type(operator) not in _COMPARISONS for operator in operators):
                    raise self._refusal(node)
                values = [self.values(value) for value in (left, *right)]
                pairs = zip(operators, pairwise(values), strict=True)
                each = [np.asarray(_COMPARISONS[type(op)](*pair)) for op, pair in pairs]
                return reduce(np.logical_and, each)
        raise self._refusal(node)

    def values(self, node: ast.expr) -> Values:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return np.asarray(float(value))
            case ast.Name(id=name):
                return self.column(name)
            case ast.BinOp(left=ast.Name(id=group), op=ast.Div(), right=ast.Name(id=field)):
                return self.column(f"{group}/{field}")
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return np.asarray(-self.values(operand))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATIONS:
                both = self.values(left), self.values(right)
                return np.asarray(_OPERATIONS[type(operator)](*both))
        raise self._refusal(node)

    def _refusal(self, node: ast.expr) -> InputError:
        part = ast.get_source_segment(self.text, node) or self.text
        return InputError(f"--where does not allow {part!r} here. {_HINT}.")

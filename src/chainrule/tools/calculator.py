"""A calculator: numbers, + − * / // % ** and brackets, and nothing else of Python.

The expression is parsed to a tree and the tree is walked, so that no name, call or attribute can be reached. Numbers are
kept small enough that no expression can stop the machine.
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

from chainrule.core.errors import RequestError

LARGEST = 10**18
LONGEST = 200


def _divide(a: float, b: float) -> float:
    """a / b, exact where whole numbers go into each other: fractions know sixteen digits alone."""
    whole = isinstance(a, int) and isinstance(b, int) and b != 0 and a % b == 0
    return a // b if whole else a / b


OPERATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def calculator(expression: str) -> str:
    """The value of an arithmetic expression, as text; raises ``RequestError`` for anything else.

    >>> calculator("37 * 48")
    '1776'
    """
    if not isinstance(expression, str):
        raise RequestError(f"the expression is {str(expression)[:60]}, not text; write it as text, such as '37 * 48'")
    if len(expression) > LONGEST:
        raise RequestError(f"the expression is {len(expression)} characters long; a calculator reads at most {LONGEST}")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:  # its text would also name a line of a file
        raise RequestError(f"{expression!r} cannot be worked out: {error.msg}") from error
    except (ValueError, ZeroDivisionError, OverflowError, RecursionError) as error:
        raise RequestError(f"{expression!r} cannot be worked out: {error}") from error
    return str(int(value)) if value == int(value) else f"{value:.15g}"


def _value(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return _small(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (abs(right) > 64 or abs(left) > 10**6):
            raise RequestError(f"{left}**{right} is too large for this calculator")
        return _small(OPERATIONS[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.operand))
    raise RequestError(f"a calculator knows numbers, + - * / // % ** and brackets, not {ast.unparse(node)!r}")


def _small(value: float) -> float:
    if isinstance(value, complex):
        raise RequestError("the result is no real number")
    if not abs(value) <= LARGEST:
        raise RequestError(f"a number beyond {LARGEST:,} came up; this calculator stops there")
    return value

"""Tools a model may call: plain typed functions by name, and how their calls are read out of a reply."""

from collections.abc import Callable

from chainrule.tools.calculator import calculator

TOOLS: dict[str, Callable[..., str]] = {"calculator": calculator}

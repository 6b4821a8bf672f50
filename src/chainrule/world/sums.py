"""Sums: a + b and a − b for a, b from 0 to 9, no result below zero.

The stated range of what a model of this world should add in its head; beyond it there is a calculator.
"""

from chainrule.world.chinese import CHINESE
from chainrule.world.choice import Choice
from chainrule.world.drivers import Grammar
from chainrule.world.english import ENGLISH
from chainrule.world.tongue import Tongue

TOP = 9
SUMS = [(a, "+", b) for a in range(TOP + 1) for b in range(TOP + 1)]
SUMS += [(a, "-", b) for a in range(TOP + 1) for b in range(a + 1)]
MORE = 0.85
"""On a page of sums, how likely another one follows."""


def value(a: int, sign: str, b: int) -> int:
    """What a sum comes to."""
    return a + b if sign == "+" else a - b


def result(t: Tongue, a: int, sign: str, b: int) -> str:
    """The result as it is said."""
    return t.result.format(c=value(a, sign, b))


SIGNED = {t.code: Choice.even([t.sum(*s) for s in SUMS], SUMS) for t in (ENGLISH, CHINESE)}
"""Any sum, in each language, up to its result."""

_PAGES = {
    t.code: Choice(
        [(t.sum(*s), MORE / len(SUMS), s) for s in SUMS] + [(e, (1 - MORE) / len(t.endings), None) for e in t.endings]
    )
    for t in (ENGLISH, CHINESE)
}


def page(t: Tongue, facts: list[str]) -> Grammar:
    """A page of sums with their results; what was summed is added to ``facts``."""
    one = yield SIGNED[t.code]
    while one is not None:
        facts.append("".join(map(str, one)))
        yield Choice([(result(t, *one), 1.0, None)])
        one = yield _PAGES[t.code]

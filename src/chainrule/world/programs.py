"""Small programs in Python, and what they print."""

from functools import cache

from chainrule.world.choice import Choice
from chainrule.world.drivers import Grammar
from chainrule.world.sums import SUMS, value
from chainrule.world.tongue import Tongue

MOST_TIMES = 4
MORE = 0.75
"""On a page of programs, how likely another one follows."""


def adding(a: int, sign: str, b: int) -> tuple[str, str]:
    """A program that prints a sum, and what it prints."""
    return f"print({a} {sign} {b})", str(value(a, sign, b))


def repeating(word: str, times: int) -> tuple[str, str]:
    """A program that prints a word so many times, and what it prints."""
    return f'for i in range({times}): print("{word}")', " ".join([word] * times)


@cache
def programs(t: Tongue) -> Choice:
    """Any program up to its output, half of either kind; the outcome is (output, code)."""
    options: list[tuple[str, float, tuple[str, str]]] = []
    head = t.prints.split("{output}")[0]
    for one in SUMS:
        code, output = adding(*one)
        options.append((head.format(code=code), 0.5 / len(SUMS), (output, code)))
    for word in t.one:
        for times in range(1, MOST_TIMES + 1):
            code, output = repeating(word, times)
            options.append((head.format(code=code), 0.5 / (len(t.one) * MOST_TIMES), (output, code)))
    return Choice(options)


@cache
def _more(t: Tongue) -> Choice:
    first = programs(t)
    options = [(p, MORE * first.probability(i), first.outcomes[i]) for i, p in enumerate(first.phrases)]
    return Choice(options + [(ending, (1 - MORE) / len(t.endings), None) for ending in t.endings])


def page(t: Tongue, facts: list[str]) -> Grammar:
    """A page of programs with their outputs, which are added to ``facts``."""
    tail = t.prints.split("{output}")[1]
    one = yield programs(t)
    while one is not None:
        output, code = one
        facts.append(code)
        yield Choice([(output + tail, 1.0, None)])
        one = yield _more(t)

"""Three readers of one grammar.

A grammar is a generator: it yields a ``Choice``, is sent the outcome, and at its end returns what the text was about.
``sample`` draws, ``logp`` follows a text, and ``Reader`` takes bytes one at a time and always knows the exact
distribution of the next one.
"""

import math
import random
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from chainrule.world.choice import Choice, Node

Grammar = Generator[Choice, Any, Any]


class Sample(NamedTuple):
    """A drawn text, the phrases it is made of, its log-probability in nats, and what it is about."""

    phrases: list[str]
    logp: float
    about: Any

    @property
    def text(self) -> str:
        """The phrases in a row."""
        return "".join(self.phrases)


def sample(grammar: Grammar, rng: random.Random) -> Sample:
    """Draw a text from a grammar."""
    phrases: list[str] = []
    total = 0.0
    try:
        choice = next(grammar)
        while True:
            index = choice.draw(rng)
            phrases.append(choice.phrases[index])
            total += choice.logp[index]
            choice = grammar.send(choice.outcomes[index])
    except StopIteration as stop:
        return Sample(phrases, total, stop.value)


def logp(grammar: Grammar, text: str) -> float:
    """log p(text), in nats, the certainty that it ends there included; −inf outside the language."""
    data, at, total = text.encode(errors="surrogatepass"), 0, 0.0  # half a surrogate pair is bytes that no phrase has
    try:
        choice = next(grammar)
        while True:
            node = choice.root
            while node.leaf is None:
                step = node.next.get(data[at]) if at < len(data) else None
                if step is None:
                    return -math.inf
                node, at = step, at + 1
            total += choice.logp[node.leaf]
            choice = grammar.send(choice.outcomes[node.leaf])
    except StopIteration:
        return total if at == len(data) else -math.inf


END = 256
"""What the reader expects after the last byte of a text."""


class Reader:
    """Reads bytes and knows what may come next.

    The few live (rest of phrase, state) pairs are the branches below ``node``; the state they share is the grammar's.
    """

    def __init__(self, grammar: Callable[[], Grammar]) -> None:
        self._grammar = grammar()
        self._choice: Choice | None = next(self._grammar)
        self.node: Node | None = self._choice.root
        self.alive = True

    def distribution(self) -> dict[int, float]:
        """The probability of every byte that may come next, or of ``END``; empty outside the language."""
        if not self.alive:
            return {}
        if self.node is None:
            return {END: 1.0}
        mass = self.node.mass
        return {byte: branch.mass / mass for byte, branch in self.node.next.items()}

    def feed(self, byte: int) -> None:
        """Read one byte; one that cannot come here ends the reader's life."""
        node = self.node.next.get(byte) if self.alive and self.node is not None else None
        if node is None:
            self.alive = False
            return
        if node.leaf is not None:
            node = self._advance(node.leaf)
        self.node = node

    def _advance(self, leaf: int) -> Node | None:
        assert self._choice is not None
        try:
            self._choice = self._grammar.send(self._choice.outcomes[leaf])
        except StopIteration:
            self._choice = None
            return None
        return self._choice.root

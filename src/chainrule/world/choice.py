"""A draw: phrases with probabilities, none of which begins another.

    log p(text) = Σ log p(draw),     for a text is draws, one after the other

Because no phrase of a set is a prefix of another one (in UTF-8 bytes), reading a text is a walk down a tree of bytes
and can end in one leaf only: a text has one derivation, and its probability is exact.
"""

import math
import random
from bisect import bisect
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from chainrule.core.errors import ConfigError


class Node:
    """A place in the tree of phrases: where each next byte leads, and how much probability lies beyond."""

    __slots__ = ("leaf", "mass", "next")

    def __init__(self) -> None:
        self.next: dict[int, Node] = {}
        self.mass = 0.0
        self.leaf: int | None = None


class Choice:
    """Phrases to draw from, each with a weight and what choosing it means (its ``outcome``).

    >>> choice = Choice([("sun", 3, "a"), ("rain", 1, "b")])
    >>> choice.probability(0)
    0.75
    """

    __slots__ = ("_root", "_total", "_upto", "logp", "outcomes", "phrases", "weights")

    def __init__(self, options: Iterable[tuple[str, float, Any]]) -> None:
        options = [option for option in options if option[1] > 0]
        self.phrases = [phrase for phrase, _, _ in options]
        self.weights = [weight for _, weight, _ in options]
        self.outcomes = [outcome for _, _, outcome in options]
        self._upto = list(accumulate(self.weights))
        self._total = self._upto[-1]
        self.logp = [math.log(weight / self._total) for weight in self.weights]
        self._root: Node | None = None

    @classmethod
    def even(cls, phrases: Sequence[str], outcomes: Sequence[Any] | None = None) -> "Choice":
        """Every phrase equally likely; its outcome is its index, or the one given."""
        return cls(zip(phrases, [1.0] * len(phrases), range(len(phrases)) if outcomes is None else outcomes, strict=True))

    def probability(self, index: int) -> float:
        """The probability of one phrase."""
        return self.weights[index] / self._total

    def draw(self, rng: random.Random) -> int:
        """The index of a phrase drawn at random."""
        return min(bisect(self._upto, rng.random() * self._total), len(self.phrases) - 1)

    @property
    def root(self) -> Node:
        """The tree of phrases, built when it is first read; raises where one phrase begins another."""
        if self._root is None:
            self._root = self._tree()
        return self._root

    def _tree(self) -> Node:
        root = Node()
        for index, phrase in enumerate(self.phrases):
            node, mass = root, self.weights[index] / self._total
            node.mass += mass
            for byte in phrase.encode():
                branch = node.next.get(byte)
                if branch is None:
                    branch = node.next[byte] = Node()
                node = branch
                node.mass += mass
                if node.leaf is not None:
                    raise ConfigError(f"{self.phrases[node.leaf]!r} begins {phrase!r}; a reader could not tell them apart")
            if node.next or not phrase:
                raise ConfigError(f"{phrase!r} begins another phrase of {self.phrases}")
            node.leaf = index
        return root

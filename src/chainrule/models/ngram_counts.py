"""Counting n-grams: every sequence of up to n tokens, as a tree in sorted arrays.

An n-gram of length k is its first k−1 tokens (a node of the level above) and one more token, packed into one integer

    key = node · V + token

so a level is a sorted array of keys, finding is a binary search, and what may follow a node lies side by side. Counting is
``np.unique``, level by level. No n-gram crosses the beginning of a document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule.core.errors import DataError

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Level:
    """The n-grams of one length: sorted keys, how often each occurs (a document's first token not counted), after how
    many different tokens, and how often as the beginning of a document."""

    keys: Ints
    count: Ints
    preceded: Ints
    at_start: Ints


def count_ngrams(documents: Sequence[Sequence[int] | Ints], order: int, vocab_size: int) -> list[Level]:
    """The levels 1 … ``order``. Raises ``DataError`` for no tokens, or ids outside the vocabulary."""
    tokens, position = _flatten(documents, vocab_size)
    ids = tokens  # for each column, the n-gram of the present length that ends there; −1 where a document is too short
    levels = [_unigrams(tokens, position, vocab_size)]
    for k in range(2, order + 1):
        inside = position >= k - 1
        prefix = np.concatenate([[-1], ids[:-1]])
        keys, first, inverse, count = np.unique(
            prefix[inside] * vocab_size + tokens[inside], return_index=True, return_inverse=True, return_counts=True
        )
        suffix = ids[inside]  # the same n-gram without its first token, at the level above
        levels[-1] = _with_predecessors(levels[-1], suffix[first])
        fresh = np.full(len(tokens), -1, np.int64)
        fresh[inside] = inverse.reshape(-1)
        starts = np.bincount(inverse.reshape(-1), weights=position[inside] == k - 1, minlength=len(keys))
        levels.append(Level(keys, count.astype(np.int64), np.zeros(len(keys), np.int64), starts.astype(np.int64)))
        ids = fresh
    return levels


def _flatten(documents: Sequence[Sequence[int] | Ints], vocab_size: int) -> tuple[Ints, Ints]:
    arrays = [np.asarray(document, np.int64) for document in documents if len(document)]
    if not arrays:
        raise DataError("there is nothing to count; give at least one document with a token in it")
    tokens = np.concatenate(arrays)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise DataError(f"the documents hold ids from {tokens.min()} to {tokens.max()}; the vocabulary has {vocab_size}")
    return tokens, np.concatenate([np.arange(len(array)) for array in arrays])


def _unigrams(tokens: Ints, position: Ints, vocab_size: int) -> Level:
    """Every id is a node, seen or not; a document's first token is given, not predicted, so it is not counted."""
    count = np.bincount(tokens[position > 0], minlength=vocab_size).astype(np.int64)
    nothing = np.zeros(vocab_size, np.int64)
    return Level(np.arange(vocab_size, dtype=np.int64), count, nothing, nothing)


def _with_predecessors(level: Level, suffixes: Ints) -> Level:
    """A level that knows how many different tokens come before each of its n-grams."""
    preceded = np.bincount(suffixes, minlength=len(level.keys)).astype(np.int64)
    return Level(level.keys, level.count, preceded, level.at_start)

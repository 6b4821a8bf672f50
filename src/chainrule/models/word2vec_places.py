"""What word2vec reads: a corpus as places, and what is near each, some blocks at a time.

A place is an occurrence of a word that was kept. A block is ``BLOCK`` places side by side with the words around them, so that
all its scores are one matrix product; which of the scores count is said by ``near``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from chainrule.core.errors import DataError
from chainrule.core.shapes import Float, Int, Tensor

Ints = NDArray[np.integer]
BLOCK, SHARED, AT_ONCE = 32, 16, 64
"""Places in a block, drawn words that a block shares, blocks that take their steps together (at most)."""


class Blocks(NamedTuple):
    """n blocks of L places: the words within reach of each, 1 where one is near a place, and the shared draws.

    ``weight`` is k/K: what each drawn word counts for each neighbour.
    """

    span: Int[Tensor, "n s"]
    near: Float[Tensor, "n l s"]
    noise: Int[Tensor, "n k"]
    weight: float

    @property
    def middle(self) -> Int[Tensor, "n l"]:
        """The words at the places themselves."""
        reach = (self.span.shape[1] - self.near.shape[1]) // 2
        return self.span[:, reach : reach + self.near.shape[1]]


@dataclass(frozen=True)
class Places:
    """A corpus as one row of ids with the line that each stands in, and how likely each word is kept and drawn."""

    ids: NDArray[np.int64]
    line: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[Ints], vocab_size: int) -> "Places":
        """The places of documents; raises ``DataError`` where there are none, or ids outside the vocabulary."""
        lengths = [len(document) for document in documents]
        if sum(lengths) < 2:
            raise DataError(f"{len(documents)} documents hold {sum(lengths)} known words; give more text")
        ids = np.concatenate([np.asarray(document, np.int64) for document in documents])
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise DataError(f"the documents hold ids from {ids.min()} to {ids.max()}; the vocabulary has {vocab_size}")
        return cls(ids, np.repeat(np.arange(len(documents)), lengths), np.bincount(ids, minlength=vocab_size))

    def kept(self, sample: float) -> NDArray[np.float64]:
        """The probability that an occurrence of each word is kept: √(s/f) + s/f, at most 1."""
        if not sample:
            return np.ones(len(self.count))
        ratio = sample * self.count.sum() / np.maximum(self.count, 1)
        return np.minimum(1.0, np.sqrt(ratio) + ratio)

    def noise(self) -> NDArray[np.float64]:
        """The distribution of drawn words, ∝ count^¾."""
        weight = self.count**0.75
        return weight / weight.sum()

    def epoch(self, rng: np.random.Generator, *, window: int, negatives: int, sample: float) -> "Epoch":
        """One reading of the corpus: which words stay, how far each place looks, and what is drawn."""
        stays = rng.random(len(self.ids)) < self.kept(sample)[self.ids]
        blocks = -(-int(stays.sum()) // BLOCK)
        left, right = _room(self.line[stays])
        reach = rng.integers(1, window + 1, len(left))
        sides = np.minimum(reach, left) * (window + 1) + np.minimum(reach, right)
        draws = rng.choice(len(self.count), (blocks, SHARED), p=self.noise())
        return Epoch(
            ids=F.pad(torch.from_numpy(self.ids[stays]), (window, blocks * BLOCK - len(left) + window)),
            sides=F.pad(torch.from_numpy(sides), (0, blocks * BLOCK - len(left))).view(blocks, BLOCK),
            draws=torch.from_numpy(draws),
            window=window,
            weight=negatives / SHARED,
            at_once=min(AT_ONCE, max(1, len(self.count) // BLOCK)),  # no more places than there are words
        )


def _room(line: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many places of the same line stand before each place, and how many after.

    >>> _room(np.array([0, 0, 0, 1]))
    (array([0, 1, 2, 0]), array([2, 1, 0, 0]))
    """
    place = np.arange(len(line))
    return place - np.searchsorted(line, line, "left"), np.searchsorted(line, line, "right") - 1 - place


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The places of one reading, with ``window`` empty ones at both ends; item i is the i-th few blocks of it.

    ``sides`` is, for each place, (words near on the left) · (window + 1) + (words near on the right).
    """

    ids: Int[Tensor, "p"]
    sides: Int[Tensor, "n l"]
    draws: Int[Tensor, "n k"]
    window: int
    weight: float
    at_once: int

    def __len__(self) -> int:
        return -(-len(self.sides) // self.at_once)

    def __getitem__(self, i: int) -> Blocks:
        first, width = i * self.at_once, BLOCK + 2 * self.window
        sides, draws = (rows[first : first + self.at_once] for rows in (self.sides, self.draws))
        span = self.ids[first * BLOCK :].unfold(0, width, BLOCK)[: len(sides)]
        near = torch.zeros(len(sides), BLOCK, width)
        # a place looks at 2·window + 1 columns that begin one further to the right in every row: a band of the matrix
        band = near.as_strided((len(sides), BLOCK, 2 * self.window + 1), (BLOCK * width, width + 1, 1))
        band.copy_(F.embedding(sides, _looks(self.window)))
        return Blocks(span, near, draws, self.weight)


@cache
def _looks(window: int) -> Float[Tensor, "sides w"]:
    """For every pair (near on the left, near on the right): 1 at the offsets −window … window that are near.

    >>> _looks(1).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    offset, side = torch.arange(-window, window + 1), torch.arange(window + 1)
    left = (offset < 0) & (-offset <= side[:, None])
    right = (offset > 0) & (offset <= side[:, None])
    return (left[:, None] | right[None]).flatten(0, 1).float()

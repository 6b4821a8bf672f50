"""What word2vec reads: a corpus as places, and what is near each, some blocks at a time.

A place is an occurrence of a word that was kept. A block is ``BLOCK`` places side by side that share their drawn words, so
that all its scores are one matrix product. Which words are near a place is said by ``near``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from chainrule.core.errors import DataError
from chainrule.core.shapes import Bool, Float, Int, Tensor

Ints, Reals = NDArray[np.integer], NDArray[np.float64]
BLOCK, SHARED, AT_ONCE = 32, 16, 64
"""Places in a block, drawn words that a block shares, blocks that take their steps together (at most)."""
ALONE = 128 * BLOCK
"""Places that a thread reads in one go where each takes its step alone."""


class Blocks(NamedTuple):
    """n blocks of L places, p = n · L in all: the words of their row, which of them are near each place, and the shared draws.

    ``row`` holds the words at the places, with ``window`` words before the first and after the last; column c of ``near``
    says of the word at offset c − window whether it is near. ``weight`` is k/K: what each drawn word counts for each neighbour.
    """

    row: Int[Tensor, "r"]
    near: Bool[Tensor, "p w"]
    noise: Int[Tensor, "n k"]
    weight: float

    @property
    def window(self) -> int:
        """How far a place can look."""
        return self.near.shape[1] // 2

    @property
    def middle(self) -> Int[Tensor, "p"]:
        """The words at the places themselves."""
        return self.row[self.window : self.window + len(self.near)]

    def span(self) -> tuple[Int[Tensor, "n s"], Float[Tensor, "n l s"]]:
        """The words within reach of each block, and 1 where one is near a place: a band of the matrix."""
        n, length = len(self.noise), len(self.near) // len(self.noise)
        width = length + 2 * self.window
        near = torch.zeros(n, length, width)
        # a place looks at 2·window + 1 columns that begin one further to the right in every row
        band = near.as_strided((n, length, 2 * self.window + 1), (length * width, width + 1, 1))
        band.copy_(self.near.view_as(band))
        return self.row.unfold(0, width, length), near

    def around(self) -> "Bags":
        """For each place, where in the row the words near it stand."""
        return Bags.chosen(_diagonal(*self.near.shape, 0), self.near)

    def readers(self) -> "Bags":
        """The other way about: for each word of the row, which places it is near.

        Word j at column c belongs to place j − c: the columns of one word lie on a diagonal of ``near``, read here as a view.
        """
        columns, edge = 2 * self.window + 1, 2 * self.window
        turned = F.pad(self.near, (0, 0, edge, edge)).as_strided((len(self.row), columns), (columns, edge), edge).contiguous()
        return Bags.chosen(_diagonal(*turned.shape, edge), turned)


class Bags(NamedTuple):
    """Lists of different lengths in one row: where each begins, and how long it is."""

    items: Int[Tensor, "i"]
    starts: Int[Tensor, "p"]
    counts: Int[Tensor, "p"]

    @classmethod
    def chosen(cls, items: Int[Tensor, "p w"], chosen: Bool[Tensor, "p w"]) -> "Bags":
        """The chosen items of every row.

        >>> Bags.chosen(torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[True, True], [False, False], [True, False]]))
        Bags(items=tensor([1, 2, 5]), starts=tensor([0, 2, 2]), counts=tensor([2, 0, 1]))
        """
        counts = chosen.sum(1)
        return cls(items.masked_select(chosen), counts.cumsum(0) - counts, counts)

    def sum(self, of: Float[Tensor, "m d"]) -> Float[Tensor, "p d"]:
        """The sum of the rows of each bag; zeros where it is empty."""
        return F.embedding_bag(self.items, of, self.starts, mode="sum")


@lru_cache(maxsize=8)
def _diagonal(rows: int, columns: int, back: int) -> Int[Tensor, "p w"]:
    """Row + column − ``back``: the place that every column of every row stands for."""
    return torch.arange(rows)[:, None] + torch.arange(columns) - back


@lru_cache(maxsize=8)
def _within(window: int) -> Bool[Tensor, "reach w"]:
    """For every reach 0 … ``window``: which of the offsets −window … window it covers.

    >>> _within(1).tolist()
    [[False, False, False], [True, False, True]]
    """
    offset = torch.arange(-window, window + 1).abs()
    return (offset <= torch.arange(window + 1)[:, None]) & (offset > 0)


@dataclass(frozen=True)
class Places:
    """A corpus as one row of ids with the line that each stands in, and how likely each word is kept and drawn."""

    ids: NDArray[np.int64]
    line: NDArray[np.int32]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Sequence[Ints], vocab_size: int) -> "Places":
        """The places of documents; raises ``DataError`` where there are none, or ids outside the vocabulary."""
        lengths = [len(document) for document in documents]
        if max(lengths, default=0) < 2:
            raise DataError(
                f"{len(documents)} lines hold {sum(lengths)} known words, and none holds two; "
                "give text whose words stand side by side"
            )
        ids = np.concatenate([np.asarray(document, np.int64) for document in documents])
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise DataError(f"the documents hold ids from {ids.min()} to {ids.max()}; the vocabulary has {vocab_size}")
        return cls(ids, np.repeat(np.arange(len(documents), dtype=np.int32), lengths), np.bincount(ids, minlength=vocab_size))

    def kept(self, sample: float) -> Reals:
        """The probability that an occurrence of each word is kept: √(s/f) + s/f, at most 1."""
        if not sample:
            return np.ones(len(self.count))
        ratio = sample * self.count.sum() / np.maximum(self.count, 1)
        return np.minimum(1.0, np.sqrt(ratio) + ratio)

    def noise(self) -> Reals:
        """The distribution of drawn words, ∝ count^¾."""
        weight = self.count**0.75
        return weight / weight.sum()

    def summed_noise(self) -> Reals:
        """The same summed up: number x of [0, 1) draws the first word whose sum is greater."""
        summed = self.noise().cumsum()
        summed[-1] = 1.0  # rounding leaves it a little below, or above
        return summed

    def epoch(self, seed: Sequence[int], *, window: int, negatives: int, sample: float, alone: bool = False) -> "Epoch":
        """One reading of the corpus: which words stay is drawn now, all else as it is read, so that threads share the work.

        ``alone``: a place takes its step alone, not together with others, of which there must be no more than there are words.
        """
        rng = np.random.default_rng(seed)
        stays = rng.random(len(self.ids), np.float32) < self.kept(sample).astype(np.float32)[self.ids]
        if not stays.any():
            raise DataError(f"sample={sample} left out every word; set it higher, or 0 to keep all")
        ids, line = self.ids[stays], self.line[stays]
        empty = -len(ids) % BLOCK
        return Epoch(
            ids=F.pad(torch.from_numpy(ids), (window, empty + window)),
            line=F.pad(torch.from_numpy(line), (window, empty + window), value=-1),
            drawn=self.summed_noise(),
            seed=seed,
            window=window,
            negatives=negatives,
            at_once=ALONE if alone else BLOCK * min(AT_ONCE, max(1, len(self.count) // BLOCK)),
        )


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The places of one reading, with ``window`` empty ones at both ends; item i is the i-th ``at_once`` places of it.

    ``line`` is −1 where nothing stands; ``drawn`` is the distribution of drawn words, summed up.
    """

    ids: Int[Tensor, "r"]
    line: Int[Tensor, "r"]
    drawn: Reals
    seed: Sequence[int]
    window: int
    negatives: int
    at_once: int

    @cached_property
    def first(self) -> Ints:
        """For each i of n words the first that a number from i/n on can draw: where to begin to look for one."""
        return np.searchsorted(self.drawn, np.arange(len(self.drawn)) / len(self.drawn), "right")

    def __len__(self) -> int:
        return -(-(len(self.ids) - 2 * self.window) // self.at_once)

    def here(self, i: int) -> slice:
        """Where the i-th places stand, with ``window`` more at both ends."""
        return slice(i * self.at_once, (i + 1) * self.at_once + 2 * self.window)

    def rng(self, i: int) -> np.random.Generator:
        """What is drawn at the i-th places; 0 would be the numbers that chose which words stay."""
        return np.random.default_rng((*self.seed, i + 1))

    def __getitem__(self, i: int) -> Blocks:
        rng, here = self.rng(i), self.here(i)
        row, around = self.ids[here], self.line[here].unfold(0, 2 * self.window + 1, 1)
        middle = around[:, self.window]
        reach = torch.from_numpy(rng.integers(1, self.window + 1, len(around))) * (middle >= 0)
        near = (around == middle[:, None]).logical_and_(_within(self.window)[reach])
        draws = np.searchsorted(self.drawn, rng.random((len(around) // BLOCK, SHARED)), "right")
        return Blocks(row, near, torch.from_numpy(draws), self.negatives / SHARED)

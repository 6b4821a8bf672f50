"""Hiding words: a stream of rows becomes a stream of riddles, as a pure function of (seed, step).

Of each row's words about 15 % are chosen; of these 80 % are read as [MASK], 10 % as some other word, 10 % as themselves, so
that the model cannot trust even what it sees (Devlin et al. 2018, arXiv:1810.04805). Special tokens and padding are neither
chosen nor put in. Every step hides anew; held-out data ask for step 0 alone and are always the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from chainrule.core.datum import Batch, Layout
from chainrule.core.errors import DataError
from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.data.streams import Stream

CHOSEN, HIDDEN, REPLACED = 0.15, 0.8, 0.1
"""The share of words chosen; of these, the shares that are hidden and replaced; the rest stay."""


@dataclass(frozen=True)
class MaskedStream:
    """The rows of another stream with words hidden behind ``mask``; ``words`` are the ids that may be chosen or put in."""

    stream: Stream
    mask: int
    words: Sequence[int]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.words or self.mask in self.words:
            raise DataError(
                f"{len(self.words)} ids may be hidden behind {self.mask}; there must be some, and not the mask itself"
            )

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one step; the same words are hidden however the step is split."""
        draw = np.random.default_rng([self.seed, step])
        return [self._hide(batch, draw) for batch in self.stream.batches(step)]

    def describe(self) -> dict[str, Any]:
        """The rows, and what share of their words is hidden."""
        return self.stream.describe() | {"chosen": CHOSEN, "hidden": HIDDEN, "replaced": REPLACED}

    def _hide(self, batch: Batch, draw: np.random.Generator) -> Batch:
        tokens, words = batch.tokens, torch.tensor(self.words)
        layout = Layout.plain(tokens) if batch.layout is None else batch.layout
        choice, action, word = torch.from_numpy(draw.random((*tokens.shape, 3))).unbind(-1)
        chosen = lowest(choice, torch.isin(tokens, words) & layout.real & (batch.mask != 0), CHOSEN)
        other = words[(word * len(words)).long()]
        seen = torch.where(chosen & (action < HIDDEN), self.mask, tokens)
        seen = torch.where(chosen & (action >= HIDDEN) & (action < HIDDEN + REPLACED), other, seen)
        return Batch(tokens, chosen.float(), batch.layout, {**(batch.given or {}), "seen": seen})


def lowest(value: Float[Tensor, "b t"], candidates: Bool[Tensor, "b t"], share: float) -> Bool[Tensor, "b t"]:
    """In each row the ``share`` of candidates with the lowest values, rounded, but at least one where there is any.

    >>> lowest(torch.tensor([[0.3, 0.1, 0.2, 0.0]]), torch.tensor([[True, True, True, False]]), 0.34)
    tensor([[False,  True, False, False]])
    """
    rank: Int[Tensor, "b t"] = torch.where(candidates, value, torch.inf).argsort(1).argsort(1)
    n = candidates.sum(1)
    wanted = (n * share).round().long().clamp(min=1).minimum(n)
    return rank < wanted[:, None]

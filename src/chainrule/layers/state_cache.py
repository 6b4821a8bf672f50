"""The cache of recurrent cells: the state after *every* token of a row, not only the last.

The last state alone would do to go on, but not to go back: a state cannot be undone, so ``rewind`` needs the one that was
there before. The price is a state a token, about what a key/value cache costs. A cache carries no gradient.
"""

from collections.abc import Sequence

import torch

from chainrule.core.cache import Cache, slots, take_rows
from chainrule.core.datum import PADDING, Given, Layout
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.layers.steps import Steps


class StateCache(Cache):
    """States of every cell, each ``b capacity+1 s``; one slot more than the capacity takes what is never read."""

    def __init__(
        self,
        rows: int,
        capacity: int,
        widths: Sequence[int],
        *,
        given: Given | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.capacity, self.given = capacity, given
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.document = torch.full((rows, capacity + 1), PADDING, dtype=torch.long, device=device)
        self.states = [torch.zeros(rows, capacity + 1, width, device=device) for width in widths]

    @property
    def last_document(self) -> Int[Tensor, "b"]:
        """The document that each row ends in; −1 where the row is empty."""
        last = self.document.gather(1, (self.lengths - 1).clamp(min=0)[:, None])[:, 0]
        return torch.where(self.lengths > 0, last, PADDING)

    def first(self, cell: int, steps: Steps) -> Float[Tensor, "m s"]:
        """The states that documents begin with: a row's last for one that goes on, else zeros."""
        last = self.states[cell][steps.row, (self.lengths[steps.row] - 1).clamp(min=0)]
        return last.masked_fill(steps.fresh[:, None], 0.0)

    def store(self, cell: int, steps: Steps, layout: Layout, states: Float[Tensor, "n s"]) -> None:
        """Put the new states behind those of their rows."""
        slot = slots(self.lengths, layout, trash=self.capacity).flatten()[steps.column]
        self.states[cell][steps.column // layout.document.shape[1], slot] = states.detach().float()

    def append(self, layout: Layout) -> None:
        """Count the new tokens, once every cell has stored its states."""
        self.document.scatter_(1, slots(self.lengths, layout, trash=self.capacity), layout.document)
        self.lengths = self.lengths + layout.real.sum(1)

    def keep(self, rows: Int[Tensor, "n"] | Sequence[int]) -> None:
        rows = torch.as_tensor(rows, dtype=torch.long, device=self.lengths.device)
        self.lengths, self.document = self.lengths[rows], self.document[rows]
        self.states = [states[rows] for states in self.states]
        self.given = take_rows(self.given, rows)

    def rewind(self, n: Int[Tensor, "b"] | int) -> None:
        self.lengths = (self.lengths - n).clamp(min=0)

"""The order in which recurrent cells read a batch: all first tokens, all second tokens, and so on.

A recurrent network knows one thing: a document is read from its beginning, token by token. Packing and padding are undone
before it reads: every document is a sequence of its own, the longest first, and step t holds token t of those that have
one. So no state crosses from one document to another, padding is never read, and nothing is computed for it.

    row  a a a b b · c c          step 0  a₀ b₀ c₀      step 1  a₁ b₁ c₁      step 2  a₂
"""

from typing import NamedTuple

import torch

from chainrule.core.datum import PADDING, Layout
from chainrule.core.shapes import Bool, Float, Int, Tensor


class Steps(NamedTuple):
    """``column`` says which of the flattened b·t columns are read, in their order; ``sizes`` how many at each step; ``row``
    whose row each document stands in, and ``fresh`` whether it begins here or goes on from what a cache remembers."""

    column: Int[Tensor, "n"]
    sizes: list[int]
    row: Int[Tensor, "m"]
    fresh: Bool[Tensor, "m"]

    @classmethod
    def plain(cls, b: int, t: int, device: torch.device) -> "Steps":
        """Rows that are one document each, from its beginning."""
        column = torch.arange(b * t, device=device).view(b, t).T.reshape(-1)
        row = torch.arange(b, device=device)
        return cls(column, [b] * t, row, torch.ones_like(row, dtype=torch.bool))

    @classmethod
    def of(cls, layout: Layout, before: Int[Tensor, "b"] | None = None) -> "Steps":
        """Any layout. ``before`` is the document that each row's cache ends in (−1: it is empty)."""
        b, t = layout.document.shape
        device, real = layout.document.device, layout.real
        last = torch.full((b,), PADDING, device=device) if before is None else before
        previous = _previous_real(real)
        earlier = torch.where(previous < 0, last[:, None], layout.document.gather(1, previous.clamp(min=0)))
        fresh = real & (layout.document != earlier)
        begins = fresh | (real & (previous < 0))  # the first tokens of each row may go on with the cache's document
        rank = real.cumsum(1) - 1
        rank = rank - torch.where(begins, rank, 0).cummax(1).values
        column = real.flatten().nonzero()[:, 0]
        rank, document = rank.flatten()[column], begins.flatten().cumsum(0)[column] - 1
        first = begins.flatten().nonzero()[:, 0]
        order = torch.bincount(document, minlength=len(first)).argsort(descending=True, stable=True)
        place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=device))
        reading = (rank * len(order) + place[document]).argsort()
        sizes = torch.bincount(rank).tolist()
        return cls(column[reading], sizes, first[order] // max(t, 1), fresh.flatten()[first][order])

    def take(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "n d"]:
        """The columns of a batch in the order of reading."""
        return x.flatten(0, 1)[self.column]

    def give(self, x: Float[Tensor, "n d"], b: int, t: int) -> Float[Tensor, "b t d"]:
        """Columns put back where they stood; zeros at padding."""
        return x.new_zeros(b * t, x.shape[-1]).index_copy(0, self.column, x).view(b, t, -1)


def _previous_real(real: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """For each column, the last one before it that is not padding; −1 where there is none."""
    column = torch.arange(real.shape[1], device=real.device)
    latest = torch.where(real, column, -1).cummax(1).values if real.shape[1] else torch.zeros_like(real, dtype=torch.long)
    return torch.cat([torch.full_like(latest[:, :1], -1), latest[:, :-1]], 1)

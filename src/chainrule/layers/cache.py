"""The contiguous key/value cache: what attention would compute again, remembered.

Keys, values and the layout of every token stand in slots, row by row; rows are ragged. One slot more than the capacity
takes the padding, so that every row is written by the same scatter. Reading stops at the longest row.
"""

from collections.abc import Sequence

import torch

from chainrule.core.cache import Cache, slots, take_rows
from chainrule.core.datum import PADDING, Given, Layout
from chainrule.core.shapes import Float, Int, Tensor


class KVCache(Cache):
    """Keys and values of ``layers`` layers for ``rows`` rows of at most ``capacity`` tokens.

    A step begins with ``extend(layout)``, which assigns slots to the new tokens; every layer then calls ``update``.
    """

    def __init__(
        self,
        rows: int,
        capacity: int,
        *,
        layers: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        given: Given | None = None,
    ) -> None:
        """``layers`` holds (key/value heads, head width) of each layer."""
        self.capacity, self.given = capacity, given
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, capacity + 1, dtype=torch.long, device=device)
        self.document = torch.full_like(self.position, PADDING)
        self.k = [torch.zeros(rows, g, capacity + 1, c, dtype=dtype, device=device) for g, c in layers]
        self.v = [torch.zeros_like(k) for k in self.k]
        self.slot = self.position[:, :0]
        self.longest = 0

    def extend(self, layout: Layout) -> Layout:
        """Give the new tokens their slots; the layout of all tokens that may be seen from now on."""
        self.slot = slots(self.lengths, layout, trash=self.capacity)
        self.position.scatter_(1, self.slot, layout.position)
        self.document.scatter_(1, self.slot, layout.document)
        self.document[:, self.capacity] = PADDING
        self.lengths = self.lengths + layout.real.sum(1)
        self.longest = max(int(self.lengths.max()), 1)
        return Layout(self.position[:, : self.longest], self.document[:, : self.longest])

    def update(
        self, layer: int, k: Float[Tensor, "b g t c"], v: Float[Tensor, "b g t c"]
    ) -> tuple[Float[Tensor, "b g s c"], Float[Tensor, "b g s c"]]:
        """Store the new keys and values of a layer; all of its keys and values so far."""
        index = self.slot[:, None, :, None].expand_as(k)
        self.k[layer].scatter_(2, index, k.to(self.k[layer].dtype))
        self.v[layer].scatter_(2, index, v.to(self.v[layer].dtype))
        return self.k[layer][:, :, : self.longest], self.v[layer][:, :, : self.longest]

    def keep(self, rows: Int[Tensor, "n"] | Sequence[int]) -> None:
        rows = torch.as_tensor(rows, dtype=torch.long, device=self.lengths.device)
        self.lengths, self.position, self.document = self.lengths[rows], self.position[rows], self.document[rows]
        self.k, self.v = [k[rows] for k in self.k], [v[rows] for v in self.v]
        self.given = take_rows(self.given, rows)

    def rewind(self, n: Int[Tensor, "b"] | int) -> None:
        self.lengths = (self.lengths - n).clamp(min=0)
        column = torch.arange(self.capacity + 1, device=self.lengths.device)
        self.document = torch.where(column < self.lengths[:, None], self.document, PADDING)

"""The key/value cache: what attention needs of old tokens, kept so that each is read once.

Rows are ragged and contiguous: the tokens of a row fill its slots from the left, whatever padding stood between them,
and beside each slot stand the token's position and document, so that the one mask rule decides what is seen. One slot
more than the capacity takes the padding and is never read. A cache carries no gradient.
"""

from collections.abc import Sequence

import torch

from chainrule.core.cache import Cache, slots, take_rows
from chainrule.core.datum import PADDING, Given, Layout
from chainrule.core.shapes import Float, Int, Tensor


class KVCache(Cache):
    """Keys and values of every layer, each ``b g capacity+1 c``; ``shapes`` gives (g, c) of both per layer.

    ``even`` says that all rows are single documents of one length: then no mask is needed. ``longest`` is the length
    of the longest row, known without asking the device.
    """

    def __init__(
        self,
        rows: int,
        capacity: int,
        shapes: Sequence[tuple[tuple[int, int], tuple[int, int]]],
        *,
        given: Given | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.capacity, self.given = capacity, given
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, capacity + 1, dtype=torch.long, device=device)
        self.document = torch.full_like(self.position, PADDING)
        self.longest, self.even = 0, True
        # zeros, not garbage: a slot nobody sees is still multiplied by the weight 0, and 0 · NaN is NaN
        self.k = [torch.zeros(rows, g, capacity + 1, c, device=device, dtype=dtype) for (g, c), _ in shapes]
        self.v = [torch.zeros(rows, g, capacity + 1, c, device=device, dtype=dtype) for _, (g, c) in shapes]

    def append(self, layout: Layout, *, plain: bool) -> Int[Tensor, "b t"]:
        """Make room for new tokens and give their slots; ``plain``: they continue each row's only document."""
        slot = slots(self.lengths, layout, trash=self.capacity)
        self.position.scatter_(1, slot, layout.position)
        self.document.scatter_(1, slot, layout.document)
        self.document[:, self.capacity] = PADDING
        self.lengths = self.lengths + layout.real.sum(1)
        self.even = self.even and plain
        self.longest = self.longest + slot.shape[1] if plain else self._longest()
        return slot

    def store(
        self, layer: int, slot: Int[Tensor, "b t"], k: Float[Tensor, "b t g c"], v: Float[Tensor, "b t u w"]
    ) -> tuple[Float[Tensor, "b g s c"], Float[Tensor, "b u s w"]]:
        """Put new keys and values into their slots; all of the layer's, up to the longest row."""
        row = torch.arange(len(slot), device=slot.device)[:, None]
        for memory, new in ((self.k[layer], k), (self.v[layer], v)):
            memory[row, :, slot] = new.detach().to(memory.dtype)
        end = max(self.longest, 1)
        return self.k[layer][:, :, :end], self.v[layer][:, :, :end]

    @property
    def layout_of_keys(self) -> Layout:
        """Where the tokens in the slots stand, up to the longest row."""
        end = max(self.longest, 1)
        return Layout(self.position[:, :end], self.document[:, :end])

    def keep(self, rows: Int[Tensor, "n"] | Sequence[int]) -> None:
        rows = torch.as_tensor(rows, dtype=torch.long, device=self.lengths.device)
        self.lengths, self.position, self.document = self.lengths[rows], self.position[rows], self.document[rows]
        self.k, self.v = [k[rows] for k in self.k], [v[rows] for v in self.v]
        self.given = take_rows(self.given, rows)
        self.longest = self.longest if self.even and len(rows) else self._longest()

    def rewind(self, n: Int[Tensor, "b"] | int) -> None:
        self.lengths = (self.lengths - n).clamp(min=0)
        column = torch.arange(self.capacity + 1, device=self.lengths.device)
        self.document = torch.where(column < self.lengths[:, None], self.document, PADDING)
        self.even = self.even and isinstance(n, int)
        self.longest = self._longest()

    def _longest(self) -> int:
        return int(self.lengths.max()) if len(self.lengths) else 0

"""What a model remembers of each row, so that new tokens need not bring the old ones along.

Rows are ragged: each has its own length. A cache changes nothing but the work: every fast cache is tested against
``TokenCache``, which remembers the tokens themselves and reads them all again; slow, and obviously right.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from chainrule.core.datum import PADDING, Given, Layout
from chainrule.core.errors import RequestError
from chainrule.core.shapes import Float, Int, Tensor

if TYPE_CHECKING:
    from chainrule.core.model import LanguageModel
    from chainrule.core.tap import Tap


class Cache(ABC):
    """The memory of ``rows`` rows, each of at most ``capacity`` tokens.

    ``lengths`` (int, ``b``) counts the real tokens of each row; ``given`` holds what conditions each row. The model
    appends; callers may ``keep`` and ``rewind``.
    """

    lengths: Int[Tensor, "b"]
    capacity: int
    given: Given | None

    @abstractmethod
    def keep(self, rows: Int[Tensor, "n"] | Sequence[int]) -> None:
        """Make row i of the cache what was row ``rows[i]``: reorder, repeat or drop rows."""

    @abstractmethod
    def rewind(self, n: Int[Tensor, "b"] | int) -> None:
        """Forget the last ``n`` tokens of every row, or ``n[i]`` of row i."""

    def layout(self, tokens: Int[Tensor, "b t"], layout: Layout | None) -> Layout:
        """The layout of new tokens: the one given, or the continuation of each row's only document.

        Raises ``RequestError`` where a row would outgrow the capacity.
        """
        layout = Layout.plain(tokens, self.lengths.to(tokens.device)) if layout is None else layout
        longest = int((self.lengths.to(tokens.device) + layout.real.sum(1)).max()) if len(tokens) else 0
        if longest > self.capacity:
            raise RequestError(
                f"a row would hold {longest} tokens but its cache holds {self.capacity}; "
                "shorten the prompt or make the cache with a larger capacity"
            )
        return layout


def take_rows(given: Given | None, rows: Int[Tensor, "n"]) -> Given | None:
    """The rows of a condition, reordered as a cache's rows are."""
    return None if given is None else {name: value[rows.to(value.device)] for name, value in given.items()}


def slots(lengths: Int[Tensor, "b"], layout: Layout, trash: int) -> Int[Tensor, "b t"]:
    """Where each new token of a row is stored: after those already there, padding in the slot ``trash``."""
    rank = layout.real.cumsum(1) - 1
    return torch.where(layout.real, lengths[:, None] + rank, trash)


class TokenCache(Cache):
    """Remembers tokens with their layout and recomputes everything: the specification of every other cache."""

    def __init__(self, rows: int, capacity: int, given: Given | None = None, device: torch.device | None = None) -> None:
        self.capacity = capacity
        self.given = given
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        # one slot more than the capacity: padding is written there and never read
        self.tokens = torch.zeros(rows, capacity + 1, dtype=torch.long, device=device)
        self.position = torch.zeros_like(self.tokens)
        self.document = torch.full_like(self.tokens, PADDING)

    def keep(self, rows: Int[Tensor, "n"] | Sequence[int]) -> None:
        rows = torch.as_tensor(rows, dtype=torch.long, device=self.lengths.device)
        self.lengths, self.tokens = self.lengths[rows], self.tokens[rows]
        self.position, self.document = self.position[rows], self.document[rows]
        self.given = take_rows(self.given, rows)

    def rewind(self, n: Int[Tensor, "b"] | int) -> None:
        self.lengths = (self.lengths - n).clamp(min=0)
        column = torch.arange(self.capacity + 1, device=self.lengths.device)
        self.document = torch.where(column < self.lengths[:, None], self.document, PADDING)

    def replay(
        self,
        model: "LanguageModel",
        tokens: Int[Tensor, "b t"],
        *,
        layout: Layout | None = None,
        tap: "Tap | None" = None,
    ) -> Float[Tensor, "b t d"]:
        """Append ``tokens`` and let the model read every row from its beginning; the states of the new columns."""
        layout = self.layout(tokens, layout)
        slot = slots(self.lengths, layout, trash=self.capacity)
        self.tokens = self.tokens.scatter(1, slot, tokens)
        self.position = self.position.scatter(1, slot, layout.position)
        self.document = self.document.scatter(1, slot, layout.document)
        self.document[:, self.capacity] = PADDING
        self.lengths = self.lengths + layout.real.sum(1)
        longest = max(int(self.lengths.max()), 1)
        whole = Layout(self.position[:, :longest], self.document[:, :longest])
        hidden = model.hidden(self.tokens[:, :longest], layout=whole, given=self.given, tap=tap)
        column = slot.clamp(max=longest - 1)  # padding reads some real column; nobody looks at it
        return hidden.gather(1, column[:, :, None].expand(-1, -1, hidden.shape[-1]))

"""One datum: tokens, which of them count, and where each one stands.

    i sees j   iff   document_i = document_j  and  position_j <= position_i  (and within the window)

This one mask rule is all there is: packing several documents into a row, padding on the left or the right and
ragged batches are layouts, never flags.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from chainrule.core.errors import DataError
from chainrule.core.shapes import Bool, Float, Int, Tensor

PADDING = -1

Given = Mapping[str, Tensor]
"""What a row is conditioned on (a source sentence, a picture): named tensors whose first axis is the row."""


@dataclass(frozen=True)
class Layout:
    """Where each token stands: its position within its document, and which document (−1 is padding)."""

    position: Int[Tensor, "b t"]
    document: Int[Tensor, "b t"]

    @classmethod
    def plain(cls, tokens: Int[Tensor, "b t"], start: Int[Tensor, "b"] | int = 0) -> "Layout":
        """One document a row, its positions counting up from ``start``."""
        b, t = tokens.shape
        first = torch.as_tensor(start, device=tokens.device).expand(b)
        position = first[:, None] + torch.arange(t, device=tokens.device)
        return cls(position, torch.zeros_like(position))

    @classmethod
    def lengths(cls, lengths: Int[Tensor, "b"], t: int, *, left: bool = False) -> "Layout":
        """One document of each given length a row, padded to ``t`` on the right, or on the left.

        >>> Layout.lengths(torch.tensor([2]), 3).document
        tensor([[ 0,  0, -1]])
        """
        column = torch.arange(t, device=lengths.device).expand(len(lengths), t)
        position = column - (t - lengths[:, None]) if left else column
        real = (position >= 0) & (position < lengths[:, None])
        return cls(torch.where(real, position, 0), torch.where(real, 0, PADDING))

    @property
    def real(self) -> Bool[Tensor, "b t"]:
        """True where a token is not padding."""
        return self.document != PADDING

    @property
    def starts(self) -> Bool[Tensor, "b t"]:
        """True at the first token of every document, which no earlier token predicts, and at padding."""
        first = torch.ones_like(self.document[:, :1], dtype=torch.bool)
        return torch.cat([first, self.document[:, 1:] != self.document[:, :-1]], dim=1) | ~self.real

    @property
    def sizes(self) -> Int[Tensor, "b t"]:
        """How long the document of each token is: one more than the last position in it.

        >>> Layout(torch.tensor([[0, 1, 2, 0, 0]]), torch.tensor([[0, 0, 0, 1, -1]])).sizes
        tensor([[3, 3, 3, 1, 1]])
        """
        document = self.document - PADDING
        last = self.position.new_zeros(len(document), int(document.max()) + 1)
        return last.scatter_reduce(1, document, self.position, "amax").gather(1, document) + 1

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on another device."""
        return Layout(self.position.to(device), self.document.to(device))


def together(query: Layout, key: Layout) -> Bool[Tensor, "b t s"]:
    """The mask rule without its causal part, for encoders: which keys are of each query's document."""
    return query.document[:, :, None] == key.document[:, None, :]


def visible(query: Layout, key: Layout, window: int | None = None, chunk: int | None = None) -> Bool[Tensor, "b t s"]:
    """The one mask rule: which keys each query sees. ``window`` counts the query itself; ``chunk`` cuts a document into
    pieces of so many tokens that do not see each other."""
    i, j = query.position[:, :, None], key.position[:, None, :]
    seen = together(query, key) & (j <= i)
    seen = seen if window is None else seen & (i - j < window)
    return seen if chunk is None else seen & (i // chunk == j // chunk)


@dataclass(frozen=True)
class Batch:
    """Tokens to read and a mask that is 1 where a token is to be learned or judged."""

    tokens: Int[Tensor, "b t"]
    mask: Float[Tensor, "b t"]
    layout: Layout | None = None
    given: Given | None = None

    def __post_init__(self) -> None:
        if self.tokens.shape != self.mask.shape:
            raise DataError(f"tokens are {tuple(self.tokens.shape)} but their mask is {tuple(self.mask.shape)}")

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        given = None if self.given is None else {name: value.to(device) for name, value in self.given.items()}
        layout = None if self.layout is None else self.layout.to(device)
        return Batch(self.tokens.to(device), self.mask.to(device), layout, given)

"""Packing: documents of any length into rows of one length, with nothing leaking from one to the next.

Best-fit decreasing: a row takes the longest documents that still fit, so that little is padding. Each keeps its own
positions and its own number in the ``Layout``: attention never crosses from one document to another.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from chainrule.core.datum import PADDING, Batch, Layout
from chainrule.core.errors import DataError

Ids = NDArray[np.int32]
LOOK = 256
"""So many documents wait at once for a row that they fit."""


@dataclass(frozen=True)
class Rows:
    """Packed rows, each array ``n t``: tokens, what is judged, and the layout."""

    tokens: NDArray[np.int32]
    mask: NDArray[np.uint8]
    position: NDArray[np.int32]
    document: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def fill(self) -> float:
        """The share of columns that are not padding."""
        return float((self.document != PADDING).mean())

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which tokens the loss counts: those that are to be learned and have one before them in their document."""
        return (self.mask != 0) & (self.position > 0)

    def batch(self, rows: NDArray[np.intp] | list[int]) -> Batch:
        """Some of the rows as a batch."""
        layout = Layout(_long(self.position[rows]), _long(self.document[rows]))
        return Batch(_long(self.tokens[rows]), torch.from_numpy(self.mask[rows]).float(), layout)


def _long(array: NDArray[np.integer]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int64))


def pack(documents: Iterable[tuple[Ids, NDArray[np.uint8] | None]], context: int, *, split: bool) -> Rows:
    """Rows of ``context`` tokens from (ids, mask) pairs; without a mask every token is judged.

    A longer document is ``split`` into pieces that stand as documents of their own, or refused with a ``DataError``.
    """
    rows = list(_best_fit(_pieces(documents, context, split), context))
    if not rows:
        raise DataError("there is nothing to pack; give at least one document")
    n = len(rows)
    tokens = np.zeros((n, context), np.int32)
    mask = np.zeros((n, context), np.uint8)
    position = np.zeros((n, context), np.int32)
    document = np.full((n, context), PADDING, np.int32)
    for i, row in enumerate(rows):
        at = 0
        for number, (ids, judged) in enumerate(row):
            here = slice(at, at + len(ids))
            tokens[i, here], mask[i, here] = ids, 1 if judged is None else judged
            position[i, here], document[i, here] = np.arange(len(ids)), number
            at += len(ids)
    return Rows(tokens, mask, position, document)


Piece = tuple[Ids, NDArray[np.uint8] | None]


def _pieces(documents: Iterable[Piece], context: int, split: bool) -> Iterator[Piece]:
    for number, (ids, mask) in enumerate(documents, 1):
        if len(ids) > context and not split:
            raise DataError(
                f"document {number} is {len(ids)} tokens long and the context is {context}; "
                f"{advice('documents', len(ids))}: cutting them would teach broken answers"
            )
        for start in range(0, len(ids), context):
            stop = start + context
            if len(ids) - start > 1:  # a single token predicts nothing
                yield ids[start:stop], None if mask is None else mask[start:stop]


def advice(what: str, length: int, limit: int | None = None) -> str:
    """What to do about ``what`` (chats, pairs) the context does not hold; ``limit`` is the most that the model reads.

    >>> advice("chats", 300, limit=256)
    'the model reads 256 at most, so leave such chats out'
    """
    if limit is not None and length > limit:
        return f"the model reads {limit} at most, so leave such {what} out"
    return f"set context to {length} or more, or leave such {what} out"


def _best_fit(pieces: Iterator[Piece], context: int) -> Iterator[list[Piece]]:
    """Rows of pieces; among the ``LOOK`` that wait, always the longest that fits."""
    waiting: list[list[Piece]] = [[] for _ in range(context + 1)]
    count = 0
    while True:
        for piece in pieces:
            waiting[len(piece[0])].append(piece)
            count += 1
            if count == LOOK:
                break
        if not count:
            return
        row, left = [], context
        while (length := next((n for n in range(left, 0, -1) if waiting[n]), 0)) > 0:
            row.append(waiting[length].pop(0))
            left -= length
        count -= len(row)
        yield row

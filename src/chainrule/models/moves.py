"""Weight moves: how a published checkpoint's tensors become a model's parameters, and back.

A move is a small invertible change of a table {name: tensor}. A family is a list of them, read forwards to load and backwards
to save, so that the two directions cannot drift apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from chainrule.core.shapes import Tensor

Tensors = dict[str, Tensor]


@runtime_checkable
class Move(Protocol):
    """One invertible change."""

    def load(self, tensors: Tensors) -> Tensors:
        """From published to ours."""
        ...

    def save(self, tensors: Tensors) -> Tensors:
        """From ours to published."""
        ...


@dataclass(frozen=True)
class Rename:
    """Names that begin with ``published`` begin with ``ours`` here; ``but`` lists names of ours to leave alone."""

    published: str
    ours: str
    but: tuple[str, ...] = ()

    def load(self, tensors: Tensors) -> Tensors:
        return {self._swap(name, self.published, self.ours): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {self._swap(name, self.ours, self.published): tensor for name, tensor in tensors.items()}

    def _swap(self, name: str, old: str, new: str) -> str:
        return new + name[len(old) :] if name.startswith(old) and not name.startswith(self.but or ("\0",)) else name


@dataclass(frozen=True)
class Transpose:
    """Matrices whose names match are stored the other way round."""

    pattern: str

    def load(self, tensors: Tensors) -> Tensors:
        return {name: t.mT.contiguous() if re.search(self.pattern, name) else t for name, t in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return self.load(tensors)


@dataclass(frozen=True)
class Permute:
    """Rope pairs neighbouring channels there and halves here: reorder the rows of q and k within each head.

    ``heads`` maps a name pattern to its number of heads.
    """

    heads: Sequence[tuple[str, int]]

    def load(self, tensors: Tensors) -> Tensors:
        return {name: self._reorder(name, t, halves=True) for name, t in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {name: self._reorder(name, t, halves=False) for name, t in tensors.items()}

    def _reorder(self, name: str, tensor: Tensor, *, halves: bool) -> Tensor:
        for pattern, n in self.heads:
            if re.search(pattern, name):
                c = tensor.shape[0] // n
                shape = (n, c // 2, 2) if halves else (n, 2, c // 2)
                return tensor.reshape(*shape, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape).contiguous()
        return tensor


def loaded(moves: Sequence[Move], tensors: Tensors) -> Tensors:
    """Published tensors as ours."""
    for move in moves:
        tensors = move.load(tensors)
    return tensors


def saved(moves: Sequence[Move], tensors: Tensors) -> Tensors:
    """Our tensors as published."""
    for move in reversed(moves):
        tensors = move.save(tensors)
    return tensors

"""Weight moves: how a published checkpoint's tensors become a model's parameters, and back.

A move is a small invertible change of a table {name: tensor}. A family is a list of them, read forwards to load and backwards
to save, so that the two directions cannot drift apart.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor

Tensors = dict[str, Tensor]
Join = Callable[[list[Tensor]], Tensor]


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
class RenamePrefix:
    """Names that begin with ``published`` begin with ``ours`` here; ``but`` lists names of ours to leave alone."""

    published: str
    ours: str
    but: tuple[str, ...] = ()

    def load(self, tensors: Tensors) -> Tensors:
        return {self._renamed(name, self.published, self.ours): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {self._renamed(name, self.ours, self.published): tensor for name, tensor in tensors.items()}

    def _renamed(self, name: str, old: str, new: str) -> str:
        return new + name[len(old) :] if name.startswith(old) and not name.startswith(self.but or ("\0",)) else name


@dataclass(frozen=True)
class Replace:
    """Wherever a name holds ``published`` it holds ``ours`` here."""

    published: str
    ours: str

    def load(self, tensors: Tensors) -> Tensors:
        return {name.replace(self.published, self.ours): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {name.replace(self.ours, self.published): tensor for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Older:
    """A part of a name that older files spell ``older``; what is saved has the newer spelling."""

    older: str
    newer: str

    def load(self, tensors: Tensors) -> Tensors:
        return {name.replace(self.older, self.newer): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return tensors


@dataclass(frozen=True)
class Drop:
    """Published tensors that are no weights of the model (tables it computes, heads it does not have); never saved."""

    pattern: str

    def load(self, tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if not re.search(self.pattern, name)}

    def save(self, tensors: Tensors) -> Tensors:
        return tensors


@dataclass(frozen=True)
class Flatten:
    """Vectors whose names match are published as the only row of a matrix."""

    pattern: str

    def load(self, tensors: Tensors) -> Tensors:
        return {name: t.flatten() if re.search(self.pattern, name) else t for name, t in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {name: t[None] if re.search(self.pattern, name) else t for name, t in tensors.items()}


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


@dataclass(frozen=True)
class Split:
    """One published tensor is several of ours, one after the other along ``dim``; the names are endings."""

    published: str
    ours: tuple[str, ...]
    sizes: tuple[int, ...]
    dim: int = 0

    def load(self, tensors: Tensors) -> Tensors:
        moved: Tensors = {}
        for name, tensor in tensors.items():
            if not name.endswith(self.published):
                moved[name] = tensor
                continue
            if tensor.shape[self.dim] != sum(self.sizes):
                raise CheckpointError(
                    f"{name} is {tuple(tensor.shape)}, but the config asks for {sum(self.sizes)} along {self.dim}; "
                    "copy both again from one place"
                )
            stem = name.removesuffix(self.published)
            moved |= dict(zip((stem + ending for ending in self.ours), tensor.split(self.sizes, self.dim), strict=True))
        return moved

    def save(self, tensors: Tensors) -> Tensors:
        return _joined(tensors, self.ours, self.published, lambda parts: torch.cat(parts, self.dim))


@dataclass(frozen=True)
class Interleave:
    """One published tensor is several of ours, interleaved along ``dim``; the names are endings."""

    published: str
    ours: tuple[str, ...]
    dim: int = 0

    def load(self, tensors: Tensors) -> Tensors:
        moved: Tensors = {}
        for name, tensor in tensors.items():
            stem = name.removesuffix(self.published)
            if stem == name:
                moved[name] = tensor
                continue
            parts = tensor.unflatten(self.dim, (-1, len(self.ours))).unbind(self.dim + 1)
            moved |= {stem + ending: part.contiguous() for ending, part in zip(self.ours, parts, strict=True)}
        return moved

    def save(self, tensors: Tensors) -> Tensors:
        def interleave(parts: list[Tensor]) -> Tensor:
            return torch.stack(parts, self.dim + 1).flatten(self.dim, self.dim + 1)

        return _joined(tensors, self.ours, self.published, interleave)


@dataclass(frozen=True)
class Stack:
    """A tensor for every expert there, one stack of them here: ``published`` is an ending with {e} for the number."""

    published: str
    ours: str

    def load(self, tensors: Tensors) -> Tensors:
        ending = re.compile("(.*)" + re.escape(self.published).replace(r"\{e\}", r"(\d{1,9})"))
        stacks: dict[str, dict[int, Tensor]] = defaultdict(dict)
        moved: Tensors = {}
        for name, tensor in tensors.items():
            if match := ending.fullmatch(name):
                stacks[match[1]][int(match[2])] = tensor
            else:
                moved[name] = tensor
        for stem, experts in stacks.items():
            missing = next((e for e in range(len(experts)) if e not in experts), None)
            if missing is not None:
                raise CheckpointError(f"{stem}{self.published.format(e=missing)} is missing; copy the files again")
            moved[stem + self.ours] = torch.stack([experts[e] for e in range(len(experts))])
        return moved

    def save(self, tensors: Tensors) -> Tensors:
        moved: Tensors = {}
        for name, tensor in tensors.items():
            stem = name.removesuffix(self.ours)
            if stem == name:
                moved[name] = tensor
            else:
                moved |= {stem + self.published.format(e=e): expert.contiguous() for e, expert in enumerate(tensor)}
        return moved


@dataclass(frozen=True)
class Inverse:
    """A move the other way round."""

    move: Move

    def load(self, tensors: Tensors) -> Tensors:
        return self.move.save(tensors)

    def save(self, tensors: Tensors) -> Tensors:
        return self.move.load(tensors)


def _joined(tensors: Tensors, endings: tuple[str, ...], whole: str, join: Join) -> Tensors:
    """Tensors that belong together by their stem and these endings, made one under the ending ``whole``."""
    moved: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith(endings[0]):
            stem = name.removesuffix(endings[0])
            moved[stem + whole] = join([tensors[stem + ending] for ending in endings])
        elif not name.endswith(endings):
            moved[name] = tensor
    return moved


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

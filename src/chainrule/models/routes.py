"""Each tensor's way through the moves, found by running them on tensors without numbers.

Moves change a whole table at once, but weights should come into memory one at a time. So the moves run first on the meta
device, where nothing is stored, while a mode of torch watches from which tensors each result was made. What belongs together (a
stack of experts and its members, a fused matrix and its parts) is a ``Route``, and the moves run again on the numbers of one
route after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.overrides import TorchFunctionMode

from chainrule.core.shapes import Tensor
from chainrule.models.moves import Move, loaded


@dataclass(frozen=True)
class Route:
    """The published tensors ``sources`` become ours: name → which of the sources went into it."""

    sources: tuple[str, ...]
    ours: dict[str, tuple[str, ...]]


def routes(moves: Sequence[Move], empty: Mapping[str, Tensor]) -> tuple[list[Route], dict[str, Tensor]]:
    """(the routes in the order of ``empty``, our tensors on the meta device) of a table of published meta tensors."""
    origins = _Origins(empty)
    with origins:
        ours = loaded(moves, dict(empty))
    made_of = {name: origins.of.get(id(tensor), set()) for name, tensor in ours.items()}
    if not all(made_of.values()):  # a move made something out of nothing: then only all together is sure to be right
        return [Route(tuple(empty), {name: tuple(empty) for name in ours})], ours
    return list(_grouped(list(empty), made_of)), ours


def _grouped(published: list[str], made_of: Mapping[str, set[str]]) -> Iterator[Route]:
    """Tensors that went into the same result belong to one route, and so do results of the same tensors."""
    order = {name: i for i, name in enumerate(published)}
    group = {name: {name} for name in published}
    for names in made_of.values():
        merged = set().union(*(group[name] for name in names))
        for name in merged:
            group[name] = merged
    ours: dict[int, dict[str, tuple[str, ...]]] = {}
    for name, names in made_of.items():
        ours.setdefault(id(group[next(iter(names))]), {})[name] = tuple(sorted(names, key=order.__getitem__))
    done: set[int] = set()
    for name in published:
        if id(group[name]) not in done:
            done.add(id(group[name]))
            yield Route(tuple(sorted(group[name], key=order.__getitem__)), ours.get(id(group[name]), {}))


class _Origins(TorchFunctionMode):
    """Remembers from which named tensors every tensor was made."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.of = {id(tensor): {name} for name, tensor in named.items()}
        self.kept = list(named.values())  # alive, so that no id is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        names = set().union(*(self.of.get(id(tensor), ()) for tensor in _tensors((args, kwargs))))
        for tensor in _tensors(args[:1] if out is None else out):  # None: written into its first argument
            self.kept.append(tensor)
            self.of[id(tensor)] = self.of.get(id(tensor), set()) | names
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)

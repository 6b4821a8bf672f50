"""Stored weights into a model: matched, moved, assigned, one at a time.

The moves run first on shapes alone, as the files' headers tell them, so that a missing, extra or misshapen tensor is an error
that names it before any memory is taken. Then each tensor goes straight into the wanted number format and device: what memory
is needed beyond the weights themselves is the one tensor on its way. One wanted as it is stored stays on its file's pages.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.adapt.int4 import GROUP, Int4Linear, Int4Stack
from chainrule.core.device import format_name
from chainrule.core.errors import CheckpointError, some
from chainrule.core.shapes import Tensor
from chainrule.hub.stored import Stored
from chainrule.hub.trace import Stopwatch, Way
from chainrule.layers.moe import Experts
from chainrule.layers.router import RouterLayer
from chainrule.models.moves import Move, loaded
from chainrule.models.routes import Route, routes

COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")
"""What old checkpoints store although every model computes it."""
TIED = {
    "lm_head.weight": "embed_tokens.weight",
    "head.words.weight": "embed_tokens.weight",
    "head.words.bias": "head.bias",
}
"""Parts of a readout that some checkpoints store although they are another tensor: the embedding table, BERT's one bias."""
MEND = "copy both again from one place"


@dataclass(frozen=True)
class Wish:
    """How the weights are wanted: floats in ``dtype`` (None: as stored) on ``device``; ``int4``: matrices in four bits.

    A router's numbers are kept at least as wide as they are stored.
    """

    dtype: torch.dtype | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    int4: bool = False


def fill(
    model: nn.Module, stored: dict[str, Stored], moves: Sequence[Move], where: Path | str, wish: Wish, watch: Stopwatch
) -> None:
    """Give a model built on the meta device its weights.

    ``stored`` is emptied on the way, so that a file's pages are given back once its last tensor is read. Raises
    ``CheckpointError`` naming what is missing, left over or of another shape, before any memory is taken.
    """
    for name in [name for name in stored if COMPUTED.search(name)]:
        watch.lap("tensor", **left_out(name, stored.pop(name), "computed by the model"))
    with fitting(where):
        ways, ours = routes(moves, {name: tensor.empty() for name, tensor in stored.items()})
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for copy in [copy for copy, one in TIED.items() if {copy, one} <= set(ours) and copy not in wanted]:
        ways = _tied_away(copy, ways, stored, moves, where, watch)
        ours.pop(copy)
    _match(wanted, {name: tuple(tensor.shape) for name, tensor in ours.items()}, where)
    watch.lap("match", f"{len(stored)} published tensors become {len(ours)} parameters and buffers")
    for route in ways:
        _take(model, route, stored, moves, wish, watch)


@contextmanager
def fitting(where: Path | str) -> Iterator[None]:
    """What breaks in a move is an error of the tensors at ``where``: half of what belongs together, or an odd shape."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{where} lacks {error}, which belongs to another of its tensors; copy it again") from error
    except (IndexError, RuntimeError) as error:  # torch's words for shapes that cannot be split or joined as the config says
        raise CheckpointError(f"{where} holds tensors of other shapes than its config asks for: {error}") from error


def _take(
    model: nn.Module, route: Route, stored: dict[str, Stored], moves: Sequence[Move], wish: Wish, watch: Stopwatch
) -> None:
    """Read the tensors of one route, move them, and hand the results to the model."""
    sources = {name: stored.pop(name) for name in route.sources}
    if not route.ours:  # not moved either: it may be half of a packed matrix, or of a stack
        for name, source in sources.items():
            watch.lap("tensor", **left_out(name, source, "of no use to the model"))
        return
    read = {name: source.read() for name, source in sources.items()}
    pages = {tensor.untyped_storage().data_ptr() for tensor in read.values()}
    for ours, tensor in loaded(moves, read).items():
        way, dtype = _put(model, ours, tensor, wish, pages)
        if watch.on:
            made_of = {name: sources[name] for name in route.ours[ours]}
            watch.lap("tensor", **_taken(ours, tuple(tensor.shape), made_of, way, dtype, wish))


def _put(model: nn.Module, name: str, tensor: Tensor, wish: Wish, pages: set[int]) -> tuple[Way, str]:
    """Put a tensor where an empty parameter or buffer is, as wished; returns its way and its number format."""
    owner, leaf = _owner(model, name)
    if wish.int4 and tensor.ndim > 1 and tensor.shape[-1] % GROUP == 0:
        if type(owner) is nn.Linear and leaf == "weight":
            parent, place = _owner(model, name.removesuffix(".weight"))
            setattr(parent, place, Int4Linear.of(tensor.to(wish.device), owner.bias))
            return "quantised", "int4"
        if isinstance(owner, Experts) and tensor.ndim == 3:  # their biases have two dimensions
            delattr(owner, leaf)  # torch puts no module where a parameter is registered
            setattr(owner, leaf, Int4Stack.of(tensor.to(wish.device)))
            return "quantised", "int4"
    dtype = wish.dtype if wish.dtype and tensor.is_floating_point() else tensor.dtype
    if isinstance(owner, RouterLayer):  # never narrowed, see there
        dtype = torch.promote_types(dtype, tensor.dtype)
    given = tensor.to(wish.device, dtype)
    parameter = isinstance(getattr(owner, leaf), nn.Parameter)
    setattr(owner, leaf, nn.Parameter(given, requires_grad=False) if parameter else given)
    if given.untyped_storage().data_ptr() in pages:
        return "mapped", format_name(given.dtype)
    return "converted" if given.dtype != tensor.dtype else "copied", format_name(given.dtype)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    module, _, leaf = name.rpartition(".")
    return model.get_submodule(module), leaf


def _tied_away(
    copy: str, ways: list[Route], stored: dict[str, Stored], moves: Sequence[Move], where: Path | str, watch: Stopwatch
) -> list[Route]:
    """Leave a stored ``copy`` of another tensor out; raises ``CheckpointError`` where it is none."""
    one = TIED[copy]
    route = {name: route for route in ways for name in route.ours}
    read = [loaded(moves, {n: stored[n].read() for n in route[name].sources})[name] for name in (copy, one)]
    if not torch.equal(*read):
        raise CheckpointError(
            f"{where}: {copy} differs from {one}, but its config ties the two; set tie_word_embeddings to false there"
        )
    for name in route[copy].sources:
        watch.lap("tensor", **left_out(name, stored.pop(name), f"a copy of {one}, which the readout is tied to"))
    return [way for way in ways if copy not in way.ours]


def _match(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: Path | str) -> None:
    extra, missing = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
    if missing or extra:
        what = [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(extra)}, which the model does not"] * bool(extra)
        raise CheckpointError(f"{where} {' and '.join(what)}; config and weights do not belong together: {MEND}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(f"{where}: {name} is {found[name]}, but the config asks for {shape}; {MEND}")


def _taken(
    ours: str, shape: tuple[int, ...], sources: Mapping[str, Stored], way: Way, dtype: str, wish: Wish
) -> dict[str, Any]:
    """What a trace hears of a tensor that the model took."""
    first = next(iter(sources.values()))
    return {
        "what": f"{some(list(sources))} → {ours}",
        "file": first.file,
        "size_bytes": sum(source.size_bytes for source in sources.values()),
        "ours": ours,
        "published": tuple(sources),
        "stored": first.format,
        "dtype": dtype,
        "shape": shape,
        "way": way,
        "device": str(wish.device),
    }


def left_out(name: str, source: Stored, why: str) -> dict[str, Any]:
    """What a trace hears of a tensor that the model has no place for."""
    return {
        "what": f"{name} is left out: {why}",
        "file": source.file,
        "size_bytes": source.size_bytes,
        "ours": "",
        "published": (name,),
        "stored": source.format,
        "dtype": "",
        "shape": source.shape,
        "way": "left out",
    }

"""What a model is made of, as far as its cost goes: parameters by part, matrices, attentions. Nothing is computed with it.

Parameters are counted by name on a model that holds shapes alone (built under ``torch.device("meta")``); how many of them a
token meets, and what its attention looks at, is read off the parts of a decoder's config by their ``kind``. Models of other
kinds are ``eval.counted``'s.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from chainrule.adapt.int4 import GROUP
from chainrule.core.errors import ConfigError
from chainrule.core.masked import Model

PARTS = ("embedding", "attention", "cells", "mlp", "experts", "router", "norms", "head", "other")
NAMES = {
    "self_attn": "attention", "cross_attn": "attention", "mlp": "mlp", "hidden_proj": "mlp", "cells": "cells",
    "lm_head": "head", "head": "head", "pooler": "head",
}  # fmt: skip
"""Parts by the name of a module: of a layer, or of what stands outside of layers."""
READERS = {"grouped_query": 3, "multi_head_latent": 2, "gated": 2, "plain": 1, "mixture_of_experts": 2}
"""How many read the normed stream, by the kind of part: its matrices, or a router and what is gathered for the experts."""


@dataclass(frozen=True)
class Matrix:
    """A matrix ``d_out × d_in`` that tokens pass; of ``stacked`` alike (experts) each token passes ``active``."""

    name: str
    part: str
    d_out: int
    d_in: int
    stacked: int = 1
    active: int = 1
    layer: int | None = None
    """Which block it stands in; None for the head."""
    packs: bool = True
    """Whether four bits may hold it: no table, no router, and no width that is not whole groups (``adapt.int4``)."""
    pieces: int | None = None
    """Into how many pieces devices can share it out, as keys' and values' into whole heads; None: into any number."""

    @property
    def size(self) -> int:
        """All of its parameters."""
        return self.stacked * self.d_out * self.d_in

    def on(self, devices: int) -> float:
        """How many of its parameters stand on each of so many devices; what has fewer pieces stands there several times.

        >>> [Matrix("k_proj", "attention", 8, 4, pieces=2).on(devices) for devices in (1, 2, 8)]
        [32.0, 16.0, 16.0]
        """
        return self.size / devices if self.pieces is None else self.size * -(-self.pieces // devices) / self.pieces

    @property
    def used(self) -> int:
        """How many of its parameters one token meets."""
        return self.active * self.d_out * self.d_in


@dataclass(frozen=True)
class Attention:
    """``heads`` compare vectors of width ``d_key`` and add up vectors of width ``d_value``.

    A cache keeps ``memory`` numbers a token, of ``groups`` heads; where it is ``latent``, of one vector for all heads, and a
    token that joins it compares and adds up vectors of those two widths.
    ``written``: the scores are written out, since no fused kernel knows their cap or sinks.
    """

    heads: int
    groups: int
    d_key: int
    d_value: int
    memory: int
    window: int | None
    chunk: int | None
    written: bool = False
    latent: tuple[int, int] | None = None

    @property
    def decoding(self) -> tuple[int, int]:
        """The widths of what one more token compares and adds up: a latent cache is read as it is (``layers.latent``)."""
        return self.latent or (self.d_key, self.d_value)

    def on(self, devices: int) -> "Attention":
        """One device's share where so many share the heads: keys and values in whole heads, and a latent vector whole.

        >>> [Attention(8, 2, 4, 4, 16, None, None).on(devices).memory for devices in (1, 2, 8)]
        [16, 8, 8]
        """
        groups = -(-self.groups // devices)
        memory = self.memory if self.latent else self.memory * groups // self.groups
        return replace(self, heads=self.heads // devices, groups=groups, memory=memory)

    def keys(self, length: int) -> float:
        """How many keys a token sees on average in a row of so many tokens, itself included.

        >>> Attention(1, 1, 8, 8, 16, None, None).keys(4), Attention(1, 1, 8, 8, 16, 2, None).keys(4)
        (2.5, 1.75)
        """
        if self.chunk is not None and self.chunk < length:
            whole, rest = divmod(length, self.chunk)
            return (whole * _triangle(self.chunk) + _triangle(rest)) / length
        seen = min(self.window or length, length)
        return (_triangle(seen) + (length - seen) * seen) / length

    def seen(self, position: int) -> int:
        """How many keys the token at ``position`` (from 0) sees."""
        if self.chunk is not None:
            return position % self.chunk + 1
        return min(position + 1, self.window or position + 1)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What can be counted of every model: parameters by part, and matrices, of which ``head`` scores words."""

    name: str
    vocab_size: int
    context: int | None
    parameters: dict[str, int]
    matrices: tuple[Matrix, ...]
    tensors: int
    table: int
    """Parameters of the largest table of vectors."""
    tied: bool

    @property
    def total(self) -> int:
        """All parameters, a tied head counted once."""
        return sum(self.parameters.values())

    @property
    def active(self) -> int:
        """The parameters that one token meets: all but the experts that were not chosen."""
        return self.total - sum(matrix.size - matrix.used for matrix in self.matrices)

    def check_length(self, length: int) -> None:
        """Raises ``ConfigError`` for rows that the model cannot read."""
        if self.context is not None and length > self.context:
            raise ConfigError(f"length={length} is more than the {self.context} tokens that {self.name} reads; lower it")

    @property
    def inside(self) -> tuple[Matrix, ...]:
        """The matrices between embedding and head."""
        return tuple(matrix for matrix in self.matrices if matrix.part != "head")

    @property
    def inner(self) -> int:
        """Their parameters."""
        return sum(matrix.size for matrix in self.inside)


@dataclass(frozen=True, kw_only=True)
class Anatomy(Parts):
    """A decoder, taken apart. ``blocks`` are the parts of its config, one per layer, each with its positions."""

    d_model: int
    blocks: tuple[Any, ...]
    attentions: tuple[Attention, ...]


def take_apart(model: Model, name: str) -> Anatomy:
    """The anatomy of a decoder; raises ``ConfigError`` for a model of another kind."""
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "kind", type(model).__name__)
    if kind != "decoder":
        raise ConfigError(f"{name} is a model of kind {kind!r}; only a decoder is taken apart block by block")
    blocks = tuple(replace(block, position=position) for block, position in zip(config.blocks, config.positions, strict=True))
    matrices = list(_matrices(model, blocks))
    if config.tied:
        matrices.append(Matrix("embed_tokens", "head", model.vocab_size, config.d_model, packs=False))
    return Anatomy(
        name=name,
        vocab_size=model.vocab_size,
        context=model.context,
        d_model=config.d_model,
        parameters=parameters_by_part(model),
        matrices=tuple(matrices),
        blocks=blocks,
        attentions=tuple(attention_of(block.attention) for block in blocks),
        tensors=len(model.state_dict()),
        table=largest_table(model),
        tied=config.tied,
    )


def largest_table(model: nn.Module) -> int:
    """Parameters of the largest table of vectors, such as that of words."""
    return max((module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding)), default=0)


def parameters_by_part(model: Model) -> dict[str, int]:
    """How many parameters each part has; a router's correction is learned too, if by no gradient."""
    parameters: dict[str, int] = defaultdict(int)
    for path, tensor in model.state_dict().items():
        parameters[part_of(path)] += tensor.numel()
    return {part: parameters[part] for part in PARTS if parameters[part]}


def part_of(path: str) -> str:
    """Which part of a model a parameter belongs to, by its name, in either stack of an encoder–decoder too.

    >>> part_of("layers.3.self_attn.q_proj.weight"), part_of("decoder.layers.3.cross_attn.q_proj.weight")
    ('attention', 'attention')
    >>> part_of("layers.3.mlp.experts.up_proj"), part_of("cells.0.weight_ih")
    ('experts', 'cells')
    """
    words = path.removeprefix("encoder.").removeprefix("decoder.").split(".")
    if any("norm" in word for word in words):
        return "norms"
    if words[0].startswith("embed"):
        return "embedding"
    if "experts" in words:
        return "experts"
    if words[-2:-1] == ["gate"] or "router" in words:
        return "router"
    return NAMES.get(words[2] if words[0] == "layers" else words[0], "other")


def _matrices(model: Model, blocks: tuple[Any, ...]) -> Iterator[Matrix]:
    """All matrices but tables of vectors; those of experts are stacked in a third axis."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for path, parameter in model.named_parameters():
        if id(parameter) in tables or parameter.ndim < 2 or path.endswith("bias"):
            continue
        words = path.removesuffix(".weight").split(".")
        layer = int(words[1]) if words[0] == "layers" else None
        *stack, d_out, d_in = parameter.shape
        part = part_of(path)
        stacked, active = 1, 1
        if stack:
            assert layer is not None
            stacked, active = stack[0], blocks[layer].mlp.router.k
        packs = d_in % GROUP == 0 and part != "router"
        pieces = None if layer is None else _pieces(words[-1], part, blocks[layer].attention)
        yield Matrix(words[-1], part, d_out, d_in, stacked, active, layer, packs, pieces)


def _pieces(name: str, part: str, attention: Any) -> int | None:
    """Into how many pieces devices can share a matrix: what all heads read, and a router, into one."""
    if part == "router" or name in ("q_a_proj", "kv_a_proj_with_mqa"):
        return 1
    return attention.n_kv_heads if attention.kind == "grouped_query" and name in ("k_proj", "v_proj") else None


def attention_of(part: Any) -> Attention:
    """An attention part's cost; raises ``ConfigError`` for a kind that is not known here."""
    memory = sum(heads * width for heads, width in part.memory)
    if part.kind == "grouped_query":
        written = part.soft_cap is not None or part.sinks
        shape = (part.n_heads, part.n_kv_heads, part.d_head, part.d_head)
        return Attention(*shape, memory, part.window, part.chunk, written)
    if part.kind == "multi_head_latent":
        shape = (part.n_heads, part.n_heads, part.d_nope + part.d_rope, part.d_value)
        return Attention(*shape, memory, None, None, latent=(part.kv_rank + part.d_rope, part.kv_rank))
    raise ConfigError(f"plan does not know the cost of an attention of kind {part.kind!r}")

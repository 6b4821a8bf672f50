"""What a model is made of, as far as its cost goes: parameters by part, matrices, attentions. Nothing is computed with it.

Parameters are counted by name on a model that holds shapes alone (built under ``torch.device("meta")``); how many of them a
token meets, and what its attention looks at, is read off the parts of the model's config by their ``kind``.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.masked import Model

PARTS = ("embedding", "attention", "mlp", "experts", "router", "norms", "head", "other")


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

    @property
    def used(self) -> int:
        """How many of its parameters one token meets."""
        return self.active * self.d_out * self.d_in


@dataclass(frozen=True)
class Attention:
    """``heads`` compare vectors of width ``d_key`` and add up vectors of width ``d_value``.

    A cache keeps ``memory`` numbers a token. ``written``: the scores are written out, since no fused kernel knows their cap
    or sinks.
    """

    heads: int
    groups: int
    d_key: int
    d_value: int
    memory: int
    window: int | None
    chunk: int | None
    written: bool = False

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


@dataclass(frozen=True)
class Anatomy:
    """A model, taken apart. ``blocks`` are the parts of its config, one per layer; ``head`` the matrix that scores words."""

    name: str
    vocab_size: int
    context: int | None
    d_model: int
    parameters: dict[str, int]
    matrices: tuple[Matrix, ...]
    blocks: tuple[Any, ...]
    attentions: tuple[Attention, ...]
    tensors: int
    tied: bool

    @property
    def total(self) -> int:
        """All parameters, a tied head counted once."""
        return sum(self.parameters.values())

    @property
    def active(self) -> int:
        """The parameters that one token meets: all but the experts that were not chosen."""
        idle = sum((matrix.stacked - matrix.active) * matrix.d_out * matrix.d_in for matrix in self.matrices)
        return self.total - idle

    @property
    def inner(self) -> int:
        """The parameters of the matrices between embedding and head."""
        return sum(m.stacked * m.d_out * m.d_in for m in self.matrices if m.part != "head")


def take_apart(model: Model, name: str) -> Anatomy:
    """The anatomy of a model; raises ``ConfigError`` for one whose cost is not known."""
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "kind", type(model).__name__)
    if kind != "decoder":
        raise ConfigError(f"{name} is a model of kind {kind!r}; plan knows the cost of decoders alone")
    blocks = config.blocks
    parameters: dict[str, int] = defaultdict(int)
    for path, tensor in model.state_dict().items():  # a router's correction is learned too, if by no gradient
        parameters[part_of(path)] += tensor.numel()
    tied = model.readout_weight is not None and not any(part_of(path) == "head" for path, _ in model.named_parameters())
    matrices = list(_matrices(model, blocks))
    width = next(module.embedding_dim for module in model.modules() if isinstance(module, nn.Embedding))
    if tied:
        matrices.append(Matrix("embed_tokens", "head", model.vocab_size, width))
    return Anatomy(
        name=name,
        vocab_size=model.vocab_size,
        context=model.context,
        d_model=width,
        parameters={part: parameters[part] for part in PARTS if parameters[part]},
        matrices=tuple(matrices),
        blocks=tuple(blocks),
        attentions=tuple(attention_of(block.attention) for block in blocks),
        tensors=len(model.state_dict()),
        tied=tied,
    )


def part_of(path: str) -> str:
    """Which part of a model a parameter belongs to, by its name.

    >>> part_of("layers.3.self_attn.q_proj.weight"), part_of("layers.3.mlp.experts.up_proj")
    ('attention', 'experts')
    """
    words = path.split(".")
    if any("norm" in word for word in words):
        return "norms"
    if words[0].startswith("embed"):
        return "embedding"
    if "experts" in words:
        return "experts"
    if words[-2:-1] == ["gate"] or "router" in words:
        return "router"
    return {"lm_head": "head", "self_attn": "attention", "mlp": "mlp"}.get(
        words[2] if words[0] == "layers" else words[0], "other"
    )


def _matrices(model: Model, blocks: tuple[Any, ...]) -> Iterator[Matrix]:
    """All matrices but tables of vectors; those of experts are stacked in a third axis."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for path, parameter in model.named_parameters():
        if id(parameter) in tables or parameter.ndim < 2 or path.endswith("bias"):
            continue
        words = path.removesuffix(".weight").split(".")
        layer = int(words[1]) if words[0] == "layers" else None
        if parameter.ndim == 2:
            yield Matrix(words[-1], part_of(path), *parameter.shape, layer=layer)
        else:
            stacked, d_out, d_in = parameter.shape
            assert layer is not None
            yield Matrix(words[-1], part_of(path), d_out, d_in, stacked, blocks[layer].mlp.router.k, layer)


def attention_of(part: Any) -> Attention:
    """An attention part's cost; raises ``ConfigError`` for a kind that is not known here."""
    memory = sum(heads * width for heads, width in part.memory)
    if part.kind == "grouped_query":
        written = part.soft_cap is not None or part.sinks
        shape = (part.n_heads, part.n_kv_heads, part.d_head, part.d_head)
        return Attention(*shape, memory, part.window, part.chunk, written)
    if part.kind == "multi_head_latent":
        return Attention(part.n_heads, part.n_heads, part.d_nope + part.d_rope, part.d_value, memory, None, None)
    raise ConfigError(f"plan does not know the cost of an attention of kind {part.kind!r}")

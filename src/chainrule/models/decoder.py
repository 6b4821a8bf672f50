"""The decoder: a Transformer assembled from parts, one block per layer, each named by its config.

    x ← embed(tokens);   x ← x + attention(norm(x));   x ← x + mlp(norm(x))   per block;   scores = norm(x) Wᵀ

Vaswani et al. 2017, arXiv:1706.03762, with norms before (Xiong et al. 2020, arXiv:2002.04745). Parameters carry the
names of published LLaMA weights, so that loading needs almost no map. What all layers share (rotary tables, masks) is
computed once per forward pass; rows that are one causal document each need no mask tensor at all.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.cache import Cache, TokenCache
from chainrule.core.datum import Given, Layout, visible
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.core.tap import Tap, tell, under
from chainrule.layers.attention import GroupedQuery, Kernel, Turn, head_width
from chainrule.layers.cache import KVCache
from chainrule.layers.init import GPT2, Init
from chainrule.layers.linear import embedding, linear, plain_weight
from chainrule.layers.mlp import Gated
from chainrule.layers.norm import LayerNorm, NoNorm, OffsetRMSNorm, RMSNorm
from chainrule.layers.position import Learned, Position
from chainrule.layers.rope import Length, Rope
from chainrule.models.blocks import AnyBlock, Block


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder as data; ``core.schema`` writes and reads it. ``context`` is the longest row it can read."""

    kind: Literal["decoder"] = "decoder"
    version: Literal[1] = 1
    vocab_size: int
    context: int
    d_model: int
    blocks: tuple[AnyBlock, ...]
    norm: RMSNorm | OffsetRMSNorm | LayerNorm | NoNorm = field(default_factory=RMSNorm)
    position: Position = field(default_factory=Rope)
    tied: bool = True
    """Whether the readout is the embedding table itself."""
    head_bias: bool = False
    embedding_scale: float = 1.0
    """What the vectors of tokens are multiplied by before they enter the stream."""
    logit_scale: float = 1.0
    logit_cap: float | None = None
    """Scores z become cap · tanh(z / cap)."""
    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "d_model"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.blocks:
            raise ConfigError("blocks is empty; a decoder needs at least one block")
        if self.tied and self.head_bias:
            raise ConfigError("a tied head is the embedding table, which has no bias; set tied=False or head_bias=False")
        if self.logit_cap is not None and self.logit_cap <= 0:
            raise ConfigError(f"logit_cap={self.logit_cap} must be positive; leave it out for none")
        for position, block in zip(self.positions, self.blocks, strict=True):
            if isinstance(position, Rope):
                position.check_width(block.attention.d_rotary)

    @property
    def positions(self) -> tuple[Position, ...]:
        """How each layer is told where its tokens stand: in its own way, or in the model's."""
        return tuple(block.position or self.position for block in self.blocks)

    @classmethod
    def uniform(
        cls,
        *,
        vocab_size: int,
        context: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        d_ff: int | None = None,
        tied: bool = True,
        theta: float = 10000.0,
        norm: RMSNorm | LayerNorm | None = None,
    ) -> "DecoderConfig":
        """LLaMA's plan with equal layers: RMSNorm, rope, SwiGLU.

        ``n_kv_heads`` is ``n_heads`` unless given, ``d_ff`` is 8/3 of ``d_model`` rounded up to a multiple of 32.
        """
        attention = GroupedQuery(n_heads=n_heads, n_kv_heads=n_kv_heads or n_heads, d_head=head_width(d_model, n_heads))
        norm = norm or RMSNorm()
        block = Block(attention=attention, mlp=Gated(d_ff=d_ff or -(-8 * d_model // 96) * 32), norm=norm)
        return cls(
            vocab_size=vocab_size,
            context=context,
            d_model=d_model,
            blocks=(block,) * n_layers,
            norm=norm,
            position=Rope(theta=theta),
            tied=tied,
        )


class Shared(NamedTuple):
    """What the layers of one forward pass share; a layer finds its own by index."""

    position: Tensor
    tables: list[Turn | None]
    masks: list[Tensor | None]
    slot: Tensor | None


class Decoder(LanguageModel):
    """A language model assembled from the parts of its config.

    ``generator`` draws the weights (None: torch's global one). Made under ``torch.device("meta")`` it holds shapes
    alone, for a loader to fill. ``kernel`` replaces the arithmetic of every attention.
    """

    def __init__(
        self, config: DecoderConfig, generator: torch.Generator | None = None, *, kernel: Kernel | None = None
    ) -> None:
        super().__init__()
        self.config, self.vocab_size, self.context = config, config.vocab_size, config.context
        self.published: Mapping[str, Any] | None = None  # the config.json it was built from
        self.embed_tokens = embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(block.build(config.d_model, kernel) for block in config.blocks)
        self.norm = config.norm.build(config.d_model)
        self.lm_head = None if config.tied else linear(config.d_model, config.vocab_size, config.head_bias)
        learned = isinstance(config.position, Learned)
        self.embed_positions = embedding(config.context, config.d_model) if learned else None
        positions = [
            (position, block.attention.d_rotary) for position, block in zip(config.positions, config.blocks, strict=True)
        ]
        self.positions, self.position_of = distinct(positions)
        self.windows, self.window_of = distinct([(block.attention.window, block.attention.chunk) for block in config.blocks])
        self.stretches = any(position.stretches for position, _ in self.positions)
        self.declared = any(kind is not None for kind in self.length_kind(1))  # whether a row's length changes its angles
        self.init(generator)

    def init(self, generator: torch.Generator | None = None, scheme: Init = GPT2) -> None:
        """Draw all matrices anew, from ``generator`` alone; on the meta device nothing is drawn."""
        if self.device.type != "meta":
            scheme.fill(self, len(self.layers), generator)

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if isinstance(cache, TokenCache):
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        memory = self._own(cache, given)
        shared = self._share(tokens, layout) if memory is None else self._share_cached(tokens, memory, layout)
        x = self.embed(tokens, shared.position)
        tell(tap, "hook_embed", x)
        for i, layer in enumerate(self.layers):
            tables, mask = shared.tables[self.position_of[i]], shared.masks[self.window_of[i]]
            remember = None if memory is None or shared.slot is None else partial(memory.store, i, shared.slot)
            x = layer(x, tables, mask, remember, under(f"blocks.{i}.", tap))
        x = self.norm(x)
        tell(tap, "ln_final.hook_normalized", x)
        return x

    def embed(self, tokens: Int[Tensor, "b t"], position: Int[Tensor, "#b t"]) -> Float[Tensor, "b t d"]:
        """The vectors of tokens, and of their places where those are learned."""
        x = self.embed_tokens(tokens)
        if self.config.embedding_scale != 1:
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype, device=x.device)  # rounded as published models do
        if self.embed_positions is None:
            return x
        if position.device.type == "cpu" and not torch.compiler.is_compiling() and int(position.max()) >= self.config.context:
            raise RequestError(
                f"a token stands at {int(position.max())}, but this model knows {self.config.context} places; cut it"
            )
        return x + self.embed_positions(position)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        scores = F.linear(hidden, self.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)
        if self.config.logit_scale != 1:
            scores = scores * self.config.logit_scale
        cap = self.config.logit_cap
        return scores if cap is None else cap * torch.tanh(scores / cap)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        if self.config.logit_cap is not None or self.config.logit_scale != 1:
            return None
        return plain_weight(self.embed_tokens if self.lm_head is None else self.lm_head)

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> KVCache:
        self._own(None, given)
        shapes = [block.attention.memory for block in self.config.blocks]
        dtype = self.embed_tokens.weight.dtype
        return KVCache(rows, self.checked_capacity(capacity), shapes, device=self.device, dtype=dtype)

    def checked_capacity(self, capacity: int) -> int:
        """``capacity``, unless the model cannot read rows that long; a dynamic rope stretches to any."""
        return capacity if self.stretches and capacity >= 1 else super().checked_capacity(capacity)

    def length_kind(self, capacity: int) -> tuple[Hashable, ...]:
        return tuple(position.length_kind(capacity) for position, _ in self.positions if isinstance(position, Rope))

    def _own(self, cache: Cache | None, given: Given | None) -> KVCache | None:
        """The cache as this model's own; anything else, and any condition, is refused."""
        self.check_given(given)
        if cache is not None and not isinstance(cache, KVCache):
            raise ConfigError(f"a Decoder reads a KVCache, not a {type(cache).__name__}; use model.cache()")
        return cache

    def _share(self, tokens: Int[Tensor, "b t"], layout: Layout | None) -> Shared:
        """Tables and masks of rows that are read whole: each document is declared as long as it is."""
        t = tokens.shape[1]
        if layout is None and t > self.config.context and not self.stretches:
            raise RequestError(f"a row of {t} tokens is too long: this model reads at most {self.config.context}; cut it")
        where = Layout.plain(tokens[:1]) if layout is None else layout  # one row's positions speak for all
        length = t if layout is None or not self.declared else where.sizes
        return Shared(where.position, self._tables(where, length), self._masks(where, where, layout is None), None)

    def _share_cached(self, tokens: Int[Tensor, "b t"], cache: KVCache, layout: Layout | None) -> Shared:
        """Tables and masks of tokens that continue the rows of a cache, and the slots that they take there."""
        where = cache.layout(tokens, layout)
        slot = cache.append(where, plain=layout is None)
        masks = self._masks(where, cache.layout_of_keys, cache.even)
        return Shared(where.position, self._tables(where, cache.capacity), masks, slot)

    def _tables(self, where: Layout, length: Length) -> list[Turn | None]:
        return [position.tables(where.position, d_head, length) for position, d_head in self.positions]

    def _masks(self, query: Layout, key: Layout, even: bool) -> list[Tensor | None]:
        return [mask_of(query, key, window, chunk, even) for window, chunk in self.windows]


def mask_of(query: Layout, key: Layout, window: int | None, chunk: int | None, even: bool) -> Bool[Tensor, "b t s"] | None:
    """The one mask rule, or None where rows are plain (``even``) and no window or chunk cuts them.

    Padding sees everything, since a query that saw nothing would be 0/0; nobody looks at what it finds.
    """
    longest = key.position.shape[1]
    if even and (window or longest) >= longest and (chunk or longest) >= longest:
        return None
    return visible(query, key, window, chunk) | ~query.real[:, :, None]


def distinct(items: list) -> tuple[list, list[int]]:
    """The different items in order of appearance, and for each item the place of its like.

    >>> distinct(["a", "b", "a"])
    (['a', 'b'], [0, 1, 0])
    """
    different = list(dict.fromkeys(items))
    return different, [different.index(item) for item in items]

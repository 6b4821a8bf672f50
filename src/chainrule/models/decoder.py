"""The decoder: a Transformer assembled from parts, one block per layer, each named by its config.

    x ← embed(tokens);   x ← x + attention(norm(x));   x ← x + mlp(norm(x))   per block;   scores = norm(x) Wᵀ

Vaswani et al. 2017, arXiv:1706.03762, with norms before (Xiong et al. 2020, arXiv:2002.04745). Parameters carry the
names of published LLaMA weights, so that loading needs almost no map. What all layers share (rotary tables, masks) is
computed once per forward pass; rows that are one causal document each need no mask tensor at all.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.cache import Cache, TokenCache
from chainrule.core.datum import Given, Layout, visible
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.model import LanguageModel, Tap, replay
from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.layers.attention import GroupedQuery, Kernel, Remember
from chainrule.layers.cache import KVCache
from chainrule.layers.init import GPT2, Init
from chainrule.layers.linear import embedding, linear
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.rope import NoPosition, Rope, Tables


@dataclass(frozen=True, kw_only=True)
class Block:
    """One layer: attention, then mlp, each reading a normed stream and adding to the stream itself."""

    kind: Literal["pre_norm"] = "pre_norm"
    attention: GroupedQuery
    mlp: Gated | Plain
    norm: RMSNorm | LayerNorm = field(default_factory=RMSNorm)
    position: Rope | NoPosition | None = None
    """This layer's own positions; None takes the decoder's."""

    def build(self, d_model: int, kernel: Kernel | None = None) -> nn.Module:
        """The layer of a stream of width ``d_model``; ``kernel`` replaces the attention's arithmetic."""
        return BlockLayer(self, d_model, kernel)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder as data; ``core.schema`` writes and reads it. ``context`` is the longest row it can read."""

    kind: Literal["decoder"] = "decoder"
    version: Literal[1] = 1
    vocab_size: int
    context: int
    d_model: int
    blocks: tuple[Block, ...]
    norm: RMSNorm | LayerNorm = field(default_factory=RMSNorm)
    position: Rope | NoPosition = field(default_factory=Rope)
    tied: bool = True
    """Whether the readout is the embedding table itself."""
    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "d_model"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.blocks:
            raise ConfigError("blocks is empty; a decoder needs at least one block")

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
        if n_heads < 1 or d_model % n_heads:
            raise ConfigError(f"d_model={d_model} is not a multiple of n_heads={n_heads}")
        attention = GroupedQuery(n_heads=n_heads, n_kv_heads=n_kv_heads or n_heads, d_head=d_model // n_heads)
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


class BlockLayer(nn.Module):
    """x + attention(norm(x)), then + mlp(norm(·))."""

    def __init__(self, block: Block, d_model: int, kernel: Kernel | None) -> None:
        super().__init__()
        self.input_layernorm = block.norm.build(d_model)
        self.self_attn = block.attention.build(d_model, kernel)
        self.post_attention_layernorm = block.norm.build(d_model)
        self.mlp = block.mlp.build(d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        tables: Tables | None,
        mask: Bool[Tensor, "_ t s"] | None,
        remember: Remember | None,
        tap: Tap | None,
    ) -> Float[Tensor, "b t d"]:
        if tap is not None:
            return self.tapped(x, tables, mask, remember, tap)
        x = x + self.self_attn(self.input_layernorm(x), tables, mask, remember)
        return x + self.mlp(self.post_attention_layernorm(x))

    def tapped(
        self,
        x: Float[Tensor, "b t d"],
        tables: Tables | None,
        mask: Bool[Tensor, "_ t s"] | None,
        remember: Remember | None,
        tap: Tap,
    ) -> Float[Tensor, "b t d"]:
        """The same sums, each shown to the tap."""
        tap("hook_resid_pre", x)
        out = self.self_attn(self.input_layernorm(x), tables, mask, remember, under("attn.", tap))
        tap("hook_attn_out", out)
        x = x + out
        tap("hook_resid_mid", x)
        out = self.mlp(self.post_attention_layernorm(x))
        tap("hook_mlp_out", out)
        x = x + out
        tap("hook_resid_post", x)
        return x


def under(prefix: str, tap: Tap) -> Tap:
    """A tap that puts ``prefix`` before every name."""
    return lambda name, tensor: tap(prefix + name, tensor)


class Shared(NamedTuple):
    """What the layers of one forward pass share; a layer finds its own by index."""

    tables: list[Tables | None]
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
        self.embed_tokens = embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(block.build(config.d_model, kernel) for block in config.blocks)
        self.norm = config.norm.build(config.d_model)
        self.lm_head = None if config.tied else linear(config.d_model, config.vocab_size)
        positions = [(block.position or config.position, block.attention.d_head) for block in config.blocks]
        self.positions, self.position_of = distinct(positions)
        self.windows, self.window_of = distinct([block.attention.window for block in config.blocks])
        self.stretches = any(position.stretches for position, _ in self.positions)
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
        x = self.embed_tokens(tokens)
        if tap is not None:
            tap("hook_embed", x)
        for i, layer in enumerate(self.layers):
            tables, mask = shared.tables[self.position_of[i]], shared.masks[self.window_of[i]]
            remember = None if memory is None or shared.slot is None else partial(memory.store, i, shared.slot)
            x = layer(x, tables, mask, remember, None if tap is None else under(f"blocks.{i}.", tap))
        x = self.norm(x)
        if tap is not None:
            tap("ln_final.hook_normalized", x)
        return x

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return F.linear(hidden, self.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        # exactly these types: a wrapped head (an adapter, a quantizer) may do more than multiply
        plain = type(head) in (nn.Embedding, nn.Linear) and getattr(head, "bias", None) is None
        return head.weight if plain else None

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> KVCache:
        self._own(None, given)
        shapes = [(block.attention.n_kv_heads, block.attention.d_head) for block in self.config.blocks]
        dtype = self.embed_tokens.weight.dtype
        return KVCache(rows, self.checked_capacity(capacity), shapes, device=self.device, dtype=dtype)

    def checked_capacity(self, capacity: int) -> int:
        """``capacity``, unless the model cannot read rows that long; a dynamic rope stretches to any."""
        return capacity if self.stretches and capacity >= 1 else super().checked_capacity(capacity)

    def _own(self, cache: Cache | None, given: Given | None) -> KVCache | None:
        """The cache as this model's own; anything else, and any condition, is refused."""
        if given is not None:
            raise ConfigError(f"this decoder reads tokens alone; it cannot be given {', '.join(given)}")
        if cache is not None and not isinstance(cache, KVCache):
            raise ConfigError(f"a Decoder reads a KVCache, not a {type(cache).__name__}; use model.cache()")
        return cache

    def _share(self, tokens: Int[Tensor, "b t"], layout: Layout | None) -> Shared:
        """Tables and masks of rows that are read whole."""
        t = tokens.shape[1]
        if layout is None and t > self.config.context and not self.stretches:
            raise RequestError(f"a row of {t} tokens is too long: this model reads at most {self.config.context}; cut it")
        where = Layout.plain(tokens[:1]) if layout is None else layout  # one row's positions speak for all
        return Shared(self._tables(where, max(self.config.context, t)), self._masks(where, where, layout is None), None)

    def _share_cached(self, tokens: Int[Tensor, "b t"], cache: KVCache, layout: Layout | None) -> Shared:
        """Tables and masks of tokens that continue the rows of a cache, and the slots that they take there."""
        where = cache.layout(tokens, layout)
        slot = cache.append(where, plain=layout is None)
        masks = self._masks(where, cache.layout_of_keys, cache.even)
        return Shared(self._tables(where, cache.capacity), masks, slot)

    def _tables(self, where: Layout, length: int) -> list[Tables | None]:
        return [position.tables(where.position, d_head, length) for position, d_head in self.positions]

    def _masks(self, query: Layout, key: Layout, even: bool) -> list[Tensor | None]:
        return [mask_of(query, key, window, even) for window in self.windows]


def mask_of(query: Layout, key: Layout, window: int | None, even: bool) -> Bool[Tensor, "b t s"] | None:
    """The one mask rule, or None where rows are plain (``even``) and no window cuts them.

    Padding sees everything, since a query that saw nothing would be 0/0; nobody looks at what it finds.
    """
    if even and (window is None or window >= key.position.shape[1]):
        return None
    return visible(query, key, window) | ~query.real[:, :, None]


def distinct(items: list) -> tuple[list, list[int]]:
    """The different items in order of appearance, and for each item the place of its like.

    >>> distinct(["a", "b", "a"])
    (['a', 'b'], [0, 1, 0])
    """
    different = list(dict.fromkeys(items))
    return different, [different.index(item) for item in items]

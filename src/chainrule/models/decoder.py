"""The decoder, assembled from parts: embed, then blocks of attention and mlp around one residual stream, then read off.

    h ← h + attention(norm(h));   h ← h + mlp(norm(h));   scores = head(norm(h))

Pre-norm residual stream: Xiong et al. 2020, arXiv:2002.04745. What a layer is made of is data (``Block``), so layers may
differ. Parameters bear the names of published LLaMA checkpoints, without their ``model.`` prefix.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from chainrule.core.cache import Cache
from chainrule.core.datum import Given, Layout, visible
from chainrule.core.errors import ConfigError
from chainrule.core.model import LanguageModel, Tap
from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.layers.attention import GroupedQuery, Kernel
from chainrule.layers.cache import KVCache
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.rope import Rope, Turns, turns


@dataclass(frozen=True, kw_only=True)
class Block:
    """One layer: an attention, an mlp, and the norm before each."""

    attention: GroupedQuery
    mlp: Gated | Plain
    norm: RMSNorm | LayerNorm = field(default_factory=RMSNorm)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A decoder as data: one ``Block`` per layer."""

    kind: Literal["decoder"] = "decoder"
    version: int = 1
    vocab_size: int
    d_model: int
    context: int
    blocks: tuple[Block, ...]
    norm: RMSNorm | LayerNorm = field(default_factory=RMSNorm)
    position: Rope = field(default_factory=Rope)
    tied: bool = False

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ConfigError(f"this decoder config has version {self.version}; this chainrule reads version 1")
        if not self.blocks or min(self.vocab_size, self.d_model, self.context) < 1:
            raise ConfigError(
                f"a decoder needs layers, words, channels and positions, but has {len(self.blocks)} blocks, "
                f"vocab_size={self.vocab_size}, d_model={self.d_model}, context={self.context}"
            )

    @classmethod
    def uniform(
        cls,
        *,
        n_layers: int,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        d_mlp: int,
        norm: RMSNorm | None = None,
        **rest: Any,
    ) -> "DecoderConfig":
        """LLaMA's shape: ``n_layers`` equal blocks of RMSNorm, grouped-query attention and a gated mlp."""
        if d_model % n_heads:
            raise ConfigError(f"d_model={d_model} is not a multiple of n_heads={n_heads}")
        norm = norm or RMSNorm()
        heads = GroupedQuery(n_heads=n_heads, n_kv_heads=n_kv_heads or n_heads, d_head=d_model // n_heads)
        block = Block(attention=heads, mlp=Gated(d_mlp=d_mlp), norm=norm)
        return cls(d_model=d_model, blocks=(block,) * n_layers, norm=norm, **rest)


class BlockLayer(nn.Module):
    """One block at work."""

    def __init__(self, block: Block, width: int, kernel: Kernel | None) -> None:
        super().__init__()
        self.window = block.attention.window
        self.input_layernorm = block.norm.build(width)
        self.self_attn = block.attention.build(width, kernel=kernel)
        self.post_attention_layernorm = block.norm.build(width)
        self.mlp = block.mlp.build(width)

    def forward(
        self,
        h: Float[Tensor, "b t d"],
        by: Turns,
        mask: Bool[Tensor, "b t s"] | None,
        memory: tuple[KVCache, int] | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """One step down the residual stream."""
        if tap is None:
            h = h + self.self_attn(self.input_layernorm(h), by, mask, memory)
            return h + self.mlp(self.post_attention_layernorm(h))
        tap("hook_resid_pre", h)
        heard = self.self_attn(self.input_layernorm(h), by, mask, memory, tap)
        tap("hook_attn_out", heard)
        h = h + heard
        tap("hook_resid_mid", h)
        thought = self.mlp(self.post_attention_layernorm(h))
        tap("hook_mlp_out", thought)
        h = h + thought
        tap("hook_resid_post", h)
        return h


class Decoder(LanguageModel):
    """A decoder of the given config. ``kernel`` exchanges the attention kernel of every layer."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        generator: torch.Generator | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__()
        self.config, self.vocab_size, self.context = config, config.vocab_size, config.context
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(BlockLayer(block, config.d_model, kernel) for block in config.blocks)
        self.norm = config.norm.build(config.d_model)
        self.lm_head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        if generator is not None:
            self.initialize(generator)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw fresh weights: normal with deviation 0.02, smaller by √(2 layers) where a layer writes to the stream."""
        writes = 0.02 / math.sqrt(2 * len(self.layers))
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                std = writes if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                parameter.normal_(0.0, std, generator=generator)

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if given is not None:
            raise ConfigError(f"a decoder takes no condition, but was given {sorted(given)}")
        new, seen = self.place(tokens, cache, layout)
        capacity = tokens.shape[1] if cache is None else cache.capacity
        by = self.turns(new.position, capacity)
        masks = {window: self.mask(new, seen, window) for window in {layer.window for layer in self.layers}}
        if cache is None and layout is None and tokens.shape[1] > 1:
            masks[None] = None  # the kernel's own causal mask: one document from its beginning
        h = self.embed_tokens(tokens)
        if tap is not None:
            tap("hook_embed", h)
        for i, layer in enumerate(self.layers):
            memory = None if cache is None else (cache, i)
            h = layer(h, by, masks[layer.window], memory, _within(tap, i))
        h = self.norm(h)
        if tap is not None:
            tap("ln_final.hook_normalized", h)
        return h

    def place(self, tokens: Tensor, cache: Cache | None, layout: Layout | None) -> tuple[Layout, Layout]:
        """Where the new tokens stand, and everything they might see."""
        if cache is None:
            if tokens.shape[1] > self.context:
                raise ConfigError(f"a row of {tokens.shape[1]} tokens does not fit a context of {self.context}")
            new = Layout.plain(tokens) if layout is None else layout
            return new, new
        if not isinstance(cache, KVCache):
            raise ConfigError(f"a decoder reads a KVCache, not a {type(cache).__name__}; make it with model.cache()")
        new = cache.layout(tokens, layout)
        return new, cache.extend(new)

    @staticmethod
    def mask(new: Layout, seen: Layout, window: int | None) -> Bool[Tensor, "b t s"]:
        """The one mask rule; padding, which sees nothing, looks at everything rather than divide by zero."""
        mask = visible(new, seen, window)
        return mask | ~mask.any(-1, keepdim=True)

    def turns(self, position: Int[Tensor, "b t"], length: int) -> Turns:
        """Rope's cosines and sines at these positions, for rows declared to reach ``length`` tokens."""
        c = self.config.blocks[0].attention.d_head
        return turns(self.config.position.frequencies(c, length, position.device), position)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return nn.functional.linear(hidden, self.readout_weight)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"]:
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> KVCache:
        """A contiguous key/value cache in the format of the weights."""
        heads = [(block.attention.n_kv_heads, block.attention.d_head) for block in self.config.blocks]
        weight = self.embed_tokens.weight
        capacity = self.checked_capacity(capacity)
        return KVCache(rows, capacity, layers=heads, dtype=weight.dtype, device=weight.device, given=given)


def _within(tap: Tap | None, layer: int) -> Tap | None:
    return None if tap is None else lambda name, tensor: tap(f"blocks.{layer}.{name}", tensor)

"""Grouped-query attention: several query heads share one key/value head.

    attend(q, k, v) = softmax(q kᵀ / √c + mask) v

Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245. Optional: a window of the last keys
(Beltagy et al. 2020, arXiv:2004.05150) or chunks (Llama 4), norms of q and k (Henry et al. 2020, arXiv:2010.04245), a soft
cap on the scores (Gemma 2, arXiv:2408.00118) and sinks, a score per head that takes its share of the softmax and gives
nothing (gpt-oss, arXiv:2508.10925). Dropout is left out: no recipe uses it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.core.tap import Tap, wants
from chainrule.layers.linear import linear
from chainrule.layers.norm import LayerNorm, OffsetRMSNorm, RMSNorm, UnitRMSNorm

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""The seam for another implementation of ``attend``: (q, k, v, mask) -> b t h*c, with the same meaning."""

SHORT = 256
"""Rows of so many tokens, there and back: 128 take a quarter of bf16's time in float32, 256 two thirds, 512 as long."""

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A layer's memory: takes the new keys and values ``b t g c``, gives all of the row's, ``b g s c``."""


@runtime_checkable
class Turn(Protocol):
    """What a position part makes of its positions: a change of queries and keys before they meet."""

    def turn(
        self, q: Float[Tensor, "b t h c"], k: Float[Tensor, "b t g c"]
    ) -> tuple[Float[Tensor, "b t h c"], Float[Tensor, "b t g c"]]:
        """Queries and keys that know where they stand."""
        ...


@dataclass(frozen=True, kw_only=True)
class QKNorm:
    """Norms of queries and keys: ``over`` each head's channels or all at once (``row``), before or after rope."""

    kind: Literal["qk_norm"] = "qk_norm"
    norm: RMSNorm | OffsetRMSNorm | UnitRMSNorm | LayerNorm
    over: Literal["head", "row"] = "head"
    after_rope: bool = False

    def __post_init__(self) -> None:
        if self.after_rope and self.over == "row":
            raise ConfigError("a norm over the whole row of queries comes before rope; set after_rope=False or over='head'")


@dataclass(frozen=True, kw_only=True)
class GroupedQuery:
    """``n_heads`` query heads of width ``d_head`` in ``n_kv_heads`` groups; one group is multi-query attention."""

    kind: Literal["grouped_query"] = "grouped_query"
    n_heads: int
    n_kv_heads: int
    d_head: int
    qkv_bias: bool = False
    o_bias: bool = False
    window: int | None = None
    """How many keys a query sees, itself included; None sees all."""
    chunk: int | None = None
    """Documents fall into pieces of so many tokens that do not see each other; None: they do not."""
    qk_norm: QKNorm | None = None
    soft_cap: float | None = None
    """Scores s become cap · tanh(s / cap)."""
    sinks: bool = False
    scale: float | None = None
    """What scores are multiplied by; None is 1/√d_head."""

    def __post_init__(self) -> None:
        if min(self.n_heads, self.n_kv_heads) < 1 or self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")
        if self.d_head < 2 or self.d_head % 2:
            raise ConfigError(f"d_head={self.d_head} must be even: channels are rotated in pairs")
        for name, value in (("window", self.window), ("chunk", self.chunk)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1, the query itself; leave it out to see all")
        for name, value in (("soft_cap", self.soft_cap), ("scale", self.scale)):
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} must be positive; leave it out for none")

    @property
    def d_rotary(self) -> int:
        """How wide the vectors are that positions turn."""
        return self.d_head

    @property
    def memory(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(heads, width) of the keys and of the values that a cache keeps."""
        return (self.n_kv_heads, self.d_head), (self.n_kv_heads, self.d_head)

    def build(self, d_model: int, kernel: Kernel | None = None) -> nn.Module:
        """The attention of a stream of width ``d_model``; ``kernel`` replaces ``attend``."""
        return GroupedQueryLayer(self, d_model, kernel)


class GroupedQueryLayer(nn.Module):
    """q, k, v from the stream; rotate, remember, attend; back to the stream."""

    def __init__(self, part: GroupedQuery, d_model: int, kernel: Kernel | None = None) -> None:
        super().__init__()
        self.part, self.d_head, self.soft_cap = part, part.d_head, part.soft_cap
        queries, keys = part.n_heads * part.d_head, part.n_kv_heads * part.d_head
        self.q_proj = linear(d_model, queries, part.qkv_bias)
        self.k_proj = linear(d_model, keys, part.qkv_bias)
        self.v_proj = linear(d_model, keys, part.qkv_bias)
        self.o_proj = linear(queries, d_model, part.o_bias)
        self.q_norm = self.k_norm = None
        if part.qk_norm is not None:
            widths = (queries, keys) if part.qk_norm.over == "row" else (part.d_head, part.d_head)
            self.q_norm, self.k_norm = (part.qk_norm.norm.build(width) for width in widths)
        self.sinks = nn.Parameter(torch.zeros(part.n_heads)) if part.sinks else None
        self.kernel = kernel

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        tables: Turn | None,
        mask: Bool[Tensor, "#b t s"] | None = None,
        remember: Remember | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The update of the stream. ``mask`` None: the tokens are the last of plain causal rows."""
        q, k, v = self.heads(x, tap)
        if tables is not None:
            q, k = tables.turn(q, k)
        if self.part.qk_norm is not None and self.part.qk_norm.after_rope:
            q, k = self.normed(q, k)
        keys, values = (k.transpose(1, 2), v.transpose(1, 2)) if remember is None else remember(k, v)
        q = scaled(q, self.part.scale).transpose(1, 2)  # b t h c -> b h t c
        z = self.attend(q, keys, values, mask)
        if tap is not None:
            if wants(tap, "hook_pattern"):
                tap("hook_pattern", pattern(q, keys, mask, self.soft_cap, self.sinks))
            tap("hook_z", z.unflatten(-1, (-1, self.d_head)))
        return self.o_proj(z)

    def heads(self, x: Float[Tensor, "b t d"], tap: Tap | None) -> tuple[Tensor, Tensor, Tensor]:
        """q ``b t h c``, k and v ``b t g c``, not yet rotated."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        norm = self.part.qk_norm
        if norm is not None and norm.over == "row":
            q, k = self.normed(q, k)
        q, k, v = (y.unflatten(-1, (-1, self.d_head)) for y in (q, k, v))
        if norm is not None and norm.over == "head" and not norm.after_rope:
            q, k = self.normed(q, k)
        if tap is not None:
            for name, tensor in (("hook_q", q), ("hook_k", k), ("hook_v", v)):
                tap(name, tensor)
        return q, k, v

    def normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys under their norms."""
        assert self.q_norm is not None
        assert self.k_norm is not None
        return self.q_norm(q), self.k_norm(k)

    def attend(
        self,
        q: Float[Tensor, "b h t c"],
        k: Float[Tensor, "b g s c"],
        v: Float[Tensor, "b g s c"],
        mask: Bool[Tensor, "#b t s"] | None,
    ) -> Float[Tensor, "b t h*c"]:
        """The kernel that was given, else the one that this part's behaviour needs."""
        if self.kernel is not None:
            return self.kernel(q, k, v, mask)
        if self.soft_cap is None and self.sinks is None:
            return attend(q, k, v, mask)
        return attend_written(q, k, v, mask, cap=self.soft_cap, sinks=self.sinks)


def head_width(d_model: int, n_heads: int) -> int:
    """The width of each of ``n_heads`` heads that share a stream of width ``d_model``; it must divide evenly."""
    if n_heads < 1 or d_model % n_heads:
        raise ConfigError(f"d_model={d_model} is not a multiple of n_heads={n_heads}")
    return d_model // n_heads


def scaled(q: Float[Tensor, "b t h c"], scale: float | None) -> Float[Tensor, "b t h c"]:
    """Queries such that every kernel may go on dividing by √c where scores are to be multiplied by ``scale``."""
    return q if scale is None else q * (scale * math.sqrt(q.shape[-1]))


def attend(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    v: Float[Tensor, "b g s w"],
    mask: Bool[Tensor, "#b t s"] | None = None,
) -> Float[Tensor, "b t h*w"]:
    """softmax(q kᵀ / √c) v over the keys that ``mask`` shows; without one, queries are the last t of s causal keys."""
    t, s = q.shape[2], k.shape[2]
    if slow_in_bf16(q):
        with torch.autocast("cpu", enabled=False):
            return attend(q.float(), k.float(), v.float(), mask).to(q.dtype)
    if mask is None and 1 < t < s:
        mask = causal(t, s, q.device)[None]
    y = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if mask is None else mask[:, None],
        is_causal=mask is None and t == s and t > 1,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return y.transpose(1, 2).flatten(2)  # b h t w -> b t (h w)


def slow_in_bf16(q: Float[Tensor, "b h t c"]) -> bool:
    """Whether float32 is faster: on a CPU torch takes the longer over the slopes of bf16 attention the shorter the rows are."""
    short = q.dtype == torch.bfloat16 and q.shape[2] <= SHORT
    return short and q.device.type == "cpu" and torch.is_grad_enabled()


def attend_written(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    v: Float[Tensor, "b g s w"],
    mask: Bool[Tensor, "#b t s"] | None = None,
    *,
    cap: float | None = None,
    sinks: Float[Tensor, "h"] | None = None,
) -> Float[Tensor, "b t h*w"]:
    """``attend`` written out, with scores kept within ±cap and sinks: no fused kernel knows either."""
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    y = pattern(q, k, mask, cap, sinks).to(v.dtype) @ v
    return y.transpose(1, 2).flatten(2)  # b h t w -> b t (h w)


def pattern(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    mask: Bool[Tensor, "#b t s"] | None = None,
    cap: float | None = None,
    sinks: Float[Tensor, "h"] | None = None,
) -> Float[Tensor, "b h t s"]:
    """The attention weights themselves, in float32, which the fused kernels never write down."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.float() @ k.float().mT / math.sqrt(q.shape[-1])
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    seen = causal(q.shape[2], k.shape[2], q.device)[None, None] if mask is None else mask[:, None]
    # the least finite number instead of −inf: a row that sees nothing (padding) stays finite
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    if sinks is None:
        return scores.softmax(dim=-1)
    sink = sinks.float()[:, None, None].expand(*scores.shape[:3], 1)
    return torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]


def causal(t: int, s: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """Which of s keys each of the last t tokens sees: all up to itself."""
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)

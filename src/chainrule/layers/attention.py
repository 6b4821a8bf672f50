"""Grouped-query attention: several query heads share one key/value head.

    attend(q, k, v) = softmax(q kᵀ / √c + mask) v

Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245. Optional: a window of the last keys
(Beltagy et al. 2020, arXiv:2004.05150), norms of q and k per head (Henry et al. 2020, arXiv:2010.04245) and a soft cap
on the scores (Gemma 2, arXiv:2408.00118). Dropout is left out: no recipe uses it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.layers.linear import linear
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.rope import Tables, rotate

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""The seam for another implementation of ``attend``: (q, k, v, mask) -> b t h*c, with the same meaning."""

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A layer's memory: takes the new keys and values ``b t g c``, gives all of the row's, ``b g s c``."""

Tap = Callable[[str, Tensor], None]


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
    qk_norm: RMSNorm | LayerNorm | None = None
    soft_cap: float | None = None
    """Scores s become cap · tanh(s / cap)."""

    def __post_init__(self) -> None:
        if min(self.n_heads, self.n_kv_heads) < 1 or self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")
        if self.d_head < 2 or self.d_head % 2:
            raise ConfigError(f"d_head={self.d_head} must be even: channels are rotated in pairs")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"window={self.window} must be at least 1, the query itself; leave it out to see all")
        if self.soft_cap is not None and self.soft_cap <= 0:
            raise ConfigError(f"soft_cap={self.soft_cap} must be positive; leave it out for none")

    def build(self, d_model: int, kernel: Kernel | None = None) -> nn.Module:
        """The attention of a stream of width ``d_model``; ``kernel`` replaces ``attend``."""
        return GroupedQueryLayer(self, d_model, kernel)


class GroupedQueryLayer(nn.Module):
    """q, k, v from the stream; rotate, remember, attend; back to the stream."""

    def __init__(self, part: GroupedQuery, d_model: int, kernel: Kernel | None = None) -> None:
        super().__init__()
        self.d_head, self.soft_cap = part.d_head, part.soft_cap
        self.q_proj = linear(d_model, part.n_heads * part.d_head, part.qkv_bias)
        self.k_proj = linear(d_model, part.n_kv_heads * part.d_head, part.qkv_bias)
        self.v_proj = linear(d_model, part.n_kv_heads * part.d_head, part.qkv_bias)
        self.o_proj = linear(part.n_heads * part.d_head, d_model, part.o_bias)
        self.q_norm = None if part.qk_norm is None else part.qk_norm.build(part.d_head)
        self.k_norm = None if part.qk_norm is None else part.qk_norm.build(part.d_head)
        self.kernel = kernel or (attend if part.soft_cap is None else partial(attend_capped, cap=part.soft_cap))

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        tables: Tables | None,
        mask: Bool[Tensor, "#b t s"] | None = None,
        remember: Remember | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The update of the stream. ``mask`` None: the tokens are the last of plain causal rows."""
        q, k, v = self.heads(x, tap)
        if tables is not None:
            q, k = rotate(q, tables), rotate(k, tables)
        keys, values = (k.transpose(1, 2), v.transpose(1, 2)) if remember is None else remember(k, v)
        q = q.transpose(1, 2)  # b t h c -> b h t c
        z = self.kernel(q, keys, values, mask)
        if tap is not None:
            tap("hook_pattern", pattern(q, keys, mask, self.soft_cap))
            tap("hook_z", z.unflatten(-1, (-1, self.d_head)))
        return self.o_proj(z)

    def heads(self, x: Float[Tensor, "b t d"], tap: Tap | None) -> tuple[Tensor, Tensor, Tensor]:
        """q ``b t h c``, k and v ``b t g c``, not yet rotated."""
        q, k, v = (proj(x).unflatten(-1, (-1, self.d_head)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if tap is not None:
            for name, tensor in (("hook_q", q), ("hook_k", k), ("hook_v", v)):
                tap(name, tensor)
        return q, k, v


def attend(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    v: Float[Tensor, "b g s c"],
    mask: Bool[Tensor, "#b t s"] | None = None,
) -> Float[Tensor, "b t h*c"]:
    """softmax(q kᵀ / √c) v over the keys that ``mask`` shows; without one, queries are the last t of s causal keys."""
    t, s = q.shape[2], k.shape[2]
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
    return y.transpose(1, 2).flatten(2)  # b h t c -> b t (h c)


def attend_capped(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    v: Float[Tensor, "b g s c"],
    mask: Bool[Tensor, "#b t s"] | None = None,
    *,
    cap: float,
) -> Float[Tensor, "b t h*c"]:
    """``attend`` with scores kept within ±cap, written out: no fused kernel knows the cap."""
    v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    y = pattern(q, k, mask, cap).to(v.dtype) @ v
    return y.transpose(1, 2).flatten(2)  # b h t c -> b t (h c)


def pattern(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    mask: Bool[Tensor, "#b t s"] | None = None,
    cap: float | None = None,
) -> Float[Tensor, "b h t s"]:
    """The attention weights themselves, in float32, which the fused kernels never write down."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.float() @ k.float().mT / math.sqrt(q.shape[-1])
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    seen = causal(q.shape[2], k.shape[2], q.device)[None, None] if mask is None else mask[:, None]
    # the least finite number instead of −inf: a row that sees nothing (padding) stays finite
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=-1)


def causal(t: int, s: int, device: torch.device) -> Bool[Tensor, "t s"]:
    """Which of s keys each of the last t tokens sees: all up to itself."""
    return torch.ones(t, s, dtype=torch.bool, device=device).tril(s - t)

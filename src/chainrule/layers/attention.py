"""Grouped-query attention: several query heads share one key/value head.

    attend(q, k, v) = softmax(q kᵀ / √c) v

Vaswani et al. 2017, arXiv:1706.03762; Ainslie et al. 2023, arXiv:2305.13245. Dropout is left out: no recipe uses it.
A ``kernel`` has the signature of ``attend`` and may be exchanged by argument.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from chainrule.core.errors import ConfigError
from chainrule.core.model import Tap
from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.layers.cache import KVCache
from chainrule.layers.rope import Turns, rotate

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, kw_only=True)
class GroupedQuery:
    """``n_heads`` query heads over ``n_kv_heads`` key/value heads; a ``window`` counts the token itself."""

    kind: Literal["grouped_query"] = "grouped_query"
    n_heads: int
    n_kv_heads: int
    d_head: int
    bias: bool = False
    window: int | None = None

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")

    def build(self, width: int, *, kernel: Kernel | None = None) -> "GroupedQueryLayer":
        """The layer for a model of ``width`` channels."""
        return GroupedQueryLayer(self, width, kernel or attend)


def attend(
    q: Float[Tensor, "b h t c"],
    k: Float[Tensor, "b g s c"],
    v: Float[Tensor, "b g s c"],
    mask: Bool[Tensor, "b t s"] | None,
) -> Float[Tensor, "b h t c"]:
    """softmax(q kᵀ / √c) v by torch's fused kernel. No mask means causal: query i sees keys 0 … i."""
    mask = None if mask is None else mask[:, None]
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)


def pattern(
    q: Float[Tensor, "b h t c"], k: Float[Tensor, "b g s c"], mask: Bool[Tensor, "b t s"] | None
) -> Float[Tensor, "b h t s"]:
    """The attention weights themselves, in float32: for looking at, beside the fused kernel that never forms them."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.float() @ k.float().mT / math.sqrt(q.shape[-1])
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()[None]
    return scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)


class GroupedQueryLayer(nn.Module):
    """Project to q, k, v; turn; remember; attend; project back. Weights bear LLaMA's names."""

    def __init__(self, part: GroupedQuery, width: int, kernel: Kernel) -> None:
        super().__init__()
        self.part, self.kernel = part, kernel
        self.q_proj = nn.Linear(width, part.n_heads * part.d_head, bias=part.bias)
        self.k_proj = nn.Linear(width, part.n_kv_heads * part.d_head, bias=part.bias)
        self.v_proj = nn.Linear(width, part.n_kv_heads * part.d_head, bias=part.bias)
        self.o_proj = nn.Linear(part.n_heads * part.d_head, width, bias=part.bias)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        by: Turns,
        mask: Bool[Tensor, "b t s"] | None,
        memory: tuple[KVCache, int] | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Attend within the mask; ``memory`` is the cache and this layer's number in it."""
        q, k, v = (self.heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, by), rotate(k, by)
        if tap is not None:
            for name, tensor in (("q", q), ("k", k), ("v", v)):
                tap(f"attn.hook_{name}", tensor.transpose(1, 2))
        if memory is not None:
            cache, number = memory
            k, v = cache.update(number, k, v)
            k, v = k.to(q.dtype), v.to(q.dtype)
        z = self.kernel(q, k, v, mask).transpose(1, 2)  # b t h c
        if tap is not None:
            tap("attn.hook_pattern", pattern(q, k, mask))
            tap("attn.hook_z", z)
        return self.o_proj(z.flatten(2))

    def heads(self, x: Float[Tensor, "b t n"]) -> Float[Tensor, "b h t c"]:
        """Split the channels into heads and bring the heads to the front."""
        return x.unflatten(-1, (-1, self.part.d_head)).transpose(1, 2)

"""Multi-head attention whose keys may come from elsewhere, and whose mask may lean: what an encoder–decoder needs.

    attend(q, k, v) = softmax(scale · q kᵀ + mask) v          scale = 1/√c, or 1 in T5

Vaswani et al. 2017, arXiv:1706.03762. In cross attention q comes from the target, k and v from the source (Bahdanau et al.
2015, arXiv:1409.0473). The mask is a boolean, or a float that is added to the scores: a bias, with −∞ where nothing is seen.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.core.tap import Tap, wants
from chainrule.layers.linear import linear

Mask = Bool[Tensor, "#b #h #t s"] | Float[Tensor, "#b #h t s"]
"""True where a key is seen; or what is added to the scores."""


@dataclass(frozen=True, kw_only=True)
class MultiHead:
    """``n_heads`` heads of width ``d_head``; scores are multiplied by ``scale``, 1/√d_head unless given."""

    kind: Literal["multi_head"] = "multi_head"
    n_heads: int
    d_head: int
    bias: bool = False
    scale: float | None = None

    def __post_init__(self) -> None:
        if min(self.n_heads, self.d_head) < 1:
            raise ConfigError(f"n_heads={self.n_heads} and d_head={self.d_head} must be at least 1")
        if self.scale is not None and not self.scale > 0:
            raise ConfigError(f"scale={self.scale} must be positive; leave it out for 1/√d_head")

    @property
    def shape(self) -> tuple[int, int]:
        """Heads and their width: what a cache holds of a token's keys, and of its values."""
        return self.n_heads, self.d_head

    def build(self, d_model: int) -> "MultiHeadLayer":
        """The attention of a stream of width ``d_model``."""
        return MultiHeadLayer(self, d_model)


class MultiHeadLayer(nn.Module):
    """Queries from one stream, keys and values from it or from another one."""

    def __init__(self, part: MultiHead, d_model: int) -> None:
        super().__init__()
        self.d_head = part.d_head
        self.scale = 1 / math.sqrt(part.d_head) if part.scale is None else part.scale
        width = part.n_heads * part.d_head
        self.q_proj, self.k_proj, self.v_proj = (linear(d_model, width, part.bias) for _ in range(3))
        self.o_proj = linear(width, d_model, part.bias)

    def keys(self, x: Float[Tensor, "b s d"]) -> tuple[Float[Tensor, "b s h c"], Float[Tensor, "b s h c"]]:
        """Keys and values of a stream."""
        return self.k_proj(x).unflatten(-1, (-1, self.d_head)), self.v_proj(x).unflatten(-1, (-1, self.d_head))

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        k: Float[Tensor, "b h s c"],
        v: Float[Tensor, "b h s c"],
        mask: Mask,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """What the queries of ``x`` find among the keys."""
        q = self.q_proj(x).unflatten(-1, (-1, self.d_head)).transpose(1, 2)  # b t (h c) -> b h t c
        mask = mask.to(q.dtype) if mask.is_floating_point() else mask
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale).transpose(1, 2)
        if tap is not None:
            for name, tensor in (("hook_q", q), ("hook_k", k), ("hook_v", v)):
                tap(name, tensor.transpose(1, 2))
            if wants(tap, "hook_pattern"):
                tap("hook_pattern", weights(q, k, mask, self.scale))
            tap("hook_z", z)
        return self.o_proj(z.flatten(2))


def weights(q: Float[Tensor, "b h t c"], k: Float[Tensor, "b h s c"], mask: Mask, scale: float) -> Float[Tensor, "b h t s"]:
    """The attention weights themselves, in float32, which the fused kernels never write down."""
    scores = scale * q.float() @ k.float().mT
    scores = scores + mask if mask.is_floating_point() else scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1)

"""Multi-head latent attention: keys and values of all heads come from one small vector per token.

    c_t = norm(W_a x_t)            what a cache keeps of a token, with one rotated key r_t that all heads share
    k_t = [W_k c_t, r_t],  v_t = W_v c_t,       scores = q · k / √(d_nope + d_rope)

DeepSeek-V2, arXiv:2405.04434. A few new tokens against a long memory are read the other way round, without writing out the
keys: q · W_k c = (W_kᵀ q) · c, so that all heads attend in the latent space as one group; the result is the same.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.core.tap import Tap, wants
from chainrule.layers.attention import Kernel, Remember, Turn, attend, pattern, scaled
from chainrule.layers.linear import linear
from chainrule.layers.norm import RMSNorm

FEW = 4
"""Up to so many new tokens that continue a memory are read in the latent space."""


@dataclass(frozen=True, kw_only=True)
class MultiHeadLatent:
    """``n_heads`` heads whose keys have ``d_nope`` channels of content and ``d_rope`` of position; values ``d_value``."""

    kind: Literal["multi_head_latent"] = "multi_head_latent"
    n_heads: int
    d_nope: int
    d_rope: int
    d_value: int
    kv_rank: int
    q_rank: int | None = None
    """The width through which queries pass too; None: they are made at once."""
    bias: bool = False
    eps: float = 1e-6
    scale: float | None = None
    """What scores are multiplied by; None is 1/√(d_nope + d_rope)."""
    window = None
    chunk = None

    def __post_init__(self) -> None:
        least = min(self.n_heads, self.d_nope, self.d_value, self.kv_rank, self.q_rank or 1)
        if least < 1 or self.d_rope < 2 or self.d_rope % 2:
            raise ConfigError(
                f"latent attention has n_heads={self.n_heads}, d_nope={self.d_nope}, d_rope={self.d_rope}, "
                f"d_value={self.d_value}, kv_rank={self.kv_rank}; all must be above 0, and d_rope even"
            )

    @property
    def d_rotary(self) -> int:
        """How wide the vectors are that positions turn."""
        return self.d_rope

    @property
    def memory(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(heads, width) of what a cache keeps: the latent vector and the shared key."""
        return (1, self.kv_rank), (1, self.d_rope)

    def build(self, d_model: int, kernel: Kernel | None = None) -> nn.Module:
        """The attention of a stream of width ``d_model``; ``kernel`` replaces ``attend``."""
        return MultiHeadLatentLayer(self, d_model, kernel)


class MultiHeadLatentLayer(nn.Module):
    """Down to the latent vector, remember it, up to keys and values, attend."""

    def __init__(self, part: MultiHeadLatent, d_model: int, kernel: Kernel | None = None) -> None:
        super().__init__()
        self.part, self.kernel = part, kernel or attend
        queries = part.n_heads * (part.d_nope + part.d_rope)
        self.q_proj = self.q_a_proj = self.q_a_layernorm = self.q_b_proj = None
        if part.q_rank is None:
            self.q_proj = linear(d_model, queries)
        else:
            self.q_a_proj = linear(d_model, part.q_rank, part.bias)
            self.q_a_layernorm = RMSNorm(eps=part.eps).build(part.q_rank)
            self.q_b_proj = linear(part.q_rank, queries)
        self.kv_a_proj_with_mqa = linear(d_model, part.kv_rank + part.d_rope, part.bias)
        self.kv_a_layernorm = RMSNorm(eps=part.eps).build(part.kv_rank)
        self.kv_b_proj = linear(part.kv_rank, part.n_heads * (part.d_nope + part.d_value))
        self.o_proj = linear(part.n_heads * part.d_value, d_model, part.bias)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        tables: Turn | None,
        mask: Bool[Tensor, "#b t s"] | None = None,
        remember: Remember | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The update of the stream. ``mask`` None: the tokens are the last of plain causal rows."""
        q, latent, shared = self.states(x)
        if tables is not None:
            turned, shared = tables.turn(q[..., self.part.d_nope :], shared)
            q = torch.cat([q[..., : self.part.d_nope], turned], dim=-1)
        if remember is None:
            latents, keys = latent.transpose(1, 2), shared.transpose(1, 2)
        else:
            latents, keys = remember(latent, shared)
        q = scaled(q, self.part.scale).transpose(1, 2)  # b t h c -> b h t c
        few = remember is not None and q.shape[2] <= FEW and tap is None
        z = self.in_latent_space(q, latents, keys, mask) if few else self.written_out(q, latents, keys, mask, tap)
        return self.o_proj(z)

    def states(self, x: Float[Tensor, "b t d"]) -> tuple[Tensor, Tensor, Tensor]:
        """q ``b t h c``, the latent vectors ``b t 1 r`` and the shared keys ``b t 1 c``, not yet rotated."""
        if self.q_a_proj is None:
            assert self.q_proj is not None
            q = self.q_proj(x)
        else:
            assert self.q_a_layernorm is not None
            assert self.q_b_proj is not None
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        latent, shared = self.kv_a_proj_with_mqa(x).split([self.part.kv_rank, self.part.d_rope], dim=-1)
        return q.unflatten(-1, (self.part.n_heads, -1)), self.kv_a_layernorm(latent)[:, :, None], shared[:, :, None]

    def written_out(
        self,
        q: Float[Tensor, "b h t c"],
        latents: Float[Tensor, "b 1 s r"],
        shared: Float[Tensor, "b 1 s p"],
        mask: Bool[Tensor, "#b t s"] | None,
        tap: Tap | None,
    ) -> Float[Tensor, "b t _"]:
        """Attention over keys and values made from the latent vectors."""
        both = self.kv_b_proj(latents[:, 0]).unflatten(-1, (self.part.n_heads, -1)).transpose(1, 2)
        k, v = both.split([self.part.d_nope, self.part.d_value], dim=-1)
        k = torch.cat([k, shared.expand(-1, k.shape[1], -1, -1)], dim=-1)
        z = self.kernel(q, k, v, mask)
        if tap is not None:
            for name, tensor in (("hook_q", q), ("hook_k", k), ("hook_v", v)):
                tap(name, tensor.transpose(1, 2))
            if wants(tap, "hook_pattern"):
                tap("hook_pattern", pattern(q, k, mask))
            tap("hook_z", z.unflatten(-1, (self.part.n_heads, -1)))
        return z

    def in_latent_space(
        self,
        q: Float[Tensor, "b h t c"],
        latents: Float[Tensor, "b 1 s r"],
        shared: Float[Tensor, "b 1 s p"],
        mask: Bool[Tensor, "#b t s"] | None,
    ) -> Float[Tensor, "b t _"]:
        """The same, with queries brought down to the latent space and the result brought up from it."""
        # a matrix in four bits, or with an adapter beside it, is made anew and in float32
        weight = self.kv_b_proj.weight.to(q.dtype)
        weight = weight.unflatten(0, (self.part.n_heads, -1))  # (h nope+value) r -> h (nope+value) r
        up_k, up_v = weight.split([self.part.d_nope, self.part.d_value], dim=1)
        content, turned = q.split([self.part.d_nope, self.part.d_rope], dim=-1)
        down = torch.cat([content @ up_k, turned], dim=-1)
        down = down * math.sqrt(down.shape[-1] / q.shape[-1])  # the kernel divides by the root of another width
        z = self.kernel(down, torch.cat([latents, shared], dim=-1), latents, mask)
        z = z.unflatten(-1, (self.part.n_heads, -1)).transpose(1, 2)  # b t (h r) -> b h t r
        return (z @ up_v.mT).transpose(1, 2).flatten(2)

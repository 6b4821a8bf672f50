"""Relative position bias: attention prefers some distances, and each head learns which.

    scores[i, j] += table[bucket(j − i), head]

Raffel et al. 2020 (T5), arXiv:1910.10683. Near distances have a bucket each; beyond half of the buckets n they widen with the
logarithm, and from ``max_distance`` m on all share the last one:

    bucket(r) = r  for r < n/2,     n/2 + ⌊n/2 · log(r / (n/2)) / log(m / (n/2))⌋  beyond, at most n − 1

A decoder looks back only (r = i − j). An encoder spends half of its buckets on what lies before and half on what follows. One
table serves all layers of a stack.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.layers.linear import embedding


@dataclass(frozen=True, kw_only=True)
class RelativeBias:
    """``n_buckets`` of distances; all of ``max_distance`` and more share one."""

    kind: Literal["relative_bias"] = "relative_bias"
    n_buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        if self.n_buckets < 4 or self.n_buckets % 2:
            raise ConfigError(f"n_buckets={self.n_buckets} must be even and at least 4: half are for what follows, 32 is usual")
        if self.max_distance <= self.n_buckets // 2:
            raise ConfigError(
                f"max_distance={self.max_distance} must be above n_buckets/2 = {self.n_buckets // 2}; 128 is usual"
            )

    def build(self, n_heads: int, *, both_ways: bool) -> "RelativeBiasLayer":
        """The table of a stack; ``both_ways`` in an encoder, where tokens also see what follows."""
        return RelativeBiasLayer(self, n_heads, both_ways)


class RelativeBiasLayer(nn.Module):
    """Adds table[bucket(distance), head] to the scores."""

    def __init__(self, part: RelativeBias, n_heads: int, both_ways: bool) -> None:
        super().__init__()
        self.part, self.both_ways = part, both_ways
        self.table = embedding(part.n_buckets, n_heads)

    def forward(self, query: Int[Tensor, "b t"], key: Int[Tensor, "b s"]) -> Float[Tensor, "b h t s"]:
        """The bias of queries and keys at these positions."""
        ahead = key[:, None, :] - query[:, :, None]
        n, m = self.part.n_buckets, self.part.max_distance
        if self.both_ways:
            which = bucket(ahead.abs(), n // 2, m) + torch.where(ahead > 0, n // 2, 0)
        else:
            which = bucket((-ahead).clamp(min=0), n, m)
        return self.table(which).permute(0, 3, 1, 2)  # b t s h -> b h t s


def bucket(distance: Int[Tensor, "*b"], n: int, max_distance: int) -> Int[Tensor, "*b"]:
    """The bucket, 0 to n − 1, of distances of 0 and more.

    >>> bucket(torch.tensor([0, 1, 7, 8, 11, 12, 127, 128, 9999]), 16, 128).tolist()
    [0, 1, 7, 8, 8, 9, 15, 15, 15]
    """
    exact = n // 2
    share = (distance.clamp(min=1).float() / exact).log() / math.log(max_distance / exact)
    wide = exact + (share * (n - exact)).long()
    return torch.where(distance < exact, distance, wide.clamp(max=n - 1))

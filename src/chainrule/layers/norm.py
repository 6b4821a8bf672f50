"""Norms keep the scale of a vector from running away; each computes in float32 and returns the caller's format.

RMSNorm(x)   = x / √(mean(x²) + ε) · w                    Zhang and Sennrich 2019, arXiv:1910.07467
LayerNorm(x) = (x − mean(x)) / √(var(x) + ε) · w + b      Ba et al. 2016, arXiv:1607.06450
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from chainrule.core.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """Divide by the root mean square; one weight a channel."""

    kind: Literal["rms"] = "rms"
    eps: float = 1e-6

    def build(self, width: int) -> nn.Module:
        """The layer for vectors of ``width`` numbers."""
        return RMSNormLayer(width, self.eps)


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """Subtract the mean, divide by the standard deviation; a weight a channel, and a bias unless it is left out."""

    kind: Literal["layer"] = "layer"
    eps: float = 1e-5
    bias: bool = True

    def build(self, width: int) -> nn.Module:
        """The layer for vectors of ``width`` numbers."""
        return LayerNormLayer(width, self.eps, self.bias)


Norm = RMSNorm | LayerNorm


class RMSNormLayer(nn.Module):
    """x / √(mean(x²) + ε) · w."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.rms_norm(x.float(), x.shape[-1:], self.weight.float(), self.eps).to(x.dtype)


class LayerNormLayer(nn.Module):
    """(x − mean) / √(var + ε) · w + b."""

    def __init__(self, width: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), x.shape[-1:], self.weight.float(), bias, self.eps).to(x.dtype)

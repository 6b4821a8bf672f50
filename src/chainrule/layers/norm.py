"""Norms keep the scale of the residual stream; computed in float32 whatever the stream's format.

    RMSNorm(x)        = w · x / √(mean(x²) + ε)                     Zhang & Sennrich 2019, arXiv:1910.07467
    OffsetRMSNorm(x)  = (1 + w) · x / √(mean(x²) + ε)               Gemma, arXiv:2403.08295
    UnitRMSNorm(x)    = x / √(mean(x²) + ε)                         Llama 4's norm of q and k
    LayerNorm(x)      = w · (x − mean x) / √(var x + ε) + b         Ba et al. 2016, arXiv:1607.06450
    NoNorm(x)         = x                                           to see what a norm is for

The normalised value is rounded to the stream's format before it meets the weight, as published models do.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """Divides by the root of the mean square; no mean is taken off, no bias added."""

    kind: Literal["rms_norm"] = "rms_norm"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def build(self, d: int) -> nn.Module:
        """The norm of vectors of width ``d``; its weight begins at one."""
        return RMSNormLayer(d, self.eps)


@dataclass(frozen=True, kw_only=True)
class OffsetRMSNorm:
    """``RMSNorm`` whose weight is stored less one, so that decay pulls it towards one."""

    kind: Literal["offset_rms_norm"] = "offset_rms_norm"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def build(self, d: int) -> nn.Module:
        """The norm of vectors of width ``d``; its weight begins at zero."""
        return OffsetRMSNormLayer(d, self.eps)


@dataclass(frozen=True, kw_only=True)
class UnitRMSNorm:
    """``RMSNorm`` that learns nothing."""

    kind: Literal["unit_rms_norm"] = "unit_rms_norm"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def build(self, d: int) -> nn.Module:
        """The norm of vectors of width ``d``."""
        return UnitRMSNormLayer(self.eps)


@dataclass(frozen=True, kw_only=True)
class NoNorm:
    """Leaves the stream as it is."""

    kind: Literal["no_norm"] = "no_norm"

    def build(self, d: int) -> nn.Module:
        """The identity."""
        return nn.Identity()


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """Takes off the mean and divides by the standard deviation."""

    kind: Literal["layer_norm"] = "layer_norm"
    eps: float = 1e-5
    bias: bool = True

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def build(self, d: int) -> nn.Module:
        """The norm of vectors of width ``d``; its weight begins at one, its bias at zero."""
        return LayerNormLayer(d, self.eps, self.bias)


Norm = RMSNorm | OffsetRMSNorm | UnitRMSNorm | LayerNorm | NoNorm


def _check_eps(eps: float) -> None:
    if not 0 < eps < 1:
        raise ConfigError(f"eps={eps} must lie between 0 and 1; 1e-6 is usual")


class RMSNormLayer(nn.Module):
    """w · x / √(mean(x²) + ε)."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        y = F.rms_norm(x.float(), self.weight.shape, None, self.eps)
        return (self.weight * y.to(x.dtype)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class OffsetRMSNormLayer(nn.Module):
    """(1 + w) · x / √(mean(x²) + ε), rounded to the stream's format once, at the end."""

    def __init__(self, d: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        y = F.rms_norm(x.float(), self.weight.shape, None, self.eps)
        return (y * (1.0 + self.weight.float())).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class UnitRMSNormLayer(nn.Module):
    """x / √(mean(x²) + ε)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class LayerNormLayer(nn.Module):
    """w · (x − mean x) / √(var x + ε) + b."""

    def __init__(self, d: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.bias = nn.Parameter(torch.zeros(d)) if bias else None
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.weight.shape, self.weight.float(), bias, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}, bias={self.bias is not None}"

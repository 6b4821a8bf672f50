"""What a block does to each token alone: widen, activate, narrow.

Gated(x) = W_down (act(W_gate x) · W_up x)         SwiGLU where act is silu: Shazeer 2020, arXiv:2002.05202
Plain(x) = W_down act(W_up x)                      Vaswani et al. 2017, arXiv:1706.03762
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Tensor
from chainrule.core.tap import Tap, tell
from chainrule.layers.linear import linear

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


def activation(name: Activation) -> Callable[[Tensor], Tensor]:
    """The function of that name; ``gelu_tanh`` is GPT-2's approximation, ``relu2`` the square of ``relu``."""
    return {
        "silu": F.silu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "relu": F.relu,
        "relu2": lambda x: F.relu(x).square(),
    }[name]


@dataclass(frozen=True, kw_only=True)
class Gated:
    """Two matrices widen; one of them, activated, decides how much of the other passes."""

    kind: Literal["gated"] = "gated"
    d_ff: int
    activation: Activation = "silu"
    bias: bool = False

    def __post_init__(self) -> None:
        _check_width(self.d_ff)

    def build(self, d_model: int) -> nn.Module:
        """The mlp of a stream of width ``d_model``."""
        return GatedLayer(self, d_model)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """One matrix widens, the activation, one matrix narrows."""

    kind: Literal["plain"] = "plain"
    d_ff: int
    activation: Activation = "gelu_tanh"
    bias: bool = True

    def __post_init__(self) -> None:
        _check_width(self.d_ff)

    def build(self, d_model: int) -> nn.Module:
        """The mlp of a stream of width ``d_model``."""
        return PlainLayer(self, d_model)


Mlp = Gated | Plain


def _check_width(d_ff: int) -> None:
    if d_ff < 1:
        raise ConfigError(f"d_ff={d_ff} must be at least 1")


class GatedLayer(nn.Module):
    """W_down (act(W_gate x) · W_up x)."""

    def __init__(self, part: Gated, d_model: int) -> None:
        super().__init__()
        self.gate_proj = linear(d_model, part.d_ff, part.bias)
        self.up_proj = linear(d_model, part.d_ff, part.bias)
        self.down_proj = linear(part.d_ff, d_model, part.bias)
        self.activation = activation(part.activation)

    def forward(self, x: Float[Tensor, "b t d"], tap: Tap | None = None) -> Float[Tensor, "b t d"]:
        y = self.activation(self.gate_proj(x)) * self.up_proj(x)
        tell(tap, "hook_post", y)
        return self.down_proj(y)


class PlainLayer(nn.Module):
    """W_down act(W_up x)."""

    def __init__(self, part: Plain, d_model: int) -> None:
        super().__init__()
        self.up_proj = linear(d_model, part.d_ff, part.bias)
        self.down_proj = linear(part.d_ff, d_model, part.bias)
        self.activation = activation(part.activation)

    def forward(self, x: Float[Tensor, "b t d"], tap: Tap | None = None) -> Float[Tensor, "b t d"]:
        y = self.activation(self.up_proj(x))
        tell(tap, "hook_post", y)
        return self.down_proj(y)

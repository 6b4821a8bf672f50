"""The mlp of a block: what each token thinks by itself.

Gated(x) = down(act(gate x) ⊙ up x)      Shazeer 2020, arXiv:2002.05202 (SwiGLU where act is silu)
Plain(x) = down(act(up x))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn import functional as F

from chainrule.core.shapes import Float, Tensor

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@dataclass(frozen=True, kw_only=True)
class Gated:
    """A gate decides how much of each of ``d_mlp`` channels passes."""

    kind: Literal["gated"] = "gated"
    d_mlp: int
    activation: Activation = "silu"
    bias: bool = False

    def build(self, width: int) -> nn.Module:
        """The layer for a model of ``width`` channels."""
        return GatedLayer(self, width)


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Up, activation, down."""

    kind: Literal["plain"] = "plain"
    d_mlp: int
    activation: Activation = "gelu"
    bias: bool = True

    def build(self, width: int) -> nn.Module:
        """The layer for a model of ``width`` channels."""
        return PlainLayer(self, width)


Mlp = Gated | Plain


class GatedLayer(nn.Module):
    """down(act(gate x) ⊙ up x)."""

    def __init__(self, part: Gated, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, part.d_mlp, bias=part.bias)
        self.up_proj = nn.Linear(width, part.d_mlp, bias=part.bias)
        self.down_proj = nn.Linear(part.d_mlp, width, bias=part.bias)
        self.act = ACTIVATIONS[part.activation]

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class PlainLayer(nn.Module):
    """down(act(up x))."""

    def __init__(self, part: Plain, width: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, part.d_mlp, bias=part.bias)
        self.down_proj = nn.Linear(part.d_mlp, width, bias=part.bias)
        self.act = ACTIVATIONS[part.activation]

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.down_proj(self.act(self.up_proj(x)))

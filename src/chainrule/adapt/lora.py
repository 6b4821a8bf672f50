"""LoRA: a large matrix stays as it is, and a product of two thin ones is learned beside it.

    LoRA   y = W x + s · B A x,                     A r×in,  B out×r,  s = α/r  (rank-stabilised: α/√r)
    DoRA   y = m ⊙ (W + s B A) x / ‖W + s B A‖      one magnitude m for each row

Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732; Liu et al. 2024, arXiv:2402.09353. B begins at zero, so
that an adapter begins by changing nothing. Adapters are float32 whatever the base is in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.adapt.int4 import Int4Linear
from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Lora:
    """How large an adapter is and how strongly it counts; ``dropout`` acts on what it reads, in training alone."""

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    stabilised: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"an adapter has rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}; "
                "it needs rank >= 1, alpha > 0 and 0 <= dropout < 1"
            )

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.stabilised else self.rank)


class LoraLinear(nn.Module):
    """A linear layer that stays, and the adapter beside it."""

    def __init__(self, base: nn.Linear | Int4Linear, part: Lora, generator: torch.Generator | None = None) -> None:
        super().__init__()
        n, k = base.out_features, base.in_features
        device = next((tensor.device for tensor in (*base.parameters(), *base.buffers())), None)
        self.base, self.part = base.requires_grad_(False), part
        self.a = nn.Parameter(torch.empty(part.rank, k))
        self.b = nn.Parameter(torch.zeros(n, part.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5), generator=generator)
        self.magnitude = nn.Parameter(norms(matrix(base).cpu())) if part.dora else None
        self.to(device)

    def forward(self, x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b n"]:
        read = F.dropout(x.float(), self.part.dropout, self.training)
        beside = self.part.scale * F.linear(F.linear(read, self.a), self.b)
        if self.magnitude is None:
            return self.base(x) + beside.to(x.dtype)
        w = matrix(self.base)
        y = self.size() * (F.linear(read, w) + beside)
        if self.training and self.part.dropout:  # what the frozen layer says is never dropped
            y = y + F.linear(x.float() - read, w)
        bias = getattr(self.base, "bias", None)
        return (y if bias is None else y + bias.float()).to(x.dtype)

    @property
    def weight(self) -> Float[Tensor, "n k"]:
        """The matrix that base and adapter are together, in float32."""
        weight = matrix(self.base) + self.part.scale * self.b @ self.a
        return weight if self.magnitude is None else self.size()[:, None] * weight

    def size(self) -> Float[Tensor, "n"]:
        """What DoRA multiplies each row by; its norm is a constant to the gradient (section 4.3 of the paper)."""
        assert self.magnitude is not None
        return self.magnitude / norms(matrix(self.base) + self.part.scale * self.b @ self.a).detach()

    @torch.no_grad()
    def check_mergeable(self) -> None:
        """Refuse where the base cannot hold the sum, or the sum is no number."""
        if not isinstance(self.base, nn.Linear):
            raise ConfigError(
                f"an adapter cannot be merged into a {type(self.base).__name__}; load the base in fp32, bf16 or fp16"
            )
        if not all(torch.isfinite(one).all() for one in self.parameters()):
            raise ConfigError("an adapter or its base holds NaN or infinite numbers, so it was not merged; train it anew")
        if not torch.isfinite(self.weight.to(self.base.weight.dtype)).all():
            raise ConfigError(
                f"an adapter and its base come to NaN or infinite numbers in {self.base.weight.dtype}, so they were not "
                "merged; load the base in bf16 or fp32, which hold more (DoRA on a row of zeros is 0/0 in any format)"
            )

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear layer that says the same, in the base's number format; summed in float32, rounded once."""
        self.check_mergeable()
        assert isinstance(self.base, nn.Linear)
        self.base.weight = nn.Parameter(self.weight.to(self.base.weight.dtype))
        return self.base


def matrix(layer: nn.Linear | Int4Linear) -> Float[Tensor, "n k"]:
    """The matrix of a linear layer in float32, unpacked where it is quantised."""
    return layer.weight.float()


def norms(weight: Float[Tensor, "n k"]) -> Float[Tensor, "n"]:
    """The length of every row."""
    return torch.linalg.vector_norm(weight, dim=1)


def attach(
    model: nn.Module, part: Lora, targets: Sequence[str] = ("q_proj", "v_proj"), generator: torch.Generator | None = None
) -> list[str]:
    """Freeze a model and put an adapter beside every linear layer whose name ends in one of ``targets``; their names.

    Raises ``ConfigError`` for a target that no layer has.
    """
    if adapters(model):
        raise ConfigError("the model has an adapter already; merge it first, or load the base anew")
    layers = linears(model)
    known = sorted({name.split(".")[-1] for name in layers})
    unknown = sorted(set(targets) - set(known))
    if unknown:
        raise ConfigError(f"no linear layer is called {unknown[0]!r}; there are {', '.join(known)}")
    model.requires_grad_(False)
    found = [name for name in layers if name.split(".")[-1] in targets]
    for name in found:
        put(model, name, LoraLinear(layers[name], part, generator))
    return found


def linears(model: nn.Module) -> dict[str, nn.Linear | Int4Linear]:
    """What an adapter can stand beside: the linear layers, those in few bits too, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Int4Linear)}


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer where ``name`` says."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)


def adapters(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapters of a model by the names of their layers."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLinear)}


def merge(model: nn.Module) -> int:
    """Add every adapter to its matrix and take it away; returns how many there were. All or none of them.

    What was frozen for the adapters' sake can be learned again.
    """
    found = adapters(model)
    for layer in found.values():
        layer.check_mergeable()
    for name, layer in found.items():
        put(model, name, layer.merged())
    if found or getattr(model, "replaced", ()):
        model.requires_grad_(True)
    return len(found)

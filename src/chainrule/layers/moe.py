"""A mixture of experts: many mlps, of which each token is read by a few.

    y = Σ_{i chosen} weight_i · expert_i(x)   (+ shared(x), read by every token)

Shazeer et al. 2017, arXiv:1701.06538; shared experts: DeepSeekMoE, arXiv:2401.06066. Dropless: tokens are sorted by expert and
each expert reads all that are sent to it, by one grouped matrix product where torch has it (Gale et al. 2022, MegaBlocks,
arXiv:2211.15841). ``by_loop`` says the same readably, and is what the fast way is tested against.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap
from chainrule.layers.mlp import Activation, Gated, activation
from chainrule.layers.router import Routed, Router

STEP, MANY = 64, 512
"""On a CPU an expert's rows are filled up to a multiple of ``STEP`` where they have ``MANY`` each in the mean, or more: for
every new number of rows oneDNN makes a program, which takes longer than the product."""
Dispatch = Callable[["Experts", Tensor, Routed], Tensor]
"""The seam for another way to bring tokens to experts: (experts, tokens ``n d``, where they go) -> ``n d``."""


@dataclass(frozen=True, kw_only=True)
class MixtureOfExperts:
    """``n_experts`` gated mlps of width ``d_ff``; ``d_shared`` is the width of the one that every token passes, 0 for none.

    ``clamp`` is gpt-oss' activation: gate and up kept within ±clamp, (up + 1) · gate · sigmoid(1.702 gate). ``weigh`` says
    whether the router's weight multiplies an expert's input (Llama 4) or its output.
    """

    kind: Literal["mixture_of_experts"] = "mixture_of_experts"
    n_experts: int
    d_ff: int
    router: Router
    activation: Activation = "silu"
    d_shared: int = 0
    bias: bool = False
    shared_bias: bool = False
    clamp: float | None = None
    weigh: Literal["input", "output"] = "output"

    def __post_init__(self) -> None:
        if min(self.n_experts, self.d_ff) < 1 or self.d_shared < 0:
            raise ConfigError(f"n_experts={self.n_experts}, d_ff={self.d_ff}, d_shared={self.d_shared}: experts need a width")
        if self.clamp is not None and self.clamp <= 0:
            raise ConfigError(f"clamp={self.clamp} must be positive; leave it out for the plain gated mlp")

    def build(self, d_model: int, dispatch: Dispatch | None = None) -> nn.Module:
        """The mixture over a stream of width ``d_model``; ``dispatch`` replaces the way tokens reach experts."""
        return MixtureLayer(self, d_model, dispatch)


class MixtureLayer(nn.Module):
    """Route, sum the chosen experts, add the shared one."""

    def __init__(self, part: MixtureOfExperts, d_model: int, dispatch: Dispatch | None = None) -> None:
        super().__init__()
        self.part, self.dispatch = part, dispatch or grouped
        self.gate = part.router.build(d_model, part.n_experts)
        self.experts = Experts(part, d_model)
        shared = Gated(d_ff=part.d_shared, activation=part.activation, bias=part.shared_bias) if part.d_shared else None
        self.shared_experts = None if shared is None else shared.build(d_model)

    def forward(self, x: Float[Tensor, "b t d"], tap: Tap | None = None) -> Float[Tensor, "b t d"]:
        flat = x.flatten(0, -2)
        routed = self.gate(flat)
        if tap is not None:
            tap("hook_router_scores", routed.scores.unflatten(0, x.shape[:-1]))
            tap("hook_router_experts", routed.experts.unflatten(0, x.shape[:-1]))
        y = self.dispatch(self.experts, flat, routed).to(x.dtype).view_as(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)


@runtime_checkable
class Matrices(Protocol):
    """Matrices that are no tensor, as where they lie in four bits: ``matrices[i]`` is a layer that multiplies by the i-th."""

    def __getitem__(self, i: int, /) -> Callable[[Tensor], Tensor]: ...


class Experts(nn.Module):
    """The weights of all experts, stacked: gate and up ``e f d``, down ``e d f``; a loader may put ``Matrices`` there."""

    gate_proj: Tensor | Matrices
    up_proj: Tensor | Matrices
    down_proj: Tensor | Matrices

    def __init__(self, part: MixtureOfExperts, d_model: int) -> None:
        super().__init__()
        e, f, d = part.n_experts, part.d_ff, d_model
        self.part, self.activation = part, activation(part.activation)
        self.gate_proj = nn.Parameter(torch.zeros(e, f, d))
        self.up_proj = nn.Parameter(torch.zeros(e, f, d))
        self.down_proj = nn.Parameter(torch.zeros(e, d, f))
        self.gate_bias, self.up_bias = (nn.Parameter(torch.zeros(e, f)) if part.bias else None for _ in range(2))
        self.down_bias = nn.Parameter(torch.zeros(e, d)) if part.bias else None

    def hidden(self, gate: Float[Tensor, "n f"], up: Float[Tensor, "n f"]) -> Float[Tensor, "n f"]:
        """What stands between the wide matrices and the narrow one."""
        clamp = self.part.clamp
        if clamp is None:
            return self.activation(gate) * up
        gate = gate.clamp(max=clamp)
        return (up.clamp(-clamp, clamp) + 1) * gate * torch.sigmoid(1.702 * gate)


def by_loop(experts: Experts, x: Float[Tensor, "n d"], routed: Routed) -> Float[Tensor, "n d"]:
    """One expert after the other reads the tokens that chose it: slow, and obviously right."""
    y = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for i in range(experts.part.n_experts):
        token, place = torch.where(routed.experts == i)
        weight = routed.weights[token, place, None]
        rows = x[token] if experts.part.weigh == "output" else (x[token] * weight).to(x.dtype)
        gate, up = (_project(rows, w, b, i) for w, b in _wide(experts))
        out = _project(experts.hidden(gate, up), experts.down_proj, experts.down_bias, i).float()
        y = y.index_add(0, token, out * weight if experts.part.weigh == "output" else out)
    return y


def _wide(experts: Experts) -> tuple[tuple[Tensor | Matrices, Tensor | None], ...]:
    return (experts.gate_proj, experts.gate_bias), (experts.up_proj, experts.up_bias)


def _project(x: Tensor, weight: Tensor | Matrices, bias: Tensor | None, i: int) -> Tensor:
    if isinstance(weight, Tensor):
        return F.linear(x, weight[i], None if bias is None else bias[i])
    y = weight[i](x)
    return y if bias is None else y + bias[i]


def grouped(experts: Experts, x: Float[Tensor, "n d"], routed: Routed) -> Float[Tensor, "n d"]:
    """Tokens sorted by expert, and one grouped product for each of the three matrices."""
    if x.is_meta:  # shapes alone: which expert reads a token is not known
        return torch.empty(x.shape, dtype=torch.float32, device=x.device)
    k = routed.experts.shape[1]
    expert, order = routed.experts.flatten().sort(stable=True)
    token, weight = order // k, routed.weights.flatten()[order, None]
    rows = x[token] if experts.part.weigh == "output" else (x[token] * weight).to(x.dtype)
    counts, place = torch.bincount(expert, minlength=experts.part.n_experts), None
    if x.device.type == "cpu" and len(rows) >= MANY * len(counts) and not torch.compiler.is_compiling():
        counts, place = _filled_up(counts, expert)
        rows = rows.new_zeros(int(counts.sum()), rows.shape[1]).index_copy(0, place, rows)
        expert = torch.arange(len(counts)).repeat_interleave(counts)
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = (_grouped_product(rows, w, b, ends, expert) for w, b in _wide(experts))
    out = _grouped_product(experts.hidden(gate, up), experts.down_proj, experts.down_bias, ends, expert).float()
    out = out if place is None else out[place]
    out = out * weight if experts.part.weigh == "output" else out
    return torch.zeros(x.shape, dtype=torch.float32, device=x.device).index_add(0, token, out)


def _filled_up(counts: Int[Tensor, "e"], expert: Int[Tensor, "n"]) -> tuple[Int[Tensor, "e"], Int[Tensor, "n"]]:
    """Each expert's count rounded up to a multiple of ``STEP``, and where its rows stand then: empty ones follow them.

    >>> _filled_up(torch.tensor([1, 2]), torch.tensor([0, 1, 1]))
    (tensor([64, 64]), tensor([ 0, 64, 65]))
    """
    room = -(-counts // STEP) * STEP
    moved = (room - counts).cumsum(0) - (room - counts)
    return room, torch.arange(len(expert)) + moved[expert]


def _grouped_product(
    x: Float[Tensor, "n i"],
    weight: Float[Tensor, "e o i"] | Matrices,
    bias: Tensor | None,
    ends: Int[Tensor, "e"],
    expert: Int[Tensor, "n"],
) -> Float[Tensor, "n o"]:
    """Rows times their own expert's matrix; the rows of expert i end at ``ends[i]``."""
    if not isinstance(weight, Tensor):
        return _one_by_one(x, weight, bias, ends)
    if torch.is_autocast_enabled(x.device.type):
        narrow = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(narrow), weight.to(narrow)
    x = x.to(weight.dtype)
    if _aligned(weight) and _aligned(weight.mT):  # what is read, and the gradient of what is written
        y = F.grouped_mm(x, weight.mT, offs=ends)
    else:
        rows = x.tensor_split(ends[:-1].cpu().long())
        y = torch.cat([F.linear(part, matrix) for part, matrix in zip(rows, weight, strict=True)])
    return y if bias is None else y + bias[expert].to(y.dtype)


def _one_by_one(x: Float[Tensor, "n i"], weight: Matrices, bias: Tensor | None, ends: Int[Tensor, "e"]) -> Float[Tensor, "n o"]:
    """The same product where each matrix is unpacked for its own rows, and those that nobody reads not at all."""
    rows = x.tensor_split(ends[:-1].cpu().long())
    return torch.cat([_project(part, weight, bias, i) for i, part in enumerate(rows) if len(part) or not len(x)])


def _aligned(x: Tensor) -> bool:
    """Whether the grouped product takes rows of this width: they begin at multiples of 16 bytes.

    ``torch.compile`` takes them in bf16 alone (torch 2.13).
    """
    return x.shape[-1] * x.element_size() % 16 == 0 and (x.dtype == torch.bfloat16 or not torch.compiler.is_compiling())

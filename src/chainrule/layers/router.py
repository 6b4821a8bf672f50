"""The router of a mixture of experts: which few experts read a token, and how much each of them counts.

    s = softmax(W x)  or  sigmoid(W x);     chosen = the k largest of s (+ correction);     weight = s of the chosen

Shazeer et al. 2017, arXiv:1701.06538. Weights may be made to sum to one (Mixtral, arXiv:2401.04088) and scaled; a correction
learned outside the gradient may steer the choice alone, and the choice may be limited to the best groups of experts
(DeepSeek-V3, arXiv:2412.19437). Scores are float32 whatever the model's format, and what a router holds is never narrowed: a
correction rounded to bf16 chooses other experts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor


class Routed(NamedTuple):
    """Where each token goes: the chosen experts, the weight of each, and every expert's score."""

    experts: Int[Tensor, "n k"]
    weights: Float[Tensor, "n k"]
    scores: Float[Tensor, "n e"]


@dataclass(frozen=True, kw_only=True)
class Router:
    """``k`` of the experts read each token.

    With ``groups`` the experts fall into so many groups, of which the best ``kept`` are looked at; a group is as good as its
    best expert (``best_of=1``) or the sum of its best two.
    """

    kind: Literal["router"] = "router"
    k: int
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool = True
    norm_min: float = 1e-20
    """What the chosen scores are divided by to sum to one is at least this."""
    scale: float = 1.0
    bias: bool = False
    correction: bool = False
    groups: int = 1
    kept: int = 1
    best_of: int = 2

    def __post_init__(self) -> None:
        if self.k < 1 or not 1 <= self.kept <= self.groups or self.best_of not in (1, 2):
            raise ConfigError(
                f"a router has k={self.k}, groups={self.groups}, kept={self.kept}, best_of={self.best_of}; "
                "it needs k >= 1, 1 <= kept <= groups and best_of 1 or 2"
            )

    def build(self, d_model: int, n_experts: int) -> "RouterLayer":
        """The router of so many experts over a stream of width ``d_model``."""
        if self.k > n_experts or n_experts % self.groups:
            raise ConfigError(f"k={self.k} of {n_experts} experts in {self.groups} groups cannot be chosen")
        return RouterLayer(self, d_model, n_experts)


class RouterLayer(nn.Module):
    """Scores, choice, weights."""

    def __init__(self, part: Router, d_model: int, n_experts: int) -> None:
        super().__init__()
        self.part = part
        self.weight = nn.Parameter(torch.zeros(n_experts, d_model))
        self.bias = nn.Parameter(torch.zeros(n_experts)) if part.bias else None
        self.e_score_correction_bias: Tensor | None
        self.register_buffer("e_score_correction_bias", torch.zeros(n_experts) if part.correction else None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RouterLayer":
        """What ``to``, ``half`` and their like go through: the device changes, the number format never becomes narrower."""

        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            wider = torch.promote_types(moved.dtype, tensor.dtype)
            return moved if moved.dtype == wider else tensor.to(moved.device, wider)

        return super()._apply(kept, recurse)

    def forward(self, x: Float[Tensor, "n d"]) -> Routed:
        part = self.part
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # shapes alone have no autocast
            logits = F.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())
        scores = logits.softmax(-1) if part.score == "softmax" else logits.sigmoid()
        merit = scores if self.e_score_correction_bias is None else scores + self.e_score_correction_bias.float()
        if part.groups > 1:
            merit = merit.masked_fill(~self._in_best_groups(merit), -torch.inf)
        experts = merit.topk(part.k, dim=-1).indices
        weights = scores.gather(-1, experts)
        if part.normalize:
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=part.norm_min)
        return Routed(experts, weights * part.scale, scores)

    def _in_best_groups(self, merit: Float[Tensor, "n e"]) -> Tensor:
        """Which experts belong to the groups that are looked at."""
        part = self.part
        grouped = merit.unflatten(-1, (part.groups, -1))
        best = grouped.topk(min(part.best_of, grouped.shape[-1]), dim=-1).values.sum(-1)
        kept = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, best.topk(part.kept, dim=-1).indices, True)
        return kept[..., None].expand_as(grouped).flatten(-2)


def imbalance(scores: Float[Tensor, "n e"], experts: Int[Tensor, "n k"]) -> Float[Tensor, ""]:
    """e · Σ_i f_i · p_i: how often a token chooses expert i, times its mean share of the scores; k where all are used alike.

    Fedus et al. 2021, arXiv:2101.03961, with f counted over all k choices, as Mixtral does.
    """
    n_experts = scores.shape[-1]
    chosen = F.one_hot(experts, n_experts).float().sum(1).mean(0)
    share = scores / scores.sum(-1, keepdim=True)
    return n_experts * (chosen * share.mean(0)).sum()

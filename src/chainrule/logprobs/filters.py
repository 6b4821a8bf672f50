"""Sampling filters: small rules that reshape log p before a token is drawn.

Each takes log p (``b v``) and gives log p again: it still sums to one, and its support only shrinks. The repetition penalty
alone acts on the model's own scores, as in transformers, and so comes first.

    Temperature(t)   p ∝ p^(1/t)
    TopK(k)          the k most probable, exactly k, ties too
    TopP(p)          the smallest set of the most probable that holds p or more      Holtzman et al. 2019, arXiv:1904.09751
    MinP(p)          whatever is at least p times as probable as the best            Nguyen et al. 2024, arXiv:2407.01082
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from chainrule.core.errors import RequestError
from chainrule.core.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Temperature:
    """Sharpen (t < 1) or flatten (t > 1)."""

    t: float

    def __post_init__(self) -> None:
        if not self.t > 0:
            raise RequestError(f"temperature is {self.t}; it must be above 0 (0 asks for greedy decoding: draw nothing)")

    def __call__(self, logp: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        best = logp.max(-1, keepdim=True).values  # taken off first: the best of all stays 0, however small t is
        return ((logp - best) / self.t).log_softmax(-1)


@dataclass(frozen=True)
class TopK:
    """Keep exactly the k most probable; of ties, those of smaller id."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise RequestError(f"top_k is {self.k}; it must be 1 or more, or be left out")

    def __call__(self, logp: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        order = logp.argsort(dim=-1, descending=True, stable=True)
        keep = torch.zeros_like(logp, dtype=torch.bool).scatter(-1, order[:, : self.k], True)
        return _only(logp, keep)


@dataclass(frozen=True)
class TopP:
    """Keep the smallest set of the most probable that holds probability p or more."""

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise RequestError(f"top_p is {self.p}; it must be above 0 and at most 1")

    def __call__(self, logp: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        if self.p == 1:
            return logp
        ranked, order = logp.sort(dim=-1, descending=True, stable=True)
        before = ranked.exp().cumsum(-1) - ranked.exp()
        return _only(logp, torch.zeros_like(logp, dtype=torch.bool).scatter(-1, order, before < self.p))


@dataclass(frozen=True)
class MinP:
    """Keep whatever is at least p times as probable as the best."""

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise RequestError(f"min_p is {self.p}; it must be between 0 and 1")

    def __call__(self, logp: Float[Tensor, "b v"]) -> Float[Tensor, "b v"]:
        return _only(logp, logp.exp() >= self.p * logp.max(-1, keepdim=True).values.exp())


Filter = Callable[[Float[Tensor, "b v"]], Float[Tensor, "b v"]]
"""What a filter is: log p to log p. Any callable will do (``Request.also``)."""


def repetition_penalty(scores: Float[Tensor, "b v"], tokens: Int[Tensor, "b s"], penalty: float) -> Float[Tensor, "b v"]:
    """Make tokens that already occurred less likely: positive scores divided by the penalty, negative ones multiplied.

    Acts on the model's own scores (Keskar et al. 2019, arXiv:1909.05858).
    """
    if not penalty > 0:
        raise RequestError(f"repetition_penalty is {penalty}; it must be above 0, and 1 changes nothing")
    picked = scores.gather(1, tokens)
    return scores.scatter(1, tokens, torch.where(picked < 0, picked * penalty, picked / penalty))


def _only(logp: Float[Tensor, "b v"], keep: Bool[Tensor, "b v"]) -> Float[Tensor, "b v"]:
    return logp.masked_fill(~keep, -torch.inf).log_softmax(-1)

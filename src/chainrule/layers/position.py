"""How a model knows the order of its tokens, besides by rope: a table of learned places, or nothing at all.

Learned       x_t = embed(token_t) + place(t)                               GPT-2; Gehring et al. 2017, arXiv:1705.03122
NoPosition    nothing: order is known from the causal mask alone             Haviv et al. 2022, arXiv:2203.16634
Temperature   nothing, but larger queries far along a row                    Nakanishi 2025, arXiv:2501.19399 (Llama 4)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.layers.rope import Length, Rope


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A vector for every place, learned and added to the token's."""

    kind: Literal["learned"] = "learned"
    stretches = False

    def tables(self, position: Int[Tensor, "b t"], c: int, length: Length) -> None:
        """Nothing for attention to turn by."""
        return None


@dataclass(frozen=True, kw_only=True)
class NoPosition:
    """No position at all."""

    kind: Literal["none"] = "none"
    stretches = False

    def tables(self, position: Int[Tensor, "b t"], c: int, length: Length) -> None:
        """Nothing to turn by."""
        return None


class QueryScale(NamedTuple):
    """What each token's query is multiplied by."""

    factor: Float[Tensor, "b t"]

    def turn(
        self, q: Float[Tensor, "b t h c"], k: Float[Tensor, "b t g c"]
    ) -> tuple[Float[Tensor, "b t h c"], Float[Tensor, "b t g c"]]:
        """Scaled queries; the keys as they were."""
        return (q * self.factor[:, :, None, None]).to(q.dtype), k


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """q · (1 + scale · ln(1 + ⌊(position + 1) / floor⌋)): no order, but a softmax that stays sharp in long rows."""

    kind: Literal["temperature"] = "temperature"
    floor: float = 8192.0
    scale: float = 0.1
    stretches = False

    def __post_init__(self) -> None:
        if self.floor <= 0:
            raise ConfigError(f"floor={self.floor} must be above 0: so many tokens share one temperature; 8192 is usual")

    def tables(self, position: Int[Tensor, "b t"], c: int, length: Length) -> QueryScale:
        """The scale of each token's query."""
        return QueryScale(1.0 + self.scale * torch.log1p(torch.floor((position.float() + 1.0) / self.floor)))


Position = Rope | Learned | NoPosition | Temperature

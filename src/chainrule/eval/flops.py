"""FLOPs: what a token costs in multiplications and additions, counted off a model's parts.

    forward   2 · (matrix parameters a token meets)  +  Σ_layers 2 · h · (c_key + c_value) · (keys it sees)
    training  3 × forward: the gradients of inputs and of weights are a product each

A causal row of t tokens sees (t + 1) / 2 keys on average, not t; a window w sees at most w, counted exactly. The head counts,
tied or not; looking up an embedding costs nothing. Norms, rope, bends and softmax are left out: well under 1 % of these, in
time they appear as memory traffic (``eval.bricks``). Kaplan et al. 2020, arXiv:2001.08361; Hoffmann et al. 2022,
arXiv:2203.15556, appendix F.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType

from chainrule.eval.anatomy import PARTS, Anatomy

FORMULA = (
    "forward = 2 · {used:,} matrix parameters + Σ over {layers} layers of 2 · heads · (key + value width) · keys = {total:,.0f}"
)


@dataclass(frozen=True)
class Flops:
    """Forward FLOPs a token: in the matrices of each part, and in comparing with other tokens (``scores``)."""

    matrices: Mapping[str, float]
    scores: float

    @property
    def forward(self) -> float:
        """All of them."""
        return sum(self.matrices.values()) + self.scores

    @property
    def training(self) -> float:
        """Forward and backward."""
        return 3 * self.forward


def flops(anatomy: Anatomy, length: int) -> Flops:
    """FLOPs a token, the mean over a causal row of ``length`` tokens."""
    return Flops(_matrices(anatomy), sum(_score(a.heads, a.d_key, a.d_value) * a.keys(length) for a in anatomy.attentions))


def flops_by_layer(anatomy: Anatomy, length: int) -> list[Flops]:
    """``flops`` layer by layer, and the head's behind the last; together they are ``flops``."""
    layers = [
        Flops(_matrices(anatomy, i), _score(a.heads, a.d_key, a.d_value) * a.keys(length))
        for i, a in enumerate(anatomy.attentions)
    ]
    return [*layers, Flops(_matrices(anatomy, None), 0.0)]


def flops_at(anatomy: Anatomy, position: int) -> Flops:
    """FLOPs of the one token at ``position`` of a row that a cache remembers."""
    return Flops(_matrices(anatomy), sum(_score(a.heads, a.d_key, a.d_value) * a.seen(position) for a in anatomy.attentions))


def formula(anatomy: Anatomy, length: int) -> str:
    """The formula with this model's numbers, of a row of ``length`` tokens."""
    used = sum(matrix.used for matrix in anatomy.matrices)
    return FORMULA.format(used=used, layers=len(anatomy.attentions), total=flops(anatomy, length).forward)


def _matrices(anatomy: Anatomy, layer: int | EllipsisType | None = ...) -> dict[str, int]:
    """FLOPs a token in the matrices of each part: of one layer, of none (the head), or of all (``...``)."""
    counted = [m for m in anatomy.matrices if layer is ... or m.layer == layer]
    by_part = {part: sum(2 * m.used for m in counted if m.part == part) for part in PARTS}
    return {part: count for part, count in by_part.items() if count}


def _score(heads: int, d_key: int, d_value: int) -> int:
    return 2 * heads * (d_key + d_value)

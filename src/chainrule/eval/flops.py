"""FLOPs: what a token costs in multiplications and additions, counted off a model's parts.

    forward   2 · (matrix parameters a token meets)  +  Σ_layers 2 · h · (c_key + c_value) · (keys it sees)
    training  3 · matrices + 3 · scores: a product has two factors, and the gradient of each is a product again
    adapters  2 · matrices + 3 · adapters + 3 · scores: frozen matrices want no gradient, what stands before them does

An adapter of rank r adds 2 · r · (d_in + d_out) a matrix forward (Hu et al. 2021, arXiv:2106.09685). Where activations are
computed again on the way back, all but the head is once more: Chen et al. 2016, arXiv:1604.06174.
A causal row of t tokens sees (t + 1) / 2 keys on average, not t; a window w sees at most w, counted exactly. The head counts,
tied or not; looking up an embedding costs nothing. One more token of a latent cache compares wider vectors, but makes no keys
and values of the others again (``layers.latent``). Norms, rope, bends and softmax are left out: well under 1 % of these, in
time they appear as memory traffic (``eval.bricks``). Kaplan et al. 2020, arXiv:2001.08361; Hoffmann et al. 2022,
arXiv:2203.15556, appendix F.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType

from chainrule.eval.anatomy import PARTS, Anatomy, Parts
from chainrule.eval.memory import Setting

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


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs a token of a training step: ``terms`` are (times, what, FLOPs forward)."""

    terms: tuple[tuple[int, str, float], ...]

    @property
    def total(self) -> float:
        """All of them."""
        return sum(times * once for times, _, once in self.terms)

    @property
    def formula(self) -> str:
        """The formula with its numbers.

        >>> TrainingFlops(((3, "matrices", 20.0), (3, "scores", 4.0))).formula
        '3 · 20 in matrices + 3 · 4 in scores = 72'
        """
        return " + ".join(f"{times} · {once:,.0f} in {what}" for times, what, once in self.terms) + f" = {self.total:,.0f}"


def passes(setting: Setting, *, frozen: bool = False) -> int:
    """How often the work of a product is done in a training step: forward, and for the gradient of each of its two factors.

    ``frozen``: one factor is a matrix of the model itself, which has no gradient where adapters learn.
    """
    return 2 if frozen and setting.method != "full" else 3


def training_flops(forward: Flops, parts: Parts, setting: Setting) -> TrainingFlops:
    """FLOPs a token of a training step of this setting, from those of the forward pass."""
    matrices, again = sum(forward.matrices.values()), forward.forward - forward.matrices.get("head", 0)
    terms = [(passes(setting, frozen=True), "matrices", matrices), (passes(setting), "scores", forward.scores)]
    if setting.adapters is not None:
        beside = adapter_flops(parts, setting)
        terms.insert(1, (passes(setting), "adapters", beside))
        again += beside
    if setting.checkpointing:
        terms.append((1, "blocks again", again))
    return TrainingFlops(tuple(term for term in terms if term[2]))


def adapter_flops(parts: Parts, setting: Setting) -> float:
    """Forward FLOPs a token of all adapters: 2 · r · (d_in + d_out) beside each matrix that the token meets."""
    beside = [] if setting.adapters is None else setting.adapters.beside(parts.inside)
    return float(sum(2 * m.active * setting.rank * (m.d_in + m.d_out) for m in beside))


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
    return Flops(_matrices(anatomy), sum(_score(a.heads, *a.decoding) * a.seen(position) for a in anatomy.attentions))


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

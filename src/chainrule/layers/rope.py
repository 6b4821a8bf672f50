"""Rotary positions: turn each pair of channels of q and k by an angle that grows with the position.

    q'_i = (q_i + i q_{i+c/2}) · exp(i · p · θ^(−2i/c))            so that q'·k' depends on p_q − p_k alone

Su et al. 2021, arXiv:2104.09864. Channel i is paired with i + c/2 (``halves``: most published weights) or with its neighbour
(``neighbours``: GLM, ERNIE, DeepSeek, Llama 4). A part of the channels may stay unturned. A scaling (``layers/scaling.py``)
stretches a model over rows longer than those it was trained on.

Tables are float32 whatever the model's format, and are computed once per forward pass for all layers.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.layers.scaling import Dynamic, Linear, Llama3, LongRope, Yarn

Pairs = Literal["halves", "neighbours"]
Length = int | Int[Tensor, "b t"]
"""How long rows are declared to be, or the document that each token stands in."""


class Tables(NamedTuple):
    """The cosines and sines of every position, in float32, one column per pair of channels."""

    cos: Float[Tensor, "b t half"]
    sin: Float[Tensor, "b t half"]
    pairs: Pairs = "halves"

    def turn(
        self, q: Float[Tensor, "b t h c"], k: Float[Tensor, "b t g c"]
    ) -> tuple[Float[Tensor, "b t h c"], Float[Tensor, "b t g c"]]:
        """Queries and keys, turned by their positions."""
        return rotate(q, self), rotate(k, self)


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions with base θ and, for rows longer than the trained ones, a scaling.

    ``d_rotary`` channels of each head are turned, the first ones; None turns all.
    """

    kind: Literal["rope"] = "rope"
    theta: float = 10000.0
    scaling: Linear | Dynamic | Llama3 | Yarn | LongRope | None = None
    d_rotary: int | None = None
    pairs: Pairs = "halves"

    def __post_init__(self) -> None:
        if self.theta <= 1:
            raise ConfigError(f"theta={self.theta} must be larger than 1; 10000 is usual")
        if self.d_rotary is not None and (self.d_rotary < 2 or self.d_rotary % 2):
            raise ConfigError(f"d_rotary={self.d_rotary} must be even and at least 2: channels are turned in pairs")

    def check_width(self, c: int) -> None:
        """Raises ``ConfigError`` where vectors of width ``c`` cannot be turned so."""
        turned = self.d_rotary or c
        if turned > c:
            raise ConfigError(
                f"d_rotary={turned} channels are to be turned of heads that have {c}; set d_rotary to {c} or less"
            )
        if isinstance(self.scaling, Dynamic) and turned == 2:
            raise ConfigError(
                f"a dynamic scaling turns d_rotary=2 channels of heads that have {c}, and has no base for a single pair; "
                "turn 4 or more, or choose another scaling"
            )

    @property
    def stretches(self) -> bool:
        """Whether the frequencies depend on the declared length, so that any length may be declared."""
        return isinstance(self.scaling, Dynamic)

    def length_kind(self, length: int) -> Hashable:
        """What a declared length decides about the frequencies; None where it decides nothing."""
        return self.scaling.length_kind(length) if isinstance(self.scaling, Dynamic | LongRope) else None

    def frequencies(self, c: int, length: int, device: torch.device | None = None) -> Float[Tensor, "half"]:
        """Radians per position of each pair of a head of width ``c``, for rows declared to hold ``length`` tokens."""
        c = self.d_rotary or c
        theta = self.scaling.base(self.theta, c, length) if isinstance(self.scaling, Dynamic) else self.theta
        plain = 1.0 / theta ** (torch.arange(0, c, 2, dtype=torch.float32, device=device) / c)
        return plain if self.scaling is None else self.scaling.apply(plain, theta, length)

    def tables(self, position: Int[Tensor, "b t"], c: int, length: Length) -> Tables:
        """The cosines and sines for tokens at ``position``, in rows of a declared length or each in a document of its own."""
        angle = position[:, :, None].float() * self._paces(c, length, position.device)
        factor = 1.0 if self.scaling is None else self.scaling.attention_factor
        return Tables(angle.cos() * factor, angle.sin() * factor, self.pairs)

    def _paces(self, c: int, length: Length, device: torch.device) -> Float[Tensor, "*b half"]:
        """The frequencies, for each token where lengths differ."""
        if isinstance(length, int):
            return self.frequencies(c, length, device)
        different, which = length.unique(return_inverse=True)
        return torch.stack([self.frequencies(c, n, device) for n in different.tolist()])[which]


def rotate(x: Float[Tensor, "b t h c"], tables: Tables) -> Float[Tensor, "b t h c"]:
    """Turn each pair of channels by its token's angles; channels beyond the tables stay. The result has the format of ``x``."""
    cos, sin = tables.cos[:, :, None].to(x.dtype), tables.sin[:, :, None].to(x.dtype)
    turned, rest = x.split([2 * cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], dim=-1)
    if tables.pairs == "neighbours":
        first, second = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)
    else:
        first, second = turned.chunk(2, dim=-1)
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned if not rest.shape[-1] else torch.cat((turned, rest), dim=-1)

"""Rotary positions: turn each pair of channels by an angle that grows with the position.

    (x_i, x_{i+c/2}) turned by  position · f_i,      f_i = θ^(−2i/c)

so that q·k depends only on how far apart two tokens stand. Su et al. 2021, arXiv:2104.09864; the pairing of halves is
that of GPT-NeoX and of published LLaMA checkpoints. Scalings stretch the frequencies for longer contexts:

    linear    f / factor                                     Chen et al. 2023, arXiv:2306.15595
    dynamic   θ grown so that the declared length fits       NTK-aware scaling; the length is the cache's capacity
    llama3    low frequencies / factor, high ones kept       Llama 3.1, with a smooth ramp between

Tables are float32 in every precision: bf16 cannot tell position 4,097 from 4,096.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Positions count ``1 / factor`` each."""

    kind: Literal["linear"] = "linear"
    factor: float

    def scale(self, freq: Tensor, theta: float, length: int) -> Tensor:
        """The frequencies divided by the factor."""
        return freq / self.factor


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """θ grows with the declared length beyond ``original`` positions."""

    kind: Literal["dynamic"] = "dynamic"
    factor: float
    original: int

    def scale(self, freq: Tensor, theta: float, length: int) -> Tensor:
        """The frequencies of a larger θ; unchanged up to ``original`` positions."""
        c = 2 * len(freq)
        length = max(length, self.original)
        grown = theta * ((self.factor * length / self.original) - (self.factor - 1)) ** (c / (c - 2))
        return frequencies(c, grown, freq.device)


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """Slow turns are stretched by ``factor``, fast ones kept, the ones between blended."""

    kind: Literal["llama3"] = "llama3"
    factor: float
    low: float
    high: float
    original: int

    def scale(self, freq: Tensor, theta: float, length: int) -> Tensor:
        """The frequencies blended by how many turns fit into ``original`` positions."""
        turns = self.original * freq / (2 * math.pi)
        keep = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return freq * keep + freq / self.factor * (1 - keep)


Scaling = Linear | Dynamic | Llama3


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions of base ``theta``, as they are or stretched."""

    kind: Literal["rope"] = "rope"
    theta: float = 10000.0
    scaling: Scaling | None = None

    def frequencies(self, c: int, length: int, device: torch.device | None = None) -> Float[Tensor, "f"]:
        """Radians per position of each channel pair, for rows declared to reach ``length`` tokens."""
        if c % 2:
            raise ConfigError(f"rope turns pairs of channels, but heads have d_head={c}; make it even")
        freq = frequencies(c, self.theta, device)
        return freq if self.scaling is None else self.scaling.scale(freq, self.theta, length)


def frequencies(c: int, theta: float, device: torch.device | None = None) -> Float[Tensor, "f"]:
    """θ^(−2i/c) for i = 0 … c/2 − 1."""
    return 1.0 / theta ** (torch.arange(0, c, 2, dtype=torch.float32, device=device) / c)


Turns = tuple[Tensor, Tensor]
"""Cosine and sine, each ``b 1 t c``."""


def turns(freq: Float[Tensor, "f"], position: Int[Tensor, "b t"]) -> Turns:
    """The cosines and sines that turn every head at these positions."""
    angle = position[:, None, :, None].float() * torch.cat([freq, freq])
    return angle.cos(), angle.sin()


def rotate(x: Float[Tensor, "b h t c"], by: Turns) -> Float[Tensor, "b h t c"]:
    """Turn each pair (x_i, x_{i+c/2}) by its angle."""
    cos, sin = by
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)

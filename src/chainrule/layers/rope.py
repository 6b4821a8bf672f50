"""Rotary positions: turn each pair of channels of q and k by an angle that grows with the position.

    q'_i = (q_i + i q_{i+c/2}) · exp(i · p · θ^(−2i/c))            so that q'·k' depends on p_q − p_k alone

Su et al. 2021, arXiv:2104.09864. Channel i is paired with i + c/2 (the layout of published LLaMA weights in
safetensors; llama2.c and GGUF pair neighbours and permute the weights). A scaling stretches a model over rows longer
than those it was trained on:

    Linear   every frequency divided by ``factor``                              Chen et al. 2023, arXiv:2306.15595
    Dynamic  a larger θ, by how far the declared length exceeds the trained one "NTK-aware", bloc97 and emozilla 2023
    Llama3   long wavelengths alone, with a smooth passage                      Grattafiori et al. 2024, arXiv:2407.21783

Tables are float32 whatever the model's format, and are computed once per forward pass for all layers.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Every position divided by ``factor``."""

    kind: Literal["linear"] = "linear"
    factor: float

    def __post_init__(self) -> None:
        _check_factor(self.factor)


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """θ grows with the declared length of the rows, where that exceeds the ``original`` one; never on the way."""

    kind: Literal["dynamic"] = "dynamic"
    factor: float
    original: int

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        _check_original(self.original)


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """Wavelengths up to original/high stay, those beyond original/low are stretched, with a smooth passage between."""

    kind: Literal["llama3"] = "llama3"
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192

    def __post_init__(self) -> None:
        _check_factor(self.factor)
        _check_original(self.original)
        if not 0 < self.low < self.high:
            raise ConfigError(f"low={self.low} and high={self.high} must satisfy 0 < low < high; 1 and 4 are usual")


Scaling = Linear | Dynamic | Llama3


def _check_factor(factor: float) -> None:
    if factor < 1:
        raise ConfigError(f"a rope scaling of factor={factor} would shorten the rows; it must be at least 1")


def _check_original(original: int) -> None:
    if original < 1:
        raise ConfigError(f"original={original} must be the row length the model was trained on, at least 1")


class Tables(NamedTuple):
    """The cosines and sines of every position, in float32, one column per pair of channels."""

    cos: Float[Tensor, "b t half"]
    sin: Float[Tensor, "b t half"]


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions with base θ and, for rows longer than the trained ones, a scaling."""

    kind: Literal["rope"] = "rope"
    theta: float = 10000.0
    scaling: Linear | Dynamic | Llama3 | None = None

    def __post_init__(self) -> None:
        if self.theta <= 1:
            raise ConfigError(f"theta={self.theta} must be larger than 1; 10000 is usual")

    @property
    def stretches(self) -> bool:
        """Whether the frequencies depend on the declared length, so that any length may be declared."""
        return isinstance(self.scaling, Dynamic)

    def frequencies(self, c: int, length: int, device: torch.device | None = None) -> Float[Tensor, "half"]:
        """Radians per position of each pair of a head of width ``c``, for rows declared to hold ``length`` tokens."""
        theta = self.theta
        if isinstance(self.scaling, Dynamic):
            theta = _stretched(theta, c, length, self.scaling)
        plain = 1.0 / theta ** (torch.arange(0, c, 2, dtype=torch.float32, device=device) / c)
        if isinstance(self.scaling, Linear):
            return plain / self.scaling.factor
        return _smoothed(plain, self.scaling) if isinstance(self.scaling, Llama3) else plain

    def tables(self, position: Int[Tensor, "b t"], c: int, length: int) -> Tables:
        """The cosines and sines for tokens at ``position``."""
        angle = position[:, :, None].float() * self.frequencies(c, length, position.device)
        return Tables(angle.cos(), angle.sin())


@dataclass(frozen=True, kw_only=True)
class NoPosition:
    """No position at all: order is known from the causal mask alone (Haviv et al. 2022, arXiv:2203.16634)."""

    kind: Literal["none"] = "none"
    stretches = False

    def tables(self, position: Int[Tensor, "b t"], c: int, length: int) -> None:
        """Nothing to rotate by."""
        return None


Position = Rope | NoPosition


def _stretched(theta: float, c: int, length: int, scaling: Dynamic) -> float:
    ratio = max(length, scaling.original) / scaling.original
    return theta * (scaling.factor * ratio - (scaling.factor - 1)) ** (c / (c - 2))


def _smoothed(plain: Float[Tensor, "n"], scaling: Llama3) -> Float[Tensor, "n"]:
    turns = scaling.original * plain / (2 * math.pi)  # full turns within a row of the original length
    keep = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return plain * (keep + (1 - keep) / scaling.factor)


def rotate(x: Float[Tensor, "b t h c"], tables: Tables) -> Float[Tensor, "b t h c"]:
    """Turn channel i with channel i + c/2 by each token's angles; the result has the format of ``x``."""
    cos, sin = tables.cos[:, :, None].to(x.dtype), tables.sin[:, :, None].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

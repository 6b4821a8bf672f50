"""Rope scalings: how a model reads rows longer than those it was trained on.

    Linear    every frequency divided by ``factor``                              Chen et al. 2023, arXiv:2306.15595
    Dynamic   a larger θ, by how far the declared length exceeds the trained one "NTK-aware", bloc97 and emozilla 2023
    Llama3    long wavelengths alone, with a smooth passage                      Grattafiori et al. 2024, arXiv:2407.21783
    Yarn      the same by turns within a trained row, and larger scores          Peng et al. 2023, arXiv:2309.00071
    LongRope  every frequency divided by a number of its own, searched for       Ding et al. 2024, arXiv:2402.13753

What depends on a row's length (Dynamic, LongRope) is fixed by the length that is declared, and never changes on the way: a
cache declares its capacity, and a document that is read whole its own length, whatever is packed or padded beside it. So the
beginning of a row, read alone, may be another row than within it.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Tensor


def _check(factor: float, original: int = 1) -> None:
    if factor < 1:
        raise ConfigError(f"a rope scaling of factor={factor} would shorten the rows; it must be at least 1")
    if original < 1:
        raise ConfigError(f"original={original} must be the row length the model was trained on, at least 1")


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Every position divided by ``factor``."""

    kind: Literal["linear"] = "linear"
    factor: float
    attention_factor = 1.0
    """What cosines and sines are multiplied by."""

    def __post_init__(self) -> None:
        _check(self.factor)

    def apply(self, plain: Float[Tensor, "n"], theta: float, length: int) -> Float[Tensor, "n"]:
        """The frequencies, slower by ``factor``."""
        return plain / self.factor


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """θ grows with the declared length of the rows, where that exceeds the ``original`` one."""

    kind: Literal["dynamic"] = "dynamic"
    factor: float
    original: int
    attention_factor = 1.0

    def __post_init__(self) -> None:
        _check(self.factor, self.original)

    def length_kind(self, length: int) -> int:
        """What a declared length decides: beyond the original one every length has a base of its own."""
        return max(length, self.original)

    def base(self, theta: float, c: int, length: int) -> float:
        """The base for rows of a declared length."""
        ratio = self.length_kind(length) / self.original
        return theta * (self.factor * ratio - (self.factor - 1)) ** (c / (c - 2))

    def apply(self, plain: Float[Tensor, "n"], theta: float, length: int) -> Float[Tensor, "n"]:
        """The frequencies of the grown base, as they are."""
        return plain


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """Wavelengths up to original/high stay, those beyond original/low are stretched, with a smooth passage between.

    Where low and high are the same (Llama 4 Scout) there is no passage, but a step.
    """

    kind: Literal["llama3"] = "llama3"
    factor: float
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    attention_factor = 1.0

    def __post_init__(self) -> None:
        _check(self.factor, self.original)
        if not 0 < self.low <= self.high:
            raise ConfigError(f"low={self.low} and high={self.high} must satisfy 0 < low ≤ high; 1 and 4 are usual")

    def apply(self, plain: Float[Tensor, "n"], theta: float, length: int) -> Float[Tensor, "n"]:
        """The frequencies, the slow ones slower."""
        turns = self.original * plain / (2 * math.pi)  # full turns within a row of the original length
        if self.low == self.high:
            keep = (turns >= self.low).to(plain.dtype)
        else:
            keep = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return plain * (keep + (1 - keep) / self.factor)


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """Channels of more than ``fast`` turns within a trained row stay, those of less than ``slow`` are stretched.

    The passage between is linear in the channel; its ends are whole channels where ``whole``. ``attention_factor``
    makes up for the flatter softmax of longer rows: 0.1 ln(factor) + 1 unless the config says otherwise.
    """

    kind: Literal["yarn"] = "yarn"
    factor: float
    original: int
    fast: float = 32.0
    slow: float = 1.0
    whole: bool = True
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        _check(self.factor, self.original)

    def apply(self, plain: Float[Tensor, "n"], theta: float, length: int) -> Float[Tensor, "n"]:
        """The frequencies, the slow ones slower."""
        c = 2 * len(plain)
        low, high = (self._channel(turns, c, theta) for turns in (self.fast, self.slow))
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, c - 1)
        high += 0.001 if low == high else 0.0
        stretch = ((torch.arange(c // 2, device=plain.device) - low) / (high - low)).clamp(0, 1)
        return plain * (1 - stretch + stretch / self.factor)

    def _channel(self, turns: float, c: int, theta: float) -> float:
        """Which pair of channels makes so many turns within a trained row."""
        return c * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """Each frequency divided by its own number: one of ``short`` in rows up to the ``original`` length, else of ``long``."""

    kind: Literal["longrope"] = "longrope"
    short: tuple[float, ...]
    long: tuple[float, ...]
    original: int
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        _check(1.0, self.original)
        if len(self.short) != len(self.long):
            raise ConfigError(
                f"a rope scaling has {len(self.short)} short and {len(self.long)} long factors; give as many of each"
            )

    def length_kind(self, length: int) -> bool:
        """What a declared length decides: whether the row is a long one."""
        return length > self.original

    def apply(self, plain: Float[Tensor, "n"], theta: float, length: int) -> Float[Tensor, "n"]:
        """The frequencies, each slower by its own factor."""
        factors = self.long if self.length_kind(length) else self.short
        if len(factors) != len(plain):
            raise ConfigError(f"a rope scaling has {len(factors)} factors, but {len(plain)} pairs of channels are turned")
        return plain / torch.tensor(factors, dtype=plain.dtype, device=plain.device)


Scaling = Linear | Dynamic | Llama3 | Yarn | LongRope

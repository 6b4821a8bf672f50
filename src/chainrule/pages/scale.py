"""From values to places on an axis, and the round numbers to write beside it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from chainrule.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from ``low`` to ``high``, even in the value or, with ``log``, in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise DataError(f"an axis from {self.low} to {self.high} cannot be drawn{' in logarithms' * self.log}")

    @classmethod
    def over(cls, values: Iterable[float], *, log: bool = False, room: float = 0.0) -> "Scale":
        """The axis that holds all finite values (positive ones if ``log``), with a share of ``room`` at both ends."""
        kept = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
        if not kept:
            kept = [1.0]
        low, high = (math.log(min(kept)), math.log(max(kept))) if log else (min(kept), max(kept))
        spare = room * (high - low) if high > low else 0.5 * (abs(low) if low and not log else 1.0)
        low, high = low - spare, high + spare
        return cls(low=math.exp(low), high=math.exp(high), log=True) if log else cls(low=low, high=high)

    def at(self, value: float) -> float:
        """Where a value stands: 0 at ``low``, 1 at ``high``.

        >>> Scale(low=1, high=100, log=True).at(10)
        0.5
        """
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int) -> list[float]:
        """About so many round numbers within the axis.

        >>> Scale(low=0, high=1).ticks(5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        """
        if self.log:
            marks = self._log_ticks(about)
            if len(marks) >= 2:
                return marks
        step = _round_step((self.high - self.low) / max(about, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]

    def _log_ticks(self, about: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            marks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
            marks = [mark for mark in marks if self.low * (1 - 1e-9) <= mark <= self.high * (1 + 1e-9)]
            if len(marks) <= about + 1:
                return marks
        return marks[:: -(-len(marks) // max(about, 1))]


def _round_step(rough: float) -> float:
    """The first of 1, 2 and 5 times a power of ten that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * (1 - 1e-9))

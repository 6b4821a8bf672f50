"""Learning-rate schedules: functions of the step alone, so that resuming needs to remember nothing.

warm-up                     (step + 1) / warmup
cosine                      floor + (1 − floor) · (1 + cos πx) / 2,      x from 0 to 1 after the warm-up
wsd (warm up, stay, decay)  1, then linearly to floor over the last ``decay`` share of the steps
"""

import math
from dataclasses import dataclass
from typing import Literal

from chainrule.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The factor that multiplies every learning rate."""

    kind: Literal["constant", "cosine", "wsd"] = "wsd"
    warmup: int = 20
    decay: float = 0.6
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup < 0 or not 0 < self.decay <= 1 or not 0 <= self.floor <= 1:
            raise ConfigError(
                f"schedule has warmup={self.warmup}, decay={self.decay}, floor={self.floor}; "
                "it needs warmup >= 0, 0 < decay <= 1 and 0 <= floor <= 1"
            )

    def scale(self, step: int, steps: int) -> float:
        """The factor at a step (from 0) of so many.

        >>> Schedule(kind="wsd", warmup=2, decay=0.5).scale(0, 8), Schedule(warmup=0, decay=0.5).scale(6, 8)
        (0.5, 0.5)
        """
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            x = (step - self.warmup) / max(1, steps - self.warmup)
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * x)) / 2
        left = (steps - step) / (self.decay * steps)
        return min(1.0, self.floor + (1 - self.floor) * left)

"""Number formats of training: which numbers are narrow, and how fp16 is kept from losing small gradients.

    fp32         everything in 32 bits
    bf16, fp16   mixed: weights, gradients and optimizer in 32 bits, matrix products in 16 (autocast)
    pure_bf16    weights, gradients and optimizer in 16 bits too: half the memory, and steps below 1/256 of a weight are lost

fp16 has five bits of exponent: gradients below 6e-8 are 0. So the loss is multiplied by a scale before it goes back, and the
gradients are divided by it in fp32. The scale is halved when gradients overflow, and that step is skipped; after many steps
without it is doubled. Micikevicius et al. 2017, arXiv:1710.03740.
"""

from dataclasses import dataclass
from typing import Any

import torch

from chainrule.core.device import pick_dtype


@dataclass(frozen=True)
class Precision:
    """``products`` is autocast's format (fp32: none), ``weights`` that of weights, gradients and optimizer."""

    products: torch.dtype
    weights: torch.dtype = torch.float32

    def scale(self) -> "LossScale | None":
        """What the loss is multiplied by, where small gradients would be lost."""
        return LossScale() if self.products == torch.float16 else None


def pick_precision(name: str, device: torch.device) -> Precision:
    """The formats of a recipe's ``precision``; ``auto`` is bf16 where the device multiplies it in hardware."""
    if name == "pure_bf16":
        return Precision(torch.float32, torch.bfloat16)
    return Precision(pick_dtype(name, device))


class LossScale:
    """A scale that finds its own size.

    The loss here is a sum over tokens: a scale of 16 does to it what 65,536 does to the mean over 4,096 tokens.
    """

    def __init__(self, scale: float = 2.0**12, *, growth: float = 2.0, backoff: float = 0.5, every: int = 2000) -> None:
        self.scale, self.growth, self.backoff, self.every = scale, growth, backoff, every
        self.good = 0

    def update(self, finite: bool) -> None:
        """After a step: grow after ``every`` steps in a row whose gradients were finite, back off after one that was not.

        >>> scale = LossScale(8.0, every=2)
        >>> [scale.update(finite) or scale.scale for finite in (True, True, False, True)]
        [8.0, 16.0, 8.0, 8.0]
        """
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.scale *= self.backoff
        elif self.good == self.every:
            self.scale *= self.growth
            self.good = 0

    @property
    def spent(self) -> bool:
        """Whether it has fallen so low that scaling is not what is wrong."""
        return self.scale < 2.0**-8

    def state_dict(self) -> dict[str, Any]:
        """All that must be remembered between steps."""
        return {"scale": self.scale, "good": self.good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember again what ``state_dict`` said."""
        self.scale, self.good = state["scale"], state["good"]

"""Sinusoidal positions: a clock with hands of many speeds, added to the embedding.

    PE(p, 2i) = sin(p / θ^(2i/d))        PE(p, 2i+1) = cos(p / θ^(2i/d))

Vaswani et al. 2017, arXiv:1706.03762. PE(p + k) is a rotation of PE(p) that depends on k alone: the thought that rope carries
into attention. Nothing is learned and no length is fixed.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class Sinusoidal:
    """The clock's slowest hand takes 2π·``theta`` steps for a turn."""

    kind: Literal["sinusoidal"] = "sinusoidal"
    theta: float = 10000.0

    def __post_init__(self) -> None:
        if not self.theta > 1:
            raise ConfigError(f"theta={self.theta} must be above 1; 10000 is usual")

    def added(self, position: Int[Tensor, "b t"], d: int) -> Float[Tensor, "b t d"]:
        """What is added to an embedding of (even) width ``d`` at each position, in float32."""
        if d % 2:
            raise ConfigError(f"d_model={d} must be even: sines and cosines come in pairs")
        # on the CPU, since not every device has float64 (MPS)
        slowness = self.theta ** (torch.arange(0, d, 2, device="cpu", dtype=torch.float64) / d)
        angle = position[:, :, None] / slowness.to(position.device, torch.float32)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(2)  # b t d/2 2 -> b t d

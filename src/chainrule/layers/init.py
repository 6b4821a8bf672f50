"""Where weights begin. A scheme fills a model's matrices from a generator that it is given.

    Normal   every matrix N(0, std²); what writes to the residual stream divided by √(2·layers), so that the stream's
             variance does not grow with depth                                             Radford et al. 2019 (GPT-2)
    FanIn    every matrix N(0, gain²/width of its input); what writes to the stream zero, so that each block begins as
             the identity; embeddings N(0, embedding²)

Norm weights begin at one and biases at zero, where their layers put them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

RESIDUAL = ("o_proj", "down_proj")
"""The matrices that write to the residual stream, by the last word of their names."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """One standard deviation for all, the residual projections scaled down by depth."""

    kind: Literal["normal"] = "normal"
    std: float = 0.02

    def fill(self, model: nn.Module, n_layers: int, generator: torch.Generator | None) -> None:
        """Draw every matrix of ``model``, in the order of its modules."""
        for name, module in matrices(model):
            depth = math.sqrt(2 * n_layers) if name.endswith(RESIDUAL) else 1.0
            nn.init.normal_(module.weight, std=self.std / depth, generator=generator)


@dataclass(frozen=True, kw_only=True)
class FanIn:
    """Matrices that keep the scale of what they read; residual projections silent at first."""

    kind: Literal["fan_in"] = "fan_in"
    gain: float = 1.0
    embedding: float = 0.02

    def fill(self, model: nn.Module, n_layers: int, generator: torch.Generator | None) -> None:
        """Draw every matrix of ``model``, in the order of its modules."""
        for name, module in matrices(model):
            std = self.embedding if isinstance(module, nn.Embedding) else self.gain / math.sqrt(module.weight.shape[1])
            std = 0.0 if name.endswith(RESIDUAL) else std
            nn.init.normal_(module.weight, std=std, generator=generator)


Init = Normal | FanIn
GPT2 = Normal()


def matrices(model: nn.Module) -> list[tuple[str, nn.Linear | nn.Embedding]]:
    """Every linear map and table of a model with its name, in a fixed order."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]

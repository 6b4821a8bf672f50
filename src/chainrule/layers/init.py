"""Where weights begin. A scheme fills a model's matrices from a generator that it is given.

    Normal   every matrix N(0, std²); what writes to the residual stream divided by √(2·layers), so that the stream's
             variance does not grow with depth                                             Radford et al. 2019 (GPT-2)
    FanIn    every matrix N(0, gain²/width of its input); what writes to the stream zero, so that each block begins as
             the identity; embeddings N(0, embedding²)

    Mimetic  FanIn, then every layer's k is its q and its o the transpose of its v, as trained Transformers resemble: tokens
             attend to their like and copy what they find from the first step on      Trockman & Kolter 2023, arXiv:2305.09828

Norm weights begin at one and biases at zero, where their layers put them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Tensor
from chainrule.layers.attention import GroupedQueryLayer

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


@dataclass(frozen=True, kw_only=True)
class Mimetic:
    """``FanIn``, and attention that begins by looking for its like and copying it; wants as many kv heads as heads."""

    kind: Literal["mimetic"] = "mimetic"
    gain: float = 0.5
    embedding: float = 0.02
    copy: float = 1.0
    """What o's transpose of v is multiplied by."""
    first: int = 1
    """The first layer whose k is its q; below it there is no context yet to be alike in."""

    def fill(self, model: nn.Module, n_layers: int, generator: torch.Generator | None) -> None:
        """Draw every matrix of ``model``, then make k and o of every attention resemble q and v."""
        FanIn(gain=self.gain, embedding=self.embedding).fill(model, n_layers, generator)
        attentions = [module for module in model.modules() if isinstance(module, GroupedQueryLayer)]
        with torch.no_grad():
            for layer, attention in enumerate(attentions):
                self._resemble(attention, layer)

    def _resemble(self, attention: GroupedQueryLayer, layer: int) -> None:
        q, k, v, o = (m.weight for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))
        if k.shape != q.shape or v.mT.shape != o.shape:
            raise ConfigError(f"mimetic initialisation needs as many kv heads as heads, but q is {_shape(q)} and k {_shape(k)}")
        if layer >= self.first:
            k.copy_(q)
        o.copy_(self.copy * v.mT)


def _shape(weight: Tensor) -> str:
    return " by ".join(map(str, weight.shape))


Init = Normal | FanIn | Mimetic
GPT2 = Normal()


def matrices(model: nn.Module) -> list[tuple[str, nn.Linear | nn.Embedding]]:
    """Every linear map and table of a model with its name, in a fixed order."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]

"""Where weights begin. A scheme fills a model's matrices from a generator that it is given.

    Normal     every matrix N(0, std²); what writes to the residual stream divided by √(2·layers), so that the stream's
               variance does not grow with depth                                             Radford et al. 2019 (GPT-2)
    FanIn      every matrix N(0, gain²/width of its input); what writes to the stream zero, so that each block begins as
               the identity; embeddings N(0, embedding²)

    Mimetic    FanIn, then every layer's k is its q and its o the transpose of its v, as trained Transformers resemble: tokens
               attend to their like and copy what they find        Trockman & Kolter 2023, arXiv:2305.09828
    Induction  Mimetic, with the circuit that in-context recall needs already there: the first layer's heads look 0, 1, 2, …
               tokens back, the second layer's find where the same tokens stood before and copy what came next. Training
               finds this circuit by itself, but late (Olsson et al. 2022, arXiv:2209.11895)

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
ELSE = "begin otherwise: model.init=normal, or fan_in"
"""What to type where a scheme does not fit a model."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """One standard deviation for all, the residual projections scaled down by depth."""

    kind: Literal["normal"] = "normal"
    std: float = 0.02

    def fill(self, model: nn.Module, n_layers: int, generator: torch.Generator | None) -> None:
        """Draw every matrix of ``model``, in the order of its modules."""
        for name, matrix, _ in matrices(model):
            depth = math.sqrt(2 * n_layers) if name.endswith(RESIDUAL) else 1.0
            nn.init.normal_(matrix, std=self.std / depth, generator=generator)


@dataclass(frozen=True, kw_only=True)
class FanIn:
    """Matrices that keep the scale of what they read; residual projections silent at first."""

    kind: Literal["fan_in"] = "fan_in"
    gain: float = 1.0
    embedding: float = 0.02

    def fill(self, model: nn.Module, n_layers: int, generator: torch.Generator | None) -> None:
        """Draw every matrix of ``model``, in the order of its modules."""
        for name, matrix, is_table in matrices(model):
            std = self.embedding if is_table else self.gain / math.sqrt(matrix.shape[-1])
            std = 0.0 if name.endswith(RESIDUAL) else std
            nn.init.normal_(matrix, std=std, generator=generator)


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
            raise ConfigError(
                f"mimetic initialisation, and induction with it, needs as many kv heads as heads, but q is {_shape(q)} and k "
                f"{_shape(k)}; {ELSE}"
            )
        if layer >= self.first:
            k.copy_(q)
        o.copy_(self.copy * v.mT)


@dataclass(frozen=True, kw_only=True)
class Induction:
    """``Mimetic``, with heads that look back in the first layer and heads that find and copy in the second.

    A direction of the embedding that all tokens share gives the first layer something constant to rotate: its head j attends
    j tokens back and writes what it finds into a subspace of its own. In the second layer head j compares what stood j
    tokens back now with what stood j + 1 tokens back then, and copies the token it finds. Wants rope, two layers, and as
    many kv heads as heads; the fast half of rope's pairs tells places, the slow half tokens.
    """

    kind: Literal["induction"] = "induction"
    gain: float = 0.5
    embedding: float = 0.02
    look: float = 5.7
    """How sharply the first layer looks: the size of its q and k."""
    match: float = 2.8
    """How sharply the second layer compares."""
    theta: float = 10000.0

    def fill(self, model: nn.Module, n_layers: int, generator: torch.Generator | None) -> None:
        """Draw every matrix of ``model``, then set the attentions of its first two layers."""
        Mimetic(gain=self.gain, embedding=self.embedding).fill(model, n_layers, generator)
        attentions = [module for module in model.modules() if isinstance(module, GroupedQueryLayer)]
        table = next(module for module in model.modules() if isinstance(module, nn.Embedding))
        d, widths = table.weight.shape[1], {attention.d_head for attention in attentions[:2]}
        c = min(widths, default=0)
        if len(attentions) < 2 or len(widths) > 1 or c % 4 or c > d:
            raise ConfigError(
                f"induction initialisation needs two layers, and in both heads of one width, divisible by 4 and no wider than "
                f"the model, not {len(attentions)} with heads of width {sorted(widths)} in a model of width {d}; {ELSE}"
            )
        with torch.no_grad():
            table.weight[:, 0] = self.embedding * math.sqrt(d)  # as much as all of the rest together
            places, read = _orthogonal(d, generator), _orthogonal(d, generator)[:c]
            read[:, 0] = 0
            self._look_back(attentions[0], places, read)
            self._find_and_copy(attentions[1], places, read)

    def _look_back(self, attention: GroupedQueryLayer, places: Tensor, read: Tensor) -> None:
        """Head j attends j tokens back; what ``read`` reads there goes to the j-th block of ``places``."""
        c, d = attention.d_head, places.shape[0]
        pairs, fast = c // 2, c // 4
        size = self.look * math.sqrt(2 / d)
        frequency = self.theta ** (-torch.arange(0, c, 2) / c)[:fast]
        for j in range(min(attention.part.n_heads, d // c)):
            rows = slice(j * c, (j + 1) * c)
            q, k = torch.zeros(c), torch.zeros(c)
            k[:fast] = size
            q[:fast], q[pairs : pairs + fast] = size * (frequency * j).cos(), -size * (frequency * j).sin()
            attention.q_proj.weight[rows, 0], attention.k_proj.weight[rows, 0] = q, k
            attention.v_proj.weight[rows] = read
            attention.o_proj.weight[:, rows] = places[:, rows]

    def _find_and_copy(self, attention: GroupedQueryLayer, places: Tensor, read: Tensor) -> None:
        """Head j matches block j of now with block j + 1 of then, and writes the token found in its own direction."""
        c, d = attention.d_head, places.shape[0]
        slow = torch.cat([torch.arange(c // 4, c // 2), torch.arange(c // 2 + c // 4, c)])
        for j in range(min(attention.part.n_heads, d // c) - 1):
            rows, following = slice(j * c, (j + 1) * c), slice((j + 1) * c, (j + 2) * c)
            for weight, block in ((attention.q_proj.weight, rows), (attention.k_proj.weight, following)):
                weight[rows] = 0
                weight[rows.start + slow] = self.match * places[:, block].T[: len(slow)]
            attention.v_proj.weight[rows] = places[:, :c].T
            attention.o_proj.weight[:, rows] = read.T


def _orthogonal(d: int, generator: torch.Generator | None) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=generator)).Q


def _shape(weight: Tensor) -> str:
    return " by ".join(map(str, weight.shape))


Init = Normal | FanIn | Mimetic | Induction
GPT2 = Normal()


def matrices(model: nn.Module) -> list[tuple[str, nn.Parameter, bool]]:
    """(name, parameter, whether it is a table) of every matrix of a model, stacks of experts included, in a fixed order.

    The name is the module's, or the parameter's own where it is not called ``weight``.
    """
    listed: list[tuple[str, nn.Parameter, bool]] = []
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=path, recurse=False):
            if parameter.ndim >= 2 and not name.endswith("_bias"):
                listed.append((name.removesuffix(".weight"), parameter, isinstance(module, nn.Embedding)))
    return listed

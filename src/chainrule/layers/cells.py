"""Recurrent cells: one state, rewritten by every token.

    Elman   h' = tanh(W x + U h)
    Lstm    c' = f ⊙ c + i ⊙ g,   h' = o ⊙ tanh c',    i, f, o = σ(W x + U h),  g = tanh(W x + U h)
    Gru     h' = (1 − z) ⊙ n + z ⊙ h,   n = tanh(W x + r ⊙ U h),    r, z = σ(W x + U h)

Elman 1990; Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; Cho et al. 2014, arXiv:1406.1078. Names of
weights, the order of gates and the two biases are those of ``torch.nn.LSTMCell`` and its kin. Matrices begin uniform in
±1/√h, biases at zero but for the LSTM's forget gate, which begins open (Jozefowicz et al. 2015). The state is float32 in
every number format: it is a sum over the whole row.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Elman:
    """The plain recurrent network."""

    kind: Literal["rnn"] = "rnn"
    d_hidden: int

    def __post_init__(self) -> None:
        _check_width(self.d_hidden)

    def build(self, d_in: int) -> "CellLayer":
        """The cell that reads vectors of width ``d_in``."""
        return ElmanLayer(d_in, self.d_hidden)


@dataclass(frozen=True, kw_only=True)
class Lstm:
    """Long short-term memory: what is kept, added and shown is decided by gates."""

    kind: Literal["lstm"] = "lstm"
    d_hidden: int

    def __post_init__(self) -> None:
        _check_width(self.d_hidden)

    def build(self, d_in: int) -> "CellLayer":
        """The cell that reads vectors of width ``d_in``."""
        return LstmLayer(d_in, self.d_hidden)


@dataclass(frozen=True, kw_only=True)
class Gru:
    """The gated recurrent unit: one gate both keeps the old and takes the new."""

    kind: Literal["gru"] = "gru"
    d_hidden: int

    def __post_init__(self) -> None:
        _check_width(self.d_hidden)

    def build(self, d_in: int) -> "CellLayer":
        """The cell that reads vectors of width ``d_in``."""
        return GruLayer(d_in, self.d_hidden)


Cell = Elman | Lstm | Gru
CELLS: dict[str, type[Elman] | type[Lstm] | type[Gru]] = {"rnn": Elman, "lstm": Lstm, "gru": Gru}


def _check_width(d_hidden: int) -> None:
    if d_hidden < 1:
        raise ConfigError(f"d_hidden={d_hidden} must be at least 1")


State = tuple[Tensor, ...]
"""What a cell remembers of m documents, each part ``m h``; the first part is its output."""


class CellLayer(nn.Module, ABC):
    """A cell with its weights: so many ``gates``, a state of so many ``parts``."""

    gates: int
    parts = 1

    def __init__(self, d_in: int, d_hidden: int) -> None:
        super().__init__()
        self.d_hidden, self.d_state = d_hidden, self.parts * d_hidden
        self.weight_ih = nn.Parameter(torch.zeros(self.gates * d_hidden, d_in))
        self.weight_hh = nn.Parameter(torch.zeros(self.gates * d_hidden, d_hidden))
        self.bias_ih = nn.Parameter(torch.zeros(self.gates * d_hidden))
        self.bias_hh = nn.Parameter(torch.zeros(self.gates * d_hidden))

    @torch.no_grad()
    def init(self, generator: torch.Generator | None) -> None:
        """Draw the matrices."""
        bound = 1 / math.sqrt(self.d_hidden)
        for matrix in (self.weight_ih, self.weight_hh):
            matrix.uniform_(-bound, bound, generator=generator)

    @abstractmethod
    def step(self, x: Float[Tensor, "m g"], *state: Float[Tensor, "m h"]) -> State:
        """The state after one more token of each document, whose share ``W x + b`` of every gate is given."""

    def forward(self, x: Float[Tensor, "n d"], sizes: Sequence[int], first: Float[Tensor, "m s"]) -> Float[Tensor, "n s"]:
        """The states after every token, parts side by side. ``x`` holds the tokens step by step: at step t those of the first
        ``sizes[t]`` documents. ``first`` are the states that the documents begin with."""
        state, states = first.chunk(self.parts, -1), []
        shares = F.linear(x, self.weight_ih, self.bias_ih).float().split(list(sizes))
        with torch.autocast(x.device.type, enabled=False):  # a chain of small products: casting them costs more than it saves
            for now in shares:
                if len(now) < len(state[0]):  # shorter documents have ended
                    state = tuple(part[: len(now)] for part in state)
                state = self.step(now, *state)
                states.append(state)
        return torch.cat([torch.cat(part) for part in zip(*states, strict=True)], -1) if states else first[:0]

    def recurrent(self, h: Float[Tensor, "m h"]) -> Float[Tensor, "m g"]:
        """U h + b, the state's share of every gate."""
        return F.linear(h.to(self.weight_hh.dtype), self.weight_hh, self.bias_hh).float()


class ElmanLayer(CellLayer):
    """h' = tanh(W x + U h)."""

    gates = 1

    def step(self, x: Float[Tensor, "m g"], *state: Float[Tensor, "m h"]) -> State:
        return (torch.tanh(x + self.recurrent(state[0])),)


class LstmLayer(CellLayer):
    """c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh c'; the gates lie in the order i, f, g, o."""

    gates, parts = 4, 2

    @torch.no_grad()
    def init(self, generator: torch.Generator | None) -> None:
        super().init(generator)
        self.bias_ih[self.d_hidden : 2 * self.d_hidden] = 1.0

    def step(self, x: Float[Tensor, "m g"], *state: Float[Tensor, "m h"]) -> State:
        h, c = state
        i, f, g, o = (x + self.recurrent(h)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GruLayer(CellLayer):
    """h' = (1 − z) ⊙ n + z ⊙ h; the gates lie in the order r, z, n."""

    gates = 3

    def step(self, x: Float[Tensor, "m g"], *state: Float[Tensor, "m h"]) -> State:
        (h,) = state
        x_r, x_z, x_n = x.chunk(3, -1)
        h_r, h_z, h_n = self.recurrent(h).chunk(3, -1)
        n = torch.tanh(x_n + (x_r + h_r).sigmoid() * h_n)
        return (torch.lerp(n, h, (x_z + h_z).sigmoid()),)

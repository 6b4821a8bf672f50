"""Recurrent language models: all that was read is one state.

    x₁ … xₜ  →  embed  →  cell  →  …  →  cell  →  state hₜ,      scores = hₜ Wᵀ

Mikolov et al. 2010 (RNN), Sundermeyer et al. 2012 (LSTM), Cho et al. 2014 (GRU). The past has no limit, but it must fit into
one vector, and tokens are read one after another: what the Transformer was made to change. The readout may be the embedding
table itself (Press & Wolf 2017, arXiv:1608.05859). Dropout is left out: no recipe uses it. torch's fused kernels are left out
too: over packed documents they train slower than this loop on a CPU.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.cache import Cache, TokenCache
from chainrule.core.datum import Given, Layout
from chainrule.core.errors import ConfigError, nearest
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap, tell
from chainrule.layers.cells import CELLS, Cell, CellLayer
from chainrule.layers.linear import embedding, linear, plain_weight
from chainrule.layers.state_cache import StateCache
from chainrule.layers.steps import Steps


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A recurrent model as data: one cell per layer, each reading the output of the one below."""

    kind: Literal["recurrent"] = "recurrent"
    version: Literal[1] = 1
    vocab_size: int
    d_model: int
    cells: tuple[Cell, ...]
    tied: bool = True
    """Whether the readout is the embedding table itself; the last cell is then as wide as it."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.cells:
            raise ConfigError("cells is empty; a recurrent model needs at least one")
        if self.tied and self.cells[-1].d_hidden != self.d_model:
            raise ConfigError(
                f"a tied readout needs the last cell as wide as the embedding, but d_hidden={self.cells[-1].d_hidden} "
                f"and d_model={self.d_model}; make them equal, or set tied to false"
            )

    @classmethod
    def uniform(
        cls, *, vocab_size: int, cell: str, n_layers: int, d_model: int, d_hidden: int | None = None, tied: bool = True
    ) -> "RecurrentConfig":
        """Equal layers of one kind of cell (``rnn``, ``lstm`` or ``gru``), as wide as the embedding unless told otherwise."""
        if cell not in CELLS:
            raise ConfigError(f"unknown cell {cell!r}{nearest(cell, CELLS)}")
        cells = (CELLS[cell](d_hidden=d_hidden or d_model),) * n_layers
        return cls(vocab_size=vocab_size, d_model=d_model, cells=cells, tied=tied)


class Recurrent(LanguageModel):
    """A language model of stacked cells. ``generator`` draws the weights (None: torch's global one)."""

    context = None

    def __init__(self, config: RecurrentConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.vocab_size = config, config.vocab_size
        self.embed_tokens = embedding(config.vocab_size, config.d_model)
        widths = [config.d_model, *(cell.d_hidden for cell in config.cells)]
        self.cells = nn.ModuleList(cell.build(width) for cell, width in zip(config.cells, widths, strict=False))
        self.lm_head = None if config.tied else linear(widths[-1], config.vocab_size)
        self.init(generator)

    def init(self, generator: torch.Generator | None = None) -> None:
        """Draw all matrices anew; the readout begins small, so that a new model knows nothing: its loss is ln V."""
        if self.device.type == "meta":
            return
        nn.init.normal_(self.embed_tokens.weight, std=0.1, generator=generator)
        for cell in self._cells():
            cell.init(generator)
        if self.lm_head is not None:
            nn.init.normal_(self.lm_head.weight, std=0.02, generator=generator)

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if isinstance(cache, TokenCache):
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        memory = self._own(cache, given)
        b, t = tokens.shape
        if memory is not None:
            layout = memory.layout(tokens, layout)
        steps = (
            Steps.plain(b, t, tokens.device)
            if layout is None
            else Steps.of(layout, None if memory is None else memory.last_document)
        )
        embedded = self.embed_tokens(tokens)
        tell(tap, "hook_embed", embedded)
        x = steps.take(embedded)
        for i, cell in enumerate(self._cells()):
            first = x.new_zeros(len(steps.row), cell.d_state, dtype=torch.float32)
            states = cell(x, steps.sizes, first if memory is None else memory.first(i, steps))
            if memory is not None and layout is not None:
                memory.store(i, steps, layout, states)
            if tap is not None:
                tap(f"blocks.{i}.hook_state", steps.give(states, b, t))
            x = states[:, : cell.d_hidden].to(embedded.dtype)
        if memory is not None and layout is not None:
            memory.append(layout)
        return steps.give(x, b, t)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return F.linear(hidden, self.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        return plain_weight(self.embed_tokens if self.lm_head is None else self.lm_head)

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> StateCache:
        self._own(None, given)
        widths = [cell.d_state for cell in self._cells()]
        return StateCache(rows, self.checked_capacity(capacity), widths, device=self.device)

    def _cells(self) -> list[CellLayer]:
        return [cell for cell in self.cells if isinstance(cell, CellLayer)]

    def _own(self, cache: Cache | None, given: Given | None) -> StateCache | None:
        """The cache as this model's own; anything else, and any condition, is refused."""
        self.check_given(given)
        if cache is not None and not isinstance(cache, StateCache):
            raise ConfigError(f"a Recurrent reads a StateCache, not a {type(cache).__name__}; use model.cache()")
        return cache

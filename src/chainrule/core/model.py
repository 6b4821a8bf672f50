"""One model: p(x) = ∏ p(x_t | x_<t).

A ``LanguageModel`` turns prefixes into states and reads distributions off them. ``log_softmax`` of its scores *is*
log p(next token | prefix); since log_softmax(log p) = log p, a table of counts may return log-probabilities and a
Transformer logits, and every consumer normalises.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from chainrule.core.cache import Cache, TokenCache
from chainrule.core.datum import Given, Layout
from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap

M = TypeVar("M", bound="LanguageModel")
HUB = "chainrule.hub.load"
"""Where models come from. The hub knows this room and not the other way round: it is looked up when a model is asked for."""


class LanguageModel(nn.Module, ABC):
    """Prefixes to states, states to scores of the next token.

    ``vocab_size`` counts the scores; ``context`` is the longest row the model can read, or None where it has no
    limit. Subclasses implement ``hidden`` and ``readout``; one without a cache of its own begins ``hidden`` with

        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
    """

    vocab_size: int
    context: int | None = None
    needs: tuple[str, ...] = ()
    """What ``given`` must hold: a model of p(y | x) cannot be asked without x."""
    start: int | None = None
    """The id that every row begins with, where that is not the tokenizer's begin token."""

    @classmethod
    def from_pretrained(cls: type[M], name: str | Path, **settings: Any) -> M:
        """The model of that name alone, without tokenizer and template; settings are those of ``chainrule.load``.

        Raises ``ConfigError`` where it is a model of another class than the one that is asked.
        """
        model = import_module(HUB).load(name, **settings).model
        if not isinstance(model, cls):
            raise ConfigError(
                f"{name} is a {type(model).__name__}, not a {cls.__name__}; say {type(model).__name__} or LanguageModel"
            )
        return model

    @abstractmethod
    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The state after each token. With a cache the tokens continue its rows; without a layout each row is one
        document. ``given`` conditions the rows, and a cache made with it need not be told again."""

    @abstractmethod
    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """The scores of the next token, given each state."""

    def logp_of(self, hidden: Float[Tensor, "*b d"], targets: Int[Tensor, "*b"]) -> Float[Tensor, "*b"] | None:
        """log p of one token after each state, where that is less work than all scores (a table looks it up); else None."""
        return None

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        """The matrix of a readout that is exactly ``hidden @ weight.T``, else None.

        Chunked and fused losses need it, so that soft caps and logit scales switch them off by themselves.
        """
        return None

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t v"]:
        """The scores of the token that follows each token: ``readout(hidden(...))``."""
        return self.readout(self.hidden(tokens, cache, layout=layout, given=given, tap=tap))

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> Cache:
        """A memory for ``rows`` rows of at most ``capacity`` tokens. This default remembers tokens and recomputes.

        ``pool`` is reserved for storage that several caches share; no model reads it yet.
        """
        return TokenCache(rows, self.checked_capacity(capacity), given, device=self.device)

    def checked_capacity(self, capacity: int) -> int:
        """``capacity``, unless the model cannot read rows that long."""
        if capacity < 1 or (self.context is not None and capacity > self.context):
            raise ConfigError(f"a cache of {capacity} tokens does not suit a model that reads 1 to {self.context}")
        return capacity

    def length_kind(self, capacity: int) -> Hashable:
        """What the declared length of a row decides about how it is read; rows of one kind may share a cache."""
        return None

    def check_given(self, given: Given | None, rows: int = 1) -> None:
        """Raises ``ConfigError`` where the model cannot be conditioned so; asked before any work, and by the models."""
        missing = [name for name in self.needs if given is None or name not in given]
        if missing:
            raise ConfigError(f"this model needs to be given {', '.join(missing)}; pass given={{{missing[0]!r}: ...}}")
        unknown = [name for name in given or () if name not in self.needs]
        if unknown:
            reads = f"is given {' and '.join(self.needs)} alone" if self.needs else "reads tokens alone"
            raise ConfigError(f"this model {reads}; it cannot be given {', '.join(unknown)}")

    def given(self, x: Given) -> "Conditioned":
        """This model with its condition filled in: p(y | x) for one caller."""
        return Conditioned(self, x)

    @property
    def device(self) -> torch.device:
        """Where the model's first parameter or buffer lives; the CPU for a model that has none."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")


def replay(
    model: LanguageModel,
    cache: Cache,
    tokens: Int[Tensor, "b t"],
    *,
    layout: Layout | None,
    given: Given | None,
    tap: Tap | None,
) -> Float[Tensor, "b t d"]:
    """``hidden`` for models without a cache of their own: remember the tokens and read everything again."""
    if not isinstance(cache, TokenCache):
        raise ConfigError(f"{type(model).__name__} reads a TokenCache, not a {type(cache).__name__}; use model.cache()")
    if given is not None:
        cache.given = given
    return cache.replay(model, tokens, layout=layout, tap=tap)


class Conditioned(LanguageModel):
    """A model with its condition filled in, so that a single caller need not pass ``given`` along.

    A condition of one row is that of every row.
    """

    def __init__(self, model: LanguageModel, given: Given) -> None:
        super().__init__()
        self.model, self.x = model, given
        self.vocab_size, self.context, self.start = model.vocab_size, model.context, model.start

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if given is None and (cache is None or cache.given is None):  # a cache remembers row by row, whichever were kept
            given = self._of(len(tokens))
        return self.model.hidden(tokens, cache, layout=layout, given=given, tap=tap)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return self.model.readout(hidden)

    def logp_of(self, hidden: Float[Tensor, "*b d"], targets: Int[Tensor, "*b"]) -> Float[Tensor, "*b"] | None:
        return self.model.logp_of(hidden, targets)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        return self.model.readout_weight

    def check_given(self, given: Given | None, rows: int = 1) -> None:
        self.model.check_given(self._of(rows) if given is None else given, rows)

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> Cache:
        return self.model.cache(rows, capacity, self._of(rows) if given is None else given, pool)

    def _of(self, rows: int) -> Given:
        """The condition of so many rows."""
        return {name: value.expand(rows, *value.shape[1:]) if len(value) == 1 else value for name, value in self.x.items()}

    def length_kind(self, capacity: int) -> Hashable:
        return self.model.length_kind(capacity)

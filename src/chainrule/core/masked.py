"""The masked contract: p(x_t | the whole row, with some of its words hidden).

An encoder sees both sides of every place, so it is no p(x_t | x_<t) and writes no text: what it gives is, at every place
that was hidden, the distribution of the word that stood there (Devlin et al. 2018, arXiv:1810.04805); and its states, which
stand for what was read.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import Parameter

from chainrule.core.datum import Layout
from chainrule.core.model import LanguageModel
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap


class MaskedModel(nn.Module, ABC):
    """Whole rows to states, states to scores of the word at each place.

    ``vocab_size`` counts the scores, ``width`` the channels of a state; ``context`` is the longest document it can read.
    """

    vocab_size: int
    width: int
    context: int

    @abstractmethod
    def states(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        layout: Layout | None = None,
        types: Int[Tensor, "b t"] | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The state at each place, from all tokens of its document; ``types`` tells the first text of a pair (0) from the
        second (1), and without it all are the first. Without a layout each row is one document."""

    @abstractmethod
    def scores(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """The scores of the word at each place. Raises ``RequestError`` for a model that does not ``fill``."""

    @property
    @abstractmethod
    def fills(self) -> bool:
        """Whether the model scores words at all; a sentence model's checkpoint often has states alone."""

    @property
    @abstractmethod
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        """The matrix whose rows stand for the words, where there is one: optimizers treat it as an embedding."""

    def aside(self) -> Sequence[Parameter]:
        """The parameters that neither states nor scores read, such as a pooler's: masked words cannot teach them."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.parameters()).device

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        layout: Layout | None = None,
        types: Int[Tensor, "b t"] | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t v"]:
        """The scores of the word at each place: ``scores(states(...))``."""
        return self.scores(self.states(tokens, layout=layout, types=types, tap=tap))


Model = LanguageModel | MaskedModel
"""What can be trained, saved, loaded and taken apart."""

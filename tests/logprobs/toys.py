"""Small models whose numbers can be done by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from chainrule.core.cache import Cache
from chainrule.core.datum import Given, Layout
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap


class Bigram(LanguageModel):
    """A table: row i holds the scores of what follows token i. ``columns`` counts how many it was asked to project."""

    def __init__(self, scores: Float[Tensor, "v v"], context: int | None = None) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.vocab_size, self.context, self.columns = len(scores), context, 0

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        return self.scores[tokens]

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        self.columns += hidden[..., 0].numel()
        return hidden


class Linear(LanguageModel):
    """An embedding read out by a matrix: the smallest model with a ``readout_weight``."""

    context = None

    def __init__(self, vocab_size: int, d: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vocab_size = vocab_size
        self.embed = nn.Parameter(torch.randn(vocab_size, d, generator=generator))
        self.head = nn.Parameter(torch.randn(vocab_size, d, generator=generator))

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        return F.embedding(tokens, self.embed)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return F.linear(hidden, self.head)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"]:
        return self.head


class States(Linear):
    """States that are parameters themselves, whatever the tokens: nothing but the readout takes memory."""

    def __init__(self, b: int, t: int, vocab_size: int, d: int) -> None:
        super().__init__(vocab_size, 0)
        self.embed = nn.Parameter(torch.randn(b, t, d))
        self.head = nn.Parameter(torch.randn(vocab_size, d))

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        return self.embed


class Curved(Linear):
    """The same with a soft cap on its scores, so that its readout is no longer linear."""

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return 5 * torch.tanh(super().readout(hidden) / 5)

    @property
    def readout_weight(self) -> None:
        return None


def uniform(vocab_size: int, context: int | None = None) -> Bigram:
    return Bigram(torch.zeros(vocab_size, vocab_size), context)
